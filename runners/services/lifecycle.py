"""The states of runs and operations, and the only transitions between them.

Every change is a compare-and-set on the row (`DetachedCommand.update_active`). So any number of processes may probe a
command concurrently (probing.py), and exactly one of them ends it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from profiles.accounts import accounts_of
from profiles.config import RunnerConfig
from profiles.limits import Limits, is_mapped
from profiles.models import RunnerProfile
from profiles.people import Person
from runners.exceptions import RunnerUnreachable
from runners.models import DetachedCommand, RunnerRun, RunStatus
from runners.services import outbox
from runners.services.machines.answers import Unreadable
from runners.services.machines.probe import Identity, Probe, ProbeTarget
from runners.services.machines.registry import get_runner
from runners.services.machines.runner import Runner
from runners.services.nodes import NodeRunner, is_elsewhere
from runners_project import clock

logger = logging.getLogger(__name__)

RETRY_UNREACHABLE = 5  # seconds before a status request probes a machine again that could not tell
LAUNCH_GRACE = 30  # seconds beyond RUNNERS_LAUNCH_TIMEOUT after which no launch can still be under way

# For each model, the function that ends a row from an answer that says that its command is over. `RunnersConfig.ready`
# fills it in, so that every process has all of them.
FINISH_FROM_PROBE: dict[type[DetachedCommand], Callable[[Any, Runner, Probe], None]] = {}


def confirm_running(run: DetachedCommand, identity: Identity, *, asked: datetime | None = None) -> None:
    """Store the identity of the run's process. `asked`: as in `apply`."""
    now = clock.now()
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


def finish_run(
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
    **columns: object,
) -> bool:
    """End a run: COMPLETED if `reason` is empty, else TERMINATED. `columns`: what else to store with the end.

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
            **columns | {"silent_since": None},
        )
        if is_first:
            outbox.run_ended(run)
    return is_first


def mark_unreachable(run: DetachedCommand, detail: str) -> None:
    """Store that the machine cannot tell the state, and why. The row is not probed for RETRY_UNREACHABLE seconds."""
    until = clock.now() + timedelta(seconds=RETRY_UNREACHABLE)
    run.update_active(reachable=False, unreachable_detail=detail, probing_until=until)


def apply(run: DetachedCommand, runner: Runner, probe: Probe, *, asked: datetime | None = None) -> None:
    """Update the row from the machine's answer. "Cannot tell" changes nothing but `reachable`.

    `asked`: when the probe was sent. The state is confirmed as of that time, not as of the arrival of the answer.
    """
    asked = asked or clock.now()
    if not probe.was_asked:
        run.reachable, run.unreachable_detail = False, probe.detail  # only in this caller's object
    elif probe.answer == Probe.CANNOT_TELL:
        mark_unreachable(run, probe.detail)
    elif probe.answer == Probe.RUNNING:
        # The service died or lost the connection after the launch, before it stored the identity.
        if run.identity is None and probe.identity:
            confirm_running(run, probe.identity, asked=asked)
        else:
            run.update_active(confirmed_at=asked, reachable=True, unreachable_detail="", probing_until=None)
    elif probe.answer == Probe.STARTING:
        run.update_active(confirmed_at=asked, reachable=True, unreachable_detail="", probing_until=None)
    else:
        FINISH_FROM_PROBE[type(run)](run, runner, probe)


def is_fresh(run: DetachedCommand) -> bool:
    """Return True if the machine has confirmed the state recently. So many pollers cost one probe."""
    window = timedelta(seconds=settings.RUNNERS_STATUS_FRESHNESS)
    # A confirmation in the future was stored before the clock jumped.
    return run.reachable and run.confirmed_at is not None and abs(clock.now() - run.confirmed_at) < window


def by_target(runs: Iterable[DetachedCommand]) -> dict[tuple[str, ...], list[DetachedCommand]]:
    """Group runs by `Runner.login` and RUN_DIRECTORY, if there is one: one script has one directory of runs.

    Runs without a readable configuration are logged and left out.
    """
    groups: dict[tuple[str, ...], list[DetachedCommand]] = {}
    for run in runs:
        try:
            runner = runner_of(run)
            directory = runner.config.run_directory
            target = (*runner.login, directory) if directory else runner.login
        except RunnerUnreachable as error:  # somebody has written into the table; other runs must not be affected
            if run.is_active and run.unreachable_detail != error.detail:  # log it once
                logger.error("%s", error.detail)
                run.update_active(reachable=False, unreachable_detail=error.detail)
            continue
        groups.setdefault(target, []).append(run)
    return groups


def runner_of(run: DetachedCommand) -> Runner:
    """Return the runner for a row's machine. Raises RunnerUnreachable if the stored configuration cannot be read.

    If the service logs in for the person who started the command, it may do so until the command has ended, also if
    the person's mapping was removed. After the end the person needs a mapping again.
    """
    try:
        config = run.runner_config
        if config.target.uses_person and not run.is_active and not is_still_mapped(run, config):
            config = replace(config, target=config.target.for_person(""))
        return NodeRunner(config, run.node) if is_elsewhere(run.node) else get_runner(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunnerUnreachable(
            f"The stored configuration of {run} cannot be read ({type(error).__name__}), so its machine is not known. "
            f"An admin has to repair or abandon the run."
        ) from error


def is_still_mapped(run: DetachedCommand, config: RunnerConfig) -> bool:
    """Return True if the account of the command is mapped to the person who started it."""
    name = run.started_by
    profile = RunnerProfile.objects.filter(pk=run.profile_id).first() if run.profile_id else None
    return is_mapped(
        config.target.user, profile.limits if profile else Limits(), Person(name, lambda: accounts_of(name))
    )


def is_readable(run: DetachedCommand) -> bool:
    """Return True if the stored configuration and identity can be read, so that the machine can be probed."""
    try:
        runner_of(run)
        identity_of(run)
    except (RunnerUnreachable, Unreadable):
        return False
    return True


def target_of(run: DetachedCommand) -> ProbeTarget:
    """Return what to probe. After the launch deadline, a run without identity may be reported as never started."""
    age = (clock.now() - run.created).total_seconds()
    is_late = age > settings.RUNNERS_LAUNCH_TIMEOUT + LAUNCH_GRACE
    return ProbeTarget(run.key, identity_of(run), claim=is_late)


def identity_of(run: DetachedCommand) -> Identity | None:
    """Return the stored identity, None if there is none.

    Raises Unreadable if somebody has written something else into the table.
    """
    return Identity.from_dict(run.identity) if run.identity else None


def runner_at_node(run: DetachedCommand, runner: Runner) -> Runner | None:
    """Return the runner for the node of a login alias on which the run was started, if it differs from `runner`."""
    try:
        identity = identity_of(run)
    except Unreadable:
        return None
    node = runner.at_node(identity.host) if identity else runner
    return node if node is not runner else None


def stop_window() -> timedelta:
    """Return the longest time that a stop can take, with all its steps and probes up to their deadlines.

    A run that ends later did not end because of the stop.
    """
    waits = settings.RUNNERS_STOP_TIMEOUT + 2 * settings.RUNNERS_TERM_WAIT + settings.RUNNERS_KILL_WAIT
    return timedelta(seconds=waits + 5 * settings.RUNNERS_PROBE_TIMEOUT)
