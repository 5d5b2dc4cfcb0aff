"""Fill an empty, migrated PostgreSQL with ten years of a large site: `python -m bench.large_site [RUNS]`.

1,000,000 runs by default, with 5,000,000 audit records, 60 machines, 300 people and 20,000 experiments
(`large_site.sql`). Needs a server's environment. The statements run in one transaction without indexes, which are made
afterwards. Measured at 1,000,000 runs: see the output.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import django

RUNS = 1_000_000
STATEMENTS = Path(__file__).with_suffix(".sql")
# Tables whose indexes are made after their rows. A primary key and a unique constraint stay.
BIG = ("runnerrun", "auditrecord", "operation", "webhookdelivery", "mail")


def main(runs: int = RUNS) -> None:
    fill(runs, say=lambda text: sys.stdout.write(f"{text}\n"))


def fill(runs: int, say: object = None) -> None:
    """Insert the rows. Raises AssertionError if there are runs already."""
    from django.db import connection, transaction

    from runners.models import RunnerRun

    assert connection.vendor == "postgresql", "DATABASE_URL has to name a PostgreSQL"
    assert not RunnerRun.objects.exists(), "this database has runs already: create an empty one, and migrate it"
    start = time.perf_counter()
    connection.ensure_connection()
    connection.connection.time_limit = None  # the statements take longer than a request may
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL work_mem = '256MB'")
        cursor.execute("SET LOCAL session_replication_role = replica")  # no check of each foreign key: superusers only
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename = ANY(%s) AND NOT "
            "EXISTS (SELECT FROM pg_constraint WHERE conname = indexname)",
            [[f"runners_{name}" for name in BIG]],
        )
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f'DROP INDEX "{name}"')
        for statement in statements(runs):
            before = time.perf_counter()
            cursor.execute(statement)
            if callable(say) and time.perf_counter() - before > 1:
                say(f"{time.perf_counter() - before:6.1f} s  {statement.split('(')[0].strip().splitlines()[-1]}")
        cursor.execute("SET LOCAL maintenance_work_mem = '512MB'")
        before = time.perf_counter()
        for _, definition in indexes:
            cursor.execute(definition)
        if callable(say):
            say(f"{time.perf_counter() - before:6.1f} s  {len(indexes)} indexes")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    if callable(say):
        say(f"{time.perf_counter() - start:6.1f} s  in all")


def statements(runs: int) -> list[str]:
    """Return the statements of large_site.sql for this number of runs."""
    lines = STATEMENTS.read_text().replace(":runs", str(runs)).splitlines()
    text = "\n".join(line for line in lines if not line.startswith("--"))
    return [statement.strip() for statement in text.split(";\n") if statement.strip()]


if __name__ == "__main__":
    django.setup()
    main(*map(int, sys.argv[1:]))
