"""Stops whose own service dies, and stops that meet a launch.

Promise: a stop that no process executes any more is reported as interrupted, once, and can be repeated. If a run is
stopped during its launch, both callers are told that it was stopped, and no retry of the request starts it again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest

from tests.support.faults import COMMAND, EXPID, Gate, Service, in_background, run_processes
from tests.support.processes import PATIENCE, wait_for

MakeGate = Callable[[], Gate]


def audit(service: Service) -> list[tuple[Any, ...]]:
    """Return (outcome, run) of every recorded stop."""
    with closing(sqlite3.connect(service.app.database)) as database:
        return database.execute(
            "SELECT outcome, run_id FROM runners_auditrecord WHERE endpoint = 'stop-experiment' ORDER BY id"
        ).fetchall()


@pytest.mark.parametrize("how", ["KILL", "TERM"])
@pytest.mark.server_env(GUNICORN_CMD_ARGS="--graceful-timeout=1")
def test_a_stop_whose_service_ends_is_interrupted_and_can_be_repeated(service: Service, how: str) -> None:
    service.account.control("run", EXPID, SLEEP=600, IGNORE="INT")
    service.account.control("stop", DELAY=60)
    started = service.run()
    assert started.status == 200, started.body
    answer = service.stop_in_background()
    wait_for(lambda: service.account.calls("stop"), what="autosubmit stop")
    number = started.body["runner_id"]
    assert service.row()["stop_owner"]
    service.kill() if how == "KILL" else service.app.stop()
    answer.result(60 * PATIENCE)
    service.account.control("stop", DELAY=0, IGNORE="")
    service.start()
    assert service.status()["status"] == "ACTIVE"
    assert run_processes(service.account) == [started.body["pid"]]
    row = service.row()
    assert (row["stop_owner"], row["stop_until"]) == ("", None)
    assert '"interrupted": true' in row["stop_steps"]
    assert "the service ended during this step" in row["stop_steps"]
    service.status()
    assert audit(service) == [("interrupted", number)]  # reported once
    service.account.control("stop", FAIL="The next stop has to use signals")
    again = service.post("stop-experiment", force=True)
    assert (again.status, again.body["reason"]) == (200, "stopped"), again.body
    assert "interrupted" not in service.row()["stop_steps"]
    assert audit(service) == [("interrupted", number), ("ok", number)]


def test_a_stop_during_a_launch_is_reported_by_both_requests(service: Service, make_gate: MakeGate) -> None:
    """The login shell of the run is still in its profile: its identity is written, its command has not begun."""
    gate = make_gate()
    profile = service.account.home / ".bash_profile"
    before = profile.read_text()
    profile.write_text(gate.text + before)
    key = str(uuid4())
    path, body = COMMAND + "run-experiment", {"expid": EXPID, **service.profile}
    try:
        gate.arm()
        launch = in_background(lambda: service.app.post(path, body, Idempotency_Key=key))
        gate.wait_held()
        wait_for(lambda: service.status()["pid"], what="the identity, which a look adopts")
        stopped = service.post("stop-experiment")
    finally:
        profile.write_text(before)
    assert (stopped.status, stopped.body["message"]) == (200, f"Experiment {EXPID} stopped successfully.")
    told = launch.result(60 * PATIENCE)
    assert (told.status, told.body["code"]) == (409, "stopped_during_launch"), told.body
    assert (told.body["run"]["status"], told.body["run"]["reason"]) == ("TERMINATED", "stopped")
    row = service.row()
    assert (row["status"], row["reason"], row["stopped_by"]) == ("TERMINATED", "stopped", stopped.body["stopped_by"])
    again = service.app.post(path, body, Idempotency_Key=key)
    assert (again.status, again.body["code"]) == (409, "stopped_during_launch")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(service.rows()) == 1
    assert service.account.calls("run") == []
    assert not service.account.processes()
    fresh = service.app.post(path, body, Idempotency_Key=str(uuid4()))
    assert fresh.status == 200, fresh.body
