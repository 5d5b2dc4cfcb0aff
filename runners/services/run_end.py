"""The end of a run: from the machine's answer and the log, find out why it ended, and the outcome of its jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.conf import settings

from runners import printable
from runners.commands import remedies, run_log
from runners.exceptions import CommandFailed, RunDirectoryUnusable, RunnerServiceError
from runners.models import RunnerRun, RunReason
from runners.services import lifecycle, restart_plans, run_output, run_progress
from runners.services.machines import scripts
from runners.services.machines.jobs import FAILURE_LIMIT, MOST_FAILURES, Failure, JobCounts, parse_failures
from runners.services.machines.output import plain_text
from runners.services.machines.probe import EndOfRun, Probe
from runners.services.machines.runner import Runner
from runners_project import clock

END_OF_LOG = 16_384  # bytes at the end of a log; Autosubmit reports there that it is done, or where it was interrupted
JOBS_SECONDS = 5  # for reading the job list and the error logs of failed jobs
LATE_JOB_LIST = 60  # seconds between the end of a run and the last change of its job list; file servers have own clocks
MAX_FAILED_NAMES = 50  # failed jobs whose names are kept with a run


def finish_from_probe(run: RunnerRun, runner: Runner, probe: Probe) -> None:
    """End a run. COMPLETED: exit code 0 and no stop under way, or a log that proves that it was done before the stop.

    Up to 4.1.16, Autosubmit also ends with exit code 0 after an INT, which somebody else may have sent. Version 3.14
    ends with exit code 0 after failed jobs. So the log may contradict exit code 0, and during a stop only the log can
    tell.
    """
    detail = ""
    jobs: run_log.Jobs | None = None
    known: tuple[JobCounts, tuple[Failure, ...]] | None = None
    finished = datetime.fromtimestamp(probe.finished, UTC) if probe.finished else None
    is_stopped = _ended_by_a_stop(run, finished)
    cause = ""  # that a restart can wait for
    if probe.answer == Probe.ENDED:
        is_completed, is_interrupted = probe.exit_code == 0, probe.interrupted
        try:
            end = _read_end(run, runner)
        except RunnerServiceError as error:
            # After CommandFailed something else is in place of the log, so it proves nothing. A home that has just gone
            # may come back.
            is_lost = isinstance(error, CommandFailed) and not isinstance(error, RunDirectoryUnusable)
            if (is_completed or is_stopped) and not is_lost:  # the next probe reads the log
                lifecycle.mark_unreachable(run, error.detail)
                return
            end = EndOfRun()
        known = _job_list(run, end, probe)
        if is_completed or is_stopped:
            log = plain_text(end.tail)
            if is_stopped:
                is_completed = run_log.is_run_complete(log)
            elif run_log.is_run_interrupted(log):
                is_completed, is_interrupted = False, True
            elif run_log.has_run_failed(log):
                is_completed = False
        if is_completed:
            reason = ""
            detail = "It had completed before the stop." if is_stopped else ""
        elif is_stopped or is_interrupted:
            reason = RunReason.STOPPED
        else:
            reason = RunReason.KILLED if probe.signal else RunReason.FAILED
        if reason == RunReason.FAILED and run_log.has_platform_failed(end.tail):
            cause = restart_plans.PLATFORM
        if reason != RunReason.STOPPED:  # after a stop, nobody expects all jobs to be done
            jobs = run_log.jobs(end.lines, is_whole=end.is_whole)
        if (
            reason
            and (probe.exit_code or reason == RunReason.FAILED)
            and not is_interrupted
            and not (is_stopped and probe.signal)
        ):
            detail = _reason(end, jobs)
        if reason != RunReason.STOPPED:
            parts = [jobs.sentence if jobs else "", detail, *_about_jobs(run, jobs, known)]
            detail = printable.text("\n".join(filter(None, parts)))
    elif probe.answer == Probe.NEVER_STARTED:
        reason = RunReason.STOPPED if is_stopped else RunReason.NEVER_STARTED
        cause = RunReason.NEVER_STARTED
        detail = "The run does not exist on the machine: the service died or lost the connection before the launch."
    else:
        is_rebooted = probe.answer == Probe.REBOOTED
        reason = RunReason.STOPPED if is_stopped and not is_rebooted else RunReason.LOST
        cause = restart_plans.LOST if is_rebooted else ""  # without a reboot, something of the run may still live
        detail = "The machine was rebooted." if is_rebooted else "Its process is gone without an exit code."
    columns = run_output.at_end(run, probe.log)
    if known:
        columns["progress"] = run_progress.as_stored(known[0])
    lifecycle.finish_run(
        run,
        reason=reason,
        exit_code=probe.exit_code,
        signal=probe.signal,
        finished=finished,
        detail=detail,
        jobs=_counts(jobs),
        **columns,
        **restart_plans.columns_at_end(run, cause),
    )


def _read_end(run: RunnerRun, runner: Runner) -> EndOfRun:
    """Read what explains the end, with one round trip. Raises the errors of `Runner.read_end`."""
    return runner.read_end(
        run.key,
        run_log.JOB_LINES,
        repeated=run_log.REPEATED_LINES,
        tail=END_OF_LOG,
        jobs=scripts.job_failures(
            run.key, "" if run.superseded else run.expid, names=MOST_FAILURES, limit=FAILURE_LIMIT, seconds=JOBS_SECONDS
        ),
        timeout=settings.RUNNERS_PROBE_TIMEOUT,
    )


def _job_list(run: RunnerRun, end: EndOfRun, probe: Probe) -> tuple[JobCounts, tuple[Failure, ...]] | None:
    """Return what the job list told about the jobs and the failed ones; None if it is not known.

    A job list that was written long after the end tells nothing about this run.
    """
    found = parse_failures(end.jobs, run.key)
    is_later = found and probe.finished and found[0].written > probe.finished + LATE_JOB_LIST
    return None if is_later else found


def _about_jobs(
    run: RunnerRun, jobs: run_log.Jobs | None, known: tuple[JobCounts, tuple[Failure, ...]] | None
) -> list[str]:
    """Return what kept jobs from running, and the last error lines of failed jobs."""
    if known is None:
        return []
    counts, failures = known
    told = []
    if counts.failed and not (jobs and jobs.failed):  # the log of this run does not name them
        told.append(run_log.jobs_sentence(counts.total, counts.failed, counts.failed_jobs, None))
    is_over = jobs is not None and jobs.not_run is not None and not (run.command_params or {}).get("run_only_members")
    told.append(run_log.rest_sentence(counts.by_status, is_over=is_over))
    of_this_run = [failure for failure in failures if jobs and failure.name in jobs.failed]
    return told + [run_log.error_lines(failure.name, failure.text) for failure in of_this_run or failures]


def _counts(jobs: run_log.Jobs | None) -> dict[str, Any] | None:
    """Return the counts in the format of RunnerRun.jobs."""
    if jobs is None:
        return None
    names = list(jobs.failed)[:MAX_FAILED_NAMES]
    counts = {"total": jobs.total, "failed": len(jobs.failed), "not_run": jobs.not_run, "failed_jobs": names}
    return {**counts, "at_least": True} if jobs.at_least else counts


def _ended_by_a_stop(run: RunnerRun, finished: datetime | None) -> bool:
    """Return True if the run ended while a stop was under way. A stop that was requested long before is not the cause.

    Reload the stop from the row: a stop is stored before its first signal is sent. That may be after this process has
    read the row and before it probes the machine.
    """
    run.refresh_from_db(fields=["stop_requested_at", "stopped_by"])
    if run.stop_requested_at is None:
        return False
    now = clock.now()
    return min(finished or now, now) <= run.stop_requested_at + lifecycle.stop_window()


def end_of_log(run: RunnerRun, runner: Runner) -> str:
    """Return the last END_OF_LOG bytes of a run's output, without colours; empty if there is no log.

    Raises the errors of `Runner.read_log`.
    """
    chunk = runner.read_log(run.key, offset=-END_OF_LOG, limit=END_OF_LOG, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    return plain_text(chunk.data) if chunk else ""


def _reason(end: EndOfRun, jobs: run_log.Jobs | None) -> str:
    """Return Autosubmit's reason for the end of a failed run, or else its last words. Empty if neither is known."""
    found = run_log.reason_of_run(end.tail, has_failed_jobs=bool(jobs and jobs.failed))
    remedy = remedies.remedy(found)
    return f"{found}\n{remedy}" if remedy else found
