"""The maintenance of a machine: while it applies, the service refuses commands there, with the text of the admin.

Refused are runs and all other commands that change something: `require_none` is called by the use cases. Reading,
stopping, cancelling jobs and the connection test are allowed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from math import ceil
from typing import Any

from profiles.config import RunnerConfig
from runners.exceptions import InvalidRequest, MachineInMaintenance, MaintenanceNotFound
from runners.models import AuditRecord, Maintenance
from runners.models.machine import MAX_TEXT
from runners.services.audit import begin
from runners_project import clock

# Times at the edge of the range of `datetime` do not exist in every time zone.
EARLIEST, TOO_LATE = datetime(1970, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)
MOST_ANNOUNCED = 100  # of one machine, that are not over


def require_none(config: RunnerConfig) -> None:
    """Raise MachineInMaintenance if a maintenance of the machine of `config` applies now."""
    if found := current(config.target.machine):
        raise MachineInMaintenance(f"{sentence(found)} Nothing was started.", **facts(found))


def warnings_for(config: RunnerConfig) -> list[str]:
    """Return a warning for a dry run if the command itself would be refused now."""
    found = current(config.target.machine)
    return [f"{sentence(found)} The command would be refused now."] if found else []


def current(machine: str) -> Maintenance | None:
    """Return the maintenance of a machine that applies now: the one that ends last. None: there is none."""
    found = list(Maintenance.objects.now().filter(machine=machine))
    return max(found, key=lambda each: (each.ends is None, each.ends or each.starts), default=None)


def announced(machines: Iterable[str] | None = None) -> dict[str, list[Maintenance]]:
    """Return the announcements that are not over, by machine, the first to start first. None: of all machines."""
    rows = Maintenance.objects.not_over().order_by("starts", "id")
    if machines is not None:
        rows = rows.filter(machine__in=list(machines))
    found: dict[str, list[Maintenance]] = {}
    for row in rows:
        found.setdefault(row.machine, []).append(row)
    return found


def sentence(found: Maintenance) -> str:
    """Return the announcement in words."""
    until = f"until {found.ends:%Y-%m-%d %H:%M %Z}" if found.ends else "until an admin ends it"
    what = "The machine of this service" if found.machine == "localhost" else found.machine
    text = found.text.rstrip()
    return f"{what} is in maintenance {until}: {text}{'' if text.endswith(('.', '!', '?')) else '.'}"


def facts(found: Maintenance) -> dict[str, Any]:
    """Return the facts of MachineInMaintenance."""
    known: dict[str, Any] = {"maintenance": fields_of(found)}
    if found.ends:
        known["retry_after"] = max(1, ceil((found.ends - clock.now()).total_seconds()))
    return known


def fields_of(found: Maintenance) -> dict[str, Any]:
    """Return the members of an announcement in answers."""
    return {
        "id": found.pk,
        "machine": found.machine,
        "text": found.text,
        "starts": found.starts.isoformat(timespec="seconds"),
        "ends": found.ends.isoformat(timespec="seconds") if found.ends else None,
        "announced_by": found.announced_by,
    }


def announce(
    *, machine: str, text: str, starts: datetime | None, ends: datetime | None, audit: AuditRecord
) -> Maintenance:
    """Announce a maintenance of a machine. `starts`: None: now. `ends`: None: until an admin ends it.

    The caller checks that the service knows the machine and that the person may do this. Raises InvalidRequest.
    """
    row = Maintenance(machine=machine, text=text.strip(), starts=starts or clock.now(), ends=ends)
    row.announced_by = audit.actor
    if errors := mistakes_in(row):
        raise InvalidRequest(" ".join(f"{name}: {words[0]}" for name, words in errors.items()), errors)
    if Maintenance.objects.not_over().filter(machine=machine).count() >= MOST_ANNOUNCED:
        raise InvalidRequest(f"{machine} has {MOST_ANNOUNCED} announcements already. End some of them first.")
    audit.detail = str(row)
    begin(audit)
    row.save(force_insert=True)
    return row


def mistakes_in(row: Maintenance) -> dict[str, list[str]]:
    """Return the errors of an announcement, by field."""
    errors: dict[str, list[str]] = {}
    if not row.text.strip():
        errors["text"] = ["Say why, and until when or whom to ask."]
    elif len(row.text) > MAX_TEXT:
        errors["text"] = [f"Give at most {MAX_TEXT} characters."]
    for name, moment in (("starts", row.starts), ("ends", row.ends)):
        if moment and not EARLIEST <= moment < TOO_LATE:
            errors[name] = ["Give a time in the years 1970 to 2999."]
    if "ends" in errors:
        return errors
    if row.ends and row.starts and row.ends <= row.starts:
        errors["ends"] = ["Give a time after the start."]
    elif row.ends and row.ends <= clock.now():
        errors["ends"] = ["Give a time in the future."]
    return errors


def end(*, pk: int, machine: str, audit: AuditRecord) -> Maintenance:
    """End a maintenance, or withdraw one that has not begun. Its row is deleted. Raises MaintenanceNotFound."""
    row = Maintenance.objects.filter(pk=pk, machine=machine).first()
    if row is None:
        raise MaintenanceNotFound(f"Maintenance {pk} of {machine} does not exist any more.")
    audit.detail = str(row)
    begin(audit)
    row.delete()
    return row
