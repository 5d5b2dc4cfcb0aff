"""Accounts that print, read and hang: floods of output, and login profiles that print, read or never end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from profiles.config import RunnerConfig
from runners.exceptions import CommandFailed, CommandTimedOut
from runners.services import logs
from tests.support.environments import StubAccount
from tests.support.faults import (
    EXPID,
    MakeGate,
    look,
    run_processes,
    set_status,
    start_run,
    stop_run,
    wait_ended,
)
from tests.support.processes import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

FLOOD = 6_000_000  # bytes on each of the two streams
TALK = "echo Experiment a000 created; echo JobList saved in 0.08 seconds.; echo careful >&2; printf 'no line end'\n"


def test_six_megabytes_of_output_around_a_success(there: RunnerConfig, account: StubAccount) -> None:
    account.control("setstatus", BYTES=FLOOD)
    set_status(there)


def test_six_megabytes_of_output_before_a_failure(there: RunnerConfig, account: StubAccount, settings: Any) -> None:
    flood = "head -c 6000000 /dev/zero | tr '\\0' o; head -c 6000000 /dev/zero | tr '\\0' e >&2\n"
    account.control("setstatus", FAIL="it is not there", EXIT=3)
    control = account.home / ".stub-autosubmit" / "control" / "setstatus"
    control.write_text(flood + control.read_text())
    with pytest.raises(CommandFailed) as failed:
        set_status(there)
    assert "it is not there" in str(failed.value)
    assert failed.value.facts["exit_code"] == 3
    assert len(str(failed.value)) < 10_000


def test_a_run_that_prints_six_megabytes(there: RunnerConfig, account: StubAccount, settings: Any) -> None:
    account.control("run", BYTES=FLOOD, EXIT=7)
    start_run(there)
    ended = wait_ended()
    assert (ended.exit_code, ended.reason) == (7, "failed")
    assert "maximum retrials" in ended.detail
    assert len(ended.detail) < 10_000
    page = logs.read(ended, tail=1000, limit=100_000)
    assert page.size > 2 * FLOOD
    assert page.data.endswith(b"More info at https://autosubmit.readthedocs.io\n")
    beginning = logs.read(ended, offset=0, limit=10 * FLOOD)
    assert 0 < len(beginning.data) <= settings.RUNNERS_OUTPUT_LIMIT


def test_a_login_profile_that_prints_words_of_success(
    there: RunnerConfig, account: StubAccount, at_login: Callable[[str], None]
) -> None:
    at_login(TALK)
    account.control("setstatus", FAIL="it is not there")
    with pytest.raises(CommandFailed):
        set_status(there)
    account.control("setstatus")
    set_status(there)
    account.control("run", SLEEP=600)
    run = start_run(there)
    wait_for(lambda: run_processes(account) == [run.pid], what="the process of the run")
    assert stop_run().run.reason == "stopped"


def test_a_login_profile_that_reads_standard_input(
    there: RunnerConfig, account: StubAccount, at_login: Callable[[str], None]
) -> None:
    at_login("read -r stolen; cat >/dev/null\n")
    set_status(there)
    start_run(there)
    assert wait_ended().status == "COMPLETED"


def test_a_login_profile_that_never_ends(
    there: RunnerConfig, account: StubAccount, at_login: Callable[[str], None], make_gate: MakeGate, settings: Any
) -> None:
    """Commands end at their deadline and leave nothing. A run shows its real state and can be stopped."""
    settings.RUNNERS_COMMAND_TIMEOUT = settings.RUNNERS_STOP_TIMEOUT = settings.RUNNERS_LAUNCH_TIMEOUT = 2
    settings.RUNNERS_TERM_WAIT = 5
    at_login("sleep 600\n")
    with pytest.raises(CommandTimedOut):
        set_status(there)
    wait_for(lambda: not account.processes(), what="end of what was started")
    with pytest.raises(CommandTimedOut):
        start_run(there)
    shown = look()
    assert (shown.status, shown.reachable) == ("ACTIVE", True)
    assert shown.pid in account.processes()
    stopped = stop_run()
    assert (stopped.run.status, stopped.run.reason) == ("TERMINATED", "stopped")
    wait_for(lambda: not account.processes(), what="end of the login shell")
    assert account.calls() == []


def test_a_shell_that_prints_before_everything(over_ssh: RunnerConfig, account: StubAccount) -> None:
    """sshd's bash reads .bashrc for each of our commands, probes included."""
    rc = account.home / ".bashrc"
    rc.write_text(TALK + "head -c 100000 /dev/zero | tr '\\0' x\n")
    try:
        account.control("run", SLEEP=600)
        run = start_run(over_ssh)
        assert (look().pid, look().reachable) == (run.pid, True)
        set_status(over_ssh, expid=account.experiment("f808d"))  # not the running experiment, which is rejected
        assert stop_run().run.reason == "stopped"
    finally:
        rc.unlink()
    assert look(EXPID).exit_code == 88
