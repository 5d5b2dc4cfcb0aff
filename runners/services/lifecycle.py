"""The states of a run and the only transitions between them.

This module compares ACTIVE rows with the state that their machines report. Every change is a compare-and-set on the row
(`status` must still be ACTIVE). So any number of processes may probe a run concurrently, and exactly one of them ends
it.

Probing, leasing and confirming work for every `DetachedCommand`. Each model defines in its own way how a row ends: see
`settle`.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial, singledispatch
from typing import Any

from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from runners import printable
from runners.commands import autosubmit, reasons
from runners.exceptions import CommandFailed, NotRunning, RunnerServiceError, RunnerUnreachable, StillReachable
from runners.models import DetachedCommand, RunnerRun, RunReason, RunStatus
from runners.services import background
from runners.services.machines.answers import Unreadable
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.machines.output import plain_text
from runners.services.machines.probe import Identity, Probe, ProbeTarget, cannot_tell
from runners.services.machines.registry import get_runner
from runners.services.machines.runner import Runner
from runners.webhooks import delivery

logger = logging.getLogger(__name__)

END_OF_LOG = 16_384  # bytes at the end of a log; Autosubmit reports there that it is done, or where it was interrupted
MAX_FAILED_NAMES = 50  # failed jobs whose names are kept with a run
RETRY_UNREACHABLE = 5  # seconds before a status request probes a machine again that could not tell
MACHINES_AT_ONCE = 8
ROWS_AT_ONCE = 2000  # rows that one round trip probes: their answers stay below RUNNERS_OUTPUT_LIMIT
# Seconds for which a lease lets only one caller probe a row. The caller renews the lease while it probes. So a slow
# machine is probed once, and the lease of a killed process ends soon.
LEASE, LEASE_RENEWAL = 3.0, 1.0
ENDS_AT_ONCE = 8  # ends of one machine's runs that are stored concurrently; its connections have room for more
# Bounds the threads of this process, for all machines, that store ends concurrently. Each has a database connection.
_HELPERS = threading.BoundedSemaphore(16)
PATIENCE = 1.0  # seconds that a request waits for the result of another caller's probe
NOT_YET = "Its machine is being asked and has not answered yet."
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.1  # seconds between two reads of the row while the request waits
LAUNCH_GRACE = 30  # seconds beyond RUNNERS_LAUNCH_TIMEOUT after which no launch can still be under way


def confirm_running(run: DetachedCommand, identity: Identity, *, asked: datetime | None = None) -> None:
    """Store the identity of the run's process. `asked`: as in `apply`."""
    now = timezone.now()
    run.update_active(
        identity=identity.as_dict(),
        pid=identity.pid,
        host=identity.host,
        confirmed_at=asked or now,
        modified=now,
        reachable=True,
        unreachable_detail="",
        probing_until=None,
    )


def finish(
    run: RunnerRun,
    *,
    reason: str,
    exit_code: int | None = None,
    signal: str = "",
    finished: datetime | None = None,
    confirmed: bool = True,
    detail: str = "",
    unless_stopped: bool = False,
    jobs: dict[str, Any] | None = None,
) -> bool:
    """End a run: COMPLETED if `reason` is empty, else TERMINATED.

    Return False if another process ended the run first. With `unless_stopped`, also return False if somebody has asked
    to stop the run: then the stop ends it.
    """
    with transaction.atomic():  # store the end and the webhook messages about it together, or neither
        is_first = run.finish(
            status=RunStatus.TERMINATED if reason else RunStatus.COMPLETED,
            reason=reason,
            exit_code=exit_code,
            signal=signal,
            finished=finished,
            confirmed=confirmed,
            among=RunnerRun.objects.filter(stop_requested_at=None) if unless_stopped else None,
            detail=detail,
            jobs=jobs,
        )
        if is_first:
            delivery.run_ended(run)
    return is_first


def refresh(runs: Iterable[DetachedCommand], *, wait: float | None = None, patient: bool = False) -> None:
    """Update ACTIVE rows with the state that their machines report, with one round trip per machine and account.

    `wait`: seconds after which this call returns. A probe without an answer by then continues in the background, and
    its answer is stored. None: wait for the end of all probes. A row that another caller is probing is skipped, because
    that caller stores the result soon. With `patient`, wait for that result and load it, for PATIENCE seconds at most.
    A row without an answer by then is marked as not reachable, for this caller only. Errors of a machine are never
    raised. Several machines are probed concurrently, so that a slow one does not delay the others.
    """
    groups = [
        group[start : start + ROWS_AT_ONCE]
        for group in by_target(run for run in runs if run.is_active).values()
        for start in range(0, len(group), ROWS_AT_ONCE)
    ]
    now = time.monotonic()
    until = now + wait if wait is not None else None
    end = now + (PATIENCE if wait is None else min(PATIENCE, wait)) if patient else None
    if len(groups) == 1:
        unanswered = look(groups[0], end=end, until=until)
    else:
        with ThreadPoolExecutor(min(MACHINES_AT_ONCE, len(groups) or 1)) as pool:
            looks = pool.map(partial(_look_in_thread, end=end, until=until), groups)
            unanswered = [run for rest in looks for run in rest]
    for run in unanswered:  # only this caller's objects change: nothing is stored
        run.reachable, run.unreachable_detail = False, NOT_YET


def refresh_now(run: RunnerRun) -> None:
    """Update an ACTIVE row with a state that its machine reports after this call has begun.

    Callers use this before they reject a request because of the run. An older state does not count, unless the machine
    has failed to answer within the last RETRY_UNREACHABLE seconds.
    """
    since, end = timezone.now(), time.monotonic() + PATIENCE
    while run.is_active and (run.confirmed_at is None or run.confirmed_at < since):
        if not run.reachable and run.probing_until and run.probing_until > timezone.now():
            return
        if time.monotonic() >= end:
            ask([run])
            return
        look([run], end=end)


def by_target(runs: Iterable[DetachedCommand]) -> dict[tuple[str, ...], list[DetachedCommand]]:
    """Group runs by machine and account. Runs without a readable configuration are logged and left out."""
    groups: dict[tuple[str, ...], list[DetachedCommand]] = {}
    for run in runs:
        try:
            target = runner_of(run).target
        except RunnerUnreachable as error:  # somebody has written into the table; other runs must not be affected
            if run.is_active and run.unreachable_detail != error.detail:  # log it once
                logger.error("%s", error.detail)
                run.update_active(reachable=False, unreachable_detail=error.detail)
            continue
        groups.setdefault(target, []).append(run)
    return groups


def runner_of(run: DetachedCommand) -> Runner:
    """Return the runner for a row's machine. Raises RunnerUnreachable if the stored configuration cannot be read."""
    try:
        return get_runner(run.runner_config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunnerUnreachable(
            f"The stored configuration of {run} cannot be read ({type(error).__name__}): nobody knows its machine. An "
            "admin has to repair or abandon it."
        ) from error


def is_readable(run: DetachedCommand) -> bool:
    """Return True if the stored configuration and identity can be read, so that the machine can be probed."""
    try:
        runner_of(run)
        identity_of(run)
    except (RunnerUnreachable, Unreadable):
        return False
    return True


def look(
    runs: Sequence[DetachedCommand], *, end: float | None = None, until: float | None = None
) -> list[DetachedCommand]:
    """Probe those rows of one machine that no other caller is probing.

    `end` (of `time.monotonic`): wait until then for the answers that other callers get; None: do not wait for them.
    `until`: wait until then for the answer to this call's own probe; None: no limit. Return the rows whose answer this
    call waited for and did not get.
    """
    pause = FIRST_PAUSE
    while True:
        got, late = _ask_leased(runs, until)
        runs = [run for run in runs if run.pk not in got]
        if end is None or late:
            return late
        runs = _unanswered(runs)
        while runs and not any(map(_is_free, runs)) and time.monotonic() < end:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            runs = _unanswered(runs)
        if not runs or time.monotonic() >= end:
            return runs


def _look_in_thread(
    runs: Sequence[DetachedCommand], *, end: float | None, until: float | None
) -> list[DetachedCommand]:
    try:
        with BULKHEADS.background():  # the thread of the request waits for this one
            return look(runs, end=end, until=until)
    finally:
        connection.close()


def _ask_leased(runs: Sequence[DetachedCommand], until: float | None) -> tuple[set[int], list[DetachedCommand]]:
    """Probe the rows whose lease is free. Return their primary keys, and the rows without an answer by `until`."""
    with ExitStack() as lease:
        got = lease.enter_context(_lease(runs))
        if not got:
            return set(), []
        if until is None or connection.in_atomic_block:  # no other thread sees the rows of an open transaction
            ask(got)
            return {run.pk for run in got}, []
        question = _BackgroundLook(got, lease.pop_all())
        with BULKHEADS.reading(runner_of(got[0]).target, until - time.monotonic()) as seconds:
            is_answered = question.is_answered_within(seconds)
        return {run.pk for run in got}, [] if is_answered else got


class _BackgroundLook:
    """A probe of rows of one machine that continues in the background when its caller has stopped waiting.

    The caller stores an answer that comes in time, unless a row has ended: then the outcome of the run has to be read
    from its machine, too. The background thread stores all other answers. The thread that stores frees the lease.
    """

    def __init__(self, runs: list[Any], lease: ExitStack) -> None:
        self._runs, self._lease = runs, lease
        self._asked = timezone.now()
        self._lock = threading.Lock()
        self._answer: tuple[Runner, dict[str, Probe]] | None = None
        self._is_late = False  # the caller has stopped waiting
        self._is_probed, self._is_stored = threading.Event(), threading.Event()

    def is_answered_within(self, seconds: float | None) -> bool:
        """Start the probe and wait `seconds` for it. None: the thread may not wait, so nothing is started.

        Return True if the rows now match what their machine reports.
        """
        if seconds is None or not background.begin(self._look, name="look"):
            self._lease.close()
            return False
        end = time.monotonic() + seconds
        self._is_probed.wait(seconds)
        with self._lock:
            self._is_late = self._answer is None
            answer = self._answer if self._is_for_caller else None
        if answer:
            with self._lease:
                _store(self._runs, *answer, self._asked)
            return True
        if not self._is_stored.wait(max(0.0, end - time.monotonic())):
            return False
        stored = type(self._runs[0]).objects.in_bulk([run.pk for run in self._runs])
        for run in self._runs:
            run.load(stored.get(run.pk))
        return True

    @property
    def _is_for_caller(self) -> bool:
        return self._answer is not None and not any(probe.is_over for probe in self._answer[1].values())

    def _look(self) -> None:
        with ExitStack() as lease:
            lease.push(self._lease)
            runner = runner_of(self._runs[0])
            answers = _probe(runner, self._runs)
            with self._lock:
                self._answer = runner, answers
                is_left = self._is_for_caller and not self._is_late
            if is_left:
                lease.pop_all()
            self._is_probed.set()
            if is_left:
                return
            try:
                rows = type(self._runs[0]).objects.active().filter(pk__in=[run.pk for run in self._runs])
                if found := list(rows):
                    _store(found, runner, answers, self._asked)
            except (DatabaseError, InterfaceError) as error:
                logger.error("What a machine says of %s rows was not stored: %s", len(self._runs), error)
                return
        self._is_stored.set()


def _is_free(run: DetachedCommand) -> bool:
    return run.probing_until is None or run.probing_until < timezone.now()


def _unanswered(runs: Sequence[DetachedCommand]) -> list[DetachedCommand]:
    """Reload rows that other callers are probing. Return those that have no answer yet."""
    if not runs:
        return []
    stored = type(runs[0]).objects.in_bulk([run.pk for run in runs])
    waiting = []
    for run in runs:
        found = stored.get(run.pk)
        if found is None:  # deleted meanwhile
            continue
        is_answered = not found.is_active or not found.reachable or found.confirmed_at != run.confirmed_at
        run.load(found)
        if not is_answered:
            waiting.append(run)
    return waiting


def ask(runs: Sequence[DetachedCommand]) -> list[Probe]:
    """Probe runs of one machine and apply the answers, even if another caller is probing the same runs.

    If the answer of one row cannot be applied, log the error and apply the other answers.
    """
    asked = timezone.now()
    try:
        runner = runner_of(runs[0])
        answers = _probe(runner, runs)
    except RunnerUnreachable as error:
        return [_cannot_be_read(run, error.detail) for run in runs]
    return _store(runs, runner, answers, asked)


def _store(runs: Sequence[DetachedCommand], runner: Runner, answers: dict[str, Probe], asked: datetime) -> list[Probe]:
    """Apply the answers of one machine to its rows."""
    as_known = [run for run in runs if answers[run.key].answer == Probe.RUNNING and run.identity]
    _confirm_all(as_known, asked)
    silent = [run for run in runs if answers[run.key].answer == Probe.CANNOT_TELL and answers[run.key].was_asked]
    _cannot_tell_all(silent, answers)
    together = {run.pk for run in as_known} | {run.pk for run in silent}
    _apply_each([run for run in runs if run.pk not in together], runner, answers, asked)
    return [answers[run.key] for run in runs]


def _apply_each(runs: Sequence[DetachedCommand], runner: Runner, answers: dict[str, Probe], asked: datetime) -> None:
    """Call `apply` for each row, several concurrently: the end of a run needs up to three reads of its log.

    If an answer cannot be stored, replace it in `answers`.
    """

    def apply_one(run: DetachedCommand) -> None:
        try:
            apply(run, runner, answers[run.key], asked=asked)
        except (DataError, IntegrityError) as error:
            logger.exception("What the machine says of %s cannot be stored.", run)
            answers[run.key] = _cannot_be_read(run, f"The answer cannot be stored: {error}")

    def apply_in_thread(run: DetachedCommand) -> None:
        try:
            with BULKHEADS.background():
                apply_one(run)
        finally:
            connection.close()

    # No other thread sees the rows of an open transaction.
    wanted = 0 if connection.in_atomic_block or len(runs) < 2 else min(ENDS_AT_ONCE, len(runs))
    with ExitStack() as taken:
        helpers = 0
        while helpers < wanted and _HELPERS.acquire(blocking=False):
            taken.callback(_HELPERS.release)
            helpers += 1
        if not helpers:
            for run in runs:
                apply_one(run)
            return
        with ThreadPoolExecutor(helpers, thread_name_prefix="ends") as pool:
            for future in [pool.submit(apply_in_thread, run) for run in runs]:
                future.result()


def _probe(runner: Runner, runs: Sequence[DetachedCommand]) -> dict[str, Probe]:
    """Return the machine's answers, by run key.

    Rows whose stored identity cannot be read are not probed: it is unknown which process they mean.
    """
    targets, answers = [], {}
    for run in runs:
        try:
            targets.append(target_of(run))
        except Unreadable as error:
            answers[run.key] = cannot_tell(f"The stored identity of this row cannot be read: {error}")
            if run.unreachable_detail != answers[run.key].detail:  # log it once
                logger.error("Nobody can ask after %s: %s", run, error)
    if targets:
        answers |= runner.probe(targets, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    return answers


def _cannot_be_read(run: DetachedCommand, detail: str) -> Probe:
    probe = cannot_tell(detail)
    until = timezone.now() + timedelta(seconds=RETRY_UNREACHABLE)
    run.update_active(reachable=False, unreachable_detail=probe.detail, probing_until=until)
    return probe


def _confirm_all(runs: Sequence[DetachedCommand], asked: datetime) -> None:
    """Confirm any number of running rows in one statement, as `apply` does for one row."""
    _set_all(runs, confirmed_at=asked, reachable=True, unreachable_detail="", probing_until=None)


def _cannot_tell_all(runs: Sequence[DetachedCommand], answers: dict[str, Probe]) -> None:
    """Store "cannot tell" as `apply` does for one row, with one statement for all rows with the same cause."""
    until = timezone.now() + timedelta(seconds=RETRY_UNREACHABLE)
    alike: dict[str, list[DetachedCommand]] = {}
    for run in runs:
        alike.setdefault(answers[run.key].detail, []).append(run)
    for detail, group in alike.items():
        _set_all(group, reachable=False, unreachable_detail=detail, probing_until=until)


def _set_all(runs: Sequence[DetachedCommand], **changes: Any) -> None:
    """Do the same as `update_active` in one statement, for rows that all get the same changes."""
    if not runs:
        return
    active = type(runs[0]).objects.active().filter(pk__in=[run.pk for run in runs])
    is_all = active.update(**changes) == len(runs)
    still_active = None if is_all else set(active.values_list("pk", flat=True))
    for run in runs:
        if still_active is not None and run.pk not in still_active:
            run.refresh_from_db()  # another process has ended it meanwhile
            continue
        for name, value in changes.items():
            setattr(run, name, value)


def abandon(run: RunnerRun, *, note: str) -> bool:
    """End a run because an admin says that its machine cannot be reached any more. The machine is only probed.

    Raises NotRunning if the run has ended, StillReachable if its machine answers: such a run has to be stopped instead.
    """
    if run.is_active:
        (probe,) = ask([run])
        if probe.answer != Probe.CANNOT_TELL and run.is_active:
            raise StillReachable(
                f"Run {run.pk} of {run.expid} was just confirmed by its machine: stop it instead.", run_id=run.pk
            )
    if not run.is_active:
        raise NotRunning(f"Run {run.pk} of {run.expid} has ended: it is {run.status}.", run=run)
    return finish(run, reason=RunReason.ABANDONED, confirmed=False, detail=note)


def stop_window() -> timedelta:
    """Return the longest time that a stop can take, with all its steps and probes up to their deadlines.

    A run that ends later did not end because of the stop.
    """
    waits = settings.RUNNERS_STOP_TIMEOUT + 2 * settings.RUNNERS_TERM_WAIT + settings.RUNNERS_KILL_WAIT
    return timedelta(seconds=waits + 5 * settings.RUNNERS_PROBE_TIMEOUT)


def target_of(run: DetachedCommand) -> ProbeTarget:
    """Return what to probe. After the launch deadline, a run without identity may be reported as never started."""
    age = (timezone.now() - run.created).total_seconds()
    is_late = age > settings.RUNNERS_LAUNCH_TIMEOUT + LAUNCH_GRACE
    return ProbeTarget(run.key, identity_of(run), claim=is_late)


def identity_of(run: DetachedCommand) -> Identity | None:
    """Return the stored identity, None if there is none.

    Raises Unreadable if somebody has written something else into the table.
    """
    return Identity.from_dict(run.identity) if run.identity else None


def apply(run: DetachedCommand, runner: Runner, probe: Probe, *, asked: datetime | None = None) -> None:
    """Update the row from the machine's answer. "Cannot tell" changes nothing but `reachable`.

    `asked`: when the probe was sent. The state is confirmed as of that time, not as of the arrival of the answer.
    """
    now = timezone.now()
    asked = asked or now
    if not probe.was_asked:
        run.reachable, run.unreachable_detail = False, probe.detail  # only in this caller's object
    elif probe.answer == Probe.CANNOT_TELL:
        run.update_active(
            reachable=False,
            unreachable_detail=probe.detail,
            probing_until=now + timedelta(seconds=RETRY_UNREACHABLE),
        )
    elif probe.answer == Probe.RUNNING:
        # The service died or lost the connection after the launch, before it stored the identity.
        if run.identity is None and probe.identity:
            confirm_running(run, probe.identity, asked=asked)
        else:
            run.update_active(confirmed_at=asked, reachable=True, unreachable_detail="", probing_until=None)
    elif probe.answer == Probe.STARTING:
        run.update_active(confirmed_at=asked, reachable=True, unreachable_detail="", probing_until=None)
    else:
        settle(run, runner, probe)


@singledispatch
def settle(row: object, runner: Runner, probe: Probe) -> None:
    """End a row from an answer that says that its command is over. Each model registers its own implementation."""
    raise TypeError(f"nobody said how a {type(row).__name__} ends")


@settle.register
def _end(run: RunnerRun, runner: Runner, probe: Probe) -> None:
    """End a run. COMPLETED: exit code 0 and no stop under way, or a log that proves that it was done before the stop.

    Up to 4.1.16, Autosubmit also ends with exit code 0 after an INT, which somebody else may have sent. Version 3.14
    ends with exit code 0 after failed jobs. So the log may contradict exit code 0, and during a stop only the log can
    tell.
    """
    detail = ""
    jobs: reasons.Jobs | None = None
    finished = datetime.fromtimestamp(probe.finished, UTC) if probe.finished else None
    is_stopped = _ended_by_a_stop(run, finished)
    if probe.answer == Probe.ENDED:
        is_completed, is_interrupted = probe.exit_code == 0, probe.interrupted
        if is_completed or is_stopped:
            try:
                log = end_of_log(run, runner)
            except CommandFailed:  # something else is in place of the log, so it proves nothing
                log = ""
            except RunnerServiceError as error:  # the next probe reads the log
                apply(run, runner, Probe(Probe.CANNOT_TELL, detail=error.detail))
                return
            if is_stopped:
                is_completed = autosubmit.is_run_complete(log)
            elif autosubmit.is_run_interrupted(log):
                is_completed, is_interrupted = False, True
            elif autosubmit.has_run_failed(log):
                is_completed = False
        if is_completed:
            reason = ""
            detail = "It had completed before the stop reached it." if is_stopped else ""
        elif is_stopped or is_interrupted:
            reason = RunReason.STOPPED
        else:
            reason = RunReason.KILLED if probe.signal else RunReason.FAILED
        if reason != RunReason.STOPPED:  # after a stop, nobody expects all jobs to be done
            jobs = _jobs(run, runner)
        if (
            reason
            and (probe.exit_code or reason == RunReason.FAILED)
            and not is_interrupted
            and not (is_stopped and probe.signal)
        ):
            detail = _reason(run, runner, jobs)
        if reason != RunReason.STOPPED:
            detail = printable.text("\n".join(part for part in (jobs.sentence if jobs else "", detail) if part))
    elif probe.answer == Probe.NEVER_STARTED:
        reason = RunReason.STOPPED if is_stopped else RunReason.NEVER_STARTED
        detail = "The machine has no trace of it: the service died or lost the connection before the launch."
    else:
        is_rebooted = probe.answer == Probe.REBOOTED
        reason = RunReason.STOPPED if is_stopped and not is_rebooted else RunReason.LOST
        detail = "The machine was rebooted." if is_rebooted else "Its process is gone without exit code."
    finish(
        run,
        reason=reason,
        exit_code=probe.exit_code,
        signal=probe.signal,
        finished=finished,
        detail=detail,
        jobs=_counts(jobs),
    )


def _jobs(run: RunnerRun, runner: Runner) -> reasons.Jobs | None:
    """Return the outcome of the run's jobs. None if it cannot be read: the end of the run is stored without it."""
    try:
        lines, is_whole = runner.grep_log(
            run.key, reasons.JOB_LINES, repeated=reasons.REPEATED_LINES, timeout=settings.RUNNERS_PROBE_TIMEOUT
        )
    except RunnerServiceError:
        return None
    return reasons.jobs(lines, is_whole=is_whole)


def _counts(jobs: reasons.Jobs | None) -> dict[str, Any] | None:
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
    now = timezone.now()
    return min(finished or now, now) <= run.stop_requested_at + stop_window()


def end_of_log(run: RunnerRun, runner: Runner) -> str:
    """Return the last END_OF_LOG bytes of a run's output, without colours; empty if there is no log.

    Raises the errors of `Runner.read_log`.
    """
    chunk = runner.read_log(run.key, offset=-END_OF_LOG, limit=END_OF_LOG, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    return plain_text(chunk.data) if chunk else ""


def _reason(run: RunnerRun, runner: Runner, jobs: reasons.Jobs | None) -> str:
    """Return Autosubmit's reason for the end of a failed run, or else its last words. Empty if neither can be read."""
    try:
        chunk = runner.read_log(run.key, offset=-END_OF_LOG, limit=END_OF_LOG, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    except RunnerServiceError:
        return ""
    if chunk is None:
        return ""
    found = reasons.reason_of_run(chunk.data, has_failed_jobs=bool(jobs and jobs.failed))
    remedy = reasons.remedy(found)
    return f"{found}\n{remedy}" if remedy else found


@contextmanager
def _lease(runs: Sequence[DetachedCommand]) -> Iterator[list[DetachedCommand]]:
    """Lease rows of one machine, so that only this caller probes them. Yield the leased rows; free them at the end.

    A thread renews the lease while the block is executed.
    """
    now = timezone.now()
    # The random microseconds distinguish this lease from all others, so one statement suffices for all rows.
    until = now + timedelta(seconds=LEASE, microseconds=secrets.randbelow(1_000_000))
    rows = type(runs[0]).objects.active()
    wanted = rows.filter(pk__in=[run.pk for run in runs])
    # Every lease is shorter than this: a lease that ends later was made before the clock jumped.
    longest = now + timedelta(seconds=max(LEASE, RETRY_UNREACHABLE, settings.RUNNERS_PROBE_TIMEOUT) + 2)
    is_free = Q(probing_until=None) | Q(probing_until__lt=now) | Q(probing_until__gt=longest)
    # If another process stored a newer answer since this caller read the row, the caller uses it and does not probe.
    seen = max((run.confirmed_at for run in runs if run.confirmed_at), default=None)
    is_as_read = Q(confirmed_at=None) | Q(confirmed_at__lte=seen) if seen else Q(confirmed_at=None)
    if not wanted.filter(is_free, is_as_read).update(probing_until=until):
        yield []
        return
    got = set(wanted.filter(probing_until=until).values_list("pk", flat=True))
    leased = [run for run in runs if run.pk in got]
    for run in leased:
        run.probing_until = until
    renewal = _Renewal(type(runs[0]), got, until)
    renewal.start()
    try:
        yield leased
    finally:
        renewal.end()
        left = [run.pk for run in leased if run.probing_until == until]  # the others were freed with their answers
        if left:
            rows.filter(pk__in=left, probing_until=renewal.until).update(probing_until=None)


class _Renewal(threading.Thread):
    """A thread that extends a lease until `end` is called. It opens a database connection only if the probe is slow."""

    def __init__(self, model: type[DetachedCommand], keys: set[int], until: datetime) -> None:
        super().__init__(name="lease", daemon=True)
        self.until = until
        self._model, self._keys = model, keys
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(LEASE_RENEWAL):
            until = timezone.now() + timedelta(seconds=LEASE, microseconds=secrets.randbelow(1_000_000))
            try:
                rows = self._model.objects.active().filter(pk__in=self._keys, probing_until=self.until)
                if not rows.update(probing_until=until):
                    break  # all rows have their answers, or somebody else has the lease
            except (
                DatabaseError,
                InterfaceError,
            ) as error:  # the lease ends early, and the machine is probed twice
                logger.warning("The lease of %s rows cannot be renewed: %s", len(self._keys), error)
                break
            self.until = until
        connection.close()

    def end(self) -> None:
        self._is_over.set()
        self.join()
