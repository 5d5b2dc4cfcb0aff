"""SIGKILL ends all processes of the service at each step of a run, and the service starts again.

Promise: the state, exit code and log are right, and no second process ever runs.
"""

from __future__ import annotations

import os

import pytest

from tests.support.faults import EXPID, Gate, LaunchGates, MakeGate, Service, run_processes
from tests.support.processes import PATIENCE, cmdline, kill_all, wait_for, with_environment

LATE = 3600.0  # seconds; far beyond the launch deadline
WORDS = "what it says"


def assert_one_run(service: Service, *, exit_code: int = 7) -> None:
    """Check that the run ended as expected, has one row, and called autosubmit once."""
    ended = service.ended()
    assert (ended["status"], ended["reason"], ended["exit_code"]) == ("TERMINATED", "failed", exit_code)
    assert WORDS in service.log()
    assert len(service.rows()) == 1
    assert service.account.calls("run") == [["run", EXPID]]


@pytest.fixture
def end_gate(service: Service, make_gate: MakeGate) -> Gate:
    """Let the run print WORDS, wait at a gate and end with 7."""
    gate = make_gate()
    gate.arm()
    service.account.control("run", EXPID, EXIT=7, PRINT=WORDS)
    with (service.account.home / ".stub-autosubmit" / "control" / f"run.{EXPID}").open("a") as control:
        control.write(gate.text)
    return gate


def test_killed_between_the_row_and_the_launch_which_comes_late(
    service: Service, launch_gates: LaunchGates, end_gate: Gate
) -> None:
    launch_gates.before.arm()
    answer = service.run_in_background()
    launch_gates.before.wait_held()
    assert service.row()["status"] == "ACTIVE"
    service.kill()
    assert answer.result(30 * PATIENCE) is None
    service.start()
    assert (service.status()["status"], service.status()["pid"]) == ("ACTIVE", None)
    assert service.run().body["code"] == "already_running"  # it is unknown yet whether the first launch will start
    launch_gates.before.release()
    end_gate.wait_held()
    adopted = service.wait_status(lambda body: body["pid"])
    assert run_processes(service.account) == [adopted["pid"]]
    assert service.run().status == 409
    end_gate.release()
    assert_one_run(service)


def test_killed_between_the_row_and_the_launch_which_never_comes(
    service: Service, launch_gates: LaunchGates, end_gate: Gate
) -> None:
    launch_gates.before.arm()
    service.run_in_background()
    launch_gates.before.wait_held()
    service.kill()
    service.account.kill()  # also ends the process that waits at the gate
    service.start()
    assert service.status()["status"] == "ACTIVE"
    service.make_older(LATE)
    ended = service.ended()
    assert (ended["status"], ended["reason"], ended["exit_code"]) == ("TERMINATED", "never_started", None)
    assert service.account.calls("run") == []
    again = service.run()  # the experiment is free again
    assert again.status == 200
    end_gate.wait_held()
    assert run_processes(service.account) == [again.body["pid"]]


@pytest.mark.parametrize("step", ["before", "after"])
def test_a_launch_that_comes_after_its_deadline_cannot_start(
    service: Service, launch_gates: LaunchGates, step: str
) -> None:
    """A gate holds the launch before or after its directory is created. A run called never_started stays so."""
    gate: Gate = getattr(launch_gates, step).arm()
    service.run_in_background()
    gate.wait_held()
    key = service.row()["key"]
    service.kill()
    service.start()
    service.make_older(LATE)
    assert service.ended()["reason"] == "never_started"
    gate.release()
    waiting = [pid for pid in with_environment("HOME", str(service.account.home)) if is_launch_of(pid, key)]
    wait_for(lambda: not [pid for pid in waiting if os.path.exists(f"/proc/{pid}")], 20, what="end of the launch")
    wait_for(lambda: not service.account.processes(), 20, what="end of what it started")
    assert service.account.calls("run") == []
    assert service.status()["reason"] == "never_started"


def is_launch_of(pid: int, key: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return key.encode() in file.read()
    except OSError:
        return False


def test_killed_between_launching_and_knowing_the_identity(
    service: Service, make_gate: MakeGate, end_gate: Gate
) -> None:
    """The login shell of the run is still in its profile: the identity exists, the answer does not."""
    gate: Gate = make_gate()
    profile = service.account.home / ".bash_profile"
    before = profile.read_text()
    profile.write_text(gate.text + before)
    try:
        gate.arm()
        answer = service.run_in_background()
        gate.wait_held()
        service.kill()
        assert answer.result(30 * PATIENCE) is None
        assert service.row()["pid"] is None
        service.start()
        adopted = service.wait_status(lambda body: body["pid"])
        assert service.run().status == 409
        gate.release()
        end_gate.wait_held()
        assert run_processes(service.account) == [adopted["pid"]]
        end_gate.release()
        assert_one_run(service)
    finally:
        profile.write_text(before)


def test_killed_while_it_saves_the_identity(service: Service, launch_gates: LaunchGates, end_gate: Gate) -> None:
    launch_gates.before.arm()
    answer = service.run_in_background()
    launch_gates.before.wait_held()
    with service.locked_database():  # blocks the save after the launch
        launch_gates.before.release()
        end_gate.wait_held()
        assert service.row()["pid"] is None
        service.kill()
    assert answer.result(30 * PATIENCE) is None
    service.start()
    assert service.row()["pid"] is None
    adopted = service.wait_status(lambda body: body["pid"])
    assert run_processes(service.account) == [adopted["pid"]]
    end_gate.release()
    assert_one_run(service)


def test_killed_during_a_run_that_ends_before_it_comes_back(service: Service, end_gate: Gate) -> None:
    started = service.run()
    assert started.status == 200
    end_gate.wait_held()
    service.kill()
    assert run_processes(service.account) == [started.body["pid"]]  # the run is not affected
    end_gate.release()
    wait_for(lambda: not service.account.processes(), what="end of the run")
    service.start()
    assert service.row()["status"] == "ACTIVE"
    assert_one_run(service)


def test_killed_during_a_stop_that_reaches_the_run_later(service: Service, make_gate: MakeGate) -> None:
    gate = stop_gate(service, make_gate)
    service.account.control("run", EXPID, SLEEP=600, PRINT=WORDS)
    service.run()
    gate.arm()
    answer = service.stop_in_background()
    gate.wait_held()
    service.kill()
    assert answer.result(30 * PATIENCE) is None
    service.start()
    assert service.status()["status"] == "ACTIVE"  # correct: no signal was sent yet
    gate.release()
    ended = service.ended()
    assert (ended["status"], ended["reason"], ended["exit_code"]) == ("TERMINATED", "stopped", 88)
    assert not run_processes(service.account)
    assert WORDS in service.log()
    assert len(service.account.calls("run")) == 1


def test_killed_during_a_stop_that_never_reaches_the_run(service: Service, make_gate: MakeGate) -> None:
    gate = stop_gate(service, make_gate)
    service.account.control("run", EXPID, SLEEP=600)
    started = service.run()
    gate.arm()
    service.stop_in_background()
    gate.wait_held()
    service.kill()
    held = [pid for pid in service.account.processes() if b"\0stop\0" in cmdline(pid)]
    assert held
    kill_all(held)
    service.start()
    assert service.status()["status"] == "ACTIVE"
    assert run_processes(service.account) == [started.body["pid"]]
    stopped = service.post("stop-experiment")
    assert stopped.status == 200, stopped.body
    assert (stopped.body["status"], stopped.body["reason"]) == ("TERMINATED", "stopped")
    assert not run_processes(service.account)


def stop_gate(service: Service, make_gate: MakeGate) -> Gate:
    """Let `autosubmit stop` wait at a gate before it searches for the run's process."""
    gate = make_gate()
    control = service.account.home / ".stub-autosubmit" / "control" / "stop"
    control.parent.mkdir(parents=True, exist_ok=True)
    control.write_text(gate.text)
    return gate
