"""Queries that stop after a time or a number of rows, for counts that people see on pages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import OperationalError, connection, transaction
from django.db.models import Model, Q, QuerySet

from runners.models import DetachedCommand

# Numbers follow the order of insertion, but `created` may be from the clock of the process that inserts. This is how
# much the two orders can differ (a database that makes writers wait, clocks of several servers).
ORDER_SLACK = timedelta(minutes=10)
FIRST_MOMENT, LAST_MOMENT = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
STEPS = 10_000  # instructions of SQLite between two looks at the clock
QUERY_CANCELED = "57014"  # PostgreSQL's code of a statement that has exceeded its limit


class TooSlow(Exception):
    """The database needed more time than the caller waits."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let the queries in the block take at most `seconds` (PostgreSQL: each of them). Raises TooSlow."""
    limit = _sqlite_limit if connection.vendor == "sqlite" else _postgresql_limit
    try:
        with limit(seconds):
            yield
    except OperationalError as error:
        if "interrupted" in str(error) or getattr(error.__cause__, "sqlstate", "") == QUERY_CANCELED:
            raise TooSlow(f"no result within {seconds:g} s") from error
        raise


@contextmanager
def _sqlite_limit(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    connection.ensure_connection()
    connection.connection.set_progress_handler(lambda: int(time.monotonic() > end), STEPS)
    try:
        yield
    finally:
        connection.connection.set_progress_handler(None, 0)


@contextmanager
def _postgresql_limit(seconds: float) -> Iterator[None]:
    """The limit is one of the transaction, so it also works behind pgbouncer. Its end restores the former limit."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('statement_timeout')")
        (before,) = cursor.fetchone()
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(round(1000 * seconds))])
        yield
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [before])


def count(rows: QuerySet[Any], most: int, seconds: float) -> int | None:
    """Return how many rows there are, at most `most` + 1; None if that takes longer than `seconds`."""
    try:
        with time_limit(seconds):
            return rows.order_by()[: most + 1].count()
    except TooSlow:
        return None


def count_groups(rows: QuerySet[Any, tuple[Any, Any]]) -> dict[tuple[Any, Any], int]:
    """Return how often each pair of values occurs in a `values_list` of two columns, which may have a limit.

    Django cannot group the rows of a query that has a limit.
    """
    try:
        sql, params = rows.query.sql_with_params()
    except EmptyResultSet:  # the filters contradict each other
        return {}
    with connection.cursor() as cursor:
        cursor.execute(f"WITH pairs (a, b) AS ({sql}) SELECT a, b, COUNT(*) FROM pairs GROUP BY a, b", params)  # noqa: S608
        return {(first, second): number for first, second, number in cursor.fetchall()}


def first_values(model: type[Model], name: str, most: int) -> list[str]:
    """Return the first `most` values of an indexed text column, sorted, without the empty text.

    Each value costs one seek in the index, however many rows there are. SELECT DISTINCT would read the whole index.
    Reference: https://wiki.postgresql.org/wiki/Loose_indexscan
    """
    quote = connection.ops.quote_name
    table, column = quote(model._meta.db_table), quote(str(model._meta.get_field(name).column))  # type: ignore[union-attr]
    following = f"SELECT MIN({column}) FROM {table} WHERE {column} >"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH RECURSIVE found (value, number) AS (SELECT ({following} ''), 1 UNION ALL "  # noqa: S608
            f"SELECT ({following} found.value), found.number + 1 FROM found "
            "WHERE found.value IS NOT NULL AND found.number < %s) "
            "SELECT value FROM found WHERE value IS NOT NULL ORDER BY number",
            [most],
        )
        return [value for (value,) in cursor.fetchall()]


def numbers_between(rows: QuerySet[Any], after: datetime | None, before: datetime | None) -> Q:
    """Return a condition on the number of rows that were created at `after` or later, and before `before`.

    It is wider by ORDER_SLACK, so `created` has to be compared, too. It lets a list in the order of the numbers begin
    where these rows are: two seeks in the index of `created`. A run that was found again with a new number is older
    than its number tells. So it says nothing about the other numbers, and an upper bound must not leave it out.
    """
    condition = Q()
    model = rows.model
    ordered, renumbered = model._default_manager.all(), model._default_manager.none()
    if issubclass(model, DetachedCommand):
        ordered, renumbered = ordered.filter(renumbered=False), ordered.filter(renumbered=True)
    by_time = ordered.order_by("-created").values_list("pk", flat=True)
    if after:
        surely = max(after, FIRST_MOMENT + ORDER_SLACK) - ORDER_SLACK
        condition &= Q(pk__gt=by_time.filter(created__lt=surely).first() or 0)
    if before:
        surely = min(before, LAST_MOMENT - ORDER_SLACK) + ORDER_SLACK
        later = by_time.reverse().filter(created__gt=surely).first()
        if later:
            last = renumbered.filter(created__lt=before).order_by("-pk").values_list("pk", flat=True).first() or 0
            condition &= Q(pk__lt=max(later, last + 1))
    return condition
