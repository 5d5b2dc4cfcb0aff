"""Cancel the jobs of an experiment whose run has ended, and say which were cancelled and which may go on.

`autosubmit stop --cancel` cancels the jobs; `scripts.cancelling` explains how it does so after the end of the run. This
module parses its output. Autosubmit reports what it asked of a platform. It does not check whether the jobs have ended.
This service checks that only for jobs of the local platform, whose processes it can see.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from django.conf import settings

from runners import printable
from runners.commands import output
from runners.commands.installation import installed_version
from runners.commands.stop_experiment import STOP_EXPERIMENT, STOP_STDIN
from runners.exceptions import CommandTimedOut, OutcomeUnknown, RunnerServiceError
from runners.services.machines import scripts
from runners.services.machines.registry import get_module_loader
from runners.services.machines.runner import CommandResult, Runner

MAX_JOBS = 200  # jobs that an answer names; all are counted
SHOWN = 10  # jobs that one sentence names
MAX_FILES = 50  # configuration files that are searched for the types of platforms
NAME_LIMIT = 200  # characters
LOCAL = "LOCAL"  # the name of the platform that every experiment has
# Platform types whose scheduler ends a job that it was asked to cancel. On `ps` and `local`, a job only gets an INT,
# which its shell ignores (measured). Nothing is known about other types.
OBEDIENT = frozenset({"slurm", "pbs", "pjm", "ecaccess"})


class Outcome(StrEnum):
    """The overall result of a cancel."""

    CANCELLED = "cancelled"
    NOT_CANCELLED = "not_cancelled"
    UNKNOWN = "unknown"
    NOTHING_TO_CANCEL = "nothing_to_cancel"


class JobOutcome(StrEnum):
    """The result for one job."""

    CANCELLED = "cancelled"  # Autosubmit asked the platform and reports no error, or the job's processes are gone
    MAY_GO_ON = "may_go_on"  # the platform was asked, but it may not obey
    NOT_CANCELLED = "not_cancelled"  # Autosubmit reports that it could not ask


@dataclass(slots=True)
class Cancellation:
    """The answer to `cancel_jobs`."""

    jobs: dict[str, JobOutcome] = field(default_factory=dict)
    platforms: dict[str, str] = field(default_factory=dict)  # of each job, as Autosubmit names it
    failure: str = ""  # why nothing, or not all, was cancelled
    is_unknown: bool = False  # the cancel was cut off, so that some jobs may have been cancelled
    reasons: list[str] = field(default_factory=list)  # why jobs may go on although Autosubmit does not report them
    verified: bool = False  # the service has seen the end of all jobs; else there is only Autosubmit's report

    @property
    def outcome(self) -> Outcome:
        if self.is_unknown:
            return Outcome.UNKNOWN
        if self.failure or self.count(JobOutcome.NOT_CANCELLED):
            return Outcome.NOT_CANCELLED
        if self.reasons or self.count(JobOutcome.MAY_GO_ON):
            return Outcome.UNKNOWN
        return Outcome.CANCELLED if self.jobs else Outcome.NOTHING_TO_CANCEL

    @property
    def is_complete(self) -> bool:
        """Whether no job is known or suspected to be still running."""
        return self.outcome in (Outcome.CANCELLED, Outcome.NOTHING_TO_CANCEL)

    @property
    def detail(self) -> str:
        """What was done, in a sentence or two."""
        if not self.jobs:
            return self.failure or "Autosubmit reports no submitted, queuing or running job."
        counts = [f"{self.count(each)} {words}" for each, words in _IN_WORDS.items() if self.count(each)]
        how = "their end was seen" if self.verified else "reported by Autosubmit; not verified on the platform"
        text = f"Jobs: {', '.join(counts)} ({how})."
        return f"{text} {self.failure}".strip()

    @property
    def warnings(self) -> list[str]:
        """What the user has to know or do: which jobs may go on and why, and that the next run needs a reset."""
        found = []
        for each in (JobOutcome.NOT_CANCELLED, JobOutcome.MAY_GO_ON):
            if names := [name for name, outcome in self.jobs.items() if outcome == each]:
                where = ", ".join(dict.fromkeys(self.platforms[name] or "no platform" for name in names))
                why = _WHY[each] if len(names) > 1 else _WHY[each].replace("were ", "was ", 1)
                found.append(f"{_named(names)} {why} ({where}). Look on the platform.")
        if not self.jobs and not self.is_complete:
            found.append(f"The experiment's jobs may still run. {self.failure}".strip())
        found += self.reasons
        if self.jobs:
            found.append(
                "Autosubmit has set these jobs to FAILED, so the next run would end at once. Before it, set them to "
                "READY: set-job-status with final_status READY and filter_status FAILED."
            )
        return found

    def count(self, outcome: JobOutcome) -> int:
        return sum(each == outcome for each in self.jobs.values())

    def local_jobs_ended(self) -> None:
        """Mark all jobs of the local platform as cancelled, because none of their processes is left."""
        for name in self.jobs:
            if self.platforms[name].upper() == LOCAL:
                self.jobs[name] = JobOutcome.CANCELLED
        self.verified = bool(self.jobs) and all(each.upper() == LOCAL for each in self.platforms.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the members as they are sent to clients."""
        return {
            "requested": True,
            "outcome": str(self.outcome),
            "counts": {str(each): self.count(each) for each in JobOutcome},
            "jobs": {name: str(each) for name, each in list(self.jobs.items())[:MAX_JOBS]},
            "verified": self.verified,
            "detail": self.detail,
        }


NOT_REQUESTED: dict[str, Any] = {
    "requested": False,
    "outcome": "",
    "counts": {str(each): 0 for each in JobOutcome},
    "jobs": {},
    "verified": False,
    "detail": "",
}
_IN_WORDS = {
    JobOutcome.CANCELLED: "cancelled",
    JobOutcome.MAY_GO_ON: "cancellation requested, may still run",
    JobOutcome.NOT_CANCELLED: "not cancelled",
}
_WHY = {
    JobOutcome.NOT_CANCELLED: "were not cancelled",
    JobOutcome.MAY_GO_ON: "may still run: platforms of this type are not known to cancel jobs reliably",
}


def _named(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ("Job " if len(names) == 1 else "Jobs ") + ", ".join(names[:SHOWN]) + more


def cancel(expid: str, runner: Runner) -> Cancellation:
    """Cancel the active jobs of an experiment that does not run, within RUNNERS_CANCEL_TIMEOUT.

    The result reports what went wrong. Raises only RunnerUnreachable: then nothing was executed.
    """
    text = scripts.cancelling(
        expid, get_module_loader(runner.config).wrap(STOP_EXPERIMENT.argv(expid, cancel_jobs=True))
    )
    try:
        result = runner.execute(text, stdin=STOP_STDIN, login=True, timeout=settings.RUNNERS_CANCEL_TIMEOUT)
    except CommandTimedOut:
        failure = (
            f"Autosubmit's cancel on {runner.where} timed out after {settings.RUNNERS_CANCEL_TIMEOUT:g} s "
            f"(RUNNERS_CANCEL_TIMEOUT). It is not known which jobs it has cancelled."
        )
        return Cancellation(failure=failure, is_unknown=True)
    except OutcomeUnknown as error:
        return Cancellation(failure=f"It is not known which jobs were cancelled: {error.detail}", is_unknown=True)
    return cancellation_of(expid, runner, result)


def cancellation_of(expid: str, runner: Runner, result: CommandResult) -> Cancellation:
    """Return what the output of a cancel means. This may ask the machine for the types of the platforms."""
    text = result.text
    if result.exit_code == scripts.BUSY:
        pid = next((line.partition(" ")[2] for line in text.splitlines() if _BUSY.fullmatch(line)), "unknown")
        return Cancellation(
            failure=f"Nothing was cancelled: process {pid} on {runner.where} runs `autosubmit run {expid}`. It was "
            "started by hand or in another home; stop it there first."
        )
    if result.exit_code == scripts.NO_PLACEHOLDER and not result.stdout:
        return Cancellation(
            failure=f"Nothing was cancelled: on {runner.where}, the process that stands for the run during the cancel "
            "did not start."
        )
    jobs, platforms, failures = _jobs(text)
    if result.exit_code or not (jobs or _NO_JOBS.search(text)):
        version = installed_version(runner)
        who = f"Autosubmit {version}" if version else "Autosubmit"
        if _USAGE.search(result.all_text):
            return Cancellation(
                failure=f"{who} on {runner.where} cannot cancel jobs, because it does not have `stop --cancel`. "
                f"Cancel them on their platforms."
            )
        reason = output.reason_of(result.stdout, result.stderr) or "no output"
        return Cancellation(
            jobs,
            platforms,
            failure=f"The cancel of {who} on {runner.where} ended with exit code {result.exit_code}: {reason}",
            is_unknown=bool(jobs or _CANCELLING.search(text)),
        )
    types = _types(runner, text) if JobOutcome.CANCELLED in jobs.values() else {}
    for name, outcome in jobs.items():
        platform = platforms[name].upper()
        kind = "local" if platform == LOCAL else types.get(platform, "")
        if outcome == JobOutcome.CANCELLED and kind not in OBEDIENT:
            jobs[name] = JobOutcome.MAY_GO_ON
    return Cancellation(jobs, platforms, failure=" ".join(failures[:3]))


# Version 4.1.17.1 cancels the jobs of a platform at once and prints their ids. Versions <= 4.1.16 cancel them one by
# one and print their names. All versions then print the status that they have set each job to.
_CANCELLING = re.compile(r"^Cancelling jobs? .+ on platform (\S+)[ \t]*$", re.MULTILINE)
_USAGE = re.compile(r"^(?:autosubmit[^\n]{0,60}: )?error: [^\n]{0,2000}|^usage: autosubmit", re.MULTILINE)
_BUSY = re.compile(r"busy [0-9]{1,10}")
_FAILED = re.compile(r"^(?:\[WARNING\] )?Failed to cancel jobs? ")
_TROUBLE = re.compile(r"^(?:\[(?:WARNING|ERROR)\] )?(?:Command .* warning: |Execution failed on |Unexpected error )")
_NO_ID = re.compile(r"^(?:\[WARNING\] )?Skipping cancellation of job \[(\S{1,200})\]")
_CHANGED = re.compile(r"^Changing status of job (\S{1,200}) to (\S{1,20})[ \t]*$")
_NO_JOBS = re.compile(r"^No active jobs found for expid ", re.MULTILINE)
_FILE = re.compile(r"^[ \t]+(/[^\x00-\x1f]{1,500}\.ya?ml)[ \t]*$", re.MULTILINE)


def _jobs(text: str) -> tuple[dict[str, JobOutcome], dict[str, str], list[str]]:
    """Return what Autosubmit reports of each job, the platform of each job, and Autosubmit's words about failures."""
    jobs: dict[str, JobOutcome] = {}
    platforms: dict[str, str] = {}
    failures: list[str] = []
    without_id: set[str] = set()
    platform, has_failed = "", False
    for line in text.splitlines():
        if found := _CANCELLING.match(line):
            platform, has_failed = printable.line(found[1], NAME_LIMIT), False
        elif found := _NO_ID.match(line):
            without_id.add(printable.line(found[1], NAME_LIMIT))
        elif _FAILED.match(line) or (platform and _TROUBLE.match(line)):
            has_failed = True
            failures.append(printable.line(line.strip()))
        elif found := _CHANGED.match(line):
            name = printable.line(found[1], NAME_LIMIT)
            is_asked = platform and not has_failed and name not in without_id
            platforms[name] = platform
            jobs[name] = JobOutcome.CANCELLED if is_asked else JobOutcome.NOT_CANCELLED
    return jobs, platforms, failures


def _types(runner: Runner, text: str) -> dict[str, str]:
    """Return the type (lower case) of each platform (upper case), from the files that Autosubmit says it has read.

    Empty if the machine cannot tell: then no platform is known to end its jobs.
    """
    files = list(dict.fromkeys(_FILE.findall(text)))[:MAX_FILES]
    if not files:
        return {}
    try:
        result = runner.execute(scripts.platform_types(files), timeout=settings.RUNNERS_PROBE_TIMEOUT)
    except RunnerServiceError:
        return {}
    pairs = [line.split() for line in result.text.splitlines() if len(line) < 2 * NAME_LIMIT]
    return {pair[0].upper(): pair[1].lower() for pair in pairs if len(pair) == 2}
