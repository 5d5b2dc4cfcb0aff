"""LMOD: environment modules."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from django.core.exceptions import ValidationError

from profiles.validators import shown
from runners.services.machines import scripts
from runners.services.machines.loaders.base import ModuleLoader, or_say

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+:@~=-]*(/[A-Za-z0-9_][A-Za-z0-9_.+:@~=-]*)*")


class LmodModuleLoader(ModuleLoader):
    """Environment modules, loaded in order by the `module` that the site's login profiles define."""

    name = "LMOD"
    label = "LMOD: environment modules, loaded in order"
    what = "one or more modules, such as autosubmit/4.1"
    remedy = "Compare MODULES with what `module avail` prints in a login shell of the account."
    field_label = "Modules"

    @classmethod
    def split(cls, items: Iterable[str]) -> tuple[str, ...]:
        """Also split at blanks and commas: today's GUI can send only one text."""
        return tuple(word for item in items for word in re.split(r"[\s,]+", item) if word)

    @classmethod
    def validate_module(cls, module: str) -> None:
        """Validate one environment module, `name` or `name/version`."""
        if len(module) > 255 or not _NAME.fullmatch(module):
            raise ValidationError(
                f"{shown(module)} is not a valid module. Give name or name/version, with letters, digits and "
                "_ . + : @ ~ = -, each part beginning with a letter, a digit or _ ."
            )

    def prelude(self) -> list[str]:
        missing = "module: not found in a login shell of this account; are environment modules (Lmod) installed here?"
        return [
            or_say("type module >/dev/null 2>&1", missing),
            f"module load {shlex.join(self.modules)}",
            scripts.modules_loaded(self.modules),
        ]
