"""PostgreSQL that is frozen or waits for a lock, directly and behind pgbouncer in transaction mode.

Promise: each request gets a 503 within the limits of the settings, and its statement does not go on in the server.
Migrations and retention have no limit.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runners_project.database import statement_timeout
from tests.support.environments import StubAccount
from tests.support.faults import COMMAND, EXPID, assert_database_unavailable, profile_of, run_processes
from tests.support.postgres import PgBouncer, Postgres
from tests.support.processes import PATIENCE, end, kill_all, start, wait_for
from tests.support.servers import ROOT, Answer, AppServer

CONNECT, STATEMENT = 1, 2  # seconds
LIMITS = {
    "DATABASE_CONNECT_TIMEOUT": str(CONNECT),
    "DATABASE_STATEMENT_TIMEOUT": str(STATEMENT),
    "DATABASE_WATCH_TIMEOUT": str(STATEMENT),
}
CANCEL = 1  # seconds that the cancel of a statement may take
SLACK = 3 * PATIENCE  # seconds of tolerance for a busy machine
THREADS = 2 * 8


@pytest.fixture(params=["directly", "pgbouncer"])
def through(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[tuple[str, str]]:
    """Yield (URL, name) of a new database."""
    name = f"frozen_{secrets.token_hex(4)}"
    url = postgres.create(name, template="template_of_tests")
    if request.param == "directly":
        yield url, name
        return
    bouncer = PgBouncer(postgres)
    yield bouncer.url(name), name
    bouncer.close()


@pytest.fixture
def app(through: tuple[str, str], account: StubAccount, make_app: Callable[..., AppServer]) -> AppServer:
    account.experiment(EXPID)
    account.control("run", EXPID, SLEEP=600)
    return make_app(account=account, env={"DATABASE_URL": through[0], **LIMITS})


def many_statuses(app: AppServer) -> list[tuple[Answer, float]]:
    """Request the status from as many clients as the server has threads. Return each answer with its seconds."""

    def ask(_: int) -> tuple[Answer, float]:
        begin = time.monotonic()
        answer = app.post(COMMAND + "get-runner-run-status", {"expid": EXPID})
        return answer, time.monotonic() - begin

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(ask, range(THREADS)))


@pytest.fixture
def watch_log(app: AppServer) -> Iterator[Path]:
    """Run `watch_runs` beside the server. Yield the log file of its output."""
    log = app.folder / "watch.log"
    argv = [sys.executable, str(ROOT / "manage.py"), "watch_runs", "--interval=0.5"]
    process = start(argv, log=log, env=app.environment, cwd=ROOT)
    wait_for(lambda: "Watching" in log.read_text(), what="the watch")
    yield log
    assert process.poll() is None, log.read_text()
    end(process)


def test_a_frozen_database_is_reported_within_the_time_limit_and_used_again_later(
    app: AppServer, account: StubAccount, postgres: Postgres, watch_log: Path
) -> None:
    started = app.post(COMMAND + "run-experiment", {"expid": EXPID, **profile_of(None)})
    assert started.status == 200, started.body
    assert {answer.status for answer, _ in many_statuses(app)} == {200}  # now the threads have connections
    with postgres.frozen():
        for answer, seconds in many_statuses(app):
            assert_database_unavailable(answer)
            assert seconds < 2 * CONNECT + STATEMENT + CANCEL + SLACK
        begin = time.monotonic()  # now the threads have no connections
        assert_database_unavailable(app.post(COMMAND + "run-experiment", {"expid": EXPID, **profile_of(None)}))
        assert app.get("/", Cookie="sessionid=0123456789abcdef0123456789abcdef").status == 503  # a page
        assert time.monotonic() - begin < 2 * (2 * CONNECT + STATEMENT + CANCEL) + SLACK
        # The watch reports the failure and tries again.
        wait_for(lambda: watch_log.read_text().count("The database is unavailable") >= 2, 20, what="its words")

    def works_again() -> bool:
        return {answer.status for answer, _ in many_statuses(app)} == {200}

    wait_for(works_again, 20, what="the database")
    assert run_processes(account) == [started.body["pid"]]
    kill_all(run_processes(account))
    wait_for(lambda: f"{EXPID}: run" in watch_log.read_text(), 20, what="the end, which the watch has seen")


def test_a_statement_that_waits_for_a_lock_is_ended_on_the_server_too(
    app: AppServer, through: tuple[str, str], postgres: Postgres
) -> None:
    name = through[1]
    body = {"expid": EXPID}
    assert app.post(COMMAND + "get-runner-run-status", body).status == 404
    argv = ["psql", "-XAtq", "-h", "127.0.0.1", "-p", str(postgres.port), "-U", "tests", name]
    holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdin
        assert holder.stdout
        holder.stdin.write("BEGIN; LOCK TABLE runners_runnerrun; SELECT 'locked';\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "locked\n"
        begin = time.monotonic()
        assert_database_unavailable(app.post(COMMAND + "get-runner-run-status", body))
        assert STATEMENT <= time.monotonic() - begin < STATEMENT + CANCEL + SLACK
        waiting = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event_type = 'Lock'"
        wait_for(lambda: postgres.sql(waiting) == "0", 5, what="the end of the statement")
    finally:
        holder.kill()
        holder.communicate()
    assert app.post(COMMAND + "get-runner-run-status", body).status == 404
    # An admin's shell has no such limit, like retention and migrations. A client that freezes within a transaction
    # holds its locks for one minute only.
    script = f"""
from django.db import connection
cursor = connection.cursor()
cursor.execute("SELECT pg_sleep({STATEMENT + 0.5})")
cursor.execute("SHOW idle_in_transaction_session_timeout")
print(cursor.fetchone()[0])
from django.contrib.auth.models import Permission
print(len(list(Permission.objects.iterator(chunk_size=2))) > 2)
"""
    assert app.manage("shell", "-c", script).split()[-2:] == ["1min", "True"]


@pytest.mark.parametrize(
    ("argv", "seconds"),
    [
        (["/venv/bin/gunicorn", "runners_project.wsgi"], 15),
        (["manage.py", "runserver"], 15),
        (["manage.py", "import_profiles", "migrate"], 15),
        (["manage.py"], 15),
        (["manage.py", "watch_runs", "--interval=10"], 60),
        (["autosubmit-runners-server", "worker"], 60),
        (["manage.py", "migrate"], 0),
        (["autosubmit-runners-server", "copy-database", "--from=sqlite:////x"], 0),
        (["manage.py", "clean_runs", "--days=30"], 0),
    ],
)
def test_the_limit_of_a_statement_is_that_of_the_processs_role(argv: list[str], seconds: float) -> None:
    assert statement_timeout(argv, requests=15, watch=60) == seconds
