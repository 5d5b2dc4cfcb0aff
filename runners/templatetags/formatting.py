"""Template filters of the pages, for times, durations and the outcomes of runs and commands."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from profiles.config import RunnerConfig
from runners.models import AuditRecord, DetachedCommand, RunnerRun, RunReason, RunStatus
from runners.services import interrupted
from runners.services.machines import scripts
from runners.web.problems import PROBLEM_TYPES, SERVER_ERROR
from runners_project import clock

register = template.Library()


@register.filter
def exact_time(value: datetime | None) -> str:
    """Format a time as plain text, such as `2026-11-24 03:46:02 UTC`; None gives "". Pages use `local_time`.

    times.js replaces such times in elements with the attribute `data-times`: drawings can have no `<time>` element.
    """
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if value else ""


@register.filter
def iso_time(value: datetime) -> str:
    """Format a time for scripts, such as `2026-11-24T03:46:02+00:00`."""
    return value.isoformat(timespec="seconds")


@register.filter
def local_time(value: datetime | None, precision: str = "second") -> str | SafeString:
    """Format a time in a `<time>` element: `2026-11-24 03:46:02 UTC`. None gives "".

    times.js shows it in the reader's time zone; its tooltip is the time in UTC. `precision`: `second` or `minute`. One
    column has one precision.
    """
    if value is None:
        return ""
    exact = exact_time(value)
    text = f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if precision == "minute" else exact
    return format_html(
        '<time datetime="{}" title="{}" data-local="{}">{}</time>',
        iso_time(value),
        exact,
        precision,
        text,
    )


@register.filter
def iso_local_time(value: str | None) -> str | SafeString:
    """Format a time of an answer of the API, which is ISO 8601 text, like `local_time`. Other text stays as it is."""
    try:
        return local_time(datetime.fromisoformat(value or ""))
    except ValueError:
        return value or ""


@register.filter
def ago(value: datetime | None) -> str | SafeString:
    """Format an age, such as `3 s ago`, in a `<time>` element. times.js updates it; its tooltip is the exact time."""
    if value is None:
        return ""
    exact = iso_time(value)
    words = duration((clock.now() - value).total_seconds())
    return format_html('<time datetime="{}" title="{}" data-ago>{} ago</time>', exact, exact_time(value), words)


@register.filter
def duration(seconds: float | None) -> str:
    """Format a duration in its two largest units: `42 s`, `5 min 3 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole, 60, "min", 1, "s")
    if whole < 86400:
        return _two(whole, 3600, "h", 60, "min")
    return _two(whole, 86400, "d", 3600, "h")


def _two(seconds: int, large: int, large_name: str, small: int, small_name: str) -> str:
    rest = seconds % large // small
    return f"{seconds // large} {large_name}" + (f" {rest} {small_name}" if rest else "")


@register.filter
def lasted(run: RunnerRun) -> str:
    return duration(run.duration())


@register.filter
def tone(run: RunnerRun) -> str:
    """Return the CSS class for the state of a run: active, unsure, completed, stopped, failed, or other (ended)."""
    if run.status == RunStatus.ACTIVE:
        return "active" if run.reachable else "unsure"
    if run.status == RunStatus.COMPLETED:
        return "completed"
    return {RunReason.STOPPED.value: "stopped", RunReason.FAILED.value: "failed"}.get(run.reason, "other")


# The word of the badge for each end that was no success.
BADGES = {
    RunReason.STOPPED: "STOPPED",
    RunReason.FAILED: "FAILED",
    RunReason.KILLED: "KILLED",
    RunReason.LOST: "LOST",
    RunReason.NEVER_STARTED: "NEVER STARTED",
    RunReason.ABANDONED: "DECLARED ENDED",
}


@register.filter
def badge(run: RunnerRun) -> str:
    """Return the word of a run's badge: what became of it, or ACTIVE or UNREACHABLE."""
    if run.status == RunStatus.ACTIVE:
        return "ACTIVE" if run.reachable else "UNREACHABLE"
    if run.status == RunStatus.COMPLETED:
        return "COMPLETED"
    return BADGES[RunReason(run.reason)] if run.reason in RunReason.values else "ENDED"


@register.filter
def wire_words(run: RunnerRun) -> str:
    """Return the words of the API for the state of a run, for the tooltip of its badge."""
    if run.status == RunStatus.ACTIVE:
        return f"status: ACTIVE, reachable: {'true' if run.reachable else 'false'}"
    return f"status: {run.status}" + (f", reason: {run.reason}" if run.reason else "")


@register.filter
def outcome(run: RunnerRun) -> str:
    """Return the state or the outcome of a run, in words."""
    code = f" (exit code {run.exit_code})" if run.exit_code is not None else ""
    by = f" by {run.stopped_by}" if run.stopped_by else ""
    if run.status == RunStatus.ACTIVE:
        if run.stop_steps and run.stop_steps[-1].get("interrupted"):
            return f"running; the stop{by} was interrupted, because the service ended during the stop"
        if interrupted.is_under_way(run):
            return f"being stopped{by}"
        if run.stop_steps and run.stop_requested_at:
            return f"running; the stop{by} did not end it"
        if not run.reachable:
            return "running at the last probe of its machine"
        return "running" if run.identity else "being started"
    if run.status == RunStatus.COMPLETED:
        return f"ended well{code}"
    again = "; a restart is pending" if run.restart_at else ""
    match run.reason:
        case RunReason.STOPPED:
            return f"stopped{by}{code}"
        case RunReason.FAILED:
            return f"failed{code}{again}"
        case RunReason.KILLED:
            return f"ended by signal {run.signal}, which was not sent by this service{code}"
    return f"{RunReason(run.reason).label}{again}" if run.reason in RunReason.values else "ended"


# The words for the outcomes of audit records that are not error codes.
RESULTS = {
    "ok": "done",
    "dry_run": "preview",
    "replayed": "answered again",
    "error": SERVER_ERROR.title,
    "under_way": "under way",
    "interrupted": "interrupted, because the service ended during the command",
}
TITLES = {problem_type.code: problem_type.title for problem_type in PROBLEM_TYPES.values()}


@register.filter
def result(record: AuditRecord) -> str:
    """Return the outcome of an audit record, in words."""
    return RESULTS.get(record.outcome) or TITLES.get(record.outcome) or record.outcome


@register.filter
def is_refusal(record: AuditRecord) -> bool:
    """Return True if a command was rejected or has failed."""
    return record.outcome not in ("ok", "dry_run", "replayed", AuditRecord.UNDER_WAY)


@register.filter
def cut_underscores(word: str) -> str:
    """Replace underscores by blanks, for people: `not_cancelled` becomes `not cancelled`."""
    return word.replace("_", " ")


@register.filter
def command_line(argv: list[str]) -> str:
    """Return an argv as a shell command line."""
    return shlex.join(argv)


@register.filter
def where(config: dict[str, Any]) -> str:
    """Return the machine of a stored configuration, in words."""
    try:
        found = RunnerConfig.from_dict(config)
    except (AttributeError, KeyError, TypeError, ValueError):  # somebody has changed the table
        return "not known: the stored configuration cannot be read"
    return f"{found.target.describe()} ({found.runner_type})"


@register.filter
def seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.1f} s"


@register.filter
def add_number(value: float, more: float) -> str:
    """Add two numbers, for coordinates: Django's filter `add` only takes integers."""
    return f"{value + more:g}"


@register.filter
def directory(command: DetachedCommand) -> str:
    """Return the directory of a run or operation on its machine."""
    base = command.config.get("RUN_DIRECTORY") if isinstance(command.config, dict) else None
    return f"{base}/autosubmit-runners-UID/{command.key}" if base else f"~/{scripts.BASE}/{command.key}"
