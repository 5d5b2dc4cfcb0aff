"""Copy all rows of a SQLite database into the PostgreSQL database of this service, and compare both.

The source is opened alone (SQLite's exclusive lock), so a service that still uses it is noticed, and nothing changes it
meanwhile. The target is written in one transaction: an error leaves it empty. Rows are streamed, table by table, with
COPY. Each table is then read again from PostgreSQL. Both sides have to have the same number of rows and the same
checksum: the sum of a hash of each row, modulo 2**64, which does not depend on the order of the rows.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any

import psycopg
from django.apps import apps
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management.color import no_style
from django.core.management.sql import emit_post_migrate_signal
from django.db import DatabaseError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.models import AutoField, Field, Model

from runners.models import AuditRecord, Heartbeat

TARGET_ONLY = "procrastinate"  # this application exists with PostgreSQL only
MADE_BY_MIGRATE = (Permission, ContentType)  # each new database has rows of them; they are replaced
NOT_ROWS_OF_MODELS = ("django_migrations",)
ROWS_AT_ONCE = 2000  # rows in memory
REMEDY_EMPTY = (
    "Create a new database, run `migrate` with it, and start no service before the copy. Nothing was changed."
)
Convert = Callable[[Any], str | None]
Say = Callable[[str], None]


class NotCopied(Exception):
    """The copy was refused or undone: the target is as it was. The text has the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of both databases. `to_text`: the text that PostgreSQL reads. `canonical`: equal for equal values."""

    name: str
    to_text: Convert
    canonical: Convert


@dataclass(frozen=True, slots=True)
class Table:
    model: type[Model]
    columns: tuple[Column, ...]

    @property
    def name(self) -> str:
        return self.model._meta.db_table

    @property
    def names(self) -> str:
        return ", ".join(f'"{column.name}"' for column in self.columns)


class Checksum:
    """The number of rows, and the sum of their hashes."""

    def __init__(self) -> None:
        self.rows = self.total = 0

    def add(self, values: Iterable[str | None]) -> None:
        text = "\x1f".join("\x00" if value is None else value for value in values)
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self.total = (self.total + int.from_bytes(digest, "big")) % 2**64
        self.rows += 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checksum) and (self.rows, self.total) == (other.rows, other.total)

    def __hash__(self) -> int:
        return hash((self.rows, self.total))

    def __str__(self) -> str:
        return f"{self.rows} rows, checksum {self.total:016x}"


def copy(source: Path, say: Say) -> int:
    """Copy all rows of the SQLite file `source` into the database of this service. Return their number.

    `say` gets a line for each table. Raises NotCopied, and DatabaseError if the target fails: then it is unchanged.
    """
    if connection.vendor != "postgresql":
        raise NotCopied(
            "DATABASE_URL must name the new PostgreSQL database: the rows are copied from --from into DATABASE_URL."
        )
    with _opened(source) as old:
        tables = _tables()
        _require_same_versions(old)
        _require_known_tables(old, tables)
        _require_no_worker(old)
        try:
            with transaction.atomic():
                return _copy_all(old, tables, source, say)
        except sqlite3.Error as error:
            raise NotCopied(f"{source} cannot be read: {error}. Nothing was copied.") from error


def _copy_all(old: sqlite3.Connection, tables: list[Table], source: Path, say: Say) -> int:
    _require_empty(tables)
    with connection.cursor() as cursor:  # the text of values does not depend on the configuration of the server
        cursor.execute("SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL extra_float_digits = 1")
    for model in MADE_BY_MIGRATE:
        model._default_manager.all().delete()
    copied = 0
    for table in tables:
        begin = time.monotonic()
        sent = _send(old, table)
        stored = _stored(table)
        if sent != stored:
            raise NotCopied(
                f"{table.name}: the copy differs ({sent} in SQLite; {stored} in PostgreSQL). Nothing was copied."
            )
        _set_sequence(old, table)
        copied += sent.rows
        say(f"{table.name}: {sent}, the same in both databases ({time.monotonic() - begin:.1f} s)")
    emit_post_migrate_signal(verbosity=0, interactive=False, db="default")  # permissions of the additional tables
    detail = f"{copied} rows of {len(tables)} tables from {source}"
    AuditRecord(endpoint="copy-database", actor="copy_database", detail=detail[:2000]).save()
    return copied


# --- refusals ---------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(source: Path) -> Iterator[sqlite3.Connection]:
    """Open the file so that no other process can use it. Raises NotCopied."""
    if not source.is_file():
        raise NotCopied(f"{source} does not exist, or is not a file: give --from sqlite:////absolute/path.")
    try:
        with closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)) as old:
            old.execute("PRAGMA busy_timeout = 2000")
            old.execute("PRAGMA locking_mode = EXCLUSIVE")
            old.execute("BEGIN EXCLUSIVE")
            if (found := old.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise NotCopied(f"{source} is damaged: {found}. Restore the newest backup, and copy that one.")
            try:
                yield old
            finally:
                if old.in_transaction:
                    old.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise NotCopied(
                f"{source} is in use: stop the service and its worker first (systemctl stop autosubmit-runners "
                "autosubmit-runners-worker). Nothing was copied."
            ) from error
        raise NotCopied(f"{source} cannot be opened: {error}.") from error
    except sqlite3.DatabaseError as error:
        raise NotCopied(f"{source} is not a SQLite database: {error}.") from error


def _require_same_versions(old: sqlite3.Connection) -> None:
    executor = MigrationExecutor(connection)
    known = {key for key in executor.loader.graph.nodes if key[0] != TARGET_ONLY}
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise NotCopied("The target lacks migrations: run `migrate` first, with the same DATABASE_URL.")
    try:
        applied = set(old.execute("SELECT app, name FROM django_migrations"))
    except sqlite3.OperationalError as error:
        raise NotCopied(f"The source is not a database of this service: {error}.") from error
    here = {app for app, _ in known}
    if missing := sorted(known - applied):
        raise NotCopied(
            f"The source lacks {len(missing)} migrations of this version, such as {'.'.join(missing[0])}. Run "
            "`migrate` with DATABASE_URL=sqlite:///... first."
        )
    if newer := sorted(key for key in applied - known if key[0] in here and not _is_replaced(executor, key)):
        raise NotCopied(
            f"The source is of a newer version: this one does not know its migration {'.'.join(newer[0])}. Install "
            "the version that the service has used last."
        )


def _is_replaced(executor: MigrationExecutor, key: tuple[str, str]) -> bool:
    """Return True if a squashed migration of this version replaces that one."""
    return any(key in migration.replaces for migration in executor.loader.graph.nodes.values() if migration)


def _require_known_tables(old: sqlite3.Connection, tables: list[Table]) -> None:
    """Refuse tables and columns that would be lost."""
    known = {table.name: table for table in tables}
    names = old.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    found = {name for (name,) in names.fetchall()} - set(NOT_ROWS_OF_MODELS)
    for name in sorted(found - set(known)):
        if old.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone():  # noqa: S608  (a name of this database)
            raise NotCopied(
                f"The source has rows in the table {name}, which this installation does not know. Install the package "
                "that the table belongs to, or remove the table if nobody needs it."
            )
    for table in tables:
        columns = {row[1] for row in old.execute(f'PRAGMA table_info("{table.name}")')}
        if different := columns ^ {column.name for column in table.columns}:
            raise NotCopied(
                f"The table {table.name} differs in the column {min(different)}: the source and this installation are "
                "of different versions, or a site package is missing."
            )


def _require_no_worker(old: sqlite3.Connection) -> None:
    """Refuse while a worker is alive. It closes the database between two rounds, so the lock does not prove it."""
    table = Heartbeat._meta.db_table
    beats = old.execute(f"SELECT seen, interval FROM {table} WHERE kind = 'watch_runs'").fetchall()  # noqa: S608
    for text, interval in beats:
        age = datetime.now(UTC) - datetime.fromisoformat(text).replace(tzinfo=UTC)  # noqa: TID251 -- rows of SQLite have this clock
        limit = Heartbeat(interval=interval).lifetime
        if timedelta(0) <= age < limit:
            raise NotCopied(
                f"A worker used the source {age.total_seconds():.0f} s ago: stop it (systemctl stop "
                f"autosubmit-runners-worker). If it was killed, wait {(limit - age).total_seconds():.0f} s."
            )


def _require_empty(tables: list[Table]) -> None:
    """Refuse a target with rows, and let no other process insert any until the end of the transaction."""
    with connection.cursor() as cursor:
        names = ", ".join(connection.ops.quote_name(table.name) for table in tables)
        cursor.execute("SET LOCAL lock_timeout = '10s'")
        try:
            cursor.execute(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")
        except DatabaseError as error:
            raise NotCopied(f"Another process uses the target: {error}. Stop it; nothing was changed.") from error
    for table in tables:
        if table.model not in MADE_BY_MIGRATE and table.model._base_manager.exists():
            raise NotCopied(f"The target is not empty: {table.name} has rows. {REMEDY_EMPTY}")


# --- one table --------------------------------------------------------------------------------------------------------


def _tables() -> list[Table]:
    models = [
        model
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed and not model._meta.proxy and model._meta.app_label != TARGET_ONLY
    ]
    return [Table(model, tuple(map(_column, model._meta.local_concrete_fields))) for model in models]


def _column(field: Field[Any, Any]) -> Column:
    kind = (field.db_type(connection) or "").partition("(")[0]
    convert = KINDS.get(kind)
    if convert is None:
        raise NotCopied(f"{field}: columns of the type {kind} cannot be copied.")
    return Column(str(field.column), *convert)


def _send(old: sqlite3.Connection, table: Table) -> Checksum:
    """Copy the rows of a table, and return their checksum. Raises NotCopied."""
    sent = Checksum()
    place = f"COPY {connection.ops.quote_name(table.name)} ({table.names}) FROM STDIN"
    columns = table.columns
    with closing(old.cursor()) as source, connection.cursor() as cursor:
        source.arraysize = ROWS_AT_ONCE
        (count,) = source.execute(f'SELECT count(*) FROM "{table.name}"').fetchone()  # noqa: S608
        source.execute(f'SELECT {table.names} FROM "{table.name}"')  # noqa: S608
        row: tuple[Any, ...] = ()
        try:
            with cursor.copy(place) as target:
                while rows := source.fetchmany():
                    for row in rows:
                        texts = [column.to_text(value) for column, value in zip(columns, row, strict=True)]
                        sent.add(column.canonical(text) for column, text in zip(columns, texts, strict=True))
                        target.write_row(texts)
        except (ValueError, TypeError, psycopg.Error) as error:
            raise NotCopied(
                f"{table.name}: PostgreSQL does not accept a row: {str(error).strip()} (near the row that begins with "
                f"{str(row[:3])[:100]}). Correct or delete it in the source; nothing was copied."
            ) from error
    if count != sent.rows:
        raise NotCopied(f"{table.name}: {sent.rows} of {count} rows were read. Nothing was copied.")
    return sent


def _stored(table: Table) -> Checksum:
    """Return the checksum of the rows in PostgreSQL."""
    stored = Checksum()
    columns = table.columns
    with connection.cursor() as cursor:
        place = f"COPY {connection.ops.quote_name(table.name)} ({table.names}) TO STDOUT"
        with cursor.copy(place) as source:
            for row in source.rows():
                stored.add(column.canonical(text) for column, text in zip(columns, row, strict=True))
    return stored


def _set_sequence(old: sqlite3.Connection, table: Table) -> None:
    """Let the next number follow the highest one that SQLite has ever given: numbers are not reused."""
    key = table.model._meta.pk
    if not isinstance(key, AutoField) and not (key and key.get_internal_type().endswith("AutoField")):
        return
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), [table.model]):
            cursor.execute(statement)
        given = old.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", [table.name]).fetchone()
        if given and given[0]:
            place = [f'"{table.name}"', key.column]
            cursor.execute(
                "SELECT setval(pg_get_serial_sequence(%s, %s), %s)", [*place, max(given[0], _highest(cursor, table))]
            )


def _highest(cursor: Any, table: Table) -> int:
    key = table.model._meta.pk
    assert key
    cursor.execute(f'SELECT coalesce(max("{key.column}"), 0) FROM "{table.name}"')  # noqa: S608
    return int(cursor.fetchone()[0])


# --- values -----------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str | None:
    if value is not None and "\0" in (text := str(value)):
        raise ValueError(f"a text contains a NUL character: {text[:50]!r}")
    return None if value is None else str(value)


def _number(value: Any) -> str | None:
    if value is not None and not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return None if value is None else str(value)


def _boolean(value: Any) -> str | None:
    if value not in (None, 0, 1):
        raise ValueError(f"{value!r} is not a boolean")
    return None if value is None else "t" if value else "f"


def _float(value: Any) -> str | None:
    return None if value is None else repr(float(value))


def _time(value: Any) -> str | None:
    """Return a time with its zone. Django stores times in SQLite without one, in UTC."""
    if value is None:
        return None
    return datetime.fromisoformat(value).replace(tzinfo=UTC).isoformat(" ")


def _same(text: str | None) -> str | None:
    return text


def _same_float(text: str | None) -> str | None:
    return None if text is None else repr(float(text))


def _same_time(text: str | None) -> str | None:
    """PostgreSQL shortens the fraction, and the zone `+00:00` to `+00`."""
    if text is None:
        return None
    day, _, fraction = text.removesuffix(":00").removesuffix("+00").partition(".")
    return f"{day}.{fraction.rstrip('0')}"


def _same_json(text: str | None) -> str | None:
    """PostgreSQL orders the keys, and has numbers of any precision."""
    if text is None:
        return None
    return repr(_ordered(json.loads(text, parse_float=_decimal, parse_int=_decimal)))


def _decimal(text: str) -> Decimal:
    return Decimal(text).normalize()


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((key, _ordered(each)) for key, each in value.items())
    return [_ordered(each) for each in value] if isinstance(value, list) else value


# By the type of the column in PostgreSQL: how a value of SQLite is sent, and how values are compared.
KINDS: dict[str, tuple[Convert, Convert]] = {
    "bigint": (_number, _same),
    "integer": (_number, _same),
    "smallint": (_number, _same),
    "boolean": (_boolean, _same),
    "double precision": (_float, _same_float),
    "varchar": (_text, _same),
    "text": (_text, _same),
    "jsonb": (_text, _same_json),
    "timestamp with time zone": (_time, _same_time),
}
