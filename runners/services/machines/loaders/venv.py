"""VENV: a Python virtual environment."""

from __future__ import annotations

from profiles.validators import validate_path
from runners.services.machines.loaders.base import ModuleLoader, or_say


class VenvModuleLoader(ModuleLoader):
    """One Python virtual environment, by absolute path.

    If there is no `bin/activate`, its `bin` is put first on PATH, as the Autosubmit API does.
    """

    name = "VENV"
    label = "VENV: a Python virtual environment, by absolute path"
    takes = "one"
    what = "the absolute path of one virtual environment"
    remedy = "MODULES has to be the absolute path of a virtual environment on that machine."
    may_be_path = True

    @classmethod
    def validate_module(cls, module: str) -> None:
        validate_path(module)

    @classmethod
    def is_path(cls, modules: tuple[str, ...]) -> bool:
        return True

    def prelude(self) -> list[str]:
        (path,) = self.modules
        root = self.checked_path(path)
        by_path = f'VIRTUAL_ENV={root} && PATH="$VIRTUAL_ENV/bin:$PATH" && export VIRTUAL_ENV PATH'
        return [
            *self.within_roots(path),
            or_say(f"[ -d {root}/bin ]", f"no virtual environment at {path}"),
            f"if [ -f {root}/bin/activate ]; then . {root}/bin/activate; else {by_path}; fi",
        ]
