"""The time of the database, which all nodes of the service share.

Leases, heartbeats, expiries and retention compare a time that one node has written with the time of another node. The
clocks of nodes may differ by minutes, so each process uses the clock of PostgreSQL. It measures how far that clock is
ahead of its own uptime: whenever a connection is opened or checked (runners_project/postgresql/base.py). Between two
measurements it adds the time that has passed, so `now` costs no statement, and a correction of this machine's clock has
no effect. With SQLite all processes run on one machine, and its clock is used.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, models
from django.utils import timezone

VALID_FOR = 60.0  # seconds after which any newer measurement is better: two clocks drift apart
RETRY_AFTER = 5.0  # seconds between two attempts to reach a database that this process has never reached


@dataclass(frozen=True, slots=True)
class Measurement:
    """`ahead`: seconds from this machine's uptime to the time of the database; wrong by at most `error` seconds."""

    ahead: float
    error: float
    at: float  # by `uptime`


_best: Measurement | None = None
_failed_at = 0.0
_lock = threading.Lock()


def uptime() -> float:
    """Return the seconds since the boot of this machine, including the time in which it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def now() -> datetime:
    """Return the time of the database, with the time zone UTC.

    A process that has not reached the database yet gets the time of its machine: it cannot compare it with any row.
    """
    best = _best or _first_measurement()
    return datetime.fromtimestamp(uptime() + best.ahead, UTC) if best else timezone.now()


def ahead() -> float:
    """Return how many seconds the clock of this machine is ahead of the database's; negative if it is behind."""
    return (timezone.now() - now()).total_seconds()


def learn(seconds: float, asked: float, answered: float) -> None:
    """Take a measurement. `seconds`: the time of the database since 1970; `asked`, `answered`: by `uptime`."""
    global _best
    new = Measurement(seconds - (asked + answered) / 2, (answered - asked) / 2, answered)
    with _lock:
        old = _best
        # If the two cannot both be right, the clock of the database was set, or a standby was promoted.
        contradicts = old is not None and abs(new.ahead - old.ahead) > new.error + old.error + 0.001
        if old is None or contradicts or new.error <= old.error or new.at - old.at > VALID_FOR:
            _best = new


def forget() -> None:
    """Drop the measurements (for tests)."""
    global _best, _failed_at
    _best, _failed_at = None, 0.0


def _first_measurement() -> Measurement | None:
    """Open a connection to PostgreSQL, which measures. Return None with SQLite, or if the database does not answer."""
    global _failed_at
    if "postgresql" not in settings.DATABASES["default"]["ENGINE"]:
        return None
    if _failed_at and uptime() - _failed_at < RETRY_AFTER:
        return None
    try:
        connection.ensure_connection()
    except (DatabaseError, InterfaceError):
        _failed_at = uptime()
    return _best


class AutoDateTimeField(models.DateTimeField):
    """A field with `auto_now` or `auto_now_add` that takes the time of the database."""

    def pre_save(self, model_instance: models.Model, add: bool) -> datetime:
        value = now()
        if self.auto_now or (self.auto_now_add and add):
            setattr(model_instance, self.attname, value)
            return value
        found: datetime = super().pre_save(model_instance, add)
        return found

    def deconstruct(self) -> tuple[str, str, list[object], dict[str, object]]:
        """Return the field for migrations: the column is that of a DateTimeField."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", list(args), dict(kwargs)
