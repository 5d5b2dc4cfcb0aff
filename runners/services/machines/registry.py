"""Find the runner and the module loader of a configuration."""

from __future__ import annotations

from django.conf import settings

from profiles.config import ModuleLoaderType, RunnerConfig, RunnerType
from runners.services.machines.loaders.base import ModuleLoader
from runners.services.machines.loaders.conda import CondaModuleLoader
from runners.services.machines.loaders.lmod import LmodModuleLoader
from runners.services.machines.loaders.no_module import NoModuleLoader
from runners.services.machines.loaders.venv import VenvModuleLoader
from runners.services.machines.local import LocalRunner
from runners.services.machines.runner import Runner
from runners.services.machines.ssh.runner import SSHRunner

RUNNERS: dict[RunnerType, type[Runner]] = {RunnerType.LOCAL: LocalRunner, RunnerType.SSH: SSHRunner}


def get_runner(config: RunnerConfig) -> Runner:
    return RUNNERS[config.runner_type](config)


MODULE_LOADERS: dict[ModuleLoaderType, type[ModuleLoader]] = {
    ModuleLoaderType.CONDA: CondaModuleLoader,
    ModuleLoaderType.VENV: VenvModuleLoader,
    ModuleLoaderType.LMOD: LmodModuleLoader,
    ModuleLoaderType.NO_MODULE: NoModuleLoader,
}


def get_module_loader(config: RunnerConfig) -> ModuleLoader:
    loader = MODULE_LOADERS[config.module_loader_type]
    return loader(config.modules, config.venv_roots, tuple(settings.RUNNERS_VENV_ROOTS))
