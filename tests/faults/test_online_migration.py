"""On PostgreSQL, the migration creates the constraint of installations while runs start, and no run waits for it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

from tests.support.postgres import Postgres
from tests.support.processes import PATIENCE, end, wait_for

BEFORE, AFTER = "0013", "0014"
INSERT = """
SET statement_timeout = '5s';
INSERT INTO runners_runnerrun (key, expid, profile_name, config, runner, module_loader, modules, status, reason, signal,
    detail, superseded, host, "user", created, modified, reachable, unreachable_detail, started_by, stopped_by,
    stop_steps, stop_owner)
VALUES ('{key}', '{expid}', '', '{{}}', 'LOCAL', 'NO_MODULE', '', 'ACTIVE', '', '', '', false, '', '', now(), now(),
    true, '', '', '', '[]', '')
"""  # the row of a server of the previous version, without `installation`


def test_runs_are_started_while_the_constraint_is_made(postgres: Postgres) -> None:
    database = f"online_{secrets.token_hex(4)}"
    url = postgres.create(database)
    env = {**os.environ, "DATABASE_URL": url, "SECRET_KEY": secrets.token_urlsafe(50)}

    def migrate(target: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "manage.py", "migrate", "runners", target, "-v", "0"]
        return subprocess.Popen(argv, env=env)

    def insert(expid: str) -> bool:
        return bool(postgres.sql(INSERT.format(key=secrets.token_hex(16), expid=expid), database, check=False))

    first = migrate(BEFORE)
    assert first.wait(120 * PATIENCE) == 0
    writer = subprocess.Popen(postgres.psql(database), stdin=subprocess.PIPE)
    migration = None
    try:
        assert writer.stdin
        writer.stdin.write(f"BEGIN; {INSERT.format(key=secrets.token_hex(16), expid='a000')};\n".encode())
        writer.stdin.flush()
        is_open = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
        wait_for(lambda: postgres.sql(is_open, database) == "1", 30, what="the open transaction")
        migration = migrate(AFTER)
        building = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'"
        wait_for(lambda: postgres.sql(building, database) == "1", 60, what="the migration waits for the open writer")
        assert insert("a001")
        writer.stdin.write(b"COMMIT;\n")
        writer.stdin.close()
        assert writer.wait(30 * PATIENCE) == 0
        assert migration.wait(60 * PATIENCE) == 0
    finally:
        writer.kill()
        if migration:
            end(migration)
    assert insert("a002")
    assert not insert("a000"), "a second active run in the default installation"
    names = postgres.sql(
        "SELECT string_agg(indexname, ' ') FROM pg_indexes WHERE indexname LIKE 'one_active%'", database
    )
    assert names == "one_active_run_per_installation"
    invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    assert postgres.sql(invalid, database) == "0"
    back = migrate(BEFORE)
    assert back.wait(60 * PATIENCE) == 0
    assert not insert("a000"), "a second active run under the old constraint"
