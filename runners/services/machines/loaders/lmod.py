"""LMOD: environment modules."""

from __future__ import annotations

import shlex

from runners.services.machines.loaders.base import ModuleLoader, or_say


class LmodModuleLoader(ModuleLoader):
    """Environment modules, loaded in order by the `module` that the site's login profiles define."""

    name = "LMOD"

    def prelude(self) -> list[str]:
        missing = "module: not found in a login shell of this account; are environment modules (Lmod) installed here?"
        return [or_say("type module >/dev/null 2>&1", missing), f"module load {shlex.join(self.modules)}"]
