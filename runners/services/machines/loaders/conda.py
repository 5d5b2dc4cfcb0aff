"""CONDA: a conda environment."""

from __future__ import annotations

import re
import shlex

from django.core.exceptions import ValidationError

from profiles.validators import MAX_NAME, shown, validate_path
from runners.services.machines.loaders.base import ModuleLoader, or_say

_NAME = re.compile(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]*")
# Default directories of conda installers, tried after CONDA_EXE and PATH. Source: the installers' defaults.
CONDA_ROOTS = (
    *('"$HOME"/' + name for name in ("miniforge3", "mambaforge", "miniconda3", "anaconda3", "conda")),
    *("/opt/" + name for name in ("conda", "miniforge3", "miniconda3", "anaconda3")),
)
_CONDA_HOOK = 'unset CONDA_AUTO_ACTIVATE; CONDA_AUTO_ACTIVATE_BASE=false "$conda_exe" shell.posix hook'
# micromamba has neither conda's hook nor its `activate` in a shell. Source: mamba's documentation, `shell hook`.
MICROMAMBA_PLACES = ('"$HOME"/.local/bin/micromamba', '"$HOME"/bin/micromamba', "/opt/micromamba/bin/micromamba")
# Reduce conda's "ERROR REPORT" (a traceback, the environment and the configuration, over 100 lines) to the exception.
# Other errors of conda are not changed. Source: conda/exception_handler.py of conda 26.7.
_EXCEPTION = r"/^    [A-Za-z_.]*\(Error\|Exception\)/"
_CONDA_REASON = "sed -e " + shlex.quote(r"/^`\$ /,$d" "\n" f"/>>> ERROR REPORT <<</,{_EXCEPTION}{{{_EXCEPTION}!d}}")


class CondaModuleLoader(ModuleLoader):
    """One conda environment, by name or absolute path, activated with conda or, as a fallback, with micromamba.

    It does not use `conda init`, because non-interactive shells do not read its result. It does not use `conda run`
    either, because that buffers the output and puts processes between us and the command. Source: tried with conda
    26.7.

    conda's hook would first activate the environment `base`, with another conda process that takes half a second.
    CONDA_AUTO_ACTIVATE_BASE prevents that in conda 4.6 and newer. Since 25.5 it is an alias of CONDA_AUTO_ACTIVATE, and
    conda refuses to start if both are set.
    """

    name = "CONDA"
    label = "CONDA: a conda environment, by name or absolute path"
    takes = "one"
    what = "the name or the absolute path of one conda environment"
    remedy = "Compare MODULES with what `conda env list` prints for the account."
    may_be_path = True

    @classmethod
    def validate_module(cls, module: str) -> None:
        """Validate the name or the absolute path of a conda environment."""
        if module.startswith("/"):
            validate_path(module)
        elif len(module) > MAX_NAME or not _NAME.fullmatch(module) or module in (".", ".."):
            raise ValidationError(
                f"{shown(module)} is not a valid conda environment. Give a name of letters, digits and _ . + - "
                f"without a leading -, or an absolute path."
            )

    @classmethod
    def is_path(cls, modules: tuple[str, ...]) -> bool:
        return modules[0].startswith("/")

    def prelude(self) -> list[str]:
        (environment,) = self.modules
        is_path = self.is_path(self.modules)
        word = self.checked_path(environment) if is_path else shlex.quote(environment)
        own = f"{word}/../../bin/conda " if is_path else ""  # ROOT/envs/NAME belongs to the conda at ROOT
        candidates = own + " ".join(f"{root}/bin/conda" for root in CONDA_ROOTS)
        missing = "conda: not found by CONDA_EXE, on PATH, or in the usual places; nor is micromamba"
        return [
            *(self.within_roots(environment) if is_path else ()),
            _first_of("conda_exe", f'"${{CONDA_EXE-}}" "$(type -P conda)" {candidates}'),
            _first_of("mamba_exe", f'"${{MAMBA_EXE-}}" "$(type -P micromamba)" {" ".join(MICROMAMBA_PLACES)}'),
            or_say('[ -n "$conda_exe$mamba_exe" ]', missing),
            f'if [ -n "$conda_exe" ]; then {_conda(word)}; else {_micromamba(word)}; fi',
        ]


def _first_of(variable: str, candidates: str) -> str:
    """Return a line that sets a variable to the first executable candidate, or to the empty string."""
    loop = f'for {variable} in {candidates}; do [ -x "${variable}" ] && break; {variable}=; done'
    return f"{{ {loop}; }}"


def _conda(environment: str) -> str:
    # The second call is made only if the first one has failed. Its error output is shortened to the reason.
    return (
        f"{{ conda_hook=$({_CONDA_HOOK} 2>/dev/null) || "
        f"{{ {_CONDA_HOOK} 2>&1 >/dev/null | {_CONDA_REASON} >&2; false; }}; }} && "
        f'eval "$conda_hook" && conda activate {environment}'
    )


def _micromamba(environment: str) -> str:
    hook = 'mamba_hook=$("$mamba_exe" shell hook --shell posix) && eval "$mamba_hook"'
    return f"{hook} && micromamba activate {environment}"
