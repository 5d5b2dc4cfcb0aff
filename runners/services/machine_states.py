"""Store in rows which machines answer, since when, and what the last error was.

Every contact with a machine is noted in the process (machines/observed.py). Probes and commands call `store`. An answer
that changes nothing is stored every STORED_EVERY seconds, so this costs few statements.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime

from django.db import DatabaseError, IntegrityError, InterfaceError, transaction
from django.db.models import Q

from profiles.target import Target
from runners.exceptions import AuthenticationFailed, RunnerUnreachable
from runners.models import Machine
from runners.models.machine import MAX_MACHINE
from runners.services.machines.observed import OBSERVED, Seen

logger = logging.getLogger(__name__)

STORED_EVERY = 5.0  # seconds
MOST_STORED = 5000  # rows: requests may name any number of hosts

_lock = threading.Lock()
_stored: dict[str, float] = {}  # by host: when this process last stored that it answers (time.monotonic)


def store() -> None:
    """Store what this process has noted of machines. Never raises: a lost database is only logged."""
    for target, seen in OBSERVED.taken().items():
        try:
            _store(target, seen)
        except (DatabaseError, InterfaceError) as error:
            logger.warning("The state of the machine %s was not stored: %s", target.host or "localhost", error)


def forget(name: str) -> None:
    """Delete the row of a machine. The next contact makes a new one."""
    Machine.objects.filter(name=name).delete()
    with _lock:
        _stored.clear()


def _store(target: Target, seen: Seen) -> None:
    host, now = target.host, time.monotonic()
    has_failed = seen.error is not None
    with _lock:
        if not has_failed and now - _stored.get(host, -1e9) < STORED_EVERY:
            return
        _stored.pop(host, None)
        if not has_failed:
            if len(_stored) >= MOST_STORED:
                _stored.clear()
            _stored[host] = now
    name = target.machine[:MAX_MACHINE]
    if not name:  # a runner that a site has added, without a machine
        return
    if seen.answered_at:
        _answered(name, seen.answered_at)
    if seen.error and seen.failed_at:
        _failed(name, seen.error, seen.failed_at)


def _answered(name: str, at: datetime) -> None:
    rows = Machine.objects.filter(name=name)
    if rows.filter(is_answering=True).update(last_answer=at):
        return
    if rows.update(is_answering=True, since=at, last_answer=at):
        return
    _create(Machine(name=name, is_answering=True, since=at, last_answer=at))


def _failed(name: str, error: RunnerUnreachable, at: datetime) -> None:
    """Store a failure. A machine that rejects a login does answer, so only the error is stored then."""
    facts = {"last_error": error.detail, "last_error_code": error.code, "last_error_at": at}
    rows = Machine.objects.filter(name=name)
    if isinstance(error, AuthenticationFailed):
        changed = rows.update(**facts)
    else:
        older = rows.filter(Q(last_answer=None) | Q(last_answer__lt=at))
        older.exclude(is_answering=False).update(is_answering=False, since=at)
        changed = rows.update(**facts)
        facts |= {"is_answering": False, "since": at}
    if not changed:
        _create(Machine(name=name, **facts))


def _create(machine: Machine) -> None:
    if Machine.objects.count() >= MOST_STORED:
        return
    try:
        with transaction.atomic():
            machine.save(force_insert=True)
    except IntegrityError:  # another process has just stored it
        pass
