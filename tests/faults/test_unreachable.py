"""The machine goes away in the middle: killed, hung, restarted, another host key, a revoked key.

Promise: a command that certainly did not start is retried. A command that may have started is not retried, and the
answer says so. A run whose machine does not answer is not called dead. A stop that reaches no process changes nothing
and can be repeated.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from profiles.config import RunnerConfig
from runners.exceptions import (
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyUnknown,
    OutcomeUnknown,
    RunnerServiceError,
    RunnerUnreachable,
)
from runners.models import RunnerRun
from runners.services import probing
from runners.services.machines import runner as runners
from runners.services.machines.registry import get_runner
from runners.services.machines.ssh.pool import POOL
from tests.support.environments import StubAccount
from tests.support.faults import (
    EXPID,
    MakeGate,
    add_control,
    in_background,
    look,
    run_processes,
    set_status,
    start_run,
    stop_run,
    stored,
    wait_ended,
)
from tests.support.processes import PATIENCE, is_alive, kill_all, wait_for
from tests.support.servers import SSHServer, keygen

pytestmark = pytest.mark.django_db(transaction=True)

TIMEOUT = 30.0


@pytest.fixture
def healed(sshd: SSHServer) -> Iterator[ExitStack]:
    """Yield a stack that repairs each fault when it is closed."""
    with ExitStack() as stack:
        yield stack


def down(sshd: SSHServer, healed: ExitStack) -> None:
    sshd.stop()
    healed.callback(sshd.start)


def hung(sshd: SSHServer, healed: ExitStack) -> None:
    healed.enter_context(sshd.frozen())


def other_host_key(sshd: SSHServer, healed: ExitStack) -> None:
    sshd.swap_host_key()
    healed.callback(sshd.trust_host_key)


def forgotten_host_key(sshd: SSHServer, healed: ExitStack) -> None:
    sshd.forget_host_key()
    sshd.drop_connections()
    healed.callback(sshd.trust_host_key)


def revoked_key(sshd: SSHServer, healed: ExitStack) -> None:
    sshd.authorized = False
    sshd.drop_connections()
    healed.callback(setattr, sshd, "authorized", True)


Fault = Callable[[SSHServer, ExitStack], None]
FAULTS = [
    pytest.param(down, RunnerUnreachable, "refused", id="down"),
    pytest.param(hung, RunnerUnreachable, "no answer within", id="hung"),
    pytest.param(other_host_key, HostKeyChanged, "SHA256:", id="another host key"),
    pytest.param(forgotten_host_key, HostKeyUnknown, "SHA256:", id="unknown host key"),
    pytest.param(revoked_key, AuthenticationFailed, "authorized_keys", id="revoked key"),
]


@pytest.mark.parametrize(("fault", "error", "words"), FAULTS)
def test_a_run_on_an_unreachable_machine_is_not_called_dead(
    fault: Fault,
    error: type[RunnerServiceError],
    words: str,
    over_ssh: RunnerConfig,
    account: StubAccount,
    sshd: SSHServer,
    healed: ExitStack,
) -> None:
    account.control("run", SLEEP=600)
    run = start_run(over_ssh)
    confirmed = look().confirmed_at
    before = stored(run)
    fault(sshd, healed)

    for _ in range(2):
        wait_for(lambda: not (shown := look()).reachable and words in shown.unreachable_detail, what=words)
        RunnerRun.objects.filter(pk=run.pk).update(confirmed_at=confirmed)  # `look` had removed the value
        probing.refresh([RunnerRun.objects.get(pk=run.pk)])
        assert RunnerRun.objects.get(pk=run.pk).confirmed_at == confirmed
    with pytest.raises(RunnerUnreachable) as refused:
        stop_run()
    assert words in str(refused.value)
    assert "was not stopped" in str(refused.value)
    assert ".." not in str(refused.value)
    with pytest.raises(error):
        set_status(over_ssh)
    assert stored(run) == before
    assert run_processes(account) == [run.pid]
    assert account.calls("setstatus") == account.calls("stop") == []

    healed.close()
    back = wait_for(lambda: (shown := look()).reachable and shown, what="the machine to be back")
    assert (back.status, back.pid, back.unreachable_detail) == ("ACTIVE", run.pid, "")
    assert back.confirmed_at and confirmed and back.confirmed_at > confirmed
    stopped = stop_run().run
    assert (stopped.status, stopped.reason) == ("TERMINATED", "stopped")
    assert not run_processes(account)


def test_an_end_while_the_machine_is_unreachable_is_seen_later(
    over_ssh: RunnerConfig, account: StubAccount, sshd: SSHServer, make_gate: MakeGate, healed: ExitStack
) -> None:
    gate = make_gate().arm()
    add_control(account, "run", gate.text, EXIT=7)
    start_run(over_ssh)
    down(sshd, healed)
    gate.wait_held()
    assert not look().reachable
    gate.release()
    wait_for(lambda: not account.processes(), what="its end")
    shown = look()
    assert (shown.status, shown.reachable) == ("ACTIVE", False)
    healed.close()
    ended = wait_ended()
    assert (ended.status, ended.exit_code, ended.reason, ended.reachable) == ("TERMINATED", 7, "failed", True)


# --- during a command -------------------------------------------------------------------------------------------------


def dropped(sshd: SSHServer, healed: ExitStack) -> None:
    sshd.drop_connections()


def restarted(sshd: SSHServer, healed: ExitStack) -> None:
    sshd.restart()


@pytest.mark.parametrize("fault", [dropped, restarted, down, hung])
def test_a_command_that_may_have_started_is_not_retried_and_the_answer_says_so(
    fault: Fault,
    over_ssh: RunnerConfig,
    account: StubAccount,
    sshd: SSHServer,
    make_gate: MakeGate,
    healed: ExitStack,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if fault is hung:
        settings.RUNNERS_COMMAND_TIMEOUT = 5
        monkeypatch.setattr(runners, "CLIENT_GRACE", 1)
    gate = make_gate().arm()
    add_control(account, "setstatus", gate.text)
    outcome = in_background(lambda: set_status(over_ssh))
    gate.wait_held()
    fault(sshd, healed)
    with pytest.raises(OutcomeUnknown) as unknown:
        outcome.result(TIMEOUT)
    assert "heck the experiment" in str(unknown.value)
    assert len(account.calls("setstatus")) == 1
    healed.close()
    set_status(over_ssh)  # the next command finds a connection at once
    assert len(account.calls("setstatus")) == 2


def test_a_command_that_certainly_did_not_start_is_retried(
    over_ssh: RunnerConfig, account: StubAccount, sshd: SSHServer
) -> None:
    """The pooled connection hangs when the command requests a channel, and then breaks."""
    get_runner(over_ssh).execute("true", timeout=TIMEOUT)
    with sshd.frozen():
        outcome = in_background(lambda: set_status(over_ssh))
        wait_for(channels_in_use, what="the command to ask for a channel")
        kill_all(sshd._sessions())
    assert outcome.result(TIMEOUT).expid == EXPID
    assert len(account.calls("setstatus")) == 1


def channels_in_use() -> int:
    return sum(c.channels for target in POOL._targets.values() for c in target.connections)


@pytest.mark.parametrize("fault", [dropped, down, hung])
def test_the_machine_goes_away_during_a_stop(
    fault: Fault,
    over_ssh: RunnerConfig,
    account: StubAccount,
    sshd: SSHServer,
    make_gate: MakeGate,
    healed: ExitStack,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer says that the effect of the stop is unknown. The row stays unchanged, and a second stop succeeds."""
    if fault is hung:
        settings.RUNNERS_STOP_TIMEOUT = 4
        monkeypatch.setattr(runners, "CLIENT_GRACE", 1)
    account.control("run", SLEEP=600)
    run = start_run(over_ssh)
    gate = make_gate().arm()
    add_control(account, "stop", gate.text)
    stop = in_background(stop_run)
    gate.wait_held()
    fault(sshd, healed)
    if fault is dropped:  # the stop continues over a new connection
        assert stop.result(60 * PATIENCE).run.reason == "stopped"
        return
    with pytest.raises(OutcomeUnknown) as told:  # RunnerUnreachable would say that nothing was executed
        stop.result(60 * PATIENCE)
    assert told.value.facts["steps"][0]["action"] == "autosubmit stop"
    shown = look()
    assert (shown.status, shown.reachable, shown.pid) == ("ACTIVE", False, run.pid)
    assert is_alive(run.pid or 0)
    healed.close()
    assert stop_run().run.reason == "stopped"
    assert not run_processes(account)


# --- keys and an open connection --------------------------------------------------------------------------------------


def test_an_open_connection_outlives_its_key_and_no_other_is_opened(over_ssh: RunnerConfig, sshd: SSHServer) -> None:
    """As in OpenSSH, keys are checked only when a connection is opened."""
    runner = get_runner(over_ssh)
    runner.execute("true", timeout=TIMEOUT)
    sshd.authorized = False
    assert runner.execute("echo still", timeout=TIMEOUT).stdout == b"still\n"
    sshd.drop_connections()
    with pytest.raises(AuthenticationFailed):
        runner.execute("echo never", timeout=TIMEOUT)


def test_an_open_connection_outlives_its_host_key_and_no_other_is_opened(
    over_ssh: RunnerConfig, sshd: SSHServer
) -> None:
    runner = get_runner(over_ssh)
    runner.execute("true", timeout=TIMEOUT)
    assert sshd._process
    keygen(sshd._host_key)
    sshd._process.send_signal(signal.SIGHUP)  # sshd reloads its keys
    wait_for(lambda: b"ssh-ed25519" in scan(sshd) and sshd_key(sshd) in scan(sshd), what="the new key")
    assert runner.execute("echo still", timeout=TIMEOUT).stdout == b"still\n"
    sshd.drop_connections()
    with pytest.raises(HostKeyChanged):
        runner.execute("echo never", timeout=TIMEOUT)


def scan(sshd: SSHServer) -> bytes:
    argv = ["ssh-keyscan", "-t", "ed25519", "-p", str(sshd.port), "127.0.0.1"]
    return subprocess.run(argv, capture_output=True, check=False, timeout=30 * PATIENCE).stdout


def sshd_key(sshd: SSHServer) -> bytes:
    return sshd._host_key.with_suffix(".pub").read_bytes().split()[1]
