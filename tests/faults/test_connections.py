"""How many connections a server sees: bounded, opened one at a time, whatever it allows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from profiles.config import RunnerConfig
from runners.exceptions import HostKeyUnknown, RunnerUnreachable
from runners.models import new_run_key
from runners.services import runners, ssh
from runners.services.probe import Probe, ProbeTarget
from runners.services.runners import Runner, get_runner
from runners.services.ssh import POOL
from tests.environments import StubAccount
from tests.faults.tools import in_background
from tests.processes import kill_all, wait_for
from tests.servers import ROOT, SSHServer

pytestmark = pytest.mark.django_db(transaction=True)

TIMEOUT = 60.0
MANY = 30


def at_once(runner: Runner, script: str = "echo $HOME", count: int = MANY) -> list[str]:
    """The same command from `count` threads."""

    def execute(number: int) -> str:
        try:
            return runner.execute(f"{script}; echo {number}", timeout=TIMEOUT).text.split("\n")[-2]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(execute, range(count)))


NUMBERS = [str(number) for number in range(MANY)]


def test_many_commands_share_few_connections(account: StubAccount, sshd: SSHServer) -> None:
    before = sshd.connection_count()
    assert at_once(get_runner(sshd.config()), "sleep 0.2") == NUMBERS
    assert sshd.connection_count() - before <= ssh.CONNECTIONS_PER_TARGET
    assert POOL.count() == sshd.open_connections() <= ssh.CONNECTIONS_PER_TARGET
    before = sshd.connection_count()
    assert at_once(get_runner(sshd.config())) == NUMBERS
    assert sshd.connection_count() == before


def test_no_more_than_the_bound_while_all_of_them_are_busy(
    account: StubAccount, make_sshd: Callable[..., SSHServer]
) -> None:
    """More commands than fit: the rest wait, and every one is executed."""
    sshd = make_sshd(account.home)
    folder = account.home / "busy"
    folder.mkdir()
    most = ssh.CONNECTIONS_PER_TARGET * ssh.CHANNELS_PER_CONNECTION
    count = most + 8
    script = f"touch {folder}/$$; until [ -e {account.home}/go ]; do sleep 0.1; done"
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
def test_one_after_the_other_where_few_sessions_are_allowed(
    sessions: int, account: StubAccount, make_sshd: Callable[..., SSHServer]
) -> None:
    """A session that we have closed may not be closed there yet when the next one is asked for."""
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
    """One command gets no answer within its deadline; another one is under way on the same connection."""
    monkeypatch.setattr(runners, "CLIENT_GRACE", 1)
    runner = get_runner(over_ssh)
    go, begun = account.home / "go-on", account.home / "begun"
    other = in_background(
        lambda: runner.execute(f"touch {begun}; until [ -e {go} ]; do sleep 0.1; done; echo done", timeout=TIMEOUT)
    )
    wait_for(begun.exists, what="the other command")
    profile = account.home / ".bashrc"
    profile.write_text("exec sleep 30\n")  # sshd's bash reads it before our own deadline begins there
    try:
        # Our reader has not said that it is there, so it was not given the script.
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
from profiles.config import ModuleLoaderType, RunnerConfig, RunnerType, SSHTarget
from runners.services.runners import get_runner
target = SSHTarget("127.0.0.1", int(sys.argv[1]), sys.argv[2])
runner = get_runner(RunnerConfig(RunnerType.SSH, ModuleLoaderType.NO_MODULE, (), target))
print("ready", flush=True)
sys.stdin.readline()
print(runner.execute("echo done", timeout=40).text, end="")
"""


def test_several_server_processes_before_a_server_that_takes_one_at_a_time(
    account: StubAccount, make_sshd: Callable[..., SSHServer], make_app: Callable[..., Any]
) -> None:
    sshd = make_sshd(account.home, options=STRICT)
    app = make_app(account=account, sshd=sshd, workers=1)  # for its environment and database
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
        assert [client.communicate(timeout=60)[0] for client in clients] == ["done\n"] * len(clients)
    finally:
        for client in clients:
            client.kill()
            client.communicate()


def test_a_machine_that_fails_is_tried_once_for_all_who_wait(over_ssh: RunnerConfig, sshd: SSHServer) -> None:
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
    """Else one that is always in use would never learn that its host key was revoked."""
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
