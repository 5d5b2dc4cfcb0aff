"""Which Autosubmit an environment has."""

from __future__ import annotations

import shlex

from django.conf import settings

from runners.exceptions import RunnerServiceError
from runners.services import autosubmit, scripts
from runners.services.module_loaders import get_module_loader
from runners.services.runners import CommandResult, Runner


def ask_version(runner: Runner) -> CommandResult:
    """Execute `autosubmit -v` in the runner's environment; `autosubmit.version_in` reads the answer.

    It takes as long as any command, 1.5 s and more. It runs in `/`, because the check of a configuration tries the
    service's own directory in another stage. Raises as `Runner.execute`.
    """
    argv = autosubmit.version()
    lines = [scripts.surroundings("/"), *get_module_loader(runner.config).steps(argv), f"exec {shlex.join(argv)}"]
    return runner.execute(" && ".join(lines), login=True, timeout=settings.RUNNERS_LAUNCH_TIMEOUT)


def installed_version(runner: Runner) -> str:
    """Such as "4.1.15"; empty when it cannot be told now."""
    try:
        result = ask_version(runner)
    except RunnerServiceError:
        return ""
    return "" if result.exit_code else autosubmit.version_in(result.all_text)
