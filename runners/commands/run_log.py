"""What the log of `autosubmit run` tells: how the run ended, and the results of its jobs. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runners import printable
from runners.commands import output
from runners.commands.output import NAMES_LIMIT, has_line, last_words, listed
from runners.services.machines.output import plain_text

# Texts that mark an error in the log of a run. Source: the logs of 3.14 to 4.1.17 in tests/versions/outputs.
ERROR_TEXTS = (
    "[ERROR]",
    "[CRITICAL]",
    "Traceback (most recent call last)",
    " to FAILED",
    "completion check failed",
    "command not found",
)
ERROR_LINES = 6  # of a failed job
_TRACE = re.compile(r"\++ |as_exit_handler$")
ERROR_WIDTH = 200  # characters of such a line
_SUBMITTING = re.compile(r'^ *File "[^"\n]*", line \d+, in \w*submit\w*', re.MULTILINE)


def is_run_complete(log: str) -> bool:
    """Return True if the log says that the run ended by itself. Every version says so, and none does after an INT."""
    return has_line(log, "Run successful")


def is_run_interrupted(log: str) -> bool:
    """Return True if the log says that an INT ended the run. 4.1.16 and older say so and end with exit code 0."""
    return has_line(log, "Autosubmit will interrupt at the next safe occasion") and not is_run_complete(log)


def has_run_failed(log: str) -> bool:
    """Return True if the log says that jobs have failed and are not retried. 3.14 then ends with exit code 0."""
    return has_line(log, "Some jobs have failed and reached maximum retrials") and not is_run_complete(log)


def was_submitting(log: str) -> bool:
    """Return True if the traceback of the INT that ended a run shows that the run was submitting jobs."""
    _, found, traceback = log.rpartition("Traceback (most recent call last)")
    return bool(found) and "KeyboardInterrupt" in traceback and _SUBMITTING.search(traceback) is not None


# The complaints with which Autosubmit gives up because of a platform, and what else the log then contains.
# Source: 4.0.105 to 4.1.17.1, `test_and_restore_platforms`, the main loop of `run`, `ParamikoPlatform`.
_PLATFORM_COMPLAINTS = (
    (re.compile("Issues while checking the connectivity of platforms"), re.compile("Connection Unsuccessful to host")),
    (re.compile("Encounter too much errors during running time"), re.compile("(?i)connect|platform|ssh|sftp|EOFError")),
    (re.compile("Couldn't establish a connection to the specified host"), re.compile("")),
    (re.compile("(Can't|Can not|Cannot) create ssh or sftp connection"), re.compile("")),
)
_LOST_CONNECTION = re.compile(
    r"^(?:EOFError|ConnectionResetError|ConnectionRefusedError|BrokenPipeError|TimeoutError|socket\.timeout|OSError: "
    r"Socket is closed|paramiko\.ssh_exception\.(?:SSHException|NoValidConnectionsError|ChannelException))\b",
    re.MULTILINE,
)


def has_platform_failed(log: bytes) -> bool:
    """Return True if the end of a log shows that Autosubmit gave up because it could not reach a platform.

    It shows this by its complaint, or by a traceback through paramiko that ends with a lost connection. Failed jobs, or
    a complaint about the configuration or the keys of a platform, are other reasons: a restart does not help.
    """
    text = plain_text(log)
    if has_run_failed(text):
        return False
    found = output.complaint(log)
    if found and any(head.search(found.raw) and more.search(text) for head, more in _PLATFORM_COMPLAINTS):
        return True
    _, is_there, traceback = text.rpartition("Traceback (most recent call last)")
    return bool(is_there) and "paramiko" in traceback and _LOST_CONNECTION.search(traceback) is not None


_JOBS_FAILED = "Some jobs have failed and reached maximum retrials"


def reason_of_run(log: bytes, *, has_failed_jobs: bool) -> str:
    """Return why a run failed, according to the end of its log.

    This is the complaint; else that jobs failed, if the log says so; else the last words, unless `has_failed_jobs`.
    """
    if found := output.complaint(log):
        return found.text
    if _JOBS_FAILED.encode() in log:  # they may be jobs of an earlier run, which the log of this run does not name
        return f"{_JOBS_FAILED}."
    return "" if has_failed_jobs else last_words(log)


# --- the jobs of a run ------------------------------------------------------------------------------------------------

# For grep -E: the lines of a run's log that contain the results of its jobs, in every version.
JOB_LINES = (
    "changed from [A-Z]+ to (COMPLETED|FAILED)|is COMPLETED|completion check failed|COMPLETED file|jobs remaining|"
    "submitted with job_id|[^ ]_[^ ]+ submitted$|No more jobs to run"
)
# Autosubmit prints such a line every few seconds, for days. Of consecutive ones only the last one counts.
REPEATED_LINES = "jobs remaining"
_NAME = r"([^\s\x1e]{1,255})"
_REMAINING = re.compile(r"^([0-9]{1,7}) of ([0-9]{1,7}) jobs remaining")
_JOB_CHANGED = re.compile(rf"^Job {_NAME} changed from [A-Z]{{1,32}} to ([A-Z]{{1,32}})")  # 4.1.17
_JOB_COMPLETED = re.compile(rf"^Job {_NAME} is COMPLETED")  # up to 4.1.16
_JOB_FAILED = re.compile(
    rf"^\[WARNING\] Couldn't find {_NAME} COMPLETED file|^\[ERROR\] Job {_NAME} completion check failed"
)
_JOB_SUBMITTED = re.compile(rf"^Job: {_NAME} submitted with job_id|^{_NAME} submitted$")


def failure_texts(name: str) -> tuple[str, ...]:
    """Return the texts of a run's log that tell the failure of a job. `_JOB_FAILED` and `_JOB_CHANGED` read them."""
    states = ("RUNNING", "QUEUING", "SUBMITTED", "READY", "HELD", "UNKNOWN")
    changes = (f"Job {name} changed from {state} to FAILED" for state in states)
    return (f"Couldn't find {name} COMPLETED file", f"Job {name} completion check failed", *changes)


_OVER = "No more jobs to run"  # every version prints this when no job is active or READY any more


@dataclass(frozen=True, slots=True)
class Jobs:
    """The results of the jobs of a run that has ended.

    `failed`: the number of attempts of each job whose last attempt failed, in order. `not_run`: the number of jobs
    whose completion or failure the run has not seen; None if unknown. `total`: None if the log does not contain it.
    `at_least`: the log is too long to read completely, so more jobs may have failed. `is_idle`: the run found no job
    that it could run, and ended at once. `unseen`: jobs that it submitted before it broke off, and whose end it has not
    seen.
    """

    total: int | None
    failed: dict[str, int]
    not_run: int | None
    at_least: bool = False
    is_idle: bool = False
    unseen: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The sentence of `jobs_sentence`, with the attempts of each failed job and a note on `unseen` jobs."""
        if self.is_idle:
            return "This run executed no jobs: no job was READY, queuing or running."
        attempts = self.failed.items()
        # With `at_least`, the attempts in the unread part of the log are unknown, too.
        named = [name if self.at_least else f"{name} ({n} attempt{'s' if n > 1 else ''})" for name, n in attempts]
        told = jobs_sentence(self.total, len(named), named[:NAMES_LIMIT], self.not_run, at_least=self.at_least)
        if not self.unseen:
            return told
        count = len(self.unseen)
        jobs = "1 job that it had submitted" if count == 1 else f"{count} jobs that it had submitted"
        return f"{told} The run was aborted, and {jobs} may still run: {listed(self.unseen, count)}.".strip()


def jobs_sentence(
    total: int | None, failed: int, names: Sequence[str], not_run: int | None, *, at_least: bool = False
) -> str:
    """Return "1 of 13 jobs failed: a008_BAD. 2 of 13 jobs were not run." or the like; empty if nothing is known."""
    parts = []
    if failed:
        named = ", ".join(names[:NAMES_LIMIT])
        more = f" and {failed - NAMES_LIMIT} more" if failed > NAMES_LIMIT else ""
        parts.append(f"{'At least ' if at_least else ''}{_of(failed, total)} failed: {named}{more}.")
    if not_run:
        parts.append(f"{_of(not_run, total)} {'was' if not_run == 1 else 'were'} not run.")
    return " ".join(parts)


def rest_sentence(by_status: Mapping[str, int], *, is_over: bool) -> str:
    """Return "The rest: 2 WAITING for failed jobs, 1 SUSPENDED." or the like; empty if all jobs are done or failed.

    `is_over`: the run ended by itself, because no job was left that it could run. Then a job that is WAITING depends on
    a job that will not complete.
    """
    rest = {status: count for status, count in by_status.items() if status not in ("COMPLETED", "SKIPPED", "FAILED")}
    blocking = [status.lower() for status in ("FAILED", "SUSPENDED", "HELD") if by_status.get(status)]
    parts = []
    for status, count in rest.items():
        is_blocked = status == "WAITING" and is_over and blocking and rest.keys() <= {"WAITING", "SUSPENDED", "HELD"}
        parts.append(f"{count} {status}" + (f" for {' or '.join(blocking)} jobs" if is_blocked else ""))
    return f"The rest: {', '.join(parts)}." if parts else ""


def error_lines(name: str, text: str) -> str:
    """Return the last lines of a failed job's error log, below the job's name; empty if there are none.

    `text`: the end of the log as it is on the machine. Autosubmit executes shell jobs with `set -xv`, and 4.1.17 has an
    exit handler: their traces are left out, unless there is nothing else.
    """
    lines = [line for line in plain_text(text.encode("utf-8", "replace")).split("\n") if line.strip()]
    told = [line for line in lines if not _TRACE.match(line)] or lines
    kept = [printable.line(line.rstrip(), ERROR_WIDTH) for line in told[-ERROR_LINES:]]
    return "\n".join([f"The last lines of {name}:", *(f"  {line}" for line in kept)]) if kept else ""


def _of(count: int, total: int | None) -> str:
    noun = "job" if (count if total is None else total) == 1 else "jobs"
    return f"{count} {noun}" if total is None else f"{count} of {total} {noun}"


def jobs(lines: bytes, *, is_whole: bool = True) -> Jobs | None:
    """Read the JOB_LINES of a log and return the results of the jobs; None if the lines contain none.

    `is_whole`: `lines` are all JOB_LINES of the log, else only the last ones. Jobs that were not run are counted only
    if `is_whole` and the log says that the run ended by itself. After any other end, jobs may be queuing or running.
    """
    status: dict[str, bool] = {}  # True: the last known event of the job is its completion; False: its failure
    attempts: dict[str, int] = {}
    older: dict[str, int] = {}  # the same, from the lines of 4.1.8; 4.1.10 to 4.1.16 print both
    counts: tuple[int, int] | None = None
    completed: set[str] = set()  # since the last "N of M jobs remaining"
    is_over = False
    for line in output.lines_of(lines):
        line = line.replace(output.END, "").rstrip()
        if found := _REMAINING.match(line):
            counts, completed, is_over = (int(found[1]), int(found[2])), set(), False
        elif line.startswith(_OVER):
            is_over = True
        elif found := _JOB_SUBMITTED.match(line):
            name = printable.line(found[1] or found[2], 255)
            counted = attempts if found[1] else older
            counted[name] = counted.get(name, 0) + 1
            status.pop(name, None)  # a new attempt: its result comes in a later line, or never
        elif (found := _JOB_COMPLETED.match(line)) or ((found := _JOB_CHANGED.match(line)) and found[2] == "COMPLETED"):
            name = printable.line(found[1], 255)
            status[name] = True
            completed.add(name)
        elif (found := _JOB_FAILED.match(line)) or ((found := _JOB_CHANGED.match(line)) and found[2] == "FAILED"):
            name = printable.line(found[1] or found[2], 255)
            status[name] = False
            completed.discard(name)
    failed = {
        name: attempts.get(name) or older.get(name, 1) for name, is_completed in status.items() if not is_completed
    }
    unseen = () if is_over else tuple(name for name in attempts | older if name not in status)
    if counts is None:
        is_idle = is_whole and is_over and not (status or attempts or older)
        return Jobs(None, failed, None, not is_whole, is_idle, unseen) if failed or is_idle or unseen else None
    left = max(counts[0] - len(completed) - len(failed), 0)
    return Jobs(counts[1], failed, left if is_whole and is_over else None, not is_whole, unseen=unseen)
