"""Prepare the environment of a command: `ModuleLoader`; each of its subclasses is a module beside this one.

A loader returns shell lines, not a wrapped command, because lines can be combined (`p1 && p2 && exec argv`). A line
that fails stops the command with its own error message. The process that runs in the end is the command itself, so
signals reach it and its output is live.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Sequence

from profiles.limits import allowed_text
from profiles.rules import LoaderRules
from runners.exceptions import ProfileForbidden, RunnerServiceError
from runners.services.machines import scripts

OUTSIDE = "The profile does not allow the environment"
OUTSIDE_SITE = "This service does not allow the environment"


def or_say(test: str, sentence: str) -> str:
    """Return a line that fails with `sentence` on standard error unless `test` succeeds."""
    return f"{{ {test} || {{ printf '%s\\n' {shlex.quote(sentence)} >&2; false; }}; }}"


class ModuleLoader(LoaderRules, ABC):
    """The preparation of a login shell for a command, and the rules for its modules (`LoaderRules`).

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
            or_say(f"type -P {shlex.quote(name)} >/dev/null", f"{name}: not found in {environment}")
            for name in programs
        ]
        # Third-party activation scripts may read unset variables and return exit codes other than 0.
        return ["set +eu", *self.prelude(), *found]

    def wrap(self, argv: list[str], checks: Sequence[str] = ()) -> str:
        """Return the script that executes `argv`, each item as one quoted word, in the prepared environment.

        `checks`: shell lists that have to succeed before it.
        """
        return " && ".join([scripts.surroundings(), *self.steps(argv), *checks, scripts.replaced_by(argv)])

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
            words = f"{sentence} {path}, only directories within {allowed_text(roots)} (links are followed)."
            lines += [f"{{ {look}; }}", or_say('[ -n "$inside" ]', words)]
        return lines

    def checked_path(self, path: str) -> str:
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
