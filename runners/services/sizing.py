"""How many connections to PostgreSQL the service may need, and how many PostgreSQL admits.

Each thread that uses the database has a connection of its own. docs/operations/sizing.md explains the numbers.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from typing import Any

from django.db import connection

from runners.models import Heartbeat
from runners.services.machines import bulkheads
from runners.services.nodes import WORKER
from runners_project import clock

BACKGROUND = 10  # connections of a server process: its heartbeat, and probes that go on without their request
OF_WORKER = 50  # tasks, sweeps, and threads that store ends (runners/worker/distributed.py, probing.py)
COMMANDS = 3  # connections for commands of an admin, backups and monitoring
DEFAULT_PROCESSES = 2  # of the documented command line


@dataclass(frozen=True, slots=True)
class Size:
    """The processes of the service. `processes` and `threads`: of the server on each node."""

    nodes: int
    processes: int
    threads: int
    workers: int  # of all nodes

    @property
    def connections(self) -> int:
        return self.nodes * self.processes * (self.threads + BACKGROUND) + self.workers * OF_WORKER + COMMANDS

    @property
    def formula(self) -> str:
        return (
            f"{self.nodes} nodes x {self.processes} processes x ({self.threads} threads + {BACKGROUND}) + "
            f"{self.workers} workers x {OF_WORKER} + {COMMANDS} = {self.connections} connections"
        )


@dataclass(frozen=True, slots=True)
class Room:
    """The connections that the database admits. `limit`: the setting that sets the bound."""

    admitted: int
    limit: str


def size_of_this_service() -> Size:
    """Return the size that the heartbeats of the workers and the command line of this server show.

    The other nodes are taken to be like this one. Raises DatabaseError, InterfaceError.
    """
    now = clock.now()
    beats = [beat.node for beat in Heartbeat.objects.filter(kind=WORKER) if not beat.is_late(now)]
    threads = bulkheads.BULKHEADS.threads or bulkheads.DEFAULT_THREADS
    return Size(max(1, len(set(beats))), processes_of(sys.argv), threads, max(1, len(beats)))


def processes_of(argv: list[str]) -> int:
    """Return the number of server processes that the command line or the environment of gunicorn gives."""
    words = [*shlex.split(os.environ.get("GUNICORN_CMD_ARGS", "")), *argv]
    found = os.environ.get("WEB_CONCURRENCY", "")
    for option, following in zip(words, [*words[1:], ""], strict=True):
        name, _, value = option.partition("=")
        if name in ("-w", "--workers"):
            found = value or following
    return int(found) if found.isdecimal() and 0 < len(found) < 4 else DEFAULT_PROCESSES


def room() -> Room | None:
    """Return what PostgreSQL admits for this role and database. None: SQLite, or a pooler is in between.

    A pooler such as pgbouncer in transaction mode lets any number of clients share its connections. Its clients get a
    made-up process number, so it differs from that of the server. Raises DatabaseError, InterfaceError.
    """
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_backend_pid(), current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int"
            " - coalesce(current_setting('reserved_connections', true), '0')::int,"
            " (SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user),"
            " (SELECT datconnlimit FROM pg_database WHERE datname = current_database())"
        )
        pid, most, of_role, of_database = cursor.fetchone()
    wrapped: Any = connection.connection
    if wrapped.info.backend_pid != pid:
        return None
    bounds = [Room(most, "max_connections minus the reserved ones")]
    bounds += [
        Room(limit, f"CONNECTION LIMIT of the {what}")
        for limit, what in ((of_role, "role"), (of_database, "database"))
        if limit >= 0
    ]
    return min(bounds, key=lambda bound: bound.admitted)


def shortage(size: Size, room: Room | None) -> str:
    """Return a sentence with the remedy if the connections may not suffice; empty if they do, or if a pooler helps."""
    if room is None or size.connections <= room.admitted:
        return ""
    return (
        f"The service may need more connections than PostgreSQL admits: {size.formula}; {room.limit}: {room.admitted}. "
        f"Requests beyond that fail. Raise the limit, use fewer threads or workers, or put pgbouncer in front."
    )
