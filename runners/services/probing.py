"""Probe machines for the states of active runs and operations, and apply the answers.

One round trip asks for all rows of one machine and account. A lease (leases.py) lets one caller probe a row; other
callers use its answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from copy import copy
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, connection
from django.db.models import QuerySet

from runners.exceptions import RunnerUnreachable
from runners.models import DetachedCommand
from runners.services import background, leases, lifecycle, machine_states, run_output, run_progress
from runners.services.machines.answers import Unreadable
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.machines.probe import Probe, cannot_tell
from runners.services.machines.runner import Runner
from runners_project import clock

logger = logging.getLogger(__name__)

MACHINES_AT_ONCE = 8
ROWS_AT_ONCE = 2000  # rows that one round trip probes: their answers stay below RUNNERS_OUTPUT_LIMIT
CHANGED_AT_ONCE = 200  # rows with new output that one statement updates
ENDS_AT_ONCE = 8  # ends of one machine's runs that are stored concurrently; its connections have room for more
# Bounds the threads of this process, for all machines, that store ends concurrently. Each has a database connection.
_HELPERS = threading.BoundedSemaphore(16)
PATIENCE = 1.0  # seconds that a request waits for the result of another caller's probe
NOT_YET = "A probe of its machine is in progress and has no answer yet."
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.1  # seconds between two reads of the row while the request waits


def refresh_if_stale(run: DetachedCommand, *, patient: bool = True) -> None:
    """Update an ACTIVE row unless its machine has confirmed the state within the freshness window.

    The call returns within RUNNERS_STATUS_WAIT. `patient`: as in `refresh`.
    """
    if run.is_active and not lifecycle.is_fresh(run):
        refresh([run], wait=settings.RUNNERS_STATUS_WAIT, patient=patient)


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
        for group in lifecycle.by_target(run for run in runs if run.is_active).values()
        for start in range(0, len(group), ROWS_AT_ONCE)
    ]
    now = time.monotonic()
    until = now + wait if wait is not None else None
    end = now + (PATIENCE if wait is None else min(PATIENCE, wait)) if patient else None
    if len(groups) == 1:
        unanswered = _refresh_machine(groups[0], end=end, until=until)
    else:
        with ThreadPoolExecutor(min(MACHINES_AT_ONCE, len(groups) or 1)) as pool:
            looks = pool.map(partial(_refresh_in_thread, end=end, until=until), groups)
            unanswered = [run for rest in looks for run in rest]
    for run in unanswered:  # only this caller's objects change: nothing is stored
        run.reachable, run.unreachable_detail = False, NOT_YET


def refresh_now(run: DetachedCommand) -> None:
    """Update an ACTIVE row with a state that its machine reports after this call has begun.

    Callers use this before they reject a request because of the run. An older state does not count, unless the machine
    has failed to answer within the last RETRY_UNREACHABLE seconds.
    """
    since, end = clock.now(), time.monotonic() + PATIENCE
    while run.is_active and (run.confirmed_at is None or run.confirmed_at < since):
        if not run.reachable and run.probing_until and run.probing_until > clock.now():
            return
        if time.monotonic() >= end:
            probe([run])
            return
        _refresh_machine([run], end=end)


def _refresh_machine(
    runs: Sequence[DetachedCommand], *, end: float | None = None, until: float | None = None
) -> list[DetachedCommand]:
    """Probe those rows of one machine that no other caller is probing.

    `end` (of `time.monotonic`): wait until then for the answers that other callers get; None: do not wait for them.
    `until`: wait until then for the answer to this call's own probe; None: no limit. Return the rows whose answer this
    call waited for and did not get.
    """
    pause = FIRST_PAUSE
    while True:
        got, late = _probe_leased(runs, until)
        runs = [run for run in runs if run.pk not in got]
        if end is None or late:
            return late
        runs = _unanswered(runs)
        while runs and not any(map(leases.is_free, runs)) and time.monotonic() < end:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            runs = _unanswered(runs)
        if not runs or time.monotonic() >= end:
            return runs


def _refresh_in_thread(
    runs: Sequence[DetachedCommand], *, end: float | None, until: float | None
) -> list[DetachedCommand]:
    try:
        with BULKHEADS.background():  # the thread of the request waits for this one
            return _refresh_machine(runs, end=end, until=until)
    finally:
        connection.close()


def _probe_leased(runs: Sequence[DetachedCommand], until: float | None) -> tuple[set[int], list[DetachedCommand]]:
    """Probe the rows whose lease is free. Return their primary keys, and the rows without an answer by `until`."""
    with ExitStack() as lease:
        got = lease.enter_context(leases.lease(runs))
        if not got:
            return set(), []
        if until is None or connection.in_atomic_block:  # no other thread sees the rows of an open transaction
            probe(got)
            return {run.pk for run in got}, []
        question = _BackgroundProbe(got, lease.pop_all())
        with BULKHEADS.reading(lifecycle.runner_of(got[0]).target, until - time.monotonic()) as seconds:
            is_answered = question.is_answered_within(seconds)
        return {run.pk for run in got}, [] if is_answered else got


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


class _BackgroundProbe:
    """A probe of rows of one machine that continues in the background when its caller has stopped waiting.

    The caller stores an answer that comes in time, unless a row has ended: then the outcome of the run has to be read
    from its machine, too. The background thread stores all other answers. The thread that stores frees the lease.
    """

    def __init__(self, runs: list[Any], lease: ExitStack) -> None:
        self._runs, self._lease = runs, lease
        self._asked = clock.now()
        self._lock = threading.Lock()
        self._answer: tuple[Runner, dict[str, Probe]] | None = None
        self._is_late = False  # the caller has stopped waiting
        self._is_probed, self._is_stored = threading.Event(), threading.Event()

    def is_answered_within(self, seconds: float | None) -> bool:
        """Start the probe and wait `seconds` for it. None: the thread may not wait, so nothing is started.

        Return True if the rows now match what their machine reports.
        """
        if seconds is None or not background.begin(self._probe, name="probe"):
            self._lease.close()
            return False
        end = time.monotonic() + seconds
        self._is_probed.wait(seconds)
        with self._lock:
            self._is_late = self._answer is None
            answer = self._answer if self._is_for_caller else None
        if answer:
            with self._lease:
                _apply_all(self._runs, *answer, self._asked)
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

    def _probe(self) -> None:
        """Probe and store. A lost database is logged: the next probe stores what this one could not."""
        try:
            self._probe_and_store()
        except (DatabaseError, InterfaceError) as error:
            logger.error("The answer of a machine about %s rows was not stored: %s", len(self._runs), error)

    def _probe_and_store(self) -> None:
        with ExitStack() as lease:
            lease.push(self._lease)
            runner = lifecycle.runner_of(self._runs[0])
            answers = _answers_of(runner, self._runs)  # through another node of the service, it needs the database
            with self._lock:
                self._answer = runner, answers
                is_left = self._is_for_caller and not self._is_late
            if is_left:
                lease.pop_all()
            self._is_probed.set()
            if is_left:
                return
            rows = type(self._runs[0]).objects.active().filter(pk__in=[run.pk for run in self._runs])
            if found := list(rows):
                _apply_all(found, runner, answers, self._asked)
        self._is_stored.set()


def probe(runs: Sequence[DetachedCommand]) -> list[Probe]:
    """Probe runs of one machine and apply the answers, even if another caller is probing the same runs.

    If the answer of one row cannot be applied, log the error and apply the other answers.
    """
    asked = clock.now()
    try:
        runner = lifecycle.runner_of(runs[0])
        answers = _answers_of(runner, runs)
    except RunnerUnreachable as error:
        return [_cannot_be_read(run, error.detail) for run in runs]
    return _apply_all(runs, runner, answers, asked)


def _answers_of(runner: Runner, runs: Sequence[DetachedCommand]) -> dict[str, Probe]:
    """Return the machine's answers, by run key.

    Rows whose stored identity cannot be read are not probed: it is unknown which process they mean.
    """
    targets, answers, known = [], {}, []
    for run in runs:
        try:
            targets.append(lifecycle.target_of(run))
            known.append(run)
        except Unreadable as error:
            answers[run.key] = cannot_tell(f"The stored identity of this row cannot be read: {error}")
            if run.unreachable_detail != answers[run.key].detail:  # log it once
                logger.error("%s cannot be probed: %s", run, error)
    if targets:
        targets = run_progress.with_jobs(targets, known)
        answers |= runner.probe(targets, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    return answers


def _apply_all(
    runs: Sequence[DetachedCommand], runner: Runner, answers: dict[str, Probe], asked: datetime
) -> list[Probe]:
    """Apply the answers of one machine to its rows."""
    machine_states.store()
    as_known = [run for run in runs if answers[run.key].answer == Probe.RUNNING and run.identity]
    _confirm_all(as_known, answers, asked)
    silent = [run for run in runs if answers[run.key].answer == Probe.CANNOT_TELL and answers[run.key].was_asked]
    _cannot_tell_all(silent, answers)
    together = {run.pk for run in as_known} | {run.pk for run in silent}
    _apply_each([run for run in runs if run.pk not in together], runner, answers, asked)
    return [answers[run.key] for run in runs]


def _apply_each(runs: Sequence[DetachedCommand], runner: Runner, answers: dict[str, Probe], asked: datetime) -> None:
    """Call `apply` for each row, several concurrently: the end of a run needs a read of its log.

    If an answer cannot be stored, replace it in `answers`.
    """

    def apply_one(run: DetachedCommand) -> None:
        try:
            lifecycle.apply(run, runner, answers[run.key], asked=asked)
        except (DataError, IntegrityError) as error:
            logger.exception("The answer of the machine about %s cannot be stored.", run)
            answers[run.key] = _cannot_be_read(run, f"The answer cannot be stored: {error}")

    waiting = iter(runs)  # of a list, so several threads can take rows from it

    def apply_in_thread() -> None:
        try:
            with BULKHEADS.background():
                for run in waiting:
                    apply_one(run)
        finally:
            connection.close()  # once per thread: opening one costs as much as an end

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
            for future in [pool.submit(apply_in_thread) for _ in range(helpers)]:
                future.result()


def _cannot_be_read(run: DetachedCommand, detail: str) -> Probe:
    answer = cannot_tell(detail)
    lifecycle.mark_unreachable(run, answer.detail)
    return answer


def _confirm_all(runs: Sequence[DetachedCommand], answers: dict[str, Probe], asked: datetime) -> None:
    """Confirm any number of running rows, as `apply` does for one row, and store the states of their logs and jobs.

    This takes one statement for the rows for which nothing has changed, one for up to CHANGED_AT_ONCE others, and a
    transaction for each row that is marked.
    """
    confirmed = {"confirmed_at": asked, "reachable": True, "unreachable_detail": "", "probing_until": None}
    changed = [
        (run, run_output.changes(run, answers[run.key].log, asked) | run_progress.changes(run, answers[run.key].jobs))
        for run in runs
    ]
    _set_all([run for run, changes in changed if not changes], **confirmed)
    changed = [(run, changes) for run, changes in changed if changes]
    if len(changed) == 1:
        _set_all([changed[0][0]], **confirmed, **changed[0][1])
    else:
        _set_each([(run, confirmed | changes) for run, changes in changed])
    for run in runs:
        run_output.mark(run, answers[run.key].log, asked)


def _cannot_tell_all(runs: Sequence[DetachedCommand], answers: dict[str, Probe]) -> None:
    """Store "cannot tell" as `apply` does for one row, with one statement for all rows with the same cause."""
    until = clock.now() + timedelta(seconds=lifecycle.RETRY_UNREACHABLE)
    alike: dict[str, list[DetachedCommand]] = {}
    for run in runs:
        alike.setdefault(answers[run.key].detail, []).append(run)
    for detail, group in alike.items():
        _set_all(group, reachable=False, unreachable_detail=detail, probing_until=until)


def _set_each(changed: Sequence[tuple[DetachedCommand, dict[str, Any]]]) -> None:
    """Do the same as `update_active` for many rows, each with its own changes, in few statements."""
    if not changed:
        return
    columns = sorted({name for _, changes in changed for name in changes})
    wanted = [copy(run) for run, _ in changed]
    for row, (_, changes) in zip(wanted, changed, strict=True):
        for name, value in changes.items():
            setattr(row, name, value)
    updated = type(wanted[0]).objects.active().bulk_update(wanted, columns, batch_size=CHANGED_AT_ONCE)
    is_all = updated == len(wanted)
    still_active = None if is_all else set(_active(wanted).values_list("pk", flat=True))
    for run, changes in changed:
        _set_or_reload(run, changes, still_active)


def _set_all(runs: Sequence[DetachedCommand], **changes: Any) -> None:
    """Do the same as `update_active` in one statement, for rows that all get the same changes."""
    if not runs:
        return
    active = _active(runs)
    is_all = active.update(**changes) == len(runs)
    still_active = None if is_all else set(active.values_list("pk", flat=True))
    for run in runs:
        _set_or_reload(run, changes, still_active)


def _active(runs: Sequence[DetachedCommand]) -> QuerySet[Any]:
    return type(runs[0]).objects.active().filter(pk__in=[run.pk for run in runs])


def _set_or_reload(run: DetachedCommand, changes: dict[str, Any], still_active: set[int] | None) -> None:
    """Let the object match its row. `still_active`: the numbers of the updated rows; None: all were updated."""
    if still_active is not None and run.pk not in still_active:
        run.reload()  # another process has ended it meanwhile
        return
    for name, value in changes.items():
        setattr(run, name, value)
