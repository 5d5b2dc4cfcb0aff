"""The runners and module loaders, found through entry points, and those of a configuration."""

from __future__ import annotations

from django.conf import settings

from profiles.config import RunnerConfig
from profiles.extensions import Registry
from runners.services.machines.loaders.base import ModuleLoader
from runners.services.machines.runner import Runner

NAMES = "[A-Z][A-Z0-9_]{0,15}"  # they are stored in columns of 16 characters

RUNNERS: Registry[type[Runner]] = Registry(
    "autosubmit_runners.runners", "runners.services.machines.runner.Runner", names=NAMES
)
MODULE_LOADERS: Registry[type[ModuleLoader]] = Registry(
    "autosubmit_runners.loaders", "runners.services.machines.loaders.base.ModuleLoader", names=NAMES
)


def get_runner(config: RunnerConfig) -> Runner:
    return RUNNERS[config.runner_type](config)


def get_module_loader(config: RunnerConfig) -> ModuleLoader:
    loader = MODULE_LOADERS[config.module_loader_type]
    return loader(config.modules, config.venv_roots, tuple(settings.RUNNERS_VENV_ROOTS))
