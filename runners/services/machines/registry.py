"""Find the runner and the module loader of a configuration."""

from __future__ import annotations

from typing import cast

from django.conf import settings

from profiles.config import RunnerConfig
from profiles.rules import MODULE_LOADERS, RUNNERS
from runners.services.machines.loaders.base import ModuleLoader
from runners.services.machines.runner import Runner


def get_runner(config: RunnerConfig) -> Runner:
    runner = cast("type[Runner]", RUNNERS[config.runner_type])
    return runner(config)


def get_module_loader(config: RunnerConfig) -> ModuleLoader:
    loader = cast("type[ModuleLoader]", MODULE_LOADERS[config.module_loader_type])
    return loader(config.modules, config.venv_roots, tuple(settings.RUNNERS_VENV_ROOTS))
