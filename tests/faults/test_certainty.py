"""The service calls a result certain only if it is: lost shells, closed channels, slow lines, rejected commands."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from profiles.config import RunnerConfig
from runners.exceptions import AlreadyRunning, OutcomeUnknown, RunnerUnreachable
from runners.models import RunnerRun
from runners.services import probing
from runners.services.machines.probe import Probe, ProbeTarget
from runners.services.machines.registry import get_runner
from runners.services.machines.runner import Runner
from runners.services.machines.ssh.target import SSHTarget
from tests.support.contract import commands_with
from tests.support.environments import StubAccount
from tests.support.faults import EXPID, in_background, start_run
from tests.support.processes import descendants, is_alive, kill_all, wait_for
from tests.support.servers import SSHServer, listener

pytestmark = pytest.mark.django_db(transaction=True)

TIMEOUT = 30.0
CHANNEL_TIMEOUT = {"ChannelTimeout": "session:*=1s"}


def readers(account: StubAccount) -> list[int]:
    """Return the processes of our reader in the account, and the processes that it forked."""
    return commands_with("autosubmit-runner", account)


def test_a_launch_whose_reporting_shell_was_killed_is_unknown_and_found_by_a_probe(
    runner: Runner, account: StubAccount
) -> None:
    key = uuid.uuid4().hex
    begun, go = account.home / f"begun-{key}", account.home / f"go-{key}"
    prelude = [f"touch {begun}", f"until [ -e {go} ]; do sleep 0.05; done"]
    launched = in_background(lambda: runner.launch(key, "exec sleep 600", prelude=prelude, timeout=TIMEOUT))
    wait_for(begun.exists, what="the prelude")
    target = ProbeTarget(key)
    (probe,) = runner.probe([target], timeout=TIMEOUT).values()
    assert probe.identity
    supervisor = probe.identity.supervisor_pid
    kill_all([pid for pid in readers(account) if pid not in (supervisor, *descendants(supervisor))])
    with pytest.raises(OutcomeUnknown):
        launched.result(TIMEOUT)
    go.touch()
    (probe,) = runner.probe([target], timeout=TIMEOUT).values()
    assert (probe.answer, probe.identity and is_alive(probe.identity.pid)) == (Probe.RUNNING, True)
    assert probe.identity
    kill_all([probe.identity.pid])
    for file in (begun, go):
        file.unlink()


def test_a_launch_on_a_channel_that_the_server_closes_is_adopted(
    account: StubAccount, make_sshd: Callable[..., SSHServer], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prelude is silent for longer than the server's channel timeout."""
    account.experiment(EXPID)
    account.control("run", SLEEP=600)
    config = make_sshd(account.home, options=CHANNEL_TIMEOUT).config()
    profile = account.home / ".bash_profile"
    before = profile.read_text()
    try:
        profile.write_text("sleep 3\n" + before)
        with pytest.raises(OutcomeUnknown):
            start_run(config)
    finally:
        profile.write_text(before)
    run = RunnerRun.objects.get()
    assert run.status == "ACTIVE"
    with pytest.raises(AlreadyRunning):
        start_run(config)

    def is_running() -> bool:
        probing.probe([run])
        return run.pid is not None and len(account.calls("run")) == 1

    wait_for(is_running, what="the run to be adopted")
    assert len(account.calls("run")) == 1


def test_a_command_on_a_channel_that_the_server_closes_is_unknown(
    account: StubAccount, make_sshd: Callable[..., SSHServer]
) -> None:
    """The command continues and succeeds, so it was not killed."""
    runner = get_runner(make_sshd(account.home, options=CHANNEL_TIMEOUT).config())
    proof = account.home / "proof"
    with pytest.raises(OutcomeUnknown):
        runner.execute(f"sleep 3; touch {proof}", timeout=TIMEOUT)
    wait_for(proof.exists, what="end of the command")
    proof.unlink()


@pytest.mark.parametrize("login", [False, True])
def test_a_command_whose_supervising_process_was_killed_is_unknown(
    runner: Runner, account: StubAccount, login: bool
) -> None:
    """The test kills only `timeout`, the parent of our reader. The command continues."""
    done = account.home / "done"
    with pytest.raises(OutcomeUnknown):
        runner.execute(f"kill -KILL $PPID; sleep 3; touch {done}", timeout=TIMEOUT, login=login)
    assert not done.exists()
    wait_for(done.exists, what="the end of the command")
    done.unlink()


@pytest.mark.parametrize("login", [False, True], ids=["plain", "login"])
def test_a_killed_command_has_the_exit_code_of_its_signal(runner: Runner, login: bool) -> None:
    assert runner.execute("kill -KILL $$", timeout=TIMEOUT, login=login).exit_code == 137
    assert runner.execute("exec sh -c 'kill -TERM $$'", timeout=TIMEOUT, login=login).exit_code == 143


@pytest.mark.parametrize("login", [False, True], ids=["plain", "login"])
@pytest.mark.parametrize("close", ["", "exec >&-; ", "exec 2>&-; ", "exec >&- 2>&-; "])
def test_a_command_that_closes_its_streams_has_its_exit_code(runner: Runner, login: bool, close: str) -> None:
    assert runner.execute(f"{close}exit 7", timeout=TIMEOUT, login=login).exit_code == 7


# --- a slow line ------------------------------------------------------------------------------------------------------


@contextmanager
def slow_line(port: int, bytes_per_second: int) -> Iterator[int]:
    """Yield a port that forwards to `port` and delivers the answers slowly."""

    def carry(source: socket.socket, sink: socket.socket, rate: int) -> None:
        with suppress(OSError):
            while data := source.recv(16384):
                sink.sendall(data)
                if rate:
                    time.sleep(len(data) / rate)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with socket.socket() as there:
            there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            there.connect(("127.0.0.1", port))
            there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            requests = threading.Thread(target=carry, args=(client, there, 0), daemon=True)
            requests.start()
            carry(there, client, bytes_per_second)
            requests.join()

    with listener(serve) as slow_port:
        yield slow_port


@pytest.mark.parametrize("left", ["", "sleep 60 & "], ids=["", "while a child holds the streams"])
def test_output_behind_the_exit_status_arrives_on_a_slow_line(
    left: str, account: StubAccount, sshd: SSHServer, settings: Any
) -> None:
    size = 400_000
    with slow_line(sshd.port, 100_000) as port:
        known = sshd.known_hosts.read_text()
        sshd.known_hosts.write_text(known + known.replace(f":{sshd.port} ", f":{port} "))
        config = RunnerConfig(
            sshd.config().runner_type, sshd.config().module_loader_type, (), SSHTarget("127.0.0.1", port, sshd.user)
        )
        script = f"{left}head -c {size} /dev/zero | tr '\\0' x; echo; echo the last line"
        result = get_runner(config).execute(script, timeout=TIMEOUT, login=True)
    assert result.text == "x" * size + "\nthe last line\n"
    assert not result.truncated


# --- a server that refuses to execute ---------------------------------------------------------------------------------


def test_a_server_that_refuses_to_execute_a_command_has_started_nothing(
    account: StubAccount, make_sshd: Callable[..., SSHServer]
) -> None:
    """sshd does this at its limit of processes or open files. It may also close the connection; no new one opens."""
    sshd = make_sshd(account.home)
    runner = get_runner(sshd.config())
    runner.execute("true", timeout=TIMEOUT)
    proof = account.home / "proof"
    with (
        sshd.without_descriptors(),
        pytest.raises(RunnerUnreachable, match="Nothing was started|cannot be reached|was lost before"),
    ):
        runner.execute(f"touch {proof}", timeout=TIMEOUT)
    assert not proof.exists()
    assert runner.execute("echo again", timeout=TIMEOUT).stdout == b"again\n"
