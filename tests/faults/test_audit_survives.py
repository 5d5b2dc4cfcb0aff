"""Servers that die and databases that restart while commands are under way.

Promise: each command keeps its audit record, with the outcome "interrupted" if its outcome is unknown. A command that
another process still executes is never called interrupted. A command that was launched while the database was
away is answered with 200 once the database is back, or with `outcome_unknown` and the run's number.
"""

from __future__ import annotations

import os
import secrets
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest

from tests.support.environments import StubAccount
from tests.support.faults import (
    COMMAND,
    Gate,
    LaunchGates,
    MakeGate,
    Service,
    add_control,
    in_background,
    run_processes,
)
from tests.support.postgres import Postgres
from tests.support.processes import PATIENCE, wait_for
from tests.support.servers import AppServer

EXPID, OTHER = f"g{secrets.token_hex(2)}", f"h{secrets.token_hex(2)}"
PROFILE = {"profile_name": "HERE"}
CREATE = {**PROFILE, "command_params": {"description": "d"}}
READY = {"final_status": "READY", "filter_status": ["FAILED"]}
SET = {**PROFILE, "expid": EXPID, "command_params": READY}
COMMANDS = "endpoint <> 'change-configuration'"  # excludes the import of the profiles
SQL = f"SELECT endpoint, outcome, run_id FROM runners_auditrecord WHERE {COMMANDS} ORDER BY id"


def records(app: AppServer) -> list[tuple[Any, ...]]:
    """Return (endpoint, outcome, run) of each audit record. SQLite only."""
    with closing(sqlite3.connect(app.database)) as database:
        return database.execute(SQL).fetchall()


@pytest.fixture
def app(account: StubAccount, launch_gates: LaunchGates, make_app: Callable[..., AppServer]) -> AppServer:
    for expid in (EXPID, OTHER):
        account.experiment(expid)
    return make_app(account=account)


def send(app: AppServer, command: str, body: dict[str, Any], **headers: str) -> Any:
    """Send a command in the background. The answer is None if the server died before it answered."""
    return in_background(lambda: Service._unless_killed(lambda: app.post(COMMAND + command, body, **headers)))


def test_commands_of_a_killed_server_are_interrupted_and_those_of_another_process_go_on(
    app: AppServer, account: StubAccount, launch_gates: LaunchGates, make_gate: MakeGate, make_app: Any
) -> None:
    gates = [make_gate().arm() for _ in range(3)]
    for command, gate in zip(("expid", "setstatus", "create"), gates, strict=True):
        add_control(account, command, gate.text)
    launch_gates.before.arm()
    sent = [
        send(app, "create-experiment", CREATE),
        send(app, "set-job-status", {**SET, "expid": OTHER}),
        send(app, "run-experiment", {**PROFILE, "expid": EXPID}),
    ]
    for gate in (*gates[:2], launch_gates.before):
        gate.wait_held()
    under_way = {(name, outcome) for name, outcome, _ in records(app)}
    assert under_way == {(each, "under_way") for each in ("create-experiment", "set-job-status", "run-experiment")}
    # Another node probes and watches. A command is not called interrupted while its process lives.
    other = make_app(account=account, env={"DATABASE_URL": f"sqlite:///{app.database}"})
    other.manage("watch_runs")
    assert {(name, outcome) for name, outcome, _ in records(app)} == under_way
    elsewhere = send(other, "create-job-list", {**PROFILE, "expid": OTHER})
    gates[2].wait_held()
    app.kill()
    assert [answer.result(30 * PATIENCE) for answer in sent] == [None] * 3
    app.start()
    wait_for(lambda: str(records(app)).count("interrupted") == 3, what="the interrupted records")
    found = {name: (outcome, run) for name, outcome, run in records(app)}
    assert found["create-experiment"] == found["set-job-status"] == ("interrupted", None)
    assert found["run-experiment"][0] == "interrupted"
    assert found["run-experiment"][1] is not None
    assert found["create-job-list"][0] == "under_way"
    for gate in (*gates, launch_gates.before):
        gate.release()
    assert elsewhere.result(60 * PATIENCE) is not None
    assert records(app)[-1][1] not in ("under_way", "interrupted")


def test_an_operation_of_a_killed_worker_is_reported_by_another_one(
    app: AppServer, account: StubAccount, make_gate: MakeGate
) -> None:
    gate = make_gate().arm()
    add_control(account, "expid", gate.text)
    answer = send(app, "create-experiment", CREATE)
    gate.wait_held()
    for pid in app.worker_pids:
        os.kill(pid, signal.SIGKILL)
    assert answer.result(30 * PATIENCE) is None
    wait_for(lambda: records(app) == [("create-experiment", "interrupted", None)], what="the interrupted record")


class Restarted:
    """A service with its own PostgreSQL database. The test can break every connection of it."""

    def __init__(self, app: AppServer, postgres: Postgres, name: str) -> None:
        self.app, self.postgres, self.name = app, postgres, name

    def restart(self) -> None:
        self.postgres.stop()
        self.postgres.start()

    def terminate(self) -> None:
        self.postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.name}'")

    def rows(self, statement: str) -> list[list[str]]:
        text = self.postgres.sql(statement, self.name)
        return [line.split("|") for line in text.splitlines()] if isinstance(text, str) else []


@pytest.fixture(params=["restart", "terminate"])
def broken(
    request: pytest.FixtureRequest, account: StubAccount, launch_gates: LaunchGates, make_app: Any, postgres: Postgres
) -> tuple[Restarted, Callable[[], None]]:
    account.experiment(EXPID)
    name = f"restarted_{secrets.token_hex(4)}"
    url = postgres.create(name, template="template_of_tests")
    service = Restarted(make_app(account=account, env={"DATABASE_URL": url}), postgres, name)
    return service, getattr(service, request.param)


def test_a_run_launched_without_the_database_is_answered(
    broken: tuple[Restarted, Callable[[], None]], account: StubAccount, launch_gates: LaunchGates, make_gate: MakeGate
) -> None:
    """Cut the connections during a run, an operation, a waiting command and a stop."""
    service, cut = broken
    app = service.app
    account.control("run", EXPID, SLEEP=600)
    create: Gate = make_gate().arm()
    add_control(account, "expid", create.text)
    setting: Gate = make_gate().arm()
    add_control(account, "setstatus", setting.text)
    launch_gates.before.arm()
    key = str(uuid4())
    launch = send(app, "run-experiment", {**PROFILE, "expid": EXPID})
    launch_gates.before.wait_held()
    waited = send(app, "create-experiment", CREATE, Idempotency_Key=key)
    create.wait_held()
    cut()
    for gate in (launch_gates.before, create):
        gate.release()
    started, created = launch.result(60 * PATIENCE), waited.result(60 * PATIENCE)
    assert (started.status, created.status) == (200, 200), (started.body, created.body)
    assert run_processes(account, EXPID) == [started.body["pid"]]
    stop: Gate = make_gate().arm()
    add_control(account, "stop", stop.text)
    stopping = send(app, "stop-experiment", {"expid": EXPID})
    stop.wait_held()
    cut()
    stop.release()
    stopped = stopping.result(60 * PATIENCE)
    assert (stopped.status, stopped.body["reason"]) == (200, "stopped"), stopped.body
    changed = send(app, "set-job-status", SET)
    setting.wait_held()
    cut()
    setting.release()
    assert changed.result(60 * PATIENCE).status == 200, changed.result(60 * PATIENCE).body
    number = str(started.body["runner_id"])
    wait_for(lambda: "under_way" not in str(service.rows(SQL)), what="the ends of all records")
    assert sorted(service.rows(SQL)) == [
        ["create-experiment", "ok", ""],
        ["run-experiment", "ok", number],
        ["set-job-status", "ok", ""],
        ["stop-experiment", "ok", number],
    ]
    assert service.rows("SELECT status, reason FROM runners_runnerrun") == [["TERMINATED", "stopped"]]
    assert service.rows("SELECT status, expid FROM runners_operation") == [["succeeded", created.body["expid"]]]


def test_a_launch_that_loses_the_database_is_unknown_and_has_its_run_id(
    broken: tuple[Restarted, Callable[[], None]], account: StubAccount, launch_gates: LaunchGates
) -> None:
    """The database comes back after the answer. Then the service adopts the run and completes the record by itself.

    A repeated request gets the run, although the process of the first request lives: it releases the key.
    """
    service, _ = broken
    account.control("run", EXPID, SLEEP=600)
    launch_gates.before.arm()
    body, key = {**PROFILE, "expid": EXPID}, str(uuid4())
    launch = send(service.app, "run-experiment", body, Idempotency_Key=key)
    launch_gates.before.wait_held()
    service.postgres.stop()
    launch_gates.before.release()
    told = launch.result(60 * PATIENCE)
    service.postgres.start()
    assert (told.status, told.body["code"]) == (502, "outcome_unknown"), told.body
    number = str(told.body["run_id"])
    assert "Nothing is lost" not in told.body["detail"]
    wait_for(lambda: service.rows(SQL) == [["run-experiment", "outcome_unknown", number]], what="the record's end")
    status = service.app.post(COMMAND + "get-runner-run-status", {"expid": EXPID})
    assert (status.body["status"], str(status.body["runner_id"])) == ("ACTIVE", number)

    def repeated() -> Any:
        answer = service.app.post(COMMAND + "run-experiment", body, Idempotency_Key=key)
        return answer if answer.body.get("code") != "idempotency_in_progress" else None

    again = wait_for(repeated, 20, what="the answer of a repeated request")
    assert (again.status, str(again.body["runner_id"])) == (200, number), again.body
