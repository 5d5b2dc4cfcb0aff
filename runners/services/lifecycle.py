"""The states of a run and the only ways from one to another.

ACTIVE rows are compared with what their machines say. Every change is a compare-and-set on the row (`status` still
ACTIVE), so any number of processes may look at once and exactly one of them ends a run.

Asking, leasing and confirming serve every model of detached commands (`Launched`); what an end means is each model's
own: `settle`.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial, singledispatch
from typing import Any, TypeVar

from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from runners.exceptions import CommandFailed, NotRunning, RunnerServiceError, RunnerUnreachable, StillReachable
from runners.models import RunnerRun, RunReason, RunStatus
from runners.models_operations import Operation
from runners.services import answers, autosubmit, background, reasons, webhooks
from runners.services.answers import Unreadable
from runners.services.bulkheads import BULKHEADS
from runners.services.output import plain_text
from runners.services.probe import Identity, Probe, ProbeTarget, cannot_tell
from runners.services.runners import Runner, get_runner

logger = logging.getLogger(__name__)

END_OF_LOG = 16_384  # bytes of a log in which Autosubmit says that all is done, or where it was interrupted
MAX_FAILED_NAMES = 50  # failed jobs whose names are kept with a run
RETRY_UNREACHABLE = 5  # seconds before a machine that could not tell is asked again for a status
MACHINES_AT_ONCE = 8
ROWS_AT_ONCE = 2000  # rows that are asked after in one round trip: their answers stay below RUNNERS_OUTPUT_LIMIT
# Seconds that one caller has the asking after a row for itself. It is renewed while the caller asks, so that a slow
# machine is asked once, and the lease of a process that was killed ends soon.
LEASE, LEASE_RENEWAL = 3.0, 1.0
ENDS_AT_ONCE = 8  # of one machine; its connections have room for more
# Threads of a process, for all machines, that store ends side by side. Each has a database connection.
_HELPERS = threading.BoundedSemaphore(16)
PATIENCE = 1.0  # seconds that a request waits for the answer to somebody else's question
NOT_YET = "Its machine is being asked and has not answered yet."
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.1  # seconds between its looks at the row
LAUNCH_GRACE = 30  # seconds beyond RUNNERS_LAUNCH_TIMEOUT after which no launch can still be under way

Launched = TypeVar("Launched", RunnerRun, Operation)  # rows of commands that were launched; one call takes one kind


def confirm_running(run: RunnerRun | Operation, identity: Identity, *, asked: datetime | None = None) -> None:
    """Store which process the run is. `asked` as in `apply`."""
    now = timezone.now()
    _set(
        run,
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
    """End a run: COMPLETED without a reason, else TERMINATED.

    False: another process ended it first, or, with `unless_stopped`, somebody has asked to stop it: then that is what
    ends it.
    """
    now = timezone.now()
    is_completed = not reason
    changes = {
        "status": RunStatus.COMPLETED if is_completed else RunStatus.TERMINATED,
        "reason": reason,
        "exit_code": exit_code,
        "signal": signal,
        # The machine's clock may be off; an end before the start or in the future helps nobody.
        "finished": max(min(finished or now, now), run.created),
        "modified": now,
        "detail": detail,
        "jobs": jobs,
        "probing_until": None,
    }
    if confirmed:
        changes |= {"confirmed_at": now, "reachable": True, "unreachable_detail": ""}
    with transaction.atomic():  # the messages about the end are written with it, or neither is
        is_first = _set(run, RunnerRun.objects.filter(stop_requested_at=None) if unless_stopped else None, **changes)
        if is_first:
            webhooks.run_ended(run)
    return is_first


def refresh(runs: Iterable[Launched], *, wait: float | None = None, patient: bool = False) -> None:
    """Bring ACTIVE rows up to what their machines say, with one round trip per machine and account.

    `wait`: seconds after which this call ends. A look that has no answer by then goes on in the background, and its
    answer is stored. None: to the end of all looks. A row that another caller is asking after is left alone: what that
    caller finds is in the row soon. With `patient` its answer is waited for and loaded, for PATIENCE seconds at most;
    without an answer by then the row says for this caller that its machine cannot be asked. Never raises for a machine.
    Several machines are asked side by side, so that a slow one does not delay the others.
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
    for run in unanswered:  # of this caller only: nothing is stored
        run.reachable, run.unreachable_detail = False, NOT_YET


def refresh_now(run: RunnerRun) -> None:
    """Bring an ACTIVE row up to what its machine says after this call has begun, for an answer that refuses something.

    What was known before does not count, unless the machine has failed to answer within RETRY_UNREACHABLE seconds.
    """
    since, end = timezone.now(), time.monotonic() + PATIENCE
    while run.is_active and (run.confirmed_at is None or run.confirmed_at < since):
        if not run.reachable and run.probing_until and run.probing_until > timezone.now():
            return
        if time.monotonic() >= end:
            ask([run])
            return
        look([run], end=end)


def by_target(runs: Iterable[Launched]) -> dict[tuple[str, ...], list[Launched]]:
    """Runs by the account of the machine they run in. Those without a readable configuration are logged, left out."""
    groups: dict[tuple[str, ...], list[Launched]] = {}
    for run in runs:
        try:
            target = runner_of(run).target
        except RunnerUnreachable as error:  # somebody has written into the table; the others are not to suffer
            if run.is_active and run.unreachable_detail != error.detail:  # told once
                logger.error("%s", error.detail)
                _set(run, reachable=False, unreachable_detail=error.detail)
            continue
        groups.setdefault(target, []).append(run)
    return groups


def runner_of(run: RunnerRun | Operation) -> Runner:
    """How to reach the machine of a row. Raises RunnerUnreachable when its stored configuration cannot be read."""
    try:
        return get_runner(run.runner_config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunnerUnreachable(
            f"The stored configuration of {run} cannot be read ({type(error).__name__}): nobody knows its machine. An "
            "admin has to repair or abandon it."
        ) from error


def is_readable(run: RunnerRun | Operation) -> bool:
    """Whether the row holds a configuration and an identity, so that its machine can be asked after it."""
    try:
        runner_of(run)
        identity_of(run)
    except (RunnerUnreachable, Unreadable):
        return False
    return True


def look(runs: list[Launched], *, end: float | None = None, until: float | None = None) -> list[Launched]:
    """Ask one machine after those of its rows that nobody else is asking after.

    Until `end` (of `time.monotonic`) the answers that others get are waited for, until `until` the answer to this
    call's own question; None: no limit. Returns the rows without one.
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


def _look_in_thread(runs: list[Launched], *, end: float | None, until: float | None) -> list[Launched]:
    try:
        with BULKHEADS.background():  # the thread of the request waits for this one
            return look(runs, end=end, until=until)
    finally:
        connection.close()


def _ask_leased(runs: list[Launched], until: float | None) -> tuple[set[int], list[Launched]]:
    """Ask after the rows whose lease can be had now; returns their numbers, and those without an answer by `until`."""
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
    """A look at rows of one machine that goes on when its caller waits no longer.

    The caller stores an answer that comes in time, unless a row has ended: what a run has brought is read from its
    machine, too. All else the background stores. Whoever stores frees the lease.
    """

    def __init__(self, runs: list[Any], lease: ExitStack) -> None:
        self._runs, self._lease = runs, lease
        self._asked = timezone.now()
        self._lock = threading.Lock()
        self._answer: tuple[Runner, dict[str, Probe]] | None = None
        self._is_late = False  # the caller waits no longer
        self._is_probed, self._is_stored = threading.Event(), threading.Event()

    def is_answered_within(self, seconds: float | None) -> bool:
        """Begin, and wait. None: nobody may wait, so nothing is begun. True: the rows are as their machine says."""
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
            _load(run, stored.get(run.pk))
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


def _is_free(run: RunnerRun | Operation) -> bool:
    return run.probing_until is None or run.probing_until < timezone.now()


def _unanswered(runs: list[Launched]) -> list[Launched]:
    """Load rows that others are asking after; returns those that have no answer yet."""
    if not runs:
        return []
    stored = type(runs[0]).objects.in_bulk([run.pk for run in runs])
    waiting = []
    for run in runs:
        found = stored.get(run.pk)
        if found is None:  # deleted meanwhile
            continue
        is_answered = not found.is_active or not found.reachable or found.confirmed_at != run.confirmed_at
        _load(run, found)
        if not is_answered:
            waiting.append(run)
    return waiting


def _load(run: RunnerRun | Operation, found: RunnerRun | Operation | None) -> None:
    """Take over what is in the row now; None: it was deleted."""
    if found is not None:
        for column in found._meta.concrete_fields:
            setattr(run, column.attname, getattr(found, column.attname))


def ask(runs: list[Launched]) -> list[Probe]:
    """Probe runs of one machine and apply the answers, without regard to who else is asking.

    One row whose answer cannot be applied is logged and does not keep the others from theirs.
    """
    asked = timezone.now()
    try:
        runner = runner_of(runs[0])
        answers = _probe(runner, runs)
    except RunnerUnreachable as error:
        return [_cannot_be_read(run, error.detail) for run in runs]
    return _store(runs, runner, answers, asked)


def _store(runs: list[Launched], runner: Runner, answers: dict[str, Probe], asked: datetime) -> list[Probe]:
    """Apply the answers of one machine to its rows."""
    as_known = [run for run in runs if answers[run.key].answer == Probe.RUNNING and run.identity]
    _confirm_all(as_known, asked)
    silent = [run for run in runs if answers[run.key].answer == Probe.CANNOT_TELL and answers[run.key].was_asked]
    _cannot_tell_all(silent, answers)
    together = {run.pk for run in as_known} | {run.pk for run in silent}
    _apply_each([run for run in runs if run.pk not in together], runner, answers, asked)
    return [answers[run.key] for run in runs]


def _apply_each(runs: list[Launched], runner: Runner, answers: dict[str, Probe], asked: datetime) -> None:
    """`apply` for each row, several at the same time: at an end a machine is asked up to three times for its log.

    Changes `answers` where one cannot be stored.
    """

    def apply_one(run: Launched) -> None:
        try:
            apply(run, runner, answers[run.key], asked=asked)
        except (DataError, IntegrityError) as error:
            logger.exception("What the machine says of %s cannot be stored.", run)
            answers[run.key] = _cannot_be_read(run, f"The answer cannot be stored: {error}")

    def apply_in_thread(run: Launched) -> None:
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


def _probe(runner: Runner, runs: list[Launched]) -> dict[str, Probe]:
    """Rows whose stored identity cannot be read are not asked after: nobody knows which process they mean."""
    targets, answers = [], {}
    for run in runs:
        try:
            targets.append(target_of(run))
        except Unreadable as error:
            answers[run.key] = cannot_tell(f"The stored identity of this row cannot be read: {error}")
            if run.unreachable_detail != answers[run.key].detail:  # told once
                logger.error("Nobody can ask after %s: %s", run, error)
    if targets:
        answers |= runner.probe(targets, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    return answers


def _cannot_be_read(run: RunnerRun | Operation, detail: str) -> Probe:
    probe = cannot_tell(detail)
    until = timezone.now() + timedelta(seconds=RETRY_UNREACHABLE)
    _set(run, reachable=False, unreachable_detail=probe.detail, probing_until=until)
    return probe


def _confirm_all(runs: list[Launched], asked: datetime) -> None:
    """What `apply` does for a running run, for any number of them in one statement."""
    _set_all(runs, confirmed_at=asked, reachable=True, unreachable_detail="", probing_until=None)


def _cannot_tell_all(runs: list[Launched], answers: dict[str, Probe]) -> None:
    """What `apply` does for a run of which the machine cannot tell: one statement for all with the same cause."""
    until = timezone.now() + timedelta(seconds=RETRY_UNREACHABLE)
    alike: dict[str, list[Launched]] = {}
    for run in runs:
        alike.setdefault(answers[run.key].detail, []).append(run)
    for detail, group in alike.items():
        _set_all(group, reachable=False, unreachable_detail=detail, probing_until=until)


def _set_all(runs: list[Launched], **changes: Any) -> None:
    """`_set` for rows that all change alike, in one statement."""
    if not runs:
        return
    active = type(runs[0]).objects.active().filter(pk__in=[run.pk for run in runs])
    is_all = active.update(**changes) == len(runs)
    still_active = None if is_all else set(active.values_list("pk", flat=True))
    for run in runs:
        if still_active is not None and run.pk not in still_active:
            run.refresh_from_db()  # another process has seen its end meanwhile
            continue
        for name, value in changes.items():
            setattr(run, name, value)


def abandon(run: RunnerRun, *, note: str) -> bool:
    """End a run whose machine cannot be asked any more, on an admin's word. Nothing is sent to the machine.

    Raises NotRunning when it has ended, StillReachable when its machine answers: then it is stopped, not abandoned.
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
    """How long a stop can take, each of its steps and looks at its deadline: what ends later did not end by it."""
    waits = settings.RUNNERS_STOP_TIMEOUT + 2 * settings.RUNNERS_TERM_WAIT + settings.RUNNERS_KILL_WAIT
    return timedelta(seconds=waits + 5 * settings.RUNNERS_PROBE_TIMEOUT)


def target_of(run: RunnerRun | Operation) -> ProbeTarget:
    """What to ask for. Past the launch deadline, a run without identity may be called never started."""
    age = (timezone.now() - run.created).total_seconds()
    is_late = age > settings.RUNNERS_LAUNCH_TIMEOUT + LAUNCH_GRACE
    return ProbeTarget(run.key, identity_of(run), claim=is_late)


def identity_of(run: RunnerRun | Operation) -> Identity | None:
    """Raises Unreadable when somebody has written something else into the table."""
    return Identity.from_dict(run.identity) if run.identity else None


def apply(run: RunnerRun | Operation, runner: Runner, probe: Probe, *, asked: datetime | None = None) -> None:
    """Change the row as the machine's answer demands. "Cannot tell" changes nothing but `reachable`.

    `asked`: when the question was sent. The state is confirmed as of then, not as of the arrival of the answer.
    """
    now = timezone.now()
    asked = asked or now
    if not probe.was_asked:
        run.reachable, run.unreachable_detail = False, probe.detail  # of this caller only
    elif probe.answer == Probe.CANNOT_TELL:
        _set(
            run,
            reachable=False,
            unreachable_detail=probe.detail,
            probing_until=now + timedelta(seconds=RETRY_UNREACHABLE),
        )
    elif probe.answer == Probe.RUNNING:
        if run.identity is None and probe.identity:  # we died, or lost the line, between launching and storing
            confirm_running(run, probe.identity, asked=asked)
        else:
            _set(run, confirmed_at=asked, reachable=True, unreachable_detail="", probing_until=None)
    elif probe.answer == Probe.STARTING:
        _set(run, confirmed_at=asked, reachable=True, unreachable_detail="", probing_until=None)
    else:
        settle(run, runner, probe)


@singledispatch
def settle(row: object, runner: Runner, probe: Probe) -> None:
    """End a row as the machine's answer, one of those that are over, demands. Each model registers its own way."""
    raise TypeError(f"nobody said how a {type(row).__name__} ends")


@settle.register
def _end(run: RunnerRun, runner: Runner, probe: Probe) -> None:
    """COMPLETED: exit code 0 and no stop under way, or a log that proves that all was done before the stop.

    Up to 4.1.16 Autosubmit also ends with exit code 0 after an INT, which may come from somebody else, and 3.14 does
    so after failed jobs. So the log may deny what exit code 0 says, and during a stop only the log can tell.
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
            except CommandFailed:  # there is something else in its place, so it proves nothing
                log = ""
            except RunnerServiceError as error:  # the next look reads it
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
            detail = answers.text("\n".join(part for part in (jobs.sentence if jobs else "", detail) if part))
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
    """What became of the run's jobs. If it cannot be had, the end of the run is stored without."""
    try:
        lines, is_whole = runner.grep_log(
            run.key, reasons.JOB_LINES, repeated=reasons.REPEATED_LINES, timeout=settings.RUNNERS_PROBE_TIMEOUT
        )
    except RunnerServiceError:
        return None
    return reasons.jobs(lines, is_whole=is_whole)


def _counts(jobs: reasons.Jobs | None) -> dict[str, Any] | None:
    """As RunnerRun.jobs keeps it."""
    if jobs is None:
        return None
    names = list(jobs.failed)[:MAX_FAILED_NAMES]
    counts = {"total": jobs.total, "failed": len(jobs.failed), "not_run": jobs.not_run, "failed_jobs": names}
    return {**counts, "at_least": True} if jobs.at_least else counts


def _ended_by_a_stop(run: RunnerRun, finished: datetime | None) -> bool:
    """Whether the end came while a stop was under way. One that was asked for long before has not brought it about.

    The row is asked afresh: a stop is written down before its first signal is sent, which may be after this process
    has read the row and before its look at the machine.
    """
    run.refresh_from_db(fields=["stop_requested_at", "stopped_by"])
    if run.stop_requested_at is None:
        return False
    now = timezone.now()
    return min(finished or now, now) <= run.stop_requested_at + stop_window()


def end_of_log(run: RunnerRun, runner: Runner) -> str:
    """The last END_OF_LOG bytes of what a run has printed, without colours; empty when there is no log.

    Raises as `Runner.read_log`.
    """
    chunk = runner.read_log(run.key, offset=-END_OF_LOG, limit=END_OF_LOG, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    return plain_text(chunk.data) if chunk else ""


def _reason(run: RunnerRun, runner: Runner, jobs: reasons.Jobs | None) -> str:
    """Autosubmit's reason for the end of a failed run, or else its last words. If they cannot be had: nothing."""
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
def _lease(runs: list[Launched]) -> Iterator[list[Launched]]:
    """Reserve the asking after rows of one machine for this caller; yields those it got, and frees them at the end.

    The lease is renewed by a thread while the block is executed.
    """
    now = timezone.now()
    # The random microseconds tell this lease from any other, so one statement suffices for all rows.
    until = now + timedelta(seconds=LEASE, microseconds=secrets.randbelow(1_000_000))
    rows = type(runs[0]).objects.active()
    wanted = rows.filter(pk__in=[run.pk for run in runs])
    # No lease is that long: one that ends later was made before the clock jumped.
    longest = now + timedelta(seconds=max(LEASE, RETRY_UNREACHABLE, settings.RUNNERS_PROBE_TIMEOUT) + 2)
    is_free = Q(probing_until=None) | Q(probing_until__lt=now) | Q(probing_until__gt=longest)
    # Who read a row before another's look was stored has that look's answer to read, and no reason to ask again.
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
    """Moves the end of a lease ahead until `end` is called. It opens no connection unless the asking takes long."""

    def __init__(self, model: type[RunnerRun] | type[Operation], keys: set[int], until: datetime) -> None:
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
            ) as error:  # then the lease ends early, and the machine is asked twice
                logger.warning("The lease of %s rows cannot be renewed: %s", len(self._keys), error)
                break
            self.until = until
        connection.close()

    def end(self) -> None:
        self._is_over.set()
        self.join()


def _set(run: RunnerRun | Operation, among: QuerySet[Any] | None = None, **changes: object) -> bool:
    """Update an ACTIVE row (one of `among`, if they are given); when it is not any more, load what it became.

    Either way `run` is true afterwards.
    """
    rows = type(run).objects.active().filter(pk=run.pk)
    done = bool((rows if among is None else rows & among).update(**changes))
    if done:
        for name, value in changes.items():
            setattr(run, name, value)
    else:
        run.refresh_from_db()
    return done
