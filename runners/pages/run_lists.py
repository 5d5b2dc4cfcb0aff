"""The lists of runs on the dashboard. Each process makes them once per second for all people who see the same runs.

A person's permissions decide which runs the lists have, and change nothing else in them. `access.visibility` is equal
for people who see the same runs.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from typing import Any

from django.conf import settings
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.safestring import SafeString, mark_safe

from runners.models import RunnerRun
from runners.pages import rows
from runners.services import access, lifecycle, probing
from runners_project.shared_calls import SharedCalls, StillUnderWay

ACTIVE_SHOWN = 200
RECENT_SHOWN = 25
RECENT = timedelta(days=14)
SHARED_SECONDS = 1.0
PATIENCE = 5.0  # seconds that a request waits for another request that makes the same lists
MOST_VIEWS = 64  # cached lists, one for each set of visible runs; lists with 225 rows take about 350 kB


@dataclass(frozen=True)
class Lists:
    """The lists as HTML. `etag` changes with all data that is shown, except the ages, which the page itself updates."""

    etag: str
    html: SafeString
    made: float  # by time.monotonic

    @cached_property
    def body(self) -> bytes:
        return self.html.encode()

    @cached_property
    def compressed(self) -> bytes:
        return gzip.compress(self.body, 6, mtime=0)


_lock = threading.Lock()
_lists: OrderedDict[Hashable, Lists] = OrderedDict()
_asked: OrderedDict[Hashable, float] = OrderedDict()
_makers = SharedCalls()


def shared_lists(user: Any) -> Lists:
    """Return the lists that `user` may see. They are at most SHARED_SECONDS old."""
    view = access.visibility(user)
    with _lock:
        kept = _lists.get(view)
    if kept and time.monotonic() - kept.made < SHARED_SECONDS:
        return kept
    try:
        return _makers.call(view, partial(_make_and_keep, view, user), PATIENCE)
    except StillUnderWay:
        return make_lists(user)


def make_lists(user: Any) -> Lists:
    """Make the lists that `user` may see, from the database alone: a machine that does not answer cannot delay them."""
    active = list(access.visible(RunnerRun.objects.active(), user).order_by("-id")[: ACTIVE_SHOWN + 1])
    recent = access.visible(RunnerRun.objects.ended_since(timezone.now() - RECENT), user)[:RECENT_SHOWN]
    context = {
        "active": [mark_safe(rows.html_of(run)) for run in active[:ACTIVE_SHOWN]],  # noqa: S308  (templates of ours)
        "is_cut": len(active) > ACTIVE_SHOWN,
        "shown": ACTIVE_SHOWN,
        "recent": mark_safe("".join(map(rows.html_of, recent))),  # noqa: S308
    }
    html = render_to_string("pages/_runs.html", context)
    return Lists(etag_of(html), rows.with_ages(html), time.monotonic())


def etag_of(html: str) -> str:
    return f'W/"{hashlib.sha256(html.encode()).hexdigest()[:32]}"'


def refresh(user: Any) -> None:
    """Ask the machines of the active runs that `user` may see.

    Does nothing if this began for the same runs less than RUNNERS_STATUS_FRESHNESS seconds ago.
    """
    view = access.visibility(user)
    with _lock:
        now = time.monotonic()
        if now - _asked.get(view, -1e9) < settings.RUNNERS_STATUS_FRESHNESS:
            return
        _put(_asked, view, now)
    active = access.visible(RunnerRun.objects.active(), user).order_by("-id")[:ACTIVE_SHOWN]
    stale = [run for run in active if not lifecycle.is_fresh(run)]
    probing.refresh(stale, wait=settings.RUNNERS_STATUS_WAIT)


def forget() -> None:
    """Clear the caches, for tests that change rows directly in the database."""
    with _lock:
        _lists.clear()
        _asked.clear()


def _make_and_keep(view: Hashable, user: Any) -> Lists:
    lists = make_lists(user)
    with _lock:
        _put(_lists, view, lists)
    return lists


def _put(kept: OrderedDict[Hashable, Any], view: Hashable, value: object) -> None:
    kept[view] = value
    kept.move_to_end(view)
    while len(kept) > MOST_VIEWS:
        kept.popitem(last=False)
