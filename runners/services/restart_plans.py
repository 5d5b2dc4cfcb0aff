"""Which ended runs are to be started again: what a person has asked for, and what is stored when such a run ends.

restarting.py starts them. This module writes only columns of the run that has ended.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from runners.exceptions import NotRunning
from runners.models import AuditRecord, RunnerRun, RunReason, new_run_key
from runners.services import access
from runners.services.audit import begin
from runners_project import clock

LOST, PLATFORM = "lost", "platform"
CAUSES = {
    LOST: "its machine was rebooted",
    PLATFORM: "Autosubmit gave up because a platform could not be reached",
}
MOST_ATTEMPTS, DEFAULT_ATTEMPTS = 20, 3
LONGEST_DELAY = timedelta(hours=1)
GIVE_UP_AFTER = timedelta(days=7)  # after the end of a run: then nobody expects it to be started again


def delay(restarts: int) -> timedelta:
    """Return how long to wait before the next restart of a run that has had so many: it doubles each time."""
    return min(LONGEST_DELAY, timedelta(seconds=settings.RUNNERS_RESTART_DELAY) * 2 ** min(restarts, 12))


def columns_at_end(run: RunnerRun, cause: str) -> dict[str, Any]:
    """Return what to store with the end of a run. `cause`: one of CAUSES, never_started, or empty for every other end.

    A run that somebody has asked to stop is never started again. A restart that never started is tried again.
    """
    wanted = run.restart if isinstance(run.restart, dict) else {}
    is_wanted = run.restarts > 0 if cause == RunReason.NEVER_STARTED else cause in wanted.get("on", ())
    return pending(run.restarts) if wanted and is_wanted and run.stop_requested_at is None else {}


def pending(restarts: int, *, now: datetime | None = None) -> dict[str, Any]:
    """Return the columns of a pending restart. The key is that of the run to start, so it can be started only once."""
    return {"restart_at": (now or clock.now()) + delay(restarts), "restart_key": new_run_key(), "restart_detail": ""}


def is_pending(run: RunnerRun) -> bool:
    return run.restart_at is not None


def withdraw(run: RunnerRun, detail: str, **where: Any) -> bool:
    """Remove the pending restart of a run, with the reason. Return False if there is none (any more)."""
    rows = RunnerRun.objects.filter(pk=run.pk, restart_at__isnull=False, **where)
    is_done = bool(rows.update(restart_at=None, restart_detail=detail, modified=clock.now()))
    run.refresh_from_db()
    return is_done


def cancel(run: RunnerRun, audit: AuditRecord) -> bool:
    """Cancel the pending restart of a run. Return False if there is none (any more): it may have just been started."""
    begin(audit)
    by = f" by {audit.actor}" if audit.actor else ""
    return withdraw(run, f"The restart was cancelled{by}.")


def cancel_restart(*, pk: int, audit: AuditRecord, viewer: Any) -> RunnerRun:
    """Cancel the pending restart of a run, as `viewer`. Raises RunNotFound, ProfileForbidden, NotRunning."""
    run = access.visible_run(pk, viewer)
    audit.of_run(run)
    access.require_stop(viewer, run)
    with transaction.atomic():
        is_done = cancel(run, audit)
    if not is_done:
        raise NotRunning(f"Run {pk} of {run.expid} has no pending restart.", run=run)
    return run
