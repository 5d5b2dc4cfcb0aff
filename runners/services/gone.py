"""Declare that a machine, or a node of this service, is gone for good: what was there ends here, too.

Nobody can probe its runs any more, and nobody can remove its directories. So its active runs are declared ended, their
pending restarts are withdrawn, and the retention stops asking for the directories and removes the rows when they are
old enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Max, QuerySet

from runners.exceptions import (
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyUnknown,
    InvalidRequest,
    MachineInUse,
    MachineNotFound,
    OutcomeUnknown,
    RunnerServiceError,
    RunnerUnreachable,
)
from runners.models import (
    AuditRecord,
    DetachedCommand,
    Heartbeat,
    Machine,
    Maintenance,
    Operation,
    RunnerRun,
    RunReason,
)
from runners.models.operation import OperationStatus
from runners.services import health, lifecycle, machine_list, machine_states, operations, restart_plans, retention
from runners.services.audit import begin
from runners_project import clock

Rows = QuerySet[Any]
LONGEST_REASON = 300  # characters
RECENTLY = timedelta(minutes=1)
_WITHOUT_LOGIN = (AuthenticationFailed, HostKeyChanged, HostKeyUnknown)


@dataclass(slots=True)
class Ended:
    """How many runs and operations were declared ended, restarts withdrawn, and directories given up."""

    runs: int = 0
    operations: int = 0
    restarts: int = 0
    directories: int = 0

    def __str__(self) -> str:
        return (
            f"{self.runs} active runs and {self.operations} operations were declared ended, {self.restarts} restarts "
            f"withdrawn, {self.directories} directories given up."
        )


def forget_machine(*, name: str, reason: str, audit: AuditRecord, login_fails: bool = False) -> Ended:
    """Declare that a machine is gone for good, and remove what the service knows of its state.

    `name`: as /machines shows it. `reason` is stored with each run. `login_fails`: forget it also if the service cannot
    log in there. Raises InvalidRequest, MachineNotFound, and MachineInUse if a profile leads there, if the machine
    answers, or if it is not certain that it does not answer.
    """
    note = _note(f"The machine {name} is gone for good", reason)
    audit.detail = f"{name}: {reason}"
    groups = list(_of_machine(name))
    if not groups and name not in {machine_list.LOCALHOST, *_known()}:
        raise MachineNotFound(f"{name}: no row of this service is of this machine. Known are: {', '.join(_known())}.")
    if name == machine_list.LOCALHOST:
        raise InvalidRequest("localhost is the machine of a node of this service: use forget_node NAME.")
    if profiles := machine_list.profiles_leading_to(name):
        raise MachineInUse(
            f"{name} cannot be forgotten: the profiles {', '.join(profiles[:10])} lead there. Delete or change them "
            "first."
        )
    seen = Machine.objects.filter(name=name, last_answer__gt=clock.now() - RECENTLY).first()
    if seen:  # this node may lack a key that another node has, so `login_fails` does not matter
        raise MachineInUse(f"{name} has answered this node or another one within the last minute. Try again later.")
    for rows in groups:
        _require_silent(rows, name, login_fails)
    begin(audit)
    ended = Ended()
    for rows in groups:
        _end(rows, note, ended)
    machine_states.store()  # what this process has just noted, so that nothing is stored afterwards
    machine_states.forget(name)
    for row in Maintenance.objects.filter(machine=name):
        row.delete()
    return ended


def forget_node(*, name: str, reason: str, audit: AuditRecord) -> Ended:
    """Declare that a node of this service is gone for good, with its LOCAL runs and operations.

    Raises InvalidRequest, MachineNotFound, and MachineInUse if a process of the node is alive, or if this is the node.
    """
    if not name:  # all commands over SSH have an empty node
        raise InvalidRequest("Give the name of the node, as /readyz shows it.")
    note = _note(f"The node {name} of this service is gone for good", reason)
    audit.detail = f"{name}: {reason}"
    if name == settings.RUNNERS_NODE:
        raise MachineInUse(
            f"This command runs on the node {name}, so it is not gone. If its disk was replaced, start its worker: "
            "it settles the runs whose directories are missing."
        )
    groups = [rows for model in retention.MODELS if (rows := model._default_manager.filter(node=name)).exists()]
    beats = Heartbeat.objects.filter(node=name)  # of its workers and servers
    if not groups and not beats.exists():
        known = sorted({*RunnerRun.objects.exclude(node="").order_by().values_list("node", flat=True).distinct()})
        raise MachineNotFound(
            f"No LOCAL run, worker or server is of the node {name}. Known are: {', '.join(known[:20])}."
        )
    now = clock.now()
    for beat in beats:
        if not beat.is_late(now):
            age = (now - beat.seen).total_seconds()
            what = "server" if beat.kind == health.SERVER else "worker"
            raise MachineInUse(
                f"A {what} of the node {name} was seen {age:.0f} s ago, so it is not gone. Stop the {what}. Its "
                f"heartbeat expires {beat.lifetime.total_seconds():.0f} s after the last one."
            )
    begin(audit)
    ended = Ended()
    for rows in groups:
        _end(rows, note, ended)
    beats.delete()
    return ended


def _note(what: str, reason: str) -> str:
    words = " ".join(reason.split())
    if not words or len(words) > LONGEST_REASON or not words.isprintable():
        raise InvalidRequest(f"Give a reason of 1 to {LONGEST_REASON} printable characters.")
    return f"{what}: {words}"


def _known() -> list[str]:
    found = {machine_list.machine_of(row) for _, row in _samples()}
    return sorted(found - {"", machine_list.LOCALHOST})[:20]


def _samples() -> Iterator[tuple[Rows, DetachedCommand]]:
    """Yield the rows of each account of each machine, and the newest of them."""
    for model in retention.MODELS:
        rows = model._default_manager.all()
        for group in rows.order_by().values("machine").annotate(newest=Max("pk")):
            yield rows.filter(machine=group["machine"]), rows.get(pk=group["newest"])


def _of_machine(name: str) -> Iterator[Rows]:
    for rows, newest in _samples():
        if newest.machine and machine_list.machine_of(newest) == name:
            yield rows


def _require_silent(rows: Rows, name: str, login_fails: bool) -> None:
    """Raise MachineInUse unless an attempt to connect was made, and nothing answered.

    If the machine answers, its runs can be stopped, and its directories removed.
    """
    newest = rows.latest("pk")
    try:
        lifecycle.runner_of(newest).execute("true", timeout=settings.RUNNERS_PROBE_TIMEOUT)
    except _WITHOUT_LOGIN as error:
        if login_fails:
            return
        raise MachineInUse(
            f"It is not certain that the runs on {name} have ended: {error.detail} Repair the login and stop them. If "
            "the account is gone, or if the address belongs to another machine now, repeat the command with "
            "--even-if-login-fails."
        ) from error
    except RunnerServiceError as error:
        if type(error) is RunnerUnreachable:  # its subclasses tell of an answer, or that nobody has asked
            return
        raise MachineInUse(
            f"It is not certain that {name} is gone: {error.detail} Try again, or abandon its runs one by one."
        ) from error
    raise MachineInUse(
        f"{name} has just answered, so it is not gone. Stop its runs, and let clean_runs remove its directories."
    )


def _end(rows: Rows, note: str, ended: Ended) -> None:
    """End what is active, withdraw restarts, and give up the directories."""
    for row in rows.filter(pk__in=rows.model._default_manager.active()):
        if isinstance(row, RunnerRun):
            ended.runs += lifecycle.finish_run(row, reason=RunReason.ABANDONED, confirmed=False, detail=note)
        elif isinstance(row, Operation):
            error = OutcomeUnknown(f"{note}. Nobody can tell what the command did.")
            ended.operations += operations.finish_operation(row, status=OperationStatus.UNKNOWN, error=error)
    if rows.model is RunnerRun:
        for run in rows.filter(restart_at__isnull=False):
            ended.restarts += restart_plans.withdraw(run, f"{note}.")
    now = clock.now()
    left = rows.filter(cleaned_at=None).exclude(pk__in=rows.model._default_manager.active())
    while keys := list(left.order_by("pk").values_list("pk", flat=True)[: retention.DELETE_AT_ONCE]):
        ended.directories += rows.model._default_manager.filter(pk__in=keys).update(cleaned_at=now)
