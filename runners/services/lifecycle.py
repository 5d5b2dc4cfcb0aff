"""The states of a run and the only ways from one to another.

ACTIVE rows are compared with what their machines say. Every change is a compare-and-set on the row (`status` still
ACTIVE), so any number of processes may look at once and exactly one of them ends a run.

Asking, leasing and confirming serve every model of detached commands (`Launched`); what an end means is each model's
own: `settle`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import singledispatch
from typing import TypeVar

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from runners.exceptions import CommandFailed, NotRunning, RunnerServiceError, StillReachable
from runners.models import RunnerRun, RunReason, RunStatus
from runners.models_operations import Operation
from runners.services import autosubmit, webhooks
from runners.services.output import last_lines, plain_text
from runners.services.probe import Identity, Probe, ProbeTarget
from runners.services.runners import Runner, get_runner

logger = logging.getLogger(__name__)

END_OF_LOG = 16_384  # bytes of a log in which Autosubmit says that all is done, or where it was interrupted
LAST_WORDS = 4096  # bytes of a log that are looked at for the last words of a failed run
RETRY_UNREACHABLE = 5  # seconds before a machine that could not tell is asked again for a status
MACHINES_AT_ONCE = 8
LAUNCH_GRACE = 30  # seconds beyond RUNNERS_LAUNCH_TIMEOUT after which no launch can still be under way

Launched = TypeVar("Launched", RunnerRun, Operation)  # rows of commands that were launched; one call takes one kind


def confirm_running(run: RunnerRun | Operation, identity: Identity) -> None:
    """Store which process the run is."""
    now = timezone.now()
    _set(
        run,
        identity=identity.as_dict(),
        pid=identity.pid,
        host=identity.host,
        confirmed_at=now,
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
) -> bool:
    """End a run: COMPLETED without a reason, else TERMINATED. False: another process ended it first."""
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
        "probing_until": None,
    }
    if confirmed:
        changes |= {"confirmed_at": now, "reachable": True, "unreachable_detail": ""}
    with transaction.atomic():  # the messages about the end are written with it, or neither is
        is_first = _set(run, **changes)
        if is_first:
            webhooks.run_ended(run)
    return is_first


def refresh(runs: Iterable[Launched]) -> None:
    """Bring ACTIVE rows up to what their machines say, with one round trip per machine and account.

    A run that another process is asking after is left alone: what it finds is in the row soon. Never raises for a
    machine. Several machines are asked side by side, so that a slow one does not delay the others.
    """
    groups = list(by_target(_lease([run for run in runs if run.is_active])).values())
    if len(groups) == 1:
        ask(groups[0])
    elif groups:
        with ThreadPoolExecutor(MACHINES_AT_ONCE) as pool:
            list(pool.map(_ask_in_thread, groups))


def by_target(runs: Iterable[Launched]) -> dict[tuple[str, ...], list[Launched]]:
    """Runs by the account of the machine they run in. Those without a readable configuration are logged, left out."""
    groups: dict[tuple[str, ...], list[Launched]] = {}
    for run in runs:
        try:
            target = get_runner(run.runner_config).target
        except (KeyError, TypeError, ValueError):  # somebody has written into the table; the others are not to suffer
            logger.exception("The stored configuration of %s cannot be read: nobody can ask after it.", run)
            continue
        groups.setdefault(target, []).append(run)
    return groups


def ask(runs: list[Launched]) -> list[Probe]:
    """Probe runs of one machine and apply the answers, without regard to who else is asking."""
    runner = get_runner(runs[0].runner_config)
    answers = runner.probe([target_of(run) for run in runs], timeout=settings.RUNNERS_PROBE_TIMEOUT)
    as_known = [run for run in runs if answers[run.key].answer == Probe.RUNNING and run.identity]
    _confirm_all(as_known)
    changed = {run.pk for run in runs} - {run.pk for run in as_known}
    for run in runs:
        if run.pk in changed:
            apply(run, runner, answers[run.key])
    return [answers[run.key] for run in runs]


def _ask_in_thread(runs: list[Launched]) -> None:
    try:
        ask(runs)
    finally:
        connection.close()


def _confirm_all(runs: list[Launched]) -> None:
    """What `apply` does for a running run, for any number of them in one statement."""
    if not runs:
        return
    changes = {"confirmed_at": timezone.now(), "reachable": True, "unreachable_detail": "", "probing_until": None}
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
    return Identity(**run.identity) if run.identity else None


def apply(run: RunnerRun | Operation, runner: Runner, probe: Probe) -> None:
    """Change the row as the machine's answer demands. "Cannot tell" changes nothing but `reachable`."""
    now = timezone.now()
    if probe.answer == Probe.CANNOT_TELL:
        _set(
            run,
            reachable=False,
            unreachable_detail=probe.detail,
            probing_until=now + timedelta(seconds=RETRY_UNREACHABLE),
        )
    elif probe.answer == Probe.RUNNING:
        if run.identity is None and probe.identity:  # we died, or lost the line, between launching and storing
            confirm_running(run, probe.identity)
        else:
            _set(run, confirmed_at=now, reachable=True, unreachable_detail="", probing_until=None)
    elif probe.answer == Probe.STARTING:
        _set(run, reachable=True, unreachable_detail="", probing_until=None)
    else:
        settle(run, runner, probe)


@singledispatch
def settle(row: object, runner: Runner, probe: Probe) -> None:
    """End a row as the machine's answer, one of those that are over, demands. Each model registers its own way."""
    raise TypeError(f"nobody said how a {type(row).__name__} ends")


@settle.register
def _end(run: RunnerRun, runner: Runner, probe: Probe) -> None:
    """COMPLETED: exit code 0 and no stop under way, or a log that proves that all was done before the stop.

    Up to 4.1.16 Autosubmit also ends with exit code 0 after an INT, so during a stop only the log can tell.
    """
    detail = ""
    finished = datetime.fromtimestamp(probe.finished, UTC) if probe.finished else None
    is_stopped = _ended_by_a_stop(run, finished)
    if probe.answer == Probe.ENDED:
        is_completed = probe.exit_code == 0
        if is_stopped:
            try:
                is_completed = autosubmit.is_run_complete(end_of_log(run, runner))
            except CommandFailed:  # there is something else in its place, so it proves nothing
                is_completed = False
            except RunnerServiceError as error:  # the next look reads it
                apply(run, runner, Probe(Probe.CANNOT_TELL, detail=error.detail))
                return
        if is_completed:
            reason = ""
            detail = "It had completed before the stop reached it." if is_stopped else ""
        elif is_stopped or probe.interrupted:
            reason = RunReason.STOPPED
        else:
            reason = RunReason.KILLED if probe.signal else RunReason.FAILED
        if reason and probe.exit_code and not probe.interrupted and not (is_stopped and probe.signal):
            detail = _last_words(run, runner)
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
    )


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


def _last_words(run: RunnerRun, runner: Runner) -> str:
    """The end of a failed run's log. A comfort: if it cannot be had, the end of the run is stored without."""
    try:
        chunk = runner.read_log(run.key, offset=-LAST_WORDS, limit=LAST_WORDS, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    except RunnerServiceError:
        return ""
    return last_lines(chunk.data) if chunk else ""


def _lease(runs: list[Launched]) -> list[Launched]:
    """Reserve the asking after runs for this caller; returns those it got."""
    if not runs:
        return []
    now = timezone.now()
    # The random microseconds tell this lease from any other, so one statement suffices for all runs.
    seconds = settings.RUNNERS_PROBE_TIMEOUT + settings.RUNNERS_CONNECT_TIMEOUT
    until = now + timedelta(seconds=seconds, microseconds=secrets.randbelow(1_000_000))
    wanted = type(runs[0]).objects.active().filter(pk__in=[run.pk for run in runs])
    # No lease is that long: one that ends later was made before the clock jumped.
    longest = now + timedelta(seconds=max(seconds, RETRY_UNREACHABLE) + 2)
    is_free = Q(probing_until=None) | Q(probing_until__lt=now) | Q(probing_until__gt=longest)
    # Who read a row before another's look was stored has that look's answer to read, and no reason to ask again.
    seen = max((run.confirmed_at for run in runs if run.confirmed_at), default=None)
    is_as_read = Q(confirmed_at=None) | Q(confirmed_at__lte=seen) if seen else Q(confirmed_at=None)
    if not wanted.filter(is_free, is_as_read).update(probing_until=until):
        return []
    got = set(wanted.filter(probing_until=until).values_list("pk", flat=True))
    return [run for run in runs if run.pk in got]


def _set(run: RunnerRun | Operation, **changes: object) -> bool:
    """Update an ACTIVE row; when it is not any more, load what it became. Either way `run` is true afterwards."""
    done = bool(type(run).objects.active().filter(pk=run.pk).update(**changes))
    if done:
        for name, value in changes.items():
            setattr(run, name, value)
    else:
        run.refresh_from_db()
    return done
