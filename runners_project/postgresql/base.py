"""PostgreSQL with a deadline for each connection attempt and each statement. The client enforces the deadlines.

`statement_timeout` of the server ends a slow statement. It has no effect while the server is frozen, or while a network
drops packets. pgbouncer in transaction mode rejects it as a start-up option, and a `SET` would stay on a server
connection that other clients use later. A deadline of the client works in all of these cases. If a statement exceeds
it, the client sends a separate cancel request, which pgbouncer forwards to the server. Then it closes the connection,
because the state of the connection is unknown.

With several hosts (`db1,db2`), each of them has `connect_timeout`. The one that accepted the last connection is tried
first: after a failover, a host that does not answer delays only the first connection of a process. Unless
`target_session_attrs` is set, only a host that accepts writes is used, so a standby is not.

`OPTIONS["statement_timeout"]`: seconds for one statement; 0: no limit. `OPTIONS["connect_timeout"]`: whole seconds.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.postgresql import base
from psycopg import capabilities
from psycopg.abc import PQGen

from runners_project import bounded, clock
from runners_project.postgresql.schema import DatabaseSchemaEditor

Returned = TypeVar("Returned")

CANCEL_TIMEOUT = 1.0  # seconds for the request to cancel a statement
IDLE_IN_TRANSACTION = 60  # seconds after which the server ends an idle transaction
_used: dict[str, str] = {}  # by the hosts of DATABASE_URL: the one that accepted the last connection of this process


class Connection(psycopg.Connection[Any]):
    """A connection that closes itself if the server does not answer a statement in time."""

    time_limit: float | None = None  # seconds for a statement

    def wait(self, gen: PQGen[Returned], interval: float = 0.1, timeout: float | None = None) -> Returned:
        """Raise OperationalError if `gen` takes longer than `timeout`, by default the time limit."""
        limit = self.time_limit if timeout is None else timeout
        try:
            return super().wait(gen, interval, limit)
        except psycopg.errors._WaitTimeout as error:
            with suppress(psycopg.Error):
                if capabilities.has_cancel_safe():  # the older way to cancel has no deadline itself
                    self.cancel_safe(timeout=CANCEL_TIMEOUT)
            self.close()
            raise psycopg.OperationalError(
                f"the database did not answer a statement within {limit:g} s; the connection was closed"
            ) from error


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's backend with connections of the class above, without psycopg's pool and isolation levels."""

    SchemaEditorClass = DatabaseSchemaEditor

    def get_connection_params(self) -> dict[str, Any]:
        if unknown := {"pool", "isolation_level"} & set(self.settings_dict["OPTIONS"]):
            raise ImproperlyConfigured(f"DATABASE_URL: {', '.join(sorted(unknown))} cannot be set.")
        params: dict[str, Any] = super().get_connection_params()
        self._statement_timeout = float(params.pop("statement_timeout", 0)) or None
        self._connect_timeout = float(params.get("connect_timeout", 0)) or None
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection:
        self.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection = Connection.connect(**self._with_addresses(conn_params))
        _used[str(conn_params.get("host", ""))] = connection.info.host
        connection.time_limit = self._connect_timeout  # for the statements that set up the connection
        return connection

    def _with_addresses(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return `params` with the resolved addresses of the hosts, because libpq waits for DNS without a deadline."""
        given = str(params.get("host", ""))
        if not self._connect_timeout or not given or given[0] in "/@" or "hostaddr" in params:
            return params
        names = given.split(",")
        ports = str(params.get("port") or 5432).split(",")
        if len(ports) not in (1, len(names)):
            raise ImproperlyConfigured("DATABASE_URL: give one port, or as many ports as hosts.")
        hosts = list(zip(names, ports * len(names) if len(ports) == 1 else ports, strict=True))
        hosts.sort(key=lambda host: host[0] != _used.get(given))
        found: list[tuple[str, str, str]] = []
        errors = []
        for name, port in hosts:
            end = time.monotonic() + self._connect_timeout  # each: a name without an answer must not hide the others
            try:
                addresses = bounded.resolve(name, int(port), end)
            except OSError as error:
                errors.append(f"{name}: {error}")
            else:
                found += [(name, str(address[0]), port) for _, address in addresses]
        if not found:
            raise psycopg.OperationalError(f"the name of the database's host cannot be resolved: {'; '.join(errors)}")
        several = {} if len(names) == 1 else {"target_session_attrs": "read-write"}
        columns = [",".join(column) for column in zip(*found, strict=True)]
        return {**several, **params, **dict(zip(("host", "hostaddr", "port"), columns, strict=True))}

    def init_connection_state(self) -> None:
        super().init_connection_state()
        # The same value for every client: behind pgbouncer, other clients use this server connection later.
        with self.connection.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION}s'")
            measure_clock(cursor)
        self.connection.time_limit = self._statement_timeout

    def is_usable(self) -> bool:
        if self.connection is None:
            return False
        self.connection.time_limit = self._connect_timeout
        try:
            with self.connection.cursor() as cursor:
                measure_clock(cursor)  # instead of SELECT 1, so it costs nothing
            return True
        except psycopg.Error:
            return False
        finally:
            self.connection.time_limit = self._statement_timeout


def measure_clock(cursor: psycopg.Cursor[Any]) -> None:
    """Tell `clock` the time of the server. Raises psycopg.Error."""
    asked = clock.uptime()
    cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
    (seconds,) = cursor.fetchone() or (None,)
    if seconds is not None:
        clock.learn(float(seconds), asked, clock.uptime())
