"""The contract of a detached run, over LOCAL and SSH: launch, probe, signals, log."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from profiles.config import RunnerConfig
from runners.exceptions import (
    CommandFailed,
)
from runners.models import new_run_key
from runners.services.machines.probe import Identity, Probe, ProbeTarget
from runners.services.machines.runner import Runner
from tests.support.contract import TIMEOUT, commands_with, launch, log_of, probe, wait_over
from tests.support.environments import StubAccount
from tests.support.processes import is_alive, kill_all, proc_status, wait_for

pytestmark = pytest.mark.django_db


def test_a_run_from_launch_to_exit_code(config: RunnerConfig, account: StubAccount) -> None:
    account.experiment("a001")
    account.control("run", "a001", SLEEP=1, EXIT=7, PRINT="on stdout", PRINT_ERR="on stderr")
    key, identity = launch(config, ["autosubmit", "run", "a001"])
    running = probe(config, key, identity)
    assert (running.answer, running.identity) == (Probe.RUNNING, identity)
    ended = wait_over(config, key, identity)
    assert (ended.answer, ended.exit_code, ended.signal) == (Probe.ENDED, 7, "")
    assert ended.finished and abs(ended.finished - time.time()) < 60
    text = log_of(config, key).decode()
    assert "on stdout" in text and "on stderr" in text
    assert account.calls() == [["run", "a001"]]


def test_the_process_of_a_run(config: RunnerConfig, account: StubAccount) -> None:
    """The pid is the program itself, with no shell in between. Signals are the defaults, streams are not ours."""
    key, identity = launch(config, ["sleep", "60"])
    wait_for(lambda: proc_status(identity.pid)["Name"] == "sleep", what="exec")
    status = proc_status(identity.pid)
    assert int(status["SigIgn"], 16) & 0x4007 == 0
    assert int(status["SigBlk"], 16) == 0
    streams = [Path(f"/proc/{identity.pid}/fd/{number}").resolve() for number in range(3)]
    log = account.home / ".autosubmit-runners" / key / "log"
    assert streams == [Path("/dev/null"), log, log]
    assert log.parent.stat().st_mode & 0o777 == 0o700
    # A program that has just been executed still has its libraries open for a moment.
    descriptors = Path(f"/proc/{identity.pid}/fd")
    wait_for(lambda: {fd.name for fd in descriptors.iterdir()} == {"0", "1", "2"}, what="no inherited descriptor")
    kill_all([identity.pid])


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_signal_reaches_the_command(config: RunnerConfig, name: str) -> None:
    program = f"trap 'echo got {name}; exit 42' {name}; echo ready; while :; do sleep 0.1; done"
    key, identity = launch(config, ["bash", "-c", program])
    wait_for(lambda: b"ready" in log_of(config, key), what="start")
    kill_all([identity.pid], signal.Signals[f"SIG{name}"])
    ended = wait_over(config, key, identity)
    assert (ended.answer, ended.exit_code, ended.signal) == (Probe.ENDED, 42, "")
    assert f"got {name}".encode() in log_of(config, key)


@pytest.mark.parametrize("name", ["INT", "TERM", "KILL"])
def test_the_signal_that_ended_a_command_is_reported(runner: Runner, name: str) -> None:
    key, identity = launch(runner.config, ["sleep", "60"])
    number = signal.Signals[f"SIG{name}"]
    kill_all([identity.pid], number)
    ended = wait_over(runner.config, key, identity)
    assert (ended.answer, ended.exit_code, ended.signal) == (Probe.ENDED, 128 + number, name)


def test_our_own_signals_reach_the_whole_run(runner: Runner, account: StubAccount) -> None:
    key, identity = launch(runner.config, ["bash", "-c", "sleep 7652 & sleep 7652; echo never"])
    wait_for(lambda: len(commands_with("7652", account)) == 3, what="start")  # bash itself and its two sleeps
    runner.signal(key, identity, "TERM", timeout=TIMEOUT)
    ended = wait_over(runner.config, key, identity)
    assert (ended.exit_code, ended.signal) == (143, "TERM")
    wait_for(lambda: not commands_with("7652", account), what="end of the children")


def test_a_command_that_ignores_all_but_kill(runner: Runner) -> None:
    key, identity = launch(
        runner.config, ["bash", "-c", "trap '' INT TERM HUP; echo ready; while :; do sleep 0.1; done"]
    )
    wait_for(lambda: b"ready" in log_of(runner.config, key), what="start")
    runner.signal(key, identity, "TERM", timeout=TIMEOUT)
    assert probe(runner.config, key, identity).answer == Probe.RUNNING
    runner.signal(key, identity, "KILL", timeout=TIMEOUT)
    ended = wait_over(runner.config, key, identity)
    assert (ended.answer, ended.signal) == (Probe.ENDED, "KILL")


def test_another_process_with_that_pid_is_not_touched(runner: Runner, account: StubAccount) -> None:
    key, identity = launch(runner.config, ["sleep", "60"])
    words = identity.words
    words[4] = str(identity.start - 1)
    stranger = Identity.parse(" ".join([*words[:5], "1", "1"]))
    run_key_of_nobody = new_run_key()
    answer = runner.signal(run_key_of_nobody, stranger, "KILL", timeout=TIMEOUT)
    assert answer.answer == Probe.GONE
    assert is_alive(identity.pid)
    kill_all([identity.pid])


def test_a_run_killed_with_its_supervisor_is_gone(runner: Runner, account: StubAccount) -> None:
    key, identity = launch(runner.config, ["sleep", "60"])
    kill_all([identity.supervisor_pid, identity.pid])
    over = wait_over(runner.config, key, identity)
    assert (over.answer, over.exit_code) == (Probe.GONE, None)


def test_one_key_is_launched_once(runner: Runner) -> None:
    key, identity = launch(runner.config, ["sleep", "60"])
    with pytest.raises(CommandFailed):
        launch(runner.config, ["sleep", "60"], key)
    assert probe(runner.config, key, identity).answer == Probe.RUNNING
    kill_all([identity.pid])


def test_probe_of_many_runs_in_one_exchange(runner: Runner) -> None:
    alive = [launch(runner.config, ["sleep", "60"]) for _ in range(3)]
    done = [launch(runner.config, ["true"]) for _ in range(3)]
    for key, identity in done:
        wait_over(runner.config, key, identity)
    never = new_run_key()
    targets = [ProbeTarget(key, identity) for key, identity in alive + done] + [ProbeTarget(never, claim=True)]
    answers = runner.probe(targets, timeout=TIMEOUT)
    assert [answers[key].answer for key, _ in alive] == [Probe.RUNNING] * 3
    assert [(answers[key].answer, answers[key].exit_code) for key, _ in done] == [(Probe.ENDED, 0)] * 3
    assert answers[never].answer == Probe.NEVER_STARTED
    with pytest.raises(CommandFailed):  # after the claim it can never start
        launch(runner.config, ["true"], never)
    kill_all([identity.pid for _, identity in alive])


def test_a_lost_identity_is_found_again(runner: Runner) -> None:
    key, identity = launch(runner.config, ["sleep", "60"])
    found = probe(runner.config, key, None)
    assert (found.answer, found.identity) == (Probe.RUNNING, identity)
    kill_all([identity.pid])


def test_reading_the_log_from_both_ends(runner: Runner) -> None:
    key, identity = launch(runner.config, ["printf", "0123456789\n"])
    wait_over(runner.config, key, identity)
    assert log_of(runner.config, key, offset=4, limit=3) == b"456"
    assert log_of(runner.config, key, offset=-4, limit=100) == b"789\n"
    assert log_of(runner.config, key, offset=-1000, limit=2) == b"01"
    chunk = runner.read_log(key, offset=11, limit=5, timeout=TIMEOUT)
    assert chunk and (chunk.data, chunk.size, chunk.next_offset) == (b"", 11, 11)
    assert runner.read_log(new_run_key(), offset=0, limit=5, timeout=TIMEOUT) is None


def test_launch_where_nothing_can_be_written(runner: Runner, account: StubAccount) -> None:
    base = account.home / ".autosubmit-runners"
    base.write_text("a file where the folder of the runs should be")
    try:
        with pytest.raises(CommandFailed):
            launch(runner.config, ["autosubmit", "-v"])
    finally:
        base.unlink()
    assert account.calls() == []
