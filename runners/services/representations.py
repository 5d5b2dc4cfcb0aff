"""The fields of a run in the form that clients and webhook receivers see."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from runners.models import RunnerRun

COUNTS = ("total", "done", "failed", "running")  # of `progress`


def iso_time(value: datetime | None) -> str | None:
    """Format a time as ISO 8601 with offset, in whole seconds."""
    return value.isoformat(timespec="seconds") if value else None


def progress_fields(run: RunnerRun) -> dict[str, Any] | None:
    """Return the counts of the jobs at the last look; None if they are not known."""
    stored = run.progress if isinstance(run.progress, dict) else {}
    values = [stored.get(name) for name in COUNTS]
    if not all(isinstance(value, int) for value in values):  # not known, or somebody has changed the row
        return None
    names = stored.get("failed_jobs")
    known = names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []
    return {**dict(zip(COUNTS, values, strict=True)), "failed_jobs": known}


def restart_fields(run: RunnerRun) -> dict[str, Any] | None:
    """Return the member `restart` of a run; None if it is never started again."""
    if not isinstance(run.restart, dict):
        return None
    return {
        "on": run.restart.get("on", []),
        "attempts": run.restart.get("attempts", 0),
        "used": run.restarts,
        "next_at": iso_time(run.restart_at),
        "detail": run.restart_detail,
    }


def run_fields(run: RunnerRun) -> dict[str, Any]:
    """Return the members of `RunSerializer` (a test compares them). The first nine are those of the Autosubmit API."""
    return {
        "expid": run.expid,
        "runner_id": run.pk,
        "runner": run.runner,
        "module_loader": run.module_loader,
        "modules": run.modules,
        "status": run.status,
        "pid": run.pid,
        "created": iso_time(run.created),
        "modified": iso_time(run.modified),
        "exit_code": run.exit_code,
        "signal": run.signal,
        "reason": run.reason,
        "host": run.host,
        "user": run.user,
        "profile_name": run.profile_name,
        "installation": run.installation,
        "started_by": run.started_by,
        "stopped_by": run.stopped_by,
        "finished": iso_time(run.finished),
        "confirmed_at": iso_time(run.confirmed_at),
        "reachable": run.reachable,
        "unreachable_detail": run.unreachable_detail,
        "explanation": run.detail,
        "jobs": run.jobs,
        "superseded": run.superseded,
        "command_params": run.command_params or {},
        "previous_run": run.previous_run,
        "restart": restart_fields(run),
        "progress": progress_fields(run),
        "last_output_at": iso_time(run.last_output_at),
        "log_size": run.log_size,
        "silent_since": iso_time(run.silent_since),
        "log_too_large": run.log_too_large,
    }
