"""Start ended runs again whose restart is due (restart_plans.py). Called by the worker.

Any number of workers may do this concurrently, and each may die at any step. A worker first moves `restart_at` into the
future (a compare-and-set), which is its lease. The transaction that inserts the new run also removes the pending
restart. So exactly one run is inserted, and a cancelled restart inserts none. If the worker dies before this
transaction, the restart is due again after the lease. If it dies after it, the new run is ACTIVE, and its probe finds
out whether it started, as after every interrupted launch.

Before a launch the machine has to say that the old run is certainly over. The launch itself looks for other processes
that run the experiment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import transaction

from profiles import parameters
from profiles.accounts import person_of
from profiles.config import RunnerConfig
from profiles.exceptions import ForbiddenParameter, InvalidProfile
from profiles.models import EndpointToggle, RunnerProfile
from runners.commands.run_experiment import RUN_EXPERIMENT
from runners.exceptions import (
    AlreadyRunning,
    CommandFailed,
    CommandTimedOut,
    InvalidRequest,
    OutcomeUnknown,
    RunnerServiceError,
    RunnerUnreachable,
    StoppedDuringLaunch,
)
from runners.models import RunnerRun, RunReason, WebhookEvent
from runners.services import access, audit, lifecycle, maintenance, outbox, restart_plans, starting
from runners.services.machines import leftovers
from runners.services.machines.answers import Unreadable
from runners.services.machines.probe import Probe
from runners_project import clock

logger = logging.getLogger(__name__)

MOST_DUE = 100  # runs that one look at the database finds
LEASE_GRACE = timedelta(seconds=120)  # beyond the longest launch
LOOK_AGAIN = timedelta(minutes=1)  # when it is not certain that the old run is over, or the machine is unreachable


class Refused(Exception):
    """The run will not be started again. The text says why.

    `is_consumed`: the pending restart was removed already, but the machine has then rejected the new run.
    """

    def __init__(self, why: str, *, is_consumed: bool = False) -> None:
        super().__init__(why)
        self.is_consumed = is_consumed


class NotYet(Exception):
    """The run cannot be started again now. The text says why."""


class Withdrawn(Exception):
    """The restart is not pending any more: it was cancelled, or another worker has started the run."""


def due() -> list[RunnerRun]:
    """Return the runs whose restart is due, at most MOST_DUE. Raises DatabaseError, InterfaceError."""
    return list(RunnerRun.objects.filter(restart_at__lte=clock.now()).order_by("restart_at")[:MOST_DUE])


def restart(number: int, report: Callable[[str], None] = lambda words: None) -> None:
    """Start the run with this number again if its restart is due, or store why not. `report` gets a sentence.

    Raises DatabaseError, InterfaceError.
    """
    run = RunnerRun.objects.filter(pk=number, restart_at__lte=clock.now()).first()
    if run is None or not _claim(run):
        return
    try:
        config = _require_allowed(run)
        if found := maintenance.current(config.target.machine):
            raise NotYet(maintenance.sentence(found))
        _require_over(run)
        started = _start(run, config)
    except Refused as error:
        _refuse(run, str(error), is_consumed=error.is_consumed)
        report(f"{run.expid}: run {run.pk} is not started again: {error}")
    except NotYet as error:
        _postpone(run, str(error))
        report(f"{run.expid}: run {run.pk} cannot be started again yet: {error}")
    except Withdrawn:
        run.refresh_from_db()
    else:
        report(f"{run.expid}: run {run.pk} was started again, as run {started}")


def _claim(run: RunnerRun) -> bool:
    """Lease the pending restart. Return False if it is not pending any more, or if another worker has it."""
    until = clock.now() + timedelta(seconds=settings.RUNNERS_LAUNCH_TIMEOUT + 4 * settings.RUNNERS_PROBE_TIMEOUT)
    until += LEASE_GRACE
    mine = RunnerRun.objects.filter(pk=run.pk, restart_at=run.restart_at, restart_key=run.restart_key)
    if not mine.update(restart_at=until):
        return False
    run.restart_at = until
    return True


def _postpone(run: RunnerRun, why: str) -> None:
    mine = RunnerRun.objects.filter(pk=run.pk, restart_at=run.restart_at, restart_key=run.restart_key)
    mine.update(restart_at=clock.now() + LOOK_AGAIN, restart_detail=why)


def _refuse(run: RunnerRun, why: str, *, is_consumed: bool) -> None:
    """Store and tell that the run is not started again."""
    detail = f"Not started again: {why}"
    mine = RunnerRun.objects.filter(pk=run.pk, restart_key=run.restart_key)
    with transaction.atomic():
        if not is_consumed:
            mine = mine.filter(restart_at__isnull=False)
        if mine.update(restart_at=None, restart_detail=detail):
            outbox.tell(run, WebhookEvent.RESTARTED, restarted=False, why=why)


# --- conditions -------------------------------------------------------------------------------------------------------


def _require_allowed(run: RunnerRun) -> RunnerConfig:
    """Return the stored configuration if the person who started the run may start it again now. Raises Refused."""
    now = clock.now()
    wanted = run.restart or {}
    if run.restarts >= wanted.get("attempts", 0):
        raise Refused(f"all {run.restarts} restarts that were asked for were used.")
    if run.finished and now - run.finished > restart_plans.GIVE_UP_AFTER:
        raise Refused(f"the run ended more than {restart_plans.GIVE_UP_AFTER.days} days ago.")
    newer = RunnerRun.objects.filter(expid=run.expid, installation=run.installation, pk__gt=run.pk).first()
    if newer or run.superseded:
        raise Refused(f"run {newer.pk} of the experiment is newer." if newer else "its experiment was deleted.")
    if not EndpointToggle.is_enabled(RUN_EXPERIMENT.toggle.name):
        raise Refused(f"an admin has disabled {RUN_EXPERIMENT.name}.")
    user = _person(run)
    profile = RunnerProfile.objects.filter(pk=run.profile_id or 0).first()
    if profile is None or not profile.enabled:
        raise Refused(f"the profile {run.profile_name} was {'deleted' if profile is None else 'disabled'}.")
    if not access.user_may(user, profile, access.Action.RUN):
        raise Refused(f"{run.started_by or 'nobody'} may not use the profile {profile.name} any more.")
    try:
        stored = lifecycle.runner_of(run).config
        allowed = profile.resolve(_open_params(profile, stored), person_of(user))
    except (ForbiddenParameter, InvalidProfile) as error:
        raise Refused(
            f"the profile {profile.name} does not allow the account or the environment of the run to "
            f"{run.started_by or 'people who are not signed in'} any more: {error}"
        ) from error
    except RunnerUnreachable as error:
        raise Refused(error.detail) from error
    if allowed.target.describe() != stored.target.describe():
        raise Refused(f"the profile {profile.name} now means {allowed.target.describe()}.")
    return replace(stored, target=allowed.target, profile_id=profile.pk)  # log in as the profile says now


def _person(run: RunnerRun) -> Any:
    """Return the user who started the run. Raises Refused if that user is gone or inactive."""
    if not run.started_by:
        if settings.PROTECTION_LEVEL != "NONE":
            raise Refused("nobody was signed in when it was started, and now the service requires credentials.")
        return AnonymousUser()
    user = get_user_model().objects.filter(username=run.started_by).first()
    if user is None or not user.is_active:
        raise Refused(f"the user {run.started_by} {'does not exist' if user is None else 'is not active'} any more.")
    return user


def _open_params(profile: RunnerProfile, stored: RunnerConfig) -> dict[str, Any]:
    """Return the values of the stored configuration for the parameters that the profile leaves open now."""
    known = {path.partition(".")[0] for path in parameters.table()}
    values, _ = parameters.parse({name: value for name, value in stored.as_dict().items() if name in known})
    is_open = {requirement["parameter"] for requirement in parameters.requirements(profile.values())}
    return parameters.nested({path: value for path, value in values.items() if path in is_open})


def _require_over(run: RunnerRun) -> None:
    """Ask the machine whether anything of the run may still live. Raises NotYet unless it certainly does not."""
    try:
        runner = lifecycle.runner_of(run)
        target = lifecycle.target_of(run)
        probe = runner.probe([target], timeout=settings.RUNNERS_PROBE_TIMEOUT)[run.key]
        if not probe.is_over:
            why = probe.detail or "its machine reports that the process of the old run lives"
            raise NotYet(f"it is not certain that the old run is over: {why}")
        identity = lifecycle.identity_of(run)
        if probe.answer in (Probe.REBOOTED, Probe.NEVER_STARTED) or identity is None:
            return
        left = leftovers.look(runner, leftovers.Run(run.expid, identity, [run.key], group=True))
    except RunnerServiceError as error:
        raise NotYet(f"it is not certain that the old run is over: {error.detail}") from error
    except Unreadable as error:
        raise Refused(f"the stored identity of the run cannot be read: {error}") from error
    helpers = [each for each in left if not each.is_job]
    if helpers:
        raise NotYet(f"processes of the old run are still alive: {leftovers.summary(helpers)}")


# --- the start --------------------------------------------------------------------------------------------------------


def _start(run: RunnerRun, config: RunnerConfig) -> int:
    """Start the run again, as the person who started it. Return the number of the new run.

    Raises Refused, NotYet and Withdrawn if no run was inserted.
    """
    key = run.restart_key
    consumed = _Consume(run)
    try:
        with audit.audited(
            endpoint=RUN_EXPERIMENT.name,
            actor=run.started_by,
            expid=run.expid,
            profile_name=run.profile_name,
            is_listed=lambda record: not consumed.is_withdrawn,
            worded=access.detail_for_everybody,
        ) as record:
            record.detail = f"automatic restart {run.restarts + 1} of run {run.pk}"
            return starting.run_experiment(
                expid=run.expid,
                config=config,
                profile_name=run.profile_name,
                audit=record,
                key=key,
                params=RUN_EXPERIMENT.params_of_restart(run.command_params or {}),
                previous_run=run.pk,
                restart=run.restart,
                restarts=run.restarts + 1,
                on_insert=consumed,
            ).pk
    except (AlreadyRunning, InvalidRequest) as error:
        raise Refused(access.detail_for_everybody(error), is_consumed=consumed.is_consumed) from error
    except (RunnerUnreachable, CommandFailed) as error:
        tail = RunnerRun.objects.filter(key=key).first()
        if tail is None:
            raise NotYet(error.detail) from error
        _try_again(tail)
        return tail.pk
    except (OutcomeUnknown, CommandTimedOut, StoppedDuringLaunch) as error:
        tail = RunnerRun.objects.filter(key=key).first()
        if tail is None:
            raise NotYet(error.detail) from error
        return tail.pk


class _Consume:
    """Remove the pending restart of a run in the transaction that inserts the new run.

    Raises Withdrawn if there is none (any more); then `is_withdrawn` is true, else `is_consumed`.
    """

    def __init__(self, run: RunnerRun) -> None:
        self.run = run
        self.is_withdrawn = self.is_consumed = False

    def __call__(self, started: RunnerRun) -> None:
        detail = f"Started again as run {started.pk}."
        mine = RunnerRun.objects.filter(pk=self.run.pk, restart_key=started.key, restart_at__isnull=False)
        if not mine.update(restart_at=None, restart_detail=detail):
            self.is_withdrawn = True
            raise Withdrawn
        self.is_consumed = True
        outbox.tell(started, WebhookEvent.RESTARTED, restarted=True, why=cause_of(self.run))


def cause_of(run: RunnerRun) -> str:
    """Return why a run is started again, in words."""
    if run.reason == RunReason.LOST:
        return restart_plans.CAUSES[restart_plans.LOST]
    if run.reason == RunReason.NEVER_STARTED:
        return "its restart never started"
    return restart_plans.CAUSES[restart_plans.PLATFORM]


def _try_again(tail: RunnerRun) -> None:
    """Let a restart whose launch failed be tried again, as often as was asked for."""
    rows = RunnerRun.objects.filter(pk=tail.pk, reason=RunReason.NEVER_STARTED, stop_requested_at=None)
    rows.update(**restart_plans.pending(tail.restarts))
