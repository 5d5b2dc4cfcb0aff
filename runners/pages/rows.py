"""The rows of the lists of runs as cached HTML. A row is rendered again only if its data changes, once for all viewers.

The template of a row gets only a `Row`. So its HTML cannot depend on the viewer, and the `Row` is the cache key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from django.conf import settings
from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe

from runners.models import RunnerRun
from runners.services.representations import progress_fields
from runners.templatetags import formatting as words
from runners_project import clock

KEPT = 1024  # cached rows, about 2.5 kB each; a list shows at most 200
# The placeholder of an age in the cached HTML. It holds the time from which the age counts, because an age changes
# while the row does not. Stored data cannot contain a placeholder, because templates escape every `<`.
AGE = "<!--age {}-->"
_AGES = re.compile(r"<!--age (-?[0-9]{1,15})-->")


@dataclass(frozen=True, slots=True)
class Progress:
    """The counts of a run's jobs. The rest of `total` waits, or is queued."""

    total: int
    done: int
    failed: int
    running: int
    failed_jobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """All data that the row of a run shows.

    `confirmed_at` is None while the confirmation is recent. Then the row only says that it is recent, so that repeated
    confirmations by the machine do not change the row.
    """

    pk: int
    expid: str
    status: str
    is_active: bool
    badge: str
    wire_words: str
    tone: str
    outcome: str
    host: str
    user: str
    profile_name: str
    runner: str
    started_by: str
    created: datetime
    finished: datetime | None
    lasted: str
    reachable: bool
    is_confirmed: bool
    confirmed_at: datetime | None
    progress: Progress | None
    silent_since: datetime | None
    log_too_large: bool
    description: str


def row_of(run: RunnerRun, *, lasted: str = "", description: str = "") -> Row:
    is_recent = bool(run.reachable and run.confirmed_at and clock.now() - run.confirmed_at < recent())
    return Row(
        pk=run.pk,
        expid=run.expid,
        status=run.status,
        is_active=run.is_active,
        badge=words.badge(run),
        wire_words=words.wire_words(run),
        tone=words.tone(run),
        outcome=words.outcome(run),
        host=run.host,
        user=run.user,
        profile_name=run.profile_name,
        runner=run.runner,
        started_by=run.started_by,
        created=run.created,
        finished=run.finished,
        lasted=lasted,
        reachable=run.reachable,
        is_confirmed=run.confirmed_at is not None,
        confirmed_at=None if is_recent else run.confirmed_at,
        progress=progress_of(run),
        silent_since=run.silent_since,
        log_too_large=run.log_too_large,
        description=description,
    )


def progress_of(run: RunnerRun) -> Progress | None:
    """Return the counts of a run's jobs at the last look; None if they are not known."""
    found = progress_fields(run)
    return Progress(**found | {"failed_jobs": tuple(found["failed_jobs"])}) if found else None


def recent() -> timedelta:
    """Return the age up to which a list calls a confirmation recent. Dashboards and `watch_runs` renew it sooner."""
    return timedelta(seconds=settings.RUNNERS_STATUS_FRESHNESS + 13)


def html_of(run: RunnerRun, description: str = "") -> str:
    """Return the row of a run for any list, with placeholders for ages. `description`: of its experiment, if known."""
    return _html(row_of(run, lasted="" if run.is_active else words.lasted(run), description=description))


@lru_cache(KEPT)
def _html(row: Row) -> str:
    return render_to_string("pages/_run_row.html", {"run": row, "recent": recent().total_seconds()})


def with_ages(html: str) -> SafeString:
    """Replace each placeholder in the HTML of rows by the age in words, as of now."""
    now = clock.now().timestamp()
    return mark_safe(_AGES.sub(lambda found: f"{words.duration(now - int(found[1]))} ago", html))  # noqa: S308
