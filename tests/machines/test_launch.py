"""The deadline and the signals of the launch script, which it handles without `timeout` and `setsid`."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import uuid
from pathlib import Path

import pytest

from runners.exceptions import CommandFailed, CommandTimedOut
from runners.services.machines import scripts
from runners.services.machines.local import LocalRunner
from runners.services.machines.probe import Probe, ProbeTarget
from runners.services.machines.runner import Runner
from tests.support.environments import StubAccount
from tests.support.processes import is_alive, proc_status, wait_for

TIMEOUT = 30


def test_a_slow_prelude_is_reported_and_stays_observable(runner: Runner) -> None:
    key = uuid.uuid4().hex
    with pytest.raises(CommandTimedOut, match="may still start"):
        runner.launch(key, "exec sleep 60", prelude=["sleep 61"], timeout=1)
    (probe,) = runner.probe([ProbeTarget(key)], timeout=TIMEOUT).values()
    assert probe.answer == Probe.RUNNING
    assert probe.identity
    assert is_alive(probe.identity.pid)


def test_a_failed_prelude_is_reported_with_its_own_output_only(runner: Runner) -> None:
    with pytest.raises(CommandFailed) as error:
        runner.launch(uuid.uuid4().hex, "exec sleep 60", prelude=["{ echo no such venv >&2; false; }"], timeout=TIMEOUT)
    assert error.value.facts["output"] == "no such venv"


@pytest.mark.parametrize(
    "ignored",
    [(signal.SIGINT, signal.SIGHUP), (signal.SIGTERM,), (signal.SIGINT,), (signal.SIGHUP,)],
    ids=lambda value: "+".join(each.name for each in value),
)
def test_a_service_that_ignores_signals_launches_commands_that_do_not(
    account: StubAccount, ignored: tuple[signal.Signals, ...]
) -> None:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    try:
        identity = LocalRunner(account.config("NO_MODULE")).launch(uuid.uuid4().hex, "exec sleep 60", timeout=TIMEOUT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    wait_for(lambda: proc_status(identity.pid)["Name"] == "sleep", what="the command")
    assert int(proc_status(identity.pid)["SigIgn"], 16) & 0x4003 == 0


def test_ignored_signals_prevent_no_launch_with_an_old_env(
    account: StubAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """coreutils before 8.31 cannot reset signals. The command is launched nevertheless, and a KILL ends it."""
    program = tmp_path / "env"
    program.write_text(f'#!/bin/bash\ncase $1 in --default*) exit 125 ;; esac; exec {shutil.which("env")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        runner = LocalRunner(account.config("NO_MODULE"))
        key = uuid.uuid4().hex
        identity = runner.launch(key, "exec sleep 60", timeout=TIMEOUT)
    finally:
        signal.signal(signal.SIGHUP, before)
    runner.signal(key, identity, "KILL", timeout=TIMEOUT)
    wait_for(lambda: not is_alive(identity.pid), what="end of the command")


def test_supervisor_and_command_have_process_groups_of_their_own(runner: Runner) -> None:
    """Otherwise the KILL of a stop, or of a launch's deadline, would also reach the supervisor."""
    identity = runner.launch(uuid.uuid4().hex, "exec sleep 60", timeout=TIMEOUT)
    groups = {os.getpgid(identity.pid), os.getpgid(identity.supervisor_pid), os.getpgid(0)}
    assert groups == {identity.pid, identity.supervisor_pid, os.getpgid(0)}
    assert os.getsid(identity.pid) != os.getsid(0)


def test_a_shell_whose_launch_was_refused_never_executes_the_command(runner: Runner, account: StubAccount) -> None:
    """The shell starts before the run directory is made, so a claim in between must reach the shell."""
    (account.home / scripts.BASE).mkdir(mode=0o700, exist_ok=True)
    key = uuid.uuid4().hex
    (probe,) = runner.probe([ProbeTarget(key, claim=True)], timeout=TIMEOUT).values()
    assert probe.answer == Probe.NEVER_STARTED
    mark = account.home / "executed"
    with pytest.raises(CommandFailed):
        runner.launch(key, f"exec touch {mark}", timeout=TIMEOUT)
    wait_for(lambda: not account.processes(), what="end of the shell")
    assert not mark.exists()


def test_a_profile_that_hangs_leaves_a_run_that_can_be_seen_and_ended(runner: Runner, account: StubAccount) -> None:
    key = uuid.uuid4().hex
    profile = account.home / ".bash_profile"
    before = profile.read_text()
    try:
        profile.write_text("sleep 62\n")
        with pytest.raises(CommandTimedOut):
            runner.launch(key, "exec sleep 60", timeout=1)
    finally:
        profile.write_text(before)
    (probe,) = runner.probe([ProbeTarget(key)], timeout=TIMEOUT).values()
    assert probe.answer == Probe.RUNNING
    assert probe.identity
    runner.signal(key, probe.identity, "KILL", timeout=TIMEOUT)
    wait_for(lambda: not is_alive(probe.identity.pid), what="end of the shell")


def test_the_directory_of_all_runs_is_closed_to_other_accounts(runner: Runner, account: StubAccount) -> None:
    base = account.home / ".autosubmit-runners"
    shutil.rmtree(base, ignore_errors=True)
    before = os.umask(0)
    try:
        runner.launch(uuid.uuid4().hex, "exec sleep 60", timeout=TIMEOUT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(base.stat().st_mode) == 0o700
