"""NO_MODULE: the unchanged login environment."""

from __future__ import annotations

from runners.services.machines.loaders.base import ModuleLoader


class NoModuleLoader(ModuleLoader):
    """The unchanged login environment: Autosubmit is already on PATH."""

    name = "NO_MODULE"
    label = "NO_MODULE: the unchanged login environment"
    takes = "none"

    def prelude(self) -> list[str]:
        return []
