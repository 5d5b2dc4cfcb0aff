"""One look at the active runs and operations of one machine. The worker calls it for each machine at its own pace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Count, Q

from runners.models import DetachedCommand, Operation, RunnerRun
from runners.services import lifecycle, machine_list, probing

Row = DetachedCommand
KINDS: dict[str, type[DetachedCommand]] = {"runs": RunnerRun, "operations": Operation}
ASSIGNED_AT_ONCE = 2000  # rows without the name of their machine that one statement reads


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with active rows. `name`: as in `DetachedCommand.machine`; empty: rows that name no machine.

    `node`: the node of the service whose own machine it is; empty for machines that every node reaches.
    `is_silent`: none of its rows could be confirmed at the last look.
    """

    name: str
    node: str
    is_silent: bool


def machines() -> list[Machine]:
    """Return the machines that have active runs or operations. Raises DatabaseError, InterfaceError."""
    found: dict[tuple[str, str], list[int]] = {}
    for model in KINDS.values():
        _name_machines(model)
        rows = model.objects.active().order_by().values_list("machine", "node")
        counted = rows.annotate(all=Count("id"), well=Count("id", filter=Q(reachable=True)))
        for name, node, _, well in counted:
            found.setdefault((name, node), []).append(well)
    return [Machine(name, node, not any(well)) for (name, node), well in found.items()]


def host_of(machine: str, node: str) -> str:
    """Return the host of a machine with active rows, as `models.Machine` names it; empty if it is not known.

    Raises DatabaseError, InterfaceError.
    """
    for model in KINDS.values():
        rows = model.objects.active().filter(machine=machine, node=node).order_by().only("config", "started_by")
        for row in rows[:1]:
            return machine_list.machine_of(row)
    return ""


def _name_machines(model: type[DetachedCommand]) -> None:
    """Name the machine of active rows that an older version of the service has inserted."""
    rows = list(model.objects.active().filter(machine="").order_by("pk")[:ASSIGNED_AT_ONCE])
    names: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        row.name_machine()
        if row.machine:
            names.setdefault((row.machine, row.node), []).append(row.pk)
    with transaction.atomic():
        for (name, node), numbers in names.items():
            model.objects.active().filter(pk__in=numbers).update(machine=name, node=node)


def look(machine: str, node: str, report: Callable[[Row], None], tell: Callable[[str], None]) -> bool | None:
    """Probe the active rows of one machine, with one round trip for runs and one for operations.

    `report` is called with each row that has ended; `tell` with a sentence if reachability has changed.
    Return True if the machine is silent: none of its rows could be confirmed. Return None if none of its rows is active
    any more. Raises DatabaseError, InterfaceError.
    """
    silent = []
    is_over = True
    for kind, model in KINDS.items():
        rows: list[Any] = list(model.objects.active().filter(machine=machine, node=node))
        if rows:
            before = {row.pk: row.reachable for row in rows}
            probing.refresh(rows)
            silent.append(_tell_changes(kind, rows, before, report, tell))
            is_over = is_over and not any(row.is_active for row in rows)
    return None if is_over else all(silent)


def _tell_changes(
    kind: str,
    rows: list[Any],
    before: dict[int, bool],
    report: Callable[[Row], None],
    tell: Callable[[str], None],
) -> bool:
    """Report the rows that have ended, and tell in one line if reachability has changed. Return True if silent."""
    for row in rows:
        if not row.is_active:
            report(row)
    active = [row for row in rows if row.is_active]
    unconfirmed = [row for row in active if not row.reachable]
    was_silent, is_silent = not any(before.values()), bool(active) and len(unconfirmed) == len(active)
    new = [row for row in unconfirmed if before[row.pk]]
    where = _where(rows[0])
    if is_silent and not was_silent:
        tell(f"{where} is unreachable; its {len(active)} {kind} stay active: {active[0].unreachable_detail}")
    elif was_silent and not is_silent and active:
        tell(f"{where} is reachable again; {len(active) - len(unconfirmed)} {kind} were confirmed.")
    elif new and not is_silent:
        names = ", ".join(f"{row.expid} ({row.pk})" for row in new[:10])
        tell(
            f"{len(new)} of the {len(active)} {kind} of {where} cannot be confirmed: {names}: "
            f"{new[0].unreachable_detail}"
        )
    return is_silent


def _where(row: Row) -> str:
    return lifecycle.runner_of(row).where if lifecycle.is_readable(row) else "their machine"
