"""The database is locked or away for ten seconds.

Promise: no run is lost, and no run is started twice. If the service cannot do something now, it says so
(503 `database_unavailable`, Retry-After). If it began something and cannot store it, it answers `outcome_unknown` with
the run's number. Once the database is back, everything becomes right again by itself.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from tests.support.environments import StubAccount
from tests.support.faults import (
    Gate,
    LaunchGates,
    MakeGate,
    Service,
    assert_database_unavailable,
    in_background,
    run_processes,
)
from tests.support.postgres import Postgres
from tests.support.processes import PATIENCE, wait_for
from tests.support.servers import Answer

OUTAGE = 10.0  # seconds
QUICK = 1  # seconds that SQLite waits for another writer, in tests that need the rejection and not the late success
EXPID = f"d{secrets.token_hex(2)}"  # random: `autosubmit stop` takes it in any home, also of other test runs


class Database(ABC):
    """A service and its database, which a test can take away. Runs are LOCAL."""

    can_read = False  # whether reads work while the database is away

    def __init__(self, service: Service) -> None:
        self.service = service

    @abstractmethod
    def take_away(self) -> None: ...

    @abstractmethod
    def give_back(self) -> None: ...

    @contextmanager
    def gone(self, seconds: float = 0.0) -> Iterator[None]:
        """Take the database away for the block and at least `seconds`. During that time a client polls the status."""
        self.take_away()
        begin = time.monotonic()
        try:
            yield
            while time.monotonic() - begin < seconds:
                answer = self.post("get-runner-run-status")
                if answer.status != 503 and self.can_read:  # the last stored state
                    assert answer.status == 404 or answer.body["status"] == "ACTIVE", answer
                else:
                    assert_database_unavailable(answer)
        finally:
            self.give_back()

    # `Service` has one fixed experiment; these methods use EXPID.

    def post(self, command: str, **body: Any) -> Answer:
        return self.service.post(command, **{"expid": EXPID, **body})

    def run(self) -> Answer:
        return self.service.run(EXPID)

    def status(self) -> dict[str, Any]:
        return self.service.status(EXPID)

    def ended(self) -> dict[str, Any]:
        return wait_for(lambda: (body := self.status())["status"] != "ACTIVE" and body, 40, what="the end of the run")


class Locked(Database):
    """SQLite: another process holds the write lock."""

    can_read = True
    _holder: sqlite3.Connection

    def take_away(self) -> None:
        self._holder = sqlite3.connect(self.service.app.database, isolation_level=None, timeout=30)
        self._holder.execute("BEGIN EXCLUSIVE")

    def give_back(self) -> None:
        with closing(self._holder):
            self._holder.execute("ROLLBACK")


class Stopped(Database):
    """PostgreSQL: all processes end, all connections break, and no process listens."""

    def __init__(self, service: Service, postgres: Postgres) -> None:
        super().__init__(service)
        self._postgres = postgres

    def take_away(self) -> None:
        self._postgres.stop()

    def give_back(self) -> None:
        self._postgres.start()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, account: StubAccount, launch_gates: LaunchGates, make_app: Any, tmp_path: Any
) -> Database:
    account.experiment(EXPID)
    env = {"RUNNERS_STATUS_FRESHNESS": "0.2", "RUNNERS_STOP_TIMEOUT": "15"}
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'app-0' / 'db.sqlite3'}?timeout={QUICK}"  # path of the first server's database
        return Locked(Service(make_app(account=account, env={**env, "DATABASE_URL": url}), account, None))
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.create(f"outage_{secrets.token_hex(4)}", template="template_of_tests")
    app = make_app(account=account, env={**env, "DATABASE_URL": url})
    return Stopped(Service(app, account, None), postgres)


@pytest.fixture
def end_gate(account: StubAccount, make_gate: MakeGate) -> Gate:
    """Let the run wait at a gate and then end with 7."""
    gate = make_gate().arm()
    account.control("run", EXPID, EXIT=7)
    append(account, f"run.{EXPID}", gate.text)
    return gate


def append(account: StubAccount, name: str, text: str) -> None:
    control = account.home / ".stub-autosubmit" / "control" / name
    control.parent.mkdir(parents=True, exist_ok=True)
    with control.open("a") as file:
        file.write(text)


def test_a_run_goes_on_and_its_end_is_known_afterwards(
    database: Database, account: StubAccount, end_gate: Gate
) -> None:
    started = database.run()
    assert started.status == 200, started.body
    end_gate.wait_held()
    with database.gone(OUTAGE):
        assert run_processes(account, EXPID) == [started.body["pid"]]
        end_gate.release()
        wait_for(lambda: not account.processes(), what="end of the run")
    ended = database.ended()
    assert (ended["status"], ended["reason"], ended["exit_code"]) == ("TERMINATED", "failed", 7)
    assert ended["runner_id"] == started.body["runner_id"]


def test_a_run_requested_without_a_database_is_rejected_and_never_starts(
    database: Database, account: StubAccount
) -> None:
    with database.gone(OUTAGE):
        assert_database_unavailable(database.run())
        assert account.calls("run") == []
    assert database.post("get-runner-run-status").status == 404  # the rejected request stored no run
    account.control("run", EXPID, SLEEP=600)
    again = [database.run() for _ in range(2 * 8)]  # so many that every thread of the server has a new connection
    assert [answer.status for answer in again] == [200] + [409] * 15
    assert run_processes(account, EXPID) == [again[0].body["pid"]]


def test_an_unrecorded_launch_is_adopted_by_the_next_probe(
    database: Database, account: StubAccount, launch_gates: LaunchGates, end_gate: Gate
) -> None:
    launch_gates.before.arm()
    answer = in_background(database.run)
    launch_gates.before.wait_held()
    with database.gone():
        launch_gates.before.release()
        end_gate.wait_held()  # the command runs, and the service cannot store that in the row
        told = answer.result(60 * PATIENCE)
    assert (told.status, told.body["code"]) == (502, "outcome_unknown"), told.body
    number = told.body["run_id"]
    status = wait_for(lambda: (body := database.status())["pid"] and body, what="the run's pid")
    assert (status["status"], status["reachable"], status["runner_id"]) == ("ACTIVE", True, number)
    assert run_processes(account, EXPID) == [status["pid"]]
    again = database.run()
    assert (again.status, again.body["run"]["pid"]) == (409, status["pid"])
    end_gate.release()
    assert database.ended()["exit_code"] == 7
    assert len(account.calls("run")) == 1


def test_a_stop_requested_without_a_database_signals_nothing(database: Database, account: StubAccount) -> None:
    account.control("run", EXPID, SLEEP=600)
    started = database.run()
    with database.gone():
        assert_database_unavailable(database.post("stop-experiment"))
        assert run_processes(account, EXPID) == [started.body["pid"]]
        assert account.calls("stop") == []
    stopped = database.post("stop-experiment")
    assert (stopped.status, stopped.body["reason"]) == (200, "stopped"), stopped.body


def test_a_stop_that_loses_the_database_is_correct_afterwards(
    database: Database, account: StubAccount, make_gate: MakeGate
) -> None:
    gate = make_gate().arm()
    append(account, "stop", gate.text)
    account.control("run", EXPID, SLEEP=600)
    started = database.run()
    assert started.status == 200, started.body
    answer = in_background(lambda: database.post("stop-experiment"))
    gate.wait_held()
    with database.gone():
        gate.release()
        wait_for(lambda: not run_processes(account, EXPID), what="end of the run")
        told = answer.result(60 * PATIENCE)
    assert (told.status, told.body["code"], told.body["run_id"]) == (502, "outcome_unknown", started.body["runner_id"])
    ended = database.ended()
    assert (ended["status"], ended["reason"], ended["exit_code"]) == ("TERMINATED", "stopped", 88)
    assert database.post("stop-experiment").body["code"] == "not_running"


def test_a_request_waits_for_a_database_lock_of_ten_seconds(account: StubAccount, make_app: Any) -> None:
    """SQLite with the unchanged settings: no client sees an error, only a late answer."""
    account.experiment(EXPID)
    account.control("run", EXPID, SLEEP=600)
    locked = Locked(Service(make_app(account=account), account, None))
    begin = time.monotonic()
    with locked.gone():
        run = in_background(locked.run)
        wait_for(lambda: time.monotonic() - begin > OUTAGE, OUTAGE + 5, what="the end of the ten seconds")
        assert not run.done()
        assert account.calls("run") == []
    answer = run.result(30 * PATIENCE)
    assert answer.status == 200, answer.body
    assert run_processes(account, EXPID) == [answer.body["pid"]]
    with locked.gone():
        begin = time.monotonic()
        stop = in_background(lambda: locked.post("stop-experiment"))
        wait_for(lambda: time.monotonic() - begin > OUTAGE, OUTAGE + 5, what="the end of the ten seconds")
        assert not stop.done()
    assert stop.result(60 * PATIENCE).body["reason"] == "stopped"
