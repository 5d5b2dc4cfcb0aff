"""Measure each migration of large tables on PostgreSQL while others write: `python -m bench.migrations`.

A database at an old migration gets runs and audit records. Then each migration is applied alone.
Meanwhile one thread inserts a run and an audit record again and again, as an older server would, and another
one holds a transaction open that has read both tables, as a backup or a slow report does. Prints a table: how long each
migration took, the longest wait of the writer, and the inserts that failed.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import threading
import time
from dataclasses import dataclass, field

import django
import psycopg
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from psycopg import sql

from tests.support.postgres import Postgres
from tests.support.servers import ROOT

RUNS, RECORDS = "runners_runnerrun", "runners_auditrecord"
CHUNK = 100_000  # rows of one statement
PAUSE = 0.01  # seconds between two inserts of the writer
HELD = 3.0  # seconds for which the reader holds its transaction open, and then rests
PROMISED_SINCE = "0021"  # later migrations are made for servers of two versions
WAIT_LIMIT = 1.0  # seconds that a writer may wait
# What a row has in a column, by its name; `n` is its number. Others that must not be null have a value by their type.
VALUES = {
    "key": "md5(n::text || {seed})",
    "expid": "'x' || lpad(to_hex(n / 100), 5, '0')",
    "created": "now() - make_interval(secs => {count} - n)",
    "modified": "now() - make_interval(secs => {count} - n)",
    "finished": "now() - make_interval(secs => {count} - n)",
    "status": "CASE WHEN n % 3 = 0 THEN 'COMPLETED' ELSE 'TERMINATED' END",
    "reason": "CASE WHEN n % 3 = 0 THEN '' ELSE 'failed' END",
    "host": "'login' || n % 60",
    "user": "'user' || n % 300",
    "started_by": "'user' || n % 300",
    "actor": "'user' || n % 300",
    "profile_name": "''",  # 0012, which is released, numbers all rows with a profile in one transaction
    "endpoint": "(ARRAY['run-experiment', 'stop-experiment', 'set-job-status'])[1 + n % 3]",
    "run_id": "n / 5",
    "config": """'{{"runner_type": "SSH", "module_loader_type": "NO_MODULE", "modules": [], "ssh": null}}'""",
}
BY_TYPE = {"boolean": "false", "jsonb": "'[]'", "integer": "0", "bigint": "0", "smallint": "0"}
BY_TYPE |= {"timestamp with time zone": "now()"}
say = sys.stdout.write


def insert(database: psycopg.Connection, table: str, first: int, number: int, count: int) -> None:
    """Insert `number` rows with the numbers from `first` on, of `count`. Columns of later migrations get no value."""
    query = """SELECT column_name, data_type FROM information_schema.columns
               WHERE table_name = %s AND column_name <> 'id'
               AND (column_name = ANY(%s) OR is_nullable = 'NO' AND column_default IS NULL)"""
    columns = database.execute(query, (table, list(VALUES))).fetchall()
    values = [VALUES.get(name, BY_TYPE.get(kind, "''")) for name, kind in columns]
    text = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM generate_series({}, {}) AS n").format(
        sql.Identifier(table),
        sql.SQL(", ").join(sql.Identifier(name) for name, _ in columns),
        sql.SQL(", ").join(
            sql.SQL(value).format(seed=sql.Literal(secrets.token_hex(8)), count=sql.Literal(count)) for value in values
        ),
        sql.Literal(first),
        sql.Literal(first + number - 1),
    )
    database.execute(text)


def fill(url: str, table: str, count: int) -> None:
    with psycopg.connect(url, autocommit=True) as database:
        for first in range(0, count, CHUNK):
            insert(database, table, first, min(CHUNK, count - first), count)
        database.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(table)))


@dataclass
class Writer:
    """Inserts runs and audit records until `stop` is set. `longest`: seconds that one insert took."""

    url: str
    stop: threading.Event = field(default_factory=threading.Event)
    longest: float = 0.0
    failed: int = 0
    done: int = 0
    number: int = 0

    def start_of_step(self) -> None:
        self.longest, self.failed, self.done = 0.0, 0, 0

    def write(self) -> None:
        statements: dict[str, str] = {}
        with psycopg.connect(self.url, autocommit=True) as database:
            while not self.stop.wait(PAUSE):
                self.number += 1
                for table in (RUNS, RECORDS):
                    begin = time.monotonic()
                    try:
                        database.execute(statements.setdefault(table, statement_of_old_server(database, table)))
                        self.done += 1
                    except psycopg.Error:  # a new column that must not be null: the older server cannot insert
                        self.failed += 1
                        statements.pop(table, None)
                    self.longest = max(self.longest, time.monotonic() - begin)

    def read(self) -> None:
        while not self.stop.wait(HELD):
            with psycopg.connect(self.url) as database:
                database.execute(f"SELECT (SELECT max(id) FROM {RUNS}), (SELECT max(id) FROM {RECORDS})")  # noqa: S608
                self.stop.wait(HELD)


def statement_of_old_server(database: psycopg.Connection, table: str) -> str:
    """Return an INSERT that names the columns that must not be null now, as a server of this version does."""
    query = """SELECT column_name, data_type FROM information_schema.columns
               WHERE table_name = %s AND column_name <> 'id' AND is_nullable = 'NO' AND column_default IS NULL"""
    columns = database.execute(query, (table,)).fetchall()
    unique = "md5(clock_timestamp()::text || random())"
    value = {"key": unique, "status": "'COMPLETED'", "expid": f"left({unique}, 8)"}
    names = ", ".join(f'"{name}"' for name, _ in columns)
    values = ", ".join(value.get(name, BY_TYPE.get(kind, "''")) for name, kind in columns)
    return f"INSERT INTO {table} ({names}) VALUES ({values})"  # noqa: S608


def migrate(step: str) -> float:
    """Apply a migration of `runners` and those that it needs. Return the seconds that it took."""
    executor = MigrationExecutor(connection)
    begin = time.monotonic()
    executor.migrate([("runners", step)])
    return time.monotonic() - begin


def measure(url: str, steps: list[str]) -> bool:
    """Apply each migration of `runners`, and print a line for it. Return True if no writer waited for too long."""
    writer = Writer(url)
    threads = [threading.Thread(target=writer.write), threading.Thread(target=writer.read)]
    for thread in threads:
        thread.start()
    is_good = True
    say("| migration | took | longest wait of the writer | inserts | failed |\n|---|---|---|---|---|\n")
    try:
        for step in steps:
            writer.start_of_step()
            seconds = migrate(step)
            is_good &= writer.longest < WAIT_LIMIT and not (writer.failed and step > PROMISED_SINCE)
            say(f"| {step} | {seconds:.1f} s | {writer.longest:.2f} s | {writer.done} | {writer.failed} |\n")
            sys.stdout.flush()
    finally:
        writer.stop.set()
        for thread in threads:
            thread.join()
    return is_good


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the migrations of large tables while others write.")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--records", type=int, default=5_000_000, help="audit records")
    parser.add_argument("--since", default="0003", help="the migration of `runners` at which the tables are filled")
    options = parser.parse_args()
    names = sorted(path.stem for path in (ROOT / "runners/migrations").glob("0*.py"))
    with Postgres() as server:
        url = server.create("migrations")
        os.environ |= {"DATABASE_URL": url, "SECRET_KEY": secrets.token_urlsafe(50)}
        os.environ["DJANGO_SETTINGS_MODULE"] = "runners_project.settings"
        sys.argv[1:] = ["migrate"]  # statements of this process have no time limit, as those of `manage.py migrate`
        django.setup()
        migrate(next(name for name in names if name.startswith(options.since)))
        begin = time.monotonic()
        fill(url, RUNS, options.runs)
        fill(url, RECORDS, options.records)
        took = time.monotonic() - begin
        size = server.sql("SELECT pg_size_pretty(pg_database_size(current_database()))", "migrations")
        say(f"{options.runs:,} runs and {options.records:,} audit records, {size}, filled in {took:.0f} s; ")
        say(f"load {os.getloadavg()[0]:.1f}\n\n")
        return 0 if measure(url, [name for name in names if name[:4] > options.since]) else 1


if __name__ == "__main__":
    sys.exit(main())
