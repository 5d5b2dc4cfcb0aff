"""The output of running runs: when a run last printed something, how long its log is, and when somebody has to know.

The facts come with the probes (`Probe.log`). The machine computes the age of the last output with its own clock, so the
clock of this service does not decide whether a run is silent.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from runners.models import DetachedCommand, RunnerRun, WebhookEvent
from runners.services import outbox
from runners.services.machines.probe import LogState
from runners_project import clock


def changes(run: DetachedCommand, log: LogState | None, asked: datetime) -> dict[str, Any]:
    """Return the columns that new output changes; empty if there is none. New output ends a silence.

    `asked`: when the machine was asked. Only the size tells that there is new output, so that `last_output_at` does not
    vary with the time that a probe takes.
    """
    if not isinstance(run, RunnerRun) or log is None or log.size == run.log_size:
        return {}
    last_output = max(asked - timedelta(seconds=log.age), run.created) if log.size and log.age is not None else None
    return {"log_size": log.size, "last_output_at": last_output, "silent_since": None}


def at_end(run: RunnerRun, log: LogState | None) -> dict[str, Any]:
    """Return the columns to store with the end of a run. A log that is too large is then told with the end."""
    found = changes(run, log, clock.now())
    return {**found, "log_too_large": True} if log and _is_too_large(log) else found


def mark(run: DetachedCommand, log: LogState | None, asked: datetime) -> None:
    """Mark a running run that is silent, or whose log is too large, and insert the messages about it.

    Each silence and each log is told once: the mark is a compare-and-set. An answer that is older than the row's does
    not count.
    """
    if not isinstance(run, RunnerRun) or log is None or not run.is_active:
        return
    as_seen = RunnerRun.objects.filter(log_size=log.size)
    after = _silent_after(run)
    if after and log.age is not None and log.age >= after and run.silent_since is None:
        since = run.last_output_at or max(asked - timedelta(seconds=log.age), run.created)
        _mark(run, as_seen.filter(silent_since=None), WebhookEvent.SILENT, silent_since=since)
    if _is_too_large(log) and not run.log_too_large:
        _mark(run, as_seen.filter(log_too_large=False), WebhookEvent.LOG_TOO_LARGE, log_too_large=True)


def _mark(run: RunnerRun, among: Any, event: WebhookEvent, **columns: object) -> None:
    with transaction.atomic():
        if run.update_active(among, **columns):
            outbox.tell(run, event)


def _is_too_large(log: LogState) -> bool:
    return 0 < settings.RUNNERS_LOG_SIZE_LIMIT < log.size


def _silent_after(run: RunnerRun) -> int:
    """Return the limit of the profile at the start, in seconds. 0: off, or somebody has changed the stored value."""
    value = run.config.get("SILENT_AFTER", 0) if isinstance(run.config, dict) else 0
    return value if isinstance(value, int) and value > 0 else 0
