"""The lists of runs on the dashboard. Each process makes them once per second for all people who see the same runs.

A person's permissions decide which runs the lists have. `access.visibility` is equal for people who see the same runs.
Beyond that, only the order of the runs that need attention depends on the person: the own runs come first.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, partial
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import BooleanField, Exists, ExpressionWrapper, OuterRef, Q, TextField
from django.db.models.functions import Cast
from django.db.models.signals import m2m_changed, post_save
from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe

from runners.models import RunnerRun, RunReason
from runners.pages import rows
from runners.services import access, lifecycle, machine_list, probing
from runners_project import clock
from runners_project.shared_calls import SharedCalls, StillUnderWay

ACTIVE_SHOWN = 200
RECENT_SHOWN = 25
ATTENTION_SHOWN = 25
ATTENTION_KEPT = 100  # more than are shown, so that a person's own ones are found among them
MACHINES_SHOWN = 10
MINE_KEPT = 400  # newest runs of one person among which their lists are found
RECENT = timedelta(days=14)
TROUBLE = (RunReason.FAILED, RunReason.KILLED, RunReason.LOST, RunReason.NEVER_STARTED)
SHARED_SECONDS = 1.0
REBUILT_SECONDS = 10.0  # after which the rows are read again, whether a change was seen or not
PATIENCE = 5.0  # seconds that a request waits for another request that makes the same lists
ANSWER_WAIT = 1.0  # seconds that a poll waits for the machines that it asks
MOST_VIEWS = 64  # cached lists, one for each set of visible runs; lists with 225 rows take about 350 kB
MOST_POLLS = 4096  # sessions whose last poll is remembered
POLL_SECONDS = 60.0  # for which it is
UNUSED = ("detail", "modules", "command_params", "restart", "cancel", "restart_detail", "restart_key")


@dataclass(frozen=True, slots=True)
class View:
    """Whose lists these are: a set of visible runs, or the own runs of one person among them."""

    visible: Hashable
    owner: str = ""


@dataclass(frozen=True)
class Snapshot:
    """The lists of a view before they are put together. `attention` has (person, row) of each run that needs it."""

    etag: str
    machines: str
    attention: tuple[tuple[str, str], ...]
    rest: str
    made: float  # when the database was asked last, by time.monotonic
    built: float  # when the rows were read last
    state: Hashable = None  # what `_state` returned

    def etag_for(self, person: str) -> str:
        """Return the ETag of the lists that `person` gets. It changes with all data that is shown except the ages."""
        return f'W/"{self.etag}{self._own(person)}"'

    def _own(self, person: str) -> str:
        """Return a part of the ETag: what is different for this person; empty if nothing is."""
        return f"-{_digest(person)[:16]}" if any(owner == person for owner, _ in self.attention) else ""

    def html_for(self, person: str) -> str:
        own = [row for owner, row in self.attention if owner == person]
        others = [row for owner, row in self.attention if owner != person]
        shown = (own + others)[:ATTENTION_SHOWN]
        context = {
            "rows": mark_safe("".join(shown)),  # noqa: S308  (templates of ours)
            "count": len(self.attention),
            "is_cut": len(shown) < len(self.attention),
            "machines": mark_safe(self.machines),  # noqa: S308
        }
        return render_to_string("pages/_attention.html", context) + self.rest


@dataclass(frozen=True)
class Lists:
    """The lists as HTML, for one person or for all people whose lists are equal."""

    etag: str
    html: SafeString
    snapshot: Snapshot

    @cached_property
    def body(self) -> bytes:
        return self.html.encode()

    @cached_property
    def compressed(self) -> bytes:
        return gzip.compress(self.body, 6, mtime=0)


_lock = threading.Lock()
_snapshots: OrderedDict[Hashable, Snapshot] = OrderedDict()
_lists: OrderedDict[Hashable, Lists] = OrderedDict()
_asked: OrderedDict[Hashable, float] = OrderedDict()
_polls: OrderedDict[str, tuple[View, str, float]] = OrderedDict()
_makers = SharedCalls()


def view_of(user: Any, *, is_mine: bool = False) -> View:
    return View(access.visibility(user), user.get_username() if is_mine else "")


def shared_lists(user: Any, *, is_mine: bool = False) -> Lists:
    """Return the lists that `user` may see. They are at most SHARED_SECONDS old."""
    view = view_of(user, is_mine=is_mine)
    snapshot = _kept(view)
    if snapshot is None:
        try:
            snapshot = _makers.call(view, partial(_make_and_keep, view, user), PATIENCE)
        except StillUnderWay:
            snapshot = _make(view, user)
    return _lists_for(view, snapshot, user.get_username())


def make_lists(user: Any, *, is_mine: bool = False) -> Lists:
    """Make the lists that `user` may see, from the database alone: a machine that does not answer cannot delay them."""
    snapshot, person = _make(view_of(user, is_mine=is_mine), user), user.get_username()
    return Lists(snapshot.etag_for(person), rows.with_ages(snapshot.html_for(person)), snapshot)


def _kept(view: View) -> Snapshot | None:
    with _lock:
        kept = _snapshots.get(view)
    return kept if kept and time.monotonic() - kept.made < SHARED_SECONDS else None


def _lists_for(view: View, snapshot: Snapshot, person: str) -> Lists:
    etag = snapshot.etag_for(person)
    with _lock:
        kept = _lists.get((view, etag))
    if kept and kept.snapshot is snapshot:
        return kept
    lists = Lists(etag, rows.with_ages(snapshot.html_for(person)), snapshot)
    with _lock:
        _put(_lists, (view, etag), lists)
    return lists


def _make_and_keep(view: View, user: Any) -> Snapshot:
    """Make the lists of a view, or keep the former ones if nothing has changed that they show."""
    state = _state(view, user)
    with _lock:
        former = _snapshots.get(view)
    now = time.monotonic()
    if former and state is not None and former.state == state and now - former.built < REBUILT_SECONDS:
        snapshot = replace(former, made=now)
    else:
        snapshot = replace(_make(view, user), state=state)
    with _lock:
        _put(_snapshots, view, snapshot)
    return snapshot


# --- polls that find nothing new --------------------------------------------------------------------------------------


def remember(session: str, user: Any, *, is_mine: bool) -> None:
    """Remember that a session has just got its lists, for `is_unchanged`."""
    with _lock:
        polled = view_of(user, is_mine=is_mine), user.get_username(), time.monotonic()
        _put(_polls, f"{session} {is_mine:d}", polled, MOST_POLLS)


def is_unchanged(session: str, etag: str, *, is_mine: bool) -> bool:
    """Return True if the lists of a session certainly still have this ETag, without asking the database.

    This process has checked the session less than POLL_SECONDS ago. For that time, a session that has ended, or a
    person whose groups another process has changed, learns that nothing has changed, and nothing else. Return False if
    the lists have to be made again, or if it is time to ask the machines.
    """
    with _lock:
        polled = _polls.get(f"{session} {is_mine:d}")
        if not polled:
            return False
        view, person, at = polled
        now = time.monotonic()
        if now - at > POLL_SECONDS or now - _asked.get(view, -1e9) >= settings.RUNNERS_STATUS_FRESHNESS:
            return False
        snapshot = _snapshots.get(view)
    return bool(snapshot and now - snapshot.made < SHARED_SECONDS and snapshot.etag_for(person) == etag)


def _forget_polls(**kwargs: Any) -> None:
    """Check all sessions again, because a person or the groups of a person have changed."""
    with _lock:
        _polls.clear()


post_save.connect(_forget_polls, User)
m2m_changed.connect(_forget_polls, User.groups.through)

# --- what the lists contain -------------------------------------------------------------------------------------------


def _make(view: View, user: Any) -> Snapshot:
    visible = access.visible(RunnerRun.objects.defer(*UNUSED), user)
    active, is_cut, ended, recent = _of_person(visible, view.owner) if view.owner else _of_everybody(visible)
    unreachable = [run for run in active if not run.reachable]
    marked = [run for run in active if run.reachable and needs_attention(run)]
    attention = marked + _without_newer(ended)
    above = {run.pk for run in attention}
    others = [run for run in recent if run.pk not in above]
    context = {
        "active": [mark_safe(rows.html_of(run)) for run in active if run.pk not in above],  # noqa: S308
        "above": len(marked),
        "is_cut": is_cut,
        "shown": ACTIVE_SHOWN,
        "recent": mark_safe("".join(map(rows.html_of, others[:RECENT_SHOWN]))),  # noqa: S308
        "mine": int(bool(view.owner)),
    }
    machines = _machines(unreachable)
    rest = render_to_string("pages/_runs.html", context)
    rendered = tuple((run.started_by, rows.html_of(run)) for run in attention)
    etag = _digest("".join([machines, rest, *(html for _, html in rendered)]))[:32]
    now = time.monotonic()
    return Snapshot(etag, machines, rendered, rest, made=now, built=now)


def _state(view: View, user: Any) -> Hashable:
    """Return a value that changes with the lists, at a seventh of the cost of making them; None while a run is stopped.

    It has what the row of an active run shows and can change, the newest run, and the last end.
    """
    runs = RunnerRun.objects.filter(started_by=view.owner) if view.owner else RunnerRun.objects.all()
    visible = access.visible(runs.order_by("-id"), user)
    is_recent = ExpressionWrapper(Q(confirmed_at__gte=clock.now() - rows.recent()), BooleanField())
    values = access.visible(runs.active().order_by("-id"), user).values_list(
        *("pk", "stop_requested_at", "reachable", "silent_since", "log_too_large", "pid", "host", "user", "started_by"),
        Cast("progress", TextField()),
        is_recent,
    )
    active = tuple(values[: ACTIVE_SHOWN + 1])
    if any(stop for _, stop, *_ in active):
        return None
    newest = visible.values_list("pk").first()
    last = visible.filter(finished__isnull=False).order_by("-finished", "-id").values_list("pk", "finished").first()
    return active, newest, None if view.owner else last


def needs_attention(run: RunnerRun) -> bool:
    """Return True if an active run may need a person: it is silent, its log is too large, or its stop has failed."""
    is_stop_over = bool(run.stop_steps) and run.stop_requested_at is not None and run.stop_until is None
    return bool(run.silent_since or run.log_too_large or is_stop_over)


def _of_everybody(visible: Any) -> tuple[list[RunnerRun], bool, list[int], list[RunnerRun]]:
    """Return the newest active runs, whether there are more, the numbers of the last ends in trouble, the last ends."""
    since = clock.now() - RECENT
    active = list(visible.active().order_by("-id")[: ACTIVE_SHOWN + 1])
    trouble: list[int] = []
    for reason in TROUBLE:  # each query reads one part of an index
        newest = visible.filter(reason=reason).order_by("-id").values_list("pk", "finished")[:ATTENTION_KEPT]
        trouble += [pk for pk, finished in newest if finished and finished >= since]
    recent = list(visible.ended_since(since)[: RECENT_SHOWN + ATTENTION_SHOWN])
    return active[:ACTIVE_SHOWN], len(active) > ACTIVE_SHOWN, trouble, recent


def _of_person(visible: Any, person: str) -> tuple[list[RunnerRun], bool, list[int], list[RunnerRun]]:
    """The same for the runs that one person has started."""
    since = clock.now() - RECENT
    active = list(visible.active().filter(started_by=person).order_by("-id")[: ACTIVE_SHOWN + 1])
    newest = visible.filter(started_by=person).order_by("-id")[:MINE_KEPT]
    ended = [run for run in newest if run.finished and run.finished >= since and not run.is_active]
    ended.sort(key=lambda run: run.finished or since, reverse=True)
    trouble = [run.pk for run in ended if run.reason in TROUBLE]
    return active[:ACTIVE_SHOWN], len(active) > ACTIVE_SHOWN, trouble, ended[: RECENT_SHOWN + ATTENTION_SHOWN]


def _without_newer(numbers: list[int]) -> list[RunnerRun]:
    """Return runs whose experiment was neither run again nor deleted since. The last end comes first."""
    if not numbers:
        return []
    same = RunnerRun.objects.filter(expid=OuterRef("expid"), installation=OuterRef("installation"))
    runs = RunnerRun.objects.filter(~Exists(same.filter(pk__gt=OuterRef("pk"))), pk__in=numbers, superseded=False)
    return list(runs.defer(*UNUSED).order_by("-finished", "-id")[:ATTENTION_KEPT])


def _machines(unreachable: Iterable[RunnerRun]) -> str:
    """Return a banner for each machine whose active runs cannot be confirmed."""
    groups: dict[str, list[RunnerRun]] = {}
    for run in unreachable:
        groups.setdefault(machine_list.machine_of(run) or run.host, []).append(run)
    found = []
    for name, runs in sorted(groups.items()):
        hosts = {run.host for run in runs}
        found.append(
            {
                "name": name,
                "label": "This machine" if name == machine_list.LOCALHOST else name or "A machine",
                "host": hosts.pop() if len(hosts) == 1 else "",
                "number": len(runs),
                "since": max((run.confirmed_at for run in runs if run.confirmed_at), default=None),
                "detail": max(runs, key=lambda run: run.pk).unreachable_detail,
            }
        )
    context = {"machines": found[:MACHINES_SHOWN], "more": len(found) - MACHINES_SHOWN}
    return render_to_string("pages/_unreachable_machines.html", context) if found else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def etag_of(html: str) -> str:
    return f'W/"{_digest(html)[:32]}"'


def refresh(user: Any, *, is_mine: bool = False, wait: float | None = None) -> None:
    """Ask the machines of the active runs that `user` may see. `wait`: seconds; None: RUNNERS_STATUS_WAIT.

    Does nothing if this began for the same runs less than RUNNERS_STATUS_FRESHNESS seconds ago.
    """
    view = view_of(user, is_mine=is_mine)
    freshness = settings.RUNNERS_STATUS_FRESHNESS
    with _lock:
        now = time.monotonic()
        if now - _asked.get(view, -1e9) < freshness:
            return
        _put(_asked, view, now)
    fresh = Q(reachable=True, confirmed_at__gt=clock.now() - timedelta(seconds=freshness))
    runs = access.visible(RunnerRun.objects.active().exclude(fresh), user).order_by("-id")
    active = (runs.filter(started_by=view.owner) if view.owner else runs)[:ACTIVE_SHOWN]
    found = [run for run in active if not lifecycle.is_fresh(run)]
    if found:
        probing.refresh(found, wait=settings.RUNNERS_STATUS_WAIT if wait is None else wait)
        with _lock:
            if kept := _snapshots.get(view):  # the next lists show the answers
                _snapshots[view] = replace(kept, made=-1e9)


def forget() -> None:
    """Clear the caches, for tests that change rows directly in the database."""
    with _lock:
        for kept in (_snapshots, _lists, _asked, _polls):
            kept.clear()


def _put(kept: OrderedDict[Any, Any], key: Hashable, value: object, most: int = MOST_VIEWS) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
