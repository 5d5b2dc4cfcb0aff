"""Many simultaneous requests for the same experiment, over several server processes.

Promise: of any number of simultaneous run-experiment requests for one experiment, exactly one runs. The others are told
which run is active.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from threading import Barrier
from typing import Any

import pytest

from tests.support.environments import StubAccount
from tests.support.faults import COMMAND, EXPID, profile_of, run_processes
from tests.support.postgres import Postgres
from tests.support.processes import PATIENCE, wait_for
from tests.support.servers import Answer, AppServer, SSHServer

AT_ONCE = 50
SERVERS, WORKERS, THREADS = 2, 2, 16  # 64 requests can be under way in 4 processes


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_database(request: pytest.FixtureRequest) -> str | None:
    """Return the URL of a database for all servers, or None for SQLite in the folder of the first server."""
    if request.param == "sqlite":
        return None
    postgres: Postgres = request.getfixturevalue("postgres")
    name = f"races_{request.node.callspec.params['runner_type'].lower()}"
    return postgres.create(name, template="template_of_tests")


@pytest.fixture
def servers(
    shared_database: str | None, runner_type: str, sshd: SSHServer, make_app: Any, account: StubAccount
) -> list[AppServer]:
    found: list[AppServer] = []
    for _ in range(SERVERS):
        url = shared_database or (f"sqlite:///{found[0].database}" if found else "")
        # This test is not about the limit of commands per process.
        env = {"RUNNERS_SERVER_THREADS": "100", **({"DATABASE_URL": url} if url else {})}
        found.append(make_app(account=account, sshd=sshd, env=env, workers=WORKERS, threads=THREADS))
    return found


def together(calls: list[Callable[[], Answer]]) -> list[Answer]:
    """Call all functions at the same moment."""
    barrier = Barrier(len(calls))

    def call(function: Callable[[], Answer]) -> Answer:
        barrier.wait(30 * PATIENCE)
        return function()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def stored_runs(servers: list[AppServer], postgres: Postgres | None) -> list[tuple[int, str, int]]:
    """Return (id, status, pid) of every run, read directly from the database."""
    query = "SELECT id, status, pid FROM runners_runnerrun ORDER BY id"
    if postgres:
        name = servers[0].environment["DATABASE_URL"].rpartition("/")[2]
        lines = str(postgres.sql(query, name)).splitlines()
        return [(int(pk), status, int(pid or 0)) for pk, status, pid in (line.split("|") for line in lines)]
    with closing(sqlite3.connect(servers[0].database)) as database:
        return [tuple(row) for row in database.execute(query)]


def test_exactly_one_of_fifty_simultaneous_runs_of_an_experiment_starts(
    servers: list[AppServer],
    shared_database: str | None,
    account: StubAccount,
    runner_type: str,
    sshd: SSHServer,
    request: pytest.FixtureRequest,
) -> None:
    account.experiment(EXPID)
    account.control("run", EXPID, SLEEP=600)
    body = {"expid": EXPID, **profile_of(sshd if runner_type == "SSH" else None)}
    run = COMMAND + "run-experiment"
    answers = together([partial(servers[n % SERVERS].post, run, body) for n in range(AT_ONCE)])
    assert Counter(answer.status for answer in answers) == {200: 1, 409: AT_ONCE - 1}, odd_ones(answers)
    (winner,) = [answer.body for answer in answers if answer.status == 200]
    refusals = [answer.body for answer in answers if answer.status == 409]
    assert {refusal["code"] for refusal in refusals} == {"already_running"}
    assert {refusal["run"]["runner_id"] for refusal in refusals} == {winner["runner_id"]}  # the running one
    postgres = request.getfixturevalue("postgres") if shared_database else None
    assert stored_runs(servers, postgres) == [(winner["runner_id"], "ACTIVE", winner["pid"])]
    wait_for(lambda: account.calls("run"), what="the run itself")
    assert account.calls("run") == [["run", EXPID]]
    assert run_processes(account) == [winner["pid"]]
    # No request blocks another one for longer than that moment: the end frees the experiment for exactly one new run.
    account.kill()
    wait_for(lambda: status_of(servers[0]) != "ACTIVE", what="end")
    again = together([partial(app.post, run, body) for app in servers])
    assert sorted(answer.status for answer in again) == [200, 409], odd_ones(again)


def status_of(server: AppServer) -> str:
    """Return the status of the experiment's run that the service reports."""
    answer = server.post(COMMAND + "get-runner-run-status", {"expid": EXPID})
    assert answer.status == 200, answer.body  # an error body has a member `status`, too
    return str(answer.body["status"])


def odd_ones(answers: list[Answer]) -> list[Any]:
    return [answer.body for answer in answers if answer.status not in (200, 409)][:3]
