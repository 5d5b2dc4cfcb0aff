"""Whether this service can do its work, for load balancers, monitoring and the pages.

Without a database, or with a database of another version, the service can do nothing: it is not ready. Without a watch
it answers correctly, but it notices the ends of runs only when somebody asks, and webhooks wait: this is a warning.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, Q
from django.db.models.functions import Now

from runners.models import Heartbeat, RunnerRun
from runners.services import mail, outbox, own_process, sizing
from runners.services.nodes import WORKER, has_tasks
from runners_project import clock

logger = logging.getLogger(__name__)

WATCH = WORKER
SERVER = "serve"  # the kind of the heartbeats of server processes
SERVER_INTERVAL = 10.0  # seconds
SHARED_FOR = 1.0  # seconds for which a process caches a report
MIGRATED_FOR = 60.0  # seconds for which the result "no migration is pending" is cached
BACKLOG_AFTER = timedelta(minutes=1)  # how long a webhook message may be due
CLOCK_SLACK = 30.0  # seconds by which the clock of this node may differ from the database's
KEPT = timedelta(days=1)  # how long heartbeats of processes that are gone are kept


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an admin should look at. `code` is for programs, `detail` for people."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """`problem` is empty when the service is ready."""

    problem: str
    warnings: tuple[Finding, ...] = ()
    watch_age: float | None = None  # seconds since the last heartbeat of a watch; None: there was none in a day
    backlog: int = 0  # webhook messages that have been due for more than BACKLOG_AFTER
    task_backlog: int = 0  # the same for tasks; 0 with SQLite, which has none

    @property
    def is_ready(self) -> bool:
        return not self.problem

    def as_dict(self) -> dict[str, Any]:
        return {
            "status": "ready" if self.is_ready else "unavailable",
            "detail": self.problem,
            "warnings": [{"code": warning.code, "detail": warning.detail} for warning in self.warnings],
            "watch_age": self.watch_age,
            "webhook_backlog": self.backlog,
            "task_backlog": self.task_backlog,
        }


class Beat:
    """The heartbeat of this process. `beat` costs one statement, except for the first one."""

    def __init__(self, kind: str, interval: float) -> None:
        self._row = Heartbeat(kind=kind, owner=own_process.owner(), node=settings.RUNNERS_NODE, interval=interval)

    def beat(self) -> None:
        """Store the heartbeat. Raises DatabaseError, InterfaceError."""
        now = clock.now()
        if Heartbeat.objects.filter(owner=self._row.owner).update(seen=now):  # even if no insert was confirmed
            return
        self._row.pk, self._row.seen = None, now
        self._row.save(force_insert=True)
        Heartbeat.objects.filter(kind=self._row.kind, seen__lt=now - KEPT).delete()

    def end(self) -> None:
        """Delete the heartbeat of a process that ends normally, so that no warning follows.

        Raises DatabaseError, InterfaceError.
        """
        Heartbeat.objects.filter(owner=self._row.owner).delete()


def beat_as_server() -> None:
    """Let a thread store heartbeats of this server process until its end. With SQLite there is one node, and no need.

    The thread holds one of the connections that `sizing.BACKGROUND` counts.
    """
    if has_tasks():
        threading.Thread(target=_beat_for_ever, name="heartbeat", daemon=True).start()


def _beat_for_ever() -> None:
    beat, is_stored = Beat(SERVER, SERVER_INTERVAL), True
    while True:
        try:
            close_old_connections()
            beat.beat()
            is_stored = True
        except (DatabaseError, InterfaceError) as error:
            if is_stored:  # one line for each time that the database is lost
                logger.warning("The heartbeat of this server is not stored: %s", str(error).strip())
            is_stored = False
            with suppress(DatabaseError, InterfaceError):
                connection.close()
        time.sleep(SERVER_INTERVAL)


_lock = threading.Lock()
_shared: tuple[float, Report] | None = None
_migrated_at = 0.0
_asked: tuple[float, str] | None = None  # when, and the answer
_lack: tuple[float, str] | None = None


def report() -> Report:
    """Return a report that is at most SHARED_FOR seconds old. Never raises if the database is not reachable."""
    global _shared
    with _lock:
        if _shared and time.monotonic() - _shared[0] < SHARED_FOR:
            return _shared[1]
        found = _look()
        _shared = (time.monotonic(), found)
        return found


def forget() -> None:
    """Drop the cached results (for tests)."""
    global _shared, _migrated_at, _asked, _lack
    with _lock:
        _shared, _migrated_at, _asked, _lack = None, 0.0, None, None


def _look() -> Report:
    try:
        return Report(problem) if (problem := pending_migrations()) else _warnings()
    except (DatabaseError, InterfaceError):
        return Report("The database is unavailable.")


def pending_migrations() -> str:
    """Return a problem if the database lacks migrations. Those that only the database knows (of a newer version) do
    not count. Raises DatabaseError, InterfaceError.
    """
    global _migrated_at
    if _migrated_at and time.monotonic() - _migrated_at < MIGRATED_FOR:
        return ""
    executor = MigrationExecutor(connection)
    pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    _migrated_at = 0.0 if pending else time.monotonic()
    if not pending:
        return ""
    verb = "migration is" if len(pending) == 1 else "migrations are"
    return f"{len(pending)} {verb} pending: run `manage.py migrate`."


def why_not_migrated() -> str:
    """Return what `pending_migrations` has said; it is asked again at most once per second. A process that has seen
    all migrations once costs no statement. Without a database the answer is empty: the request finds that out itself.
    """
    global _asked
    if _migrated_at:
        return ""
    with _lock:
        if not _asked or time.monotonic() - _asked[0] >= SHARED_FOR:
            try:
                problem = pending_migrations()
            except (DatabaseError, InterfaceError):
                problem = ""
            # The time after the answer: threads that have waited for the lock must not wait for the database again.
            _asked = (time.monotonic(), problem)
        return _asked[1]


def _warnings() -> Report:
    now = clock.now()
    warnings = _missing_nodes(now)
    beats = list(Heartbeat.objects.filter(kind=WATCH).order_by("-seen"))
    newest = beats[0] if beats else None
    age = None if newest is None else max(0.0, (now - newest.seen).total_seconds())
    if newest is None:
        warnings.append(
            Finding(
                "no_watch",
                "No worker is running: the end of a run is noticed only at the next status request. An admin starts a "
                "worker with: autosubmit-runners-server worker (in a checkout: manage.py watch_runs --interval 10).",
            )
        )
    elif all(beat.is_late(now) for beat in beats):
        warnings.append(Finding("no_watch", f"The worker was last seen {age:.0f} s ago. Has it stopped?"))
    backlog = outbox.due(now - BACKLOG_AFTER).count()
    if backlog:
        warnings.append(Finding("webhook_backlog", f"{backlog} webhook messages have been due for more than a minute."))
    if mail.is_on() and (waiting := mail.due(now - BACKLOG_AFTER).count()):
        warnings.append(Finding("mail_backlog", f"{waiting} mails have been due for more than a minute."))
    if lack := _shortage():
        warnings.append(Finding("few_connections", lack))
    tasks = task_counts()
    overdue = tasks["overdue"] if tasks else 0
    if overdue:
        warnings.append(Finding("task_backlog", f"{overdue} tasks have been due for more than a minute."))
    ahead = clock.ahead()
    if abs(ahead) > CLOCK_SLACK:
        warnings.append(
            Finding(
                "clock_differs",
                f"The clock of this node is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the database's. "
                "The service uses the clock of the database. Log lines use the clock of this node. "
                "Correct the wrong clock.",
            )
        )
    return Report("", tuple(warnings), age, backlog, overdue)


def _shortage() -> str:
    """Return why the connections to the database may not suffice, as of the last MIGRATED_FOR seconds; else nothing."""
    global _lack
    if _lack is None or time.monotonic() - _lack[0] > MIGRATED_FOR:
        _lack = time.monotonic(), sizing.shortage(sizing.size_of_this_service(), sizing.room())
    return _lack[1]


def _missing_nodes(now: datetime) -> list[Finding]:
    """Return a warning for each node that has active LOCAL runs and no worker. With SQLite there is one node."""
    if not has_tasks():
        return []
    found = RunnerRun.objects.active().exclude(node="").order_by().values("node").annotate(number=Count("id"))
    counts = {row["node"]: row["number"] for row in found}
    alive = {beat.node for beat in Heartbeat.objects.filter(kind=WATCH, node__in=counts) if not beat.is_late(now)}
    return [
        Finding(
            "node_missing",
            f"The worker of node {node} is not running: the states of its {number} active LOCAL runs are not known.",
        )
        for node, number in sorted(counts.items())
        if node not in alive
    ]


def task_counts() -> dict[str, int]:
    """Return how many tasks are running, waiting, and overdue by more than BACKLOG_AFTER; empty without tasks.

    Raises DatabaseError, InterfaceError.
    """
    if not has_tasks():
        return {}
    model: Any = apps.get_app_config("procrastinate").get_model("ProcrastinateJob")
    jobs = model.objects
    is_overdue = Q(status="todo", scheduled_at__lt=Now() - BACKLOG_AFTER)
    counts: dict[str, int] = jobs.filter(status__in=["todo", "doing"]).aggregate(
        running=Count("id", filter=Q(status="doing")),
        waiting=Count("id", filter=Q(status="todo")),
        overdue=Count("id", filter=is_overdue),
    )
    return counts
