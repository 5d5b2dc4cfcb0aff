"""Schema changes that do not block writers, by django-pg-zero-downtime-migrations.

It builds indexes CONCURRENTLY, validates constraints after adding them, and waits for an exclusive lock only for
`ZERO_DOWNTIME_MIGRATIONS_LOCK_TIMEOUT`: all writers of a table wait behind a migration that waits for its lock. It uses
no transaction around a migration. A migration that was interrupted is continued by the next `manage.py migrate`,
because statements whose result exists are skipped (`ZERO_DOWNTIME_MIGRATIONS_IDEMPOTENT_SQL`).

This module adds three things. A statement that did not get its lock in time is repeated. The timeout is valid for one
transaction only, so behind pgbouncer no other client inherits it. An index whose CREATE INDEX CONCURRENTLY was
interrupted is dropped and created again. The package would send REINDEX CONCURRENTLY, which leaves a second invalid
index, NAME_ccnew, if it is interrupted, too: it would stay for ever, and each insertion would maintain it.
Reference: https://github.com/tbicr/django-pg-zero-downtime-migrations
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, transaction
from django.db.backends.ddl_references import Statement
from django_zero_downtime_migrations.backends.postgres import schema
from psycopg.errors import DeadlockDetected, LockNotAvailable

# `tools/lint migrations` rejects such operations in migrations that are not released.
warnings.simplefilter("ignore", schema.UnsafeOperationWarning)

RETRY_PAUSE = 1.0  # seconds in which the writers that waited behind the lock do their work
RETRY_FOR = 600.0  # seconds
# An index of this name that is not complete, and what an interrupted REINDEX CONCURRENTLY of the same table has left.
INCOMPLETE = """
SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = to_regclass(%s) AND NOT indisvalid
    AND (indexrelid = to_regclass(%s) OR relname ~ '_cc(new|old)[0-9]*$')
"""


class DatabaseSchemaEditor(schema.DatabaseSchemaEditor):
    """The editor of the package with retries, and without REINDEX."""

    def execute(self, sql: Any, params: Any = ()) -> None:
        """Execute a statement. Raises OperationalError if a lock was not free for RETRY_FOR."""
        end = time.monotonic() + RETRY_FOR
        while True:
            try:
                if self.IDEMPOTENT_SQL and _creates_index(sql):
                    self._drop_incomplete(str(sql.parts["table"]), str(sql.parts["name"]))
                super().execute(sql, params)
                return
            except OperationalError as error:
                is_busy = isinstance(error.__cause__, LockNotAvailable | DeadlockDetected)
                if not is_busy or self.connection.in_atomic_block or time.monotonic() > end:
                    raise
            time.sleep(RETRY_PAUSE)

    def _drop_incomplete(self, table: str, name: str) -> None:
        """Drop incomplete indexes. If this is interrupted, they are still there, and the next call drops them."""
        with self.connection.cursor() as cursor:
            cursor.execute(INCOMPLETE, [table, name])
            for (found,) in cursor.fetchall():
                cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {found}")

    @contextmanager
    def _set_operation_timeout(self, statement_timeout: Any = None, lock_timeout: Any = None) -> Iterator[None]:
        if self.collect_sql or lock_timeout is None:
            yield
            return
        with transaction.atomic(self.connection.alias):
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [lock_timeout])
            yield


def _creates_index(sql: Any) -> bool:
    template = sql.template if isinstance(sql, Statement) else None
    return isinstance(template, schema.MultiStatementSQL) and "INDEX CONCURRENTLY" in str(template[0])
