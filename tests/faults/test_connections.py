"""The number of connections that a server sees: bounded, and opened one at a time, whatever the server allows."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from prometheus_client import REGISTRY

from profiles.config import RunnerConfig
from runners.exceptions import HostKeyUnknown, RunnerUnreachable
from runners.models import new_run_key
from runners.services.machines import runner as runners
from runners.services.machines.probe import Probe, ProbeTarget
from runners.services.machines.registry import get_runner
from runners.services.machines.runner import Runner
from runners.services.machines.ssh import pool as ssh
from runners.services.machines.ssh.paramiko_fixes import Transport
from runners.services.machines.ssh.pool import POOL
from runners.services.machines.ssh.target import SSHTarget
from tests.support.environments import StubAccount
from tests.support.faults import in_background
from tests.support.processes import PATIENCE, kill_all, wait_for
from tests.support.servers import ROOT, SSHServer

pytestmark = pytest.mark.django_db(transaction=True)

TIMEOUT = 60.0
MANY = 30


def at_once(runner: Runner, script: str = "echo $HOME", count: int = MANY) -> list[str]:
    """Execute the same command in `count` threads."""

    def execute(number: int) -> str:
        try:
            return runner.execute(f"{script}; echo {number}", timeout=TIMEOUT).text.split("\n")[-2]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(execute, range(count)))


def gauge_of_connections() -> float:
    return REGISTRY.get_sample_value("autosubmit_runners_ssh_connections") or 0.0


NUMBERS = [str(number) for number in range(MANY)]


def test_many_commands_share_few_connections(account: StubAccount, sshd: SSHServer) -> None:
    before, open_before = sshd.connection_count(), gauge_of_connections() - POOL.count()
    assert at_once(get_runner(sshd.config()), "sleep 0.2") == NUMBERS
    assert sshd.connection_count() - before <= ssh.CONNECTIONS_PER_TARGET
    assert POOL.count() == sshd.open_connections() <= ssh.CONNECTIONS_PER_TARGET
    assert gauge_of_connections() - open_before == POOL.count()
    before = sshd.connection_count()
    assert at_once(get_runner(sshd.config())) == NUMBERS
    assert sshd.connection_count() == before
    POOL.close()
    assert gauge_of_connections() == open_before


def test_no_more_than_the_bound_while_all_of_them_are_busy(
    account: StubAccount, make_sshd: Callable[..., SSHServer]
) -> None:
    """More commands than slots: the rest wait, and every command is executed."""
    sshd = make_sshd(account.home)
    folder = account.home / "busy"
    folder.mkdir()
    most = ssh.CONNECTIONS_PER_TARGET * ssh.CHANNELS_PER_CONNECTION
    count = most + 8
    script = f"touch {folder}/$$; until [ -e {account.home}/go ]; do sleep 0.5; done"
    outcome = in_background(lambda: at_once(get_runner(sshd.config()), script, count))
    try:
        wait_for(lambda: len(list(folder.iterdir())) == most, 40, what="as many as fit")
        assert sshd.open_connections() == ssh.CONNECTIONS_PER_TARGET
    finally:
        (account.home / "go").touch()
    assert outcome.result(TIMEOUT) == [str(number) for number in range(count)]
    assert sshd.open_connections() == ssh.CONNECTIONS_PER_TARGET
    (account.home / "go").unlink()


@pytest.mark.parametrize("sessions", [1, 2])
def test_a_server_that_allows_few_sessions(
    sessions: int, account: StubAccount, make_sshd: Callable[..., SSHServer]
) -> None:
    sshd = make_sshd(account.home, max_sessions=sessions)
    assert at_once(get_runner(sshd.config())) == NUMBERS
    assert sshd.open_connections() <= ssh.CONNECTIONS_PER_TARGET


@pytest.mark.parametrize("sessions", [1, 2])
def test_commands_are_serialized_where_few_sessions_are_allowed(
    sessions: int, account: StubAccount, make_sshd: Callable[..., SSHServer]
) -> None:
    """sshd may not have closed the previous session yet when we open the next one."""
    sshd = make_sshd(account.home, max_sessions=sessions)
    runner = get_runner(sshd.config())
    for _ in range(10):
        key = new_run_key()
        identity = runner.launch(key, "exec sleep 600", timeout=TIMEOUT)
        assert runner.probe([ProbeTarget(key, identity)], timeout=TIMEOUT)[key].answer == Probe.RUNNING
        kill_all([identity.pid])
    assert sshd.open_connections() <= ssh.CONNECTIONS_PER_TARGET


STRICT = {"MaxStartups": "1"}


def test_a_server_that_takes_one_new_connection_at_a_time(
    account: StubAccount, make_sshd: Callable[..., SSHServer]
) -> None:
    sshd = make_sshd(account.home, options=STRICT)
    assert at_once(get_runner(sshd.config()), "sleep 0.2") == NUMBERS
    assert sshd.open_connections() <= ssh.CONNECTIONS_PER_TARGET


def test_a_lost_connection_does_not_take_others_commands_with_it(
    over_ssh: RunnerConfig, account: StubAccount, sshd: SSHServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command gets no answer before its deadline while another command runs on the same connection."""
    monkeypatch.setattr(runners, "CLIENT_GRACE", 1)
    runner = get_runner(over_ssh)
    go, begun = account.home / "go-on", account.home / "begun"
    other = in_background(
        lambda: runner.execute(f"touch {begun}; until [ -e {go} ]; do sleep 0.1; done; echo done", timeout=TIMEOUT)
    )
    wait_for(begun.exists, what="the other command")
    profile = account.home / ".bashrc"
    profile.write_text("exec sleep 30\n")  # sshd's bash reads it before our deadline on the machine begins
    try:
        # Our reader has not reported that it is there, so it did not get the script.
        with pytest.raises(RunnerUnreachable, match="Nothing was executed"):
            runner.execute("true", timeout=1)
    finally:
        profile.unlink()
    assert runner.execute("echo new", timeout=TIMEOUT).stdout == b"new\n"
    assert POOL.count() == 1
    assert sshd.open_connections() == 2
    go.touch()
    assert other.result(TIMEOUT).stdout == b"done\n"
    wait_for(lambda: sshd.open_connections() == 1, what="end of the connection that was not used any more")
    for file in (go, begun):
        file.unlink()


CLIENT = """
import sys, django
django.setup()
from profiles.config import RunnerConfig
from runners.services.machines.ssh.target import SSHTarget
from runners.services.machines.registry import get_runner
target = SSHTarget("127.0.0.1", int(sys.argv[1]), sys.argv[2])
runner = get_runner(RunnerConfig("SSH", "NO_MODULE", (), target))
print("ready", flush=True)
sys.stdin.readline()
print(runner.execute("echo done", timeout=40).text, end="")
"""


def test_several_server_processes_before_a_server_that_takes_one_at_a_time(
    account: StubAccount, make_sshd: Callable[..., SSHServer], make_app: Callable[..., Any]
) -> None:
    sshd = make_sshd(account.home, options=STRICT)
    app = make_app(account=account, sshd=sshd, workers=1)  # only for its environment and database
    argv = [sys.executable, "-c", CLIENT, str(sshd.port), sshd.user]
    clients = [
        subprocess.Popen(argv, env=app.environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        for client in clients:
            assert client.stdout and client.stdout.readline() == "ready\n"
        for client in clients:
            assert client.stdin
            client.stdin.write("go\n")
            client.stdin.flush()
        assert [client.communicate(timeout=60 * PATIENCE)[0] for client in clients] == ["done\n"] * len(clients)
    finally:
        for client in clients:
            client.kill()
            client.communicate()


def test_a_failing_machine_is_contacted_once_for_all_waiting_requests(over_ssh: RunnerConfig, sshd: SSHServer) -> None:
    sshd.authorized = False
    before = sshd.log.read_text(errors="replace").count("Connection from")

    def attempt(_: int) -> str:
        try:
            return get_runner(over_ssh).execute("true", timeout=TIMEOUT).text
        except ssh.RunnerUnreachable as error:
            return error.code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(attempt, range(8))) == {"authentication_failed"}
    attempts = sshd.log.read_text(errors="replace").count("Connection from") - before
    assert attempts < 8


def test_a_connection_that_has_become_old_gets_no_new_commands(
    account: StubAccount, sshd: SSHServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a connection in constant use would never notice that its host key was revoked."""
    runner = get_runner(sshd.config())
    before = sshd.connection_count()
    for _ in range(3):
        runner.execute("true", timeout=TIMEOUT)
    assert sshd.connection_count() == before + 1
    monkeypatch.setattr(ssh, "OLDEST", 0)
    runner.execute("true", timeout=TIMEOUT)
    assert sshd.connection_count() == before + 2
    sshd.forget_host_key()
    with pytest.raises(HostKeyUnknown):
        runner.execute("true", timeout=TIMEOUT)
    wait_for(lambda: sshd.open_connections() == 0, what="the end of the old ones")


ADDRESSES = tuple(f"127.0.1.{number}" for number in range(1, 6))


@pytest.fixture
def five_machines(account: StubAccount, make_sshd: Callable[..., SSHServer]) -> tuple[SSHServer, list[Runner]]:
    """Return one sshd as five targets: each address has its own connections."""
    sshd = make_sshd(account.home, options={"ListenAddress": "0.0.0.0"})
    line = sshd.known_hosts.read_text()
    sshd.known_hosts.write_text("".join(line.replace("127.0.0.1", address) for address in ADDRESSES))
    targets = [SSHTarget(address, sshd.port, sshd.user) for address in ADDRESSES]
    return sshd, [get_runner(replace(sshd.config(), target=target)) for target in targets]


def test_beyond_the_bound_the_least_recently_used_connection_is_closed_and_no_other(
    five_machines: tuple[SSHServer, list[Runner]],
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(POOL, "_warned", float("-inf"))
    sshd, (first, second, third, fourth, fifth) = five_machines
    settings.RUNNERS_SSH_CONNECTIONS = 4

    def logins(*machines: Runner) -> int:
        before = sshd.connection_count()
        for runner in machines:
            assert runner.execute("echo done", timeout=TIMEOUT).stdout == b"done\n"
        return sshd.connection_count() - before

    assert logins(first, second, third, fourth) == 4
    assert logins(first, third, fourth) == 0
    assert "RUNNERS_SSH_CONNECTIONS" not in caplog.text
    assert logins(fifth) == 1  # replaces the second connection
    assert logins(first, third, fourth, fifth) == 0
    assert logins(second) == 1  # replaces the first connection
    assert caplog.text.count("All 4 SSH connections of this process are open (RUNNERS_SSH_CONNECTIONS)") == 1
    assert POOL.count() == 4
    wait_for(lambda: sshd.open_connections() == 4, what="the end of the closed ones")


def test_a_connection_in_use_is_not_closed_to_make_room(
    five_machines: tuple[SSHServer, list[Runner]], account: StubAccount, settings: Any
) -> None:
    _, (first, second, *_) = five_machines
    settings.RUNNERS_SSH_CONNECTIONS = 1
    begun, go = account.home / "begun", account.home / "go"
    script = f"touch {begun}; until [ -e {go} ]; do sleep 0.1; done; echo done"
    outcome = in_background(lambda: first.execute(script, timeout=TIMEOUT))
    wait_for(begun.exists, what="the command")
    with pytest.raises(RunnerUnreachable, match="already has 1 SSH connections in use"):
        second.execute("true", timeout=TIMEOUT)
    go.touch()
    assert outcome.result(TIMEOUT).stdout == b"done\n"
    assert second.execute("echo done", timeout=TIMEOUT).stdout == b"done\n"
    begun.unlink()
    go.unlink()


def test_open_connections_cost_no_time_of_the_processor(five_machines: tuple[SSHServer, list[Runner]]) -> None:
    """paramiko's connection thread wakes ten times a second to check whether it has to end; ours is woken."""
    sshd, machines = five_machines
    for runner in machines:
        runner.execute("true", timeout=TIMEOUT)
    threads = [thread for thread in threading.enumerate() if isinstance(thread, Transport)]
    assert len(threads) == len(machines)
    before = [voluntary_switches(thread) for thread in threads]
    begin = time.monotonic()
    wait_for(lambda: time.monotonic() > begin + 2, what="two seconds")
    woken = [voluntary_switches(thread) - earlier for thread, earlier in zip(threads, before, strict=True)]
    assert max(woken) <= 4
    begin = time.monotonic()
    POOL.close()
    assert time.monotonic() - begin < 1
    assert not any(thread.is_alive() for thread in threads)
    wait_for(lambda: sshd.open_connections() == 0, what="the end of the connections")


def voluntary_switches(thread: threading.Thread) -> int:
    """Return how often a thread went to sleep."""
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return int(status.split("voluntary_ctxt_switches:")[1].split()[0])
