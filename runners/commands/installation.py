"""Questions to an installation of Autosubmit that change nothing: its version, and what only its files tell."""

from __future__ import annotations

import re
import shlex

from django.conf import settings

from runners.exceptions import RunnerServiceError
from runners.services.machines import answers, scripts
from runners.services.machines.registry import get_module_loader
from runners.services.machines.runner import CommandResult, Runner

_VERSION = re.compile(r"^([0-9]{1,4}\.[0-9]{1,4}[0-9A-Za-z.+-]{0,40})\s*$", re.MULTILINE)
_ARCHIVED = re.compile(
    r"(Experiment [a-z0-9]{4,16} does not exist: it is archived in [0-9]{4}/[a-z0-9]{4,16}\.tar(?:\.gz)?\. "
    r"unarchive-experiment brings it back\.)"
)
NO_EXPERIMENT = "zzzzzzzzzz"  # a name that Autosubmit's counter of experiments does not reach
# A pickled empty list (3.14, 4.0) or dictionary (4.1.12 and newer) has 4 to 9 bytes, one job has more than 100.
EMPTY_JOB_LIST = 16


def describe(expid: str) -> list[str]:
    """Return a command that changes nothing.

    Autosubmit reports a missing experiment once it has found its configuration and database.
    """
    return ["autosubmit", "describe", expid]


def version_in(text: str) -> str:
    """Return the version that `autosubmit -v` printed; empty if there is none. 3.14 prints it on standard error."""
    found = _VERSION.search(text)
    return found[1] if found else ""


def ask_version(runner: Runner) -> CommandResult:
    """Execute `autosubmit -v` in the runner's environment; `version_in` reads the answer.

    This takes as long as any command, 1.5 s and more. It runs in `/`, because the check of a configuration tests the
    service's own directory in another stage. Raises the errors of `Runner.execute`.
    """
    argv = ["autosubmit", "-v"]
    lines = [scripts.surroundings("/"), *get_module_loader(runner.config).steps(argv), f"exec {shlex.join(argv)}"]
    return runner.execute(" && ".join(lines), login=True, timeout=settings.RUNNERS_LAUNCH_TIMEOUT)


def installed_version(runner: Runner) -> str:
    """Return the version, such as "4.1.15"; empty if it cannot be told now."""
    try:
        result = ask_version(runner)
    except RunnerServiceError:
        return ""
    return "" if result.exit_code else version_in(result.all_text)


def archived_in(text: str) -> str:
    """Return the sentence of `scripts.not_archived` in an output; empty if the experiment is not archived."""
    found = _ARCHIVED.search(text)
    return found[1] if found else ""


def archived_sentence(runner: Runner, expid: str) -> str:
    """Return a sentence that says where an experiment is archived; empty if it is not, or the machine cannot tell."""
    try:
        result = runner.execute(scripts.not_archived(expid), timeout=settings.RUNNERS_PROBE_TIMEOUT)
    except RunnerServiceError:
        return ""
    return archived_in(result.text)


def has_empty_job_list(runner: Runner, expid: str) -> bool:
    """Return True if Autosubmit's own file certainly holds no job.

    4.0 does not know SCRIPT. For jobs that have it, `create` makes an empty list and reports that it was created
    successfully.
    """
    size = _job_list_size(runner, expid)
    return size is not None and size <= EMPTY_JOB_LIST


def has_job_list_file(runner: Runner, expid: str) -> bool:
    """Return True if the file of the experiment's job list certainly exists, whatever it holds."""
    return _job_list_size(runner, expid) is not None


def _job_list_size(runner: Runner, expid: str) -> int | None:
    """Return the size of the file in bytes; None if the file does not exist or the machine cannot tell."""
    try:
        result = runner.execute(scripts.job_list_size(expid), timeout=settings.RUNNERS_PROBE_TIMEOUT)
        return answers.size(result.text.strip())
    except (RunnerServiceError, answers.Unreadable):
        return None
