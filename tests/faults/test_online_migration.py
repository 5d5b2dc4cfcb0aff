"""On PostgreSQL, no run waits for a migration, and a migration that was interrupted is continued by the next one."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.postgres import Postgres
from tests.support.processes import PATIENCE, start, wait_for

OWN = "datname = current_database()"
BEFORE, COLUMN, INDEXES = "0012", "0013", "0014"
INSERT = """
SET statement_timeout = '5s';
INSERT INTO runners_runnerrun (key, expid, profile_name, config, runner, module_loader, modules, status, reason, signal,
    detail, superseded, host, "user", created, modified, reachable, unreachable_detail, started_by, stopped_by,
    stop_steps, stop_owner)
VALUES ('{key}', '{expid}', '', '{{}}', 'LOCAL', 'NO_MODULE', '', 'ACTIVE', '', '', '', false, '', '', now(), now(),
    true, '', '', '', '[]', '')
"""  # the row of a server of the previous version, without `installation`


def test_runs_are_started_while_migrations_wait_and_an_interrupted_one_is_continued(postgres: Postgres) -> None:
    database = f"online_{secrets.token_hex(4)}"
    url = postgres.create(database)
    env = {**os.environ, "DATABASE_URL": url, "SECRET_KEY": secrets.token_urlsafe(50)}

    def begin(target: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "manage.py", "migrate", "runners", target, "-v", "0"]
        return start(argv, log=postgres.folder / "migrate.log", env=env)

    def migrate(target: str) -> None:
        assert begin(target).wait(60 * PATIENCE) == 0

    def insert(expid: str) -> bool:
        return bool(postgres.sql(INSERT.format(key=secrets.token_hex(16), expid=expid), database, check=False))

    @contextmanager
    def open_writer(expid: str) -> Iterator[None]:
        """Insert a run in a transaction that is committed at the end of the block."""
        writer = subprocess.Popen(postgres.psql(database), stdin=subprocess.PIPE)
        try:
            assert writer.stdin
            writer.stdin.write(f"BEGIN; {INSERT.format(key=secrets.token_hex(16), expid=expid)};\n".encode())
            writer.stdin.flush()
            is_open = f"SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND {OWN}"
            wait_for(lambda: postgres.sql(is_open, database) == "1", 30, what="the open transaction")
            yield
            writer.stdin.write(b"COMMIT;\n")
            writer.stdin.close()
            assert writer.wait(30 * PATIENCE) == 0
        finally:
            writer.kill()
            if writer.stdin:
                writer.stdin.close()

    def wait_until_blocked(statement: str) -> int:
        """Wait until a statement of the migration waits for a lock. Return the pid of its server process."""
        waiting = f"SELECT max(pid) FROM pg_stat_activity WHERE query LIKE '{statement}%' AND wait_event_type = 'Lock'"

        def pid() -> int:
            found = postgres.sql(waiting, database)
            return 0 if isinstance(found, bool) else int(found)

        return wait_for(pid, 60, what=f"{statement} waits for a lock", interval=0.02)

    invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    migrate(BEFORE)
    with open_writer("a000"):
        migration = begin(COLUMN)
        wait_until_blocked("ALTER TABLE")
        assert insert("a001"), "it waited behind the migration"
    assert migration.wait(60 * PATIENCE) == 0
    with open_writer("b000"):
        migration = begin(INDEXES)
        pid = wait_until_blocked("CREATE INDEX CONCURRENTLY")
        assert insert("b001"), "it waited behind the migration"
        postgres.sql(f"SELECT pg_terminate_backend({pid})", database)
        assert migration.wait(60 * PATIENCE) == 1
    assert postgres.sql(invalid, database) == "1"
    with open_writer("c000"):  # a former version repaired the index in this way, and its repair was interrupted, too
        name = postgres.sql("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid", database)
        argv = [*postgres.psql(database), "-c", f"REINDEX INDEX CONCURRENTLY {name}"]
        repair = start(argv, log=postgres.folder / "reindex.log")
        postgres.sql(f"SELECT pg_terminate_backend({wait_until_blocked('REINDEX')})", database)
        assert repair.wait(60 * PATIENCE)
    assert postgres.sql(invalid, database) == "2"
    with open_writer("d000"):
        migration = begin(INDEXES)
        pid = wait_until_blocked("DROP INDEX CONCURRENTLY")
        assert insert("d001"), "it waited behind the migration"
        postgres.sql(f"SELECT pg_terminate_backend({pid})", database)
        assert migration.wait(60 * PATIENCE) == 1
    migrate(INDEXES)
    assert postgres.sql(invalid, database) == "0"
    assert insert("a002")
    assert not insert("a000"), "a second active run in the default installation"
    names = postgres.sql(
        "SELECT string_agg(indexname, ' ') FROM pg_indexes WHERE indexname LIKE 'one_active%'", database
    )
    assert names == "one_active_run_per_installation"
    migrate(BEFORE)
    assert not insert("a000"), "a second active run under the old constraint"


def test_the_room_in_the_pages_of_runs_is_set_beside_an_open_writer_and_removed_on_the_way_back(
    postgres: Postgres,
) -> None:
    database = f"room_{secrets.token_hex(4)}"
    env = {**os.environ, "DATABASE_URL": postgres.create(database), "SECRET_KEY": secrets.token_urlsafe(50)}

    def migrate(target: str) -> None:
        argv = [sys.executable, "manage.py", "migrate", "runners", target, "-v", "0"]
        assert start(argv, log=postgres.folder / "migrate.log", env=env).wait(60 * PATIENCE) == 0

    room = (
        "SELECT coalesce(string_agg(relname || reloptions::text, ', ' ORDER BY relname), 'none') FROM pg_class WHERE "
    )
    room += "reloptions IS NOT NULL AND relname IN ('runners_runnerrun', 'runners_operation')"
    migrate("0042")
    assert postgres.sql(room, database) == "none"
    writer = subprocess.Popen(postgres.psql(database), stdin=subprocess.PIPE)
    try:
        assert writer.stdin
        writer.stdin.write(b"BEGIN; UPDATE runners_runnerrun SET modified = now(); DELETE FROM runners_operation;\n")
        writer.stdin.flush()
        is_open = f"SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND {OWN}"
        wait_for(lambda: postgres.sql(is_open, database) == "1", 30, what="the open transaction")
        migrate("0043")
    finally:
        writer.kill()
        writer.communicate()
    assert postgres.sql(room, database) == "runners_operation{fillfactor=70}, runners_runnerrun{fillfactor=70}"
    migrate("0042")
    assert postgres.sql(room, database) == "none"
