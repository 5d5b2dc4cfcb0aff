"""Prepare the environment of a command: `ModuleLoader` and its four subclasses.

A loader returns shell lines, not a wrapped command, because lines can be combined (`p1 && p2 && exec argv`). A line
that fails stops the command with its own error message. The process that runs in the end is the command itself, so
signals reach it and its output is live.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod

from django.conf import settings

from profiles.config import ModuleLoaderType, RunnerConfig
from profiles.limits import in_words
from runners.exceptions import ProfileForbidden, RunnerServiceError
from runners.services import scripts

# Default directories of conda installers, tried after CONDA_EXE and PATH. Source: the installers' defaults.
CONDA_ROOTS = (
    *('"$HOME"/' + name for name in ("miniforge3", "mambaforge", "miniconda3", "anaconda3", "conda")),
    *("/opt/" + name for name in ("conda", "miniforge3", "miniconda3", "anaconda3")),
)
OUTSIDE = "The profile does not allow the environment"
OUTSIDE_SITE = "This service does not allow the environment"


def _or_say(test: str, sentence: str) -> str:
    """Return a line that fails with `sentence` on standard error unless `test` succeeds."""
    return f"{{ {test} || {{ printf '%s\\n' {shlex.quote(sentence)} >&2; false; }}; }}"


class ModuleLoader(ABC):
    """The preparation of a login shell for a command.

    `modules`: validated values from a RunnerConfig; they are quoted here. `roots`: an environment that is given by its
    path must be in one of these directories; empty: it may be anywhere. `site_roots`: the same for every profile
    (RUNNERS_VENV_ROOTS), even if the profile fixes the environment.
    """

    def __init__(
        self, modules: tuple[str, ...] = (), roots: tuple[str, ...] = (), site_roots: tuple[str, ...] = ()
    ) -> None:
        self.modules = modules
        self.roots = roots
        self.site_roots = site_roots

    @abstractmethod
    def prelude(self) -> list[str]:
        """Return shell lines that can be joined with `&&`. All must succeed before the command is executed."""

    def steps(self, argv: list[str]) -> list[str]:
        """Return the prelude and a check that each program exists, with a clearer message than the shell's."""
        environment = " ".join(self.modules) or "the login environment"
        # argv[0] may be a wrapper.
        programs = dict.fromkeys([argv[0], *(word for word in argv if word == "autosubmit")])
        found = [
            _or_say(f"type -P {shlex.quote(name)} >/dev/null", f"{name}: not found in {environment}")
            for name in programs
        ]
        # Third-party activation scripts may read unset variables and return exit codes other than 0.
        return ["set +eu", *self.prelude(), *found]

    def wrap(self, argv: list[str]) -> str:
        """Return the script that executes `argv`, each item as one quoted word, in the prepared environment."""
        return " && ".join([scripts.surroundings(), *self.steps(argv), f"exec {shlex.join(argv)}"])

    def within_roots(self, path: str) -> list[str]:
        """Return lines that fail unless `path` is within the roots, after all symlinks are resolved.

        Only the machine can check this.
        """
        lines = []
        for roots, sentence in ((self.roots, OUTSIDE), (self.site_roots, OUTSIDE_SITE)):
            if not roots:
                continue
            # Resolve both sides, because a root may itself be a symlink. -m also resolves paths that do not exist, so
            # the answer for a path outside of the roots does not reveal whether it exists.
            look = (
                f"inside= && real=$(readlink -m -- {shlex.quote(path)}) && for root in {shlex.join(roots)}; do "
                'root=$(readlink -m -- "$root") && root=${root%/} && '
                'case $real/ in "$root"/*) inside=1; break ;; esac; done'
            )
            words = f"{sentence} {path}, only what lies within {in_words(roots)} (links are followed)."
            lines += [f"{{ {look}; }}", _or_say('[ -n "$inside" ]', words)]
        return lines

    def judged(self, path: str) -> str:
        """Return the shell word for the path that `within_roots` has checked.

        With roots this is the resolved path in `$real`, so that changing a symlink after the check has no effect.
        """
        return '"$real"' if self.roots or self.site_roots else shlex.quote(path)

    def explain(self, error: RunnerServiceError) -> RunnerServiceError:
        """Return ProfileForbidden if the prelude found the environment outside of the roots, else `error` itself."""
        output = str(error.facts.get("output", ""))
        for roots, words in ((self.roots, OUTSIDE), (self.site_roots, OUTSIDE_SITE)):
            if roots and words in output:
                sentence = words + output.partition(words)[2].split("\n")[0]
                return ProfileForbidden(
                    f"MODULES: {sentence}", errors={"profile_params.MODULES": [sentence]}, allowed=list(roots)
                )
        return error


class NoModuleLoader(ModuleLoader):
    """The unchanged login environment: Autosubmit is already on PATH."""

    def prelude(self) -> list[str]:
        return []


class VenvModuleLoader(ModuleLoader):
    """One Python virtual environment, by absolute path.

    If there is no `bin/activate`, its `bin` is put first on PATH, as the Autosubmit API does.
    """

    def prelude(self) -> list[str]:
        (path,) = self.modules
        root = self.judged(path)
        by_path = f'VIRTUAL_ENV={root} && PATH="$VIRTUAL_ENV/bin:$PATH" && export VIRTUAL_ENV PATH'
        return [
            *self.within_roots(path),
            _or_say(f"[ -d {root}/bin ]", f"no virtual environment at {path}"),
            f"if [ -f {root}/bin/activate ]; then . {root}/bin/activate; else {by_path}; fi",
        ]


class LmodModuleLoader(ModuleLoader):
    """Environment modules, loaded in order by the `module` that the site's login profiles define."""

    def prelude(self) -> list[str]:
        missing = "module: not found in a login shell of this account; are environment modules (Lmod) installed here?"
        return [_or_say("type module >/dev/null 2>&1", missing), f"module load {shlex.join(self.modules)}"]


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

    def prelude(self) -> list[str]:
        (environment,) = self.modules
        is_path = environment.startswith("/")
        word = self.judged(environment) if is_path else shlex.quote(environment)
        own = f"{word}/../../bin/conda " if is_path else ""  # ROOT/envs/NAME belongs to the conda at ROOT
        candidates = own + " ".join(f"{root}/bin/conda" for root in CONDA_ROOTS)
        missing = "conda: not found by CONDA_EXE, on PATH, or in the usual places; nor is micromamba"
        return [
            *(self.within_roots(environment) if is_path else ()),
            _first_of("conda_exe", f'"${{CONDA_EXE-}}" "$(type -P conda)" {candidates}'),
            _first_of("mamba_exe", f'"${{MAMBA_EXE-}}" "$(type -P micromamba)" {" ".join(MICROMAMBA_PLACES)}'),
            _or_say('[ -n "$conda_exe$mamba_exe" ]', missing),
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


MODULE_LOADERS: dict[ModuleLoaderType, type[ModuleLoader]] = {
    ModuleLoaderType.CONDA: CondaModuleLoader,
    ModuleLoaderType.VENV: VenvModuleLoader,
    ModuleLoaderType.LMOD: LmodModuleLoader,
    ModuleLoaderType.NO_MODULE: NoModuleLoader,
}


def get_module_loader(config: RunnerConfig) -> ModuleLoader:
    loader = MODULE_LOADERS[config.module_loader_type]
    return loader(config.modules, config.venv_roots, tuple(settings.RUNNERS_VENV_ROOTS))
