"""Runs of experiments that this service has not started: remember where one was seen, and end it when asked to.

A search is a part of each launch (scripts/launch.sh), and of a stop that finds no run of this service. The last process
that was seen for an experiment is stored, so that a status can tell of it without asking a machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from django.conf import settings

from profiles.accounts import person_of
from profiles.config import RunnerConfig
from profiles.exceptions import ForbiddenParameter, InvalidProfile
from profiles.models import RunnerProfile
from runners.exceptions import (
    CommandTimedOut,
    ForeignRun,
    InvalidRequest,
    NotRunning,
    OutcomeUnknown,
    RunnerServiceError,
    RunnerUnreachable,
    StopNotConfirmed,
)
from runners.models import AuditRecord, RunnerRun, SeenForeignRun
from runners.services import access, lifecycle, lookup
from runners.services.audit import begin
from runners.services.cancelling import NOT_REQUESTED, Cancellation, cancel
from runners.services.lookup import Scope
from runners.services.machines import foreign
from runners.services.machines.answers import Unreadable
from runners.services.machines.foreign import Answer
from runners.services.machines.foreign_process import ForeignProcess, Search
from runners.services.machines.registry import get_runner
from runners.services.machines.runner import Runner
from runners_project import clock

POLL = 0.5  # seconds between two looks at a process that was signalled
KEPT = timedelta(days=7)  # how long a status reports a process after it was seen
CACHE_AGE = 1.0  # seconds for which a process of the service caches the stored ones, because every status needs them
Step = dict[str, Any]  # as in stopping.py

_cache: tuple[float, dict[str, list[SeenForeignRun]]] | None = None


# --- search and remember ----------------------------------------------------------------------------------------------


def search_of(expid: str, *, but: RunnerRun | None = None) -> Search:
    """Return what to search for: runs of `expid` that are no active runs of this service, on whatever machine.

    `but`: a run that is just being started, so it has no process yet.
    """
    known = []
    for run in RunnerRun.objects.active().filter(expid=expid).only("key", "identity"):
        if run == but:
            continue
        try:
            identity = lifecycle.identity_of(run)
        except Unreadable:
            identity = None
        known.append(f"{identity.pid}.{identity.start}" if identity else run.key)
    return Search(expid, tuple(known))


def remember(expid: str, config: RunnerConfig, profile_name: str, processes: list[ForeignProcess]) -> None:
    """Store the first process that was seen; without one, forget what was stored."""
    global _cache
    _cache = None
    rows = SeenForeignRun.objects.filter(expid=expid, installation=config.installation)
    SeenForeignRun.objects.filter(seen_at__lt=clock.now() - KEPT).delete()
    if not processes:
        rows.delete()
        return
    first = processes[0]
    SeenForeignRun.objects.update_or_create(
        expid=expid,
        installation=config.installation,
        defaults={
            "profile_name": profile_name,
            "profile_id": config.profile_id,
            "host": first.host,
            "user": config.target.user,
            "pid": first.pid,
            "since": first.since,
            "command": first.command,
            "seen_at": clock.now(),
        },
    )


def seen(expid: str, viewer: Any, *, run: RunnerRun | None = None, scope: Scope | None = None) -> dict[str, Any] | None:
    """Return the facts of the foreign run that was last seen for an experiment; None if none was. No machine is asked.

    `run`: the last run of this service. A process that was seen before that run began does not count.
    """
    found = _stored().get(expid, ())
    for row in found:
        if run is not None and (row.installation != run.installation or run.is_active or row.seen_at < run.created):
            continue
        if run is None and scope is not None and not scope.matches(row):
            continue
        if access.may_see(viewer, row):
            return row.as_dict()
    return None


def last_seen(expid: str, viewer: Any) -> dict[str, Any] | None:
    """Return the same as `seen`, for the last run that `viewer` may see, if there is one."""
    return seen(expid, viewer, run=lookup.last(expid, viewer))


def _stored() -> dict[str, list[SeenForeignRun]]:
    global _cache
    now = time.monotonic()
    if _cache is None or now - _cache[0] > CACHE_AGE:
        rows: dict[str, list[SeenForeignRun]] = {}
        for row in SeenForeignRun.objects.filter(seen_at__gte=clock.now() - KEPT).order_by("-seen_at"):
            rows.setdefault(row.expid, []).append(row)
        _cache = now, rows
    return _cache[1]


def require_none(expid: str, place: Place) -> None:
    """Raise ForeignRun if the machine sees a run of the experiment that this service has not started.

    A machine that cannot be asked proves nothing, so then nothing is raised.
    """
    runner = get_runner(place.config)
    try:
        processes = foreign.look(runner, search_of(expid))
    except RunnerServiceError:
        return
    remember(expid, place.config, place.profile_name, processes)
    if processes:
        raise ForeignRun(expid, runner.where, processes)


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look for a foreign run: a configuration, and the name of its profile. `run`: the last run there."""

    config: RunnerConfig
    profile_name: str
    run: RunnerRun | None = None


def _place(run: RunnerRun) -> Place:
    return Place(replace(lifecycle.runner_of(run).config, profile_id=run.profile_id), run.profile_name, run)


def place_of_run(run: RunnerRun, viewer: Any) -> Place | None:
    """Return the place of a run; None if `viewer` may not stop it, or if its configuration cannot be read."""
    if not access.user_may_stop(viewer, run) or not lifecycle.is_readable(run):
        return None
    return _place(run)


def place_seen(expid: str, viewer: Any) -> Place:
    """Return where the foreign run of an experiment was seen. Raises the errors of `place_to_stop`.

    The account of a profile that leaves it open is not stored: then the last run of this service tells it.
    """
    row = next((row for row in _stored().get(expid, ()) if access.may_see(viewer, row)), None)
    profile = row and RunnerProfile.objects.filter(pk=row.profile_id or 0, enabled=True).first()
    if row and profile:
        access.require(viewer, profile, access.Action.STOP)
        for params in ({}, {"SSH": {"USER": row.user}}):
            with suppress(InvalidProfile, ForbiddenParameter):
                config = profile.resolve(params, person_of(viewer))
                if config.target.user == row.user:
                    return Place(config, profile.name, lookup.last(expid, viewer))
    return place_to_stop(expid, viewer, None, None)


def place_to_stop(expid: str, viewer: Any, scope: Scope | None, place: Place | None) -> Place:
    """Return where a stop with `foreign` has to look: the given place, else that of the last run.

    Raises InvalidRequest if there is neither, ProfileForbidden if `viewer` may not stop the last run.
    """
    run = lookup.last(expid, viewer, scope)
    if place:
        return replace(place, run=run)
    if run is None:
        sentence = f"Required with foreign, because this service has no run of experiment {expid}."
        raise InvalidRequest(f"profile_name: {sentence}", {"profile_name": [sentence]})
    access.require_stop(viewer, run)
    return _place(run)


# --- stop -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ForeignStopOutcome:
    """The result of a stop. `process`: the first one that was ended. `steps`: as in `StopOutcome`."""

    expid: str
    process: ForeignProcess
    message: str
    steps: list[Step] = field(default_factory=list)
    cancellation: Cancellation | None = None
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "message": self.message,
            "expid": self.expid,
            "foreign": self.process.as_dict(),
            "steps": self.steps,
            "cancel": self.cancellation.as_dict() if self.cancellation else NOT_REQUESTED,
            "warnings": self.warnings,
        }


def find(expid: str, place: Place) -> list[ForeignProcess]:
    """Return the processes that a stop would end. Raises NotRunning if none is seen, and the errors of `look`."""
    runner, run = get_runner(place.config), place.run
    processes = foreign.look(runner, search_of(expid))
    remember(expid, place.config, place.profile_name, processes)
    if not processes:
        own = f" Run {run.pk} of this service is {run.status}." if run else ""
        raise NotRunning(
            f"No process on {runner.where} that this service has not started runs experiment {expid}. Processes in "
            f"containers, of other accounts and on other nodes behind the same address are not visible there.{own}",
            run=run,
        )
    return processes


def plan_argv(process: ForeignProcess, *, force: bool) -> list[str]:
    """Return the first step of a stop as a command line, for people."""
    return ["kill", "-s", "KILL" if force else "INT", str(process.pid)]


def stop(
    *, expid: str, place: Place, audit: AuditRecord, force: bool = False, cancel_jobs: bool = False
) -> ForeignStopOutcome:
    """End the runs of an experiment that this service has not started, and return after their end was seen.

    INT, TERM and KILL, each with its own wait; with `force`, KILL at once. Before each signal the machine checks that
    the process is the same (pid, start time, boot) and still executes the run. With `cancel_jobs`, Autosubmit then
    cancels the jobs. The caller has checked that the person may do this (`place_to_stop`).
    Raises NotRunning, RunnerUnreachable (nothing was sent), OutcomeUnknown, StopNotConfirmed.
    """
    runner = get_runner(place.config)
    runner.admit()
    begin(audit)
    processes = find(expid, place)
    audit.profile_name, audit.profile_id = place.profile_name, place.config.profile_id
    audit.argv = plan_argv(processes[0], force=force)
    audit.detail = f"not started by this service: {foreign.described(processes)}"
    ended = _Stop(runner, expid)
    for process in processes:
        ended.end(process, ("KILL",) if force else ("INT", "TERM", "KILL"))
    remember(expid, place.config, place.profile_name, [])
    first = processes[0]
    outcome = ForeignStopOutcome(expid, first, f"Experiment {expid} stopped successfully.", ended.steps)
    if ended.last_signal in ("TERM", "KILL"):
        outcome.warnings.append(
            f"Autosubmit was ended by {ended.last_signal}: if it was submitting a job, the job is not in the job "
            f"list and may still run. Check the platform."
        )
    if cancel_jobs:
        _cancel(outcome, runner)
    return outcome


def _cancel(outcome: ForeignStopOutcome, runner: Runner) -> None:
    start = time.monotonic()
    try:
        outcome.cancellation = cancel(outcome.expid, runner)
    except RunnerUnreachable as error:
        outcome.cancellation = Cancellation(failure=f"Nothing was cancelled: {error.detail}")
    done = outcome.cancellation
    outcome.steps.append(
        {
            "action": "autosubmit stop --cancel",
            "outcome": f"{done.outcome}: {done.detail}",
            "seconds": round(time.monotonic() - start, 1),
            "ended": True,
        }
    )
    outcome.warnings += done.warnings
    if not done.is_complete:
        outcome.message = f"Experiment {outcome.expid} stopped, but its jobs may go on."


class _Stop:
    """The steps that end processes."""

    def __init__(self, runner: Runner, expid: str) -> None:
        self.runner, self.expid = runner, expid
        self.steps: list[Step] = []
        self.last_signal = ""
        self.may_be_sent = False

    def end(self, process: ForeignProcess, signals: tuple[str, ...]) -> None:
        """Send one signal after the other until the end of the process was seen. Raises the errors of `stop`."""
        runner = self.runner.at_node(process.host)
        waits = {  # Autosubmit takes as long to end after an INT as after `autosubmit stop`, which sends one
            "INT": settings.RUNNERS_STOP_TIMEOUT,
            "TERM": settings.RUNNERS_TERM_WAIT,
            "KILL": settings.RUNNERS_KILL_WAIT,
        }
        for name in signals:
            wait = waits[name]
            with self._step(f"signal {name}") as step:
                answer = self._send(runner, process, name, step)
                deadline = time.monotonic() + wait
                while answer == Answer.ALIVE and time.monotonic() < deadline:
                    time.sleep(POLL)
                    answer = self._send(runner, process, "", step)
                if answer == Answer.CHANGED:
                    raise OutcomeUnknown(
                        f"Process {process.pid} on {process.host} no longer has the arguments of `autosubmit run "
                        f"{self.expid}`, so it gets no signal. It is not known whether the run has ended."
                    )
                step["ended"] = answer == Answer.GONE
            if step["ended"]:
                return
        raise StopNotConfirmed(
            f"Process {process.pid} on {process.host} still runs experiment {self.expid} after every step of the stop. "
            f"It may be blocked by a disk or a network file system. Stop it again later, "
            "or contact the administrators of the machine.",
            steps=self.steps,
        )

    def _send(self, runner: Runner, process: ForeignProcess, name: str, step: Step) -> str:
        try:
            answer = foreign.signal(runner, process, self.expid, name)
        except CommandTimedOut as error:  # the next look finds out
            self.may_be_sent = self.may_be_sent or bool(name)
            step["outcome"] = error.detail
            return Answer.ALIVE
        if name:
            self.may_be_sent = True
            self.last_signal = name
            step["outcome"] = f"sent to process {process.pid}"
        return answer

    @contextmanager
    def _step(self, action: str) -> Iterator[Step]:
        step: Step = {"action": action, "outcome": "", "seconds": None, "ended": False}
        self.steps.append(step)
        start = time.monotonic()
        try:
            yield step
        except RunnerServiceError as error:
            step["outcome"] = error.detail
            step["seconds"] = round(time.monotonic() - start, 1)
            if self.may_be_sent and isinstance(error, RunnerUnreachable):
                raise OutcomeUnknown(
                    f"The stop had begun, but it is not known whether the run has ended: {error.detail}",
                    steps=self.steps,
                ) from error
            error.facts["steps"] = self.steps
            raise
        finally:
            step["seconds"] = round(time.monotonic() - start, 1)
