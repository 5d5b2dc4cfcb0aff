"""SPACK: packages of Spack."""

from __future__ import annotations

import re
import shlex

from django.core.exceptions import ValidationError

from runners.services.machines.loaders.base import ModuleLoader, or_say

_SPEC = re.compile(r"[a-z0-9][a-z0-9_-]*(@[A-Za-z0-9._:-]+)?")


class SpackModuleLoader(ModuleLoader):
    """Packages of Spack, loaded in order by the `spack` that the site's login profiles define."""

    name = "SPACK"
    label = "SPACK: packages of Spack, loaded in order"
    what = "one or more Spack packages, such as autosubmit@4.1"
    remedy = "Compare MODULES with what `spack find` prints in a login shell of the account."
    field_label = "Packages"

    @classmethod
    def validate_module(cls, module: str) -> None:
        if not _SPEC.fullmatch(module):
            raise ValidationError(f"{module!r:.60} is not a Spack package: give name or name@version.")

    def prelude(self) -> list[str]:
        missing = "spack: not found in a login shell of this account; is Spack installed here?"
        return [or_say("type spack >/dev/null 2>&1", missing), f"spack load {shlex.join(self.modules)}"]
