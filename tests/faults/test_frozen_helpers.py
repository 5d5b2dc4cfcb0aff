"""Frozen helpers that the service needs to reach a machine: ssh-agent, DNS, and the files of the service's home.

Promise: each helper has a deadline, the error names the helper that does not answer, and a caller that does not need
the helper does not wait.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from runners.exceptions import AuthenticationFailed, HostKeyUnknown, RunnerUnreachable
from runners.services import host_keys
from runners.services.machines.registry import get_runner
from runners.services.machines.ssh import authentication, config
from runners.services.machines.ssh.target import SSHTarget
from runners_project import bounded
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE, wait_for
from tests.support.requirements import need
from tests.support.servers import ROOT, SSHServer

pytestmark = pytest.mark.django_db(transaction=True)

TIMEOUT = 60.0
SLACK = 3.0 * PATIENCE  # seconds of tolerance for a busy machine


def seconds(function: Callable[[], object]) -> float:
    begin = time.monotonic()
    function()
    return time.monotonic() - begin


# --- ssh-agent --------------------------------------------------------------------------------------------------------


class SilentAgent(threading.Thread):
    """An agent that accepts connections, answers `words` byte by byte, and sends nothing more."""

    def __init__(self, path: Path, words: bytes, pause: float) -> None:
        super().__init__(daemon=True)
        self.asked = 0
        self._words, self._pause = words, pause
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(100)
        self._open: list[socket.socket] = []
        self.start()

    def run(self) -> None:
        with suppress(OSError):
            while True:
                there, _ = self._socket.accept()
                self.asked += 1
                self._open.append(there)
                threading.Thread(target=self._answer, args=(there,), daemon=True).start()

    def _answer(self, there: socket.socket) -> None:
        with suppress(OSError):
            for byte in self._words:
                there.sendall(bytes([byte]))
                time.sleep(self._pause)

    def close(self) -> None:
        for each in (self._socket, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.join(5)


@pytest.mark.parametrize(
    ("words", "pause"), [(b"", 0.0), (b"\0\0\x40\0" + b"x" * 100, 0.3)], ids=["silent", "trickles"]
)
def test_a_silent_ssh_agent_ends_at_its_deadline_and_is_named(
    sshd: SSHServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: bytes, pause: float
) -> None:
    agent = SilentAgent(tmp_path / "agent", words, pause)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    monkeypatch.setattr(authentication, "AGENT_TIMEOUT", 1.0)
    runner = get_runner(sshd.config())
    runner.execute("true", timeout=TIMEOUT)
    assert agent.asked == 0  # our own key was enough
    sshd.restart()
    sshd.authorized = False

    def attempt(_: int) -> str:
        try:
            runner.execute("true", timeout=TIMEOUT)
        except AuthenticationFailed as error:
            return error.detail
        finally:
            connections.close_all()
        return ""

    with ThreadPoolExecutor(9) as pool:
        begin = time.monotonic()
        said = set(pool.map(attempt, range(9)))
        assert time.monotonic() - begin < 2 * (1 + SLACK)
    assert len(said) == 1
    assert f"The ssh-agent of the service ({tmp_path}/agent) does not answer within 1 s" in said.pop()
    agent.close()


def test_an_ssh_agent_that_lists_its_keys_and_never_signs_is_named(
    sshd: SSHServer, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = base64.b64decode(sshd.client_key.with_suffix(".pub").read_text().split()[1])
    listed = b"\x0c" + struct.pack(">II", 1, len(blob)) + blob + struct.pack(">I", 0)
    agent = SilentAgent(tmp_path / "agent", struct.pack(">I", len(listed)) + listed, 0.0)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    monkeypatch.setattr(authentication, "AGENT_TIMEOUT", 1.0)
    settings.RUNNERS_SSH_KEYS = []
    begin = time.monotonic()
    with pytest.raises(RunnerUnreachable, match="The ssh-agent of the service .* does not answer within 1 s"):
        get_runner(sshd.config()).execute("true", timeout=TIMEOUT)
    assert time.monotonic() - begin < 1 + SLACK
    agent.close()


def test_a_key_of_a_real_ssh_agent_is_used(
    sshd: SSHServer, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
    try:
        wait_for(place.exists, what="ssh-agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        subprocess.run(["ssh-add", "-q", str(sshd.client_key)], check=True, capture_output=True)
        settings.RUNNERS_SSH_KEYS = []
        assert get_runner(sshd.config()).execute("echo done", timeout=TIMEOUT).stdout == b"done\n"
    finally:
        process.kill()
        process.wait()


# --- DNS --------------------------------------------------------------------------------------------------------------

ASK = """
import json, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import django
django.setup()
from django.conf import settings
from profiles.config import RunnerConfig
from runners.services.machines.ssh.target import SSHTarget
from runners.exceptions import RunnerUnreachable
from runners.services.machines.ssh import known_hosts
from runners.webhooks import http as webhook_http
from runners.services.check import _reach
from runners.services.machines.registry import get_runner
from runners_project import bounded
known_hosts.provide_approved_keys(lambda names: (), tuple)  # no database here
settings.RUNNERS_CONNECT_TIMEOUT = 2
port, user = int(sys.argv[1]), sys.argv[2]
def runner(host):
    return get_runner(RunnerConfig("SSH", "NO_MODULE", (), SSHTarget(host, port, user)))
def ask(number):
    begin = time.monotonic()
    try:
        runner(f"login{number}.example.org").execute("true", timeout=60)
    except RunnerUnreachable as error:
        return error.detail, time.monotonic() - begin
def timed(function):
    begin = time.monotonic()
    result = function()
    return result, time.monotonic() - begin
def send():
    try:
        webhook_http.post("https://receiver.example.org/hook", b"", {}, timeout=2)
    except webhook_http.NotSent as error:
        return str(error)
def connect_to_database():
    from django.db import OperationalError, connection
    from runners_project.postgresql.base import DatabaseWrapper
    names = {"HOST": "db.example.org", "NAME": "x", "USER": "x", "PASSWORD": "x", "PORT": "5432", "TIME_ZONE": None}
    options = {"connect_timeout": 2, "statement_timeout": 2}
    try:
        DatabaseWrapper({**connection.settings_dict, **names, "OPTIONS": options}, "other").ensure_connection()
    except OperationalError as error:
        return str(error)
COUNT = bounded.THREADS + 6
pool = ThreadPoolExecutor(COUNT)
asked = [pool.submit(ask, number) for number in range(COUNT)]
time.sleep(0.5)
healthy = timed(lambda: runner("127.0.0.1").execute("echo done", timeout=60).text)
sent, database = timed(send), timed(connect_to_database)
stages = timed(lambda: list(_reach(runner("login0.example.org").target, SSHTarget("login0.example.org", port, user))))
said = [each.result() for each in asked]
stuck = sum(thread.name == "dns" for thread in threading.enumerate())
stages = [[stage.name, stage.ok, stage.detail] for stage in stages[0]], stages[1]
print(json.dumps([healthy, sent, database, stages, said, stuck]))
import os; sys.stdout.flush(); os._exit(0)
"""


@contextmanager
def silent_resolver() -> Iterator[str]:
    """Yield the address of a name server that takes queries and never answers. Other test runs use other addresses."""
    address = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        yield address


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can listen on port 53 and replace /etc/resolv.conf")
def test_a_silent_name_server_delays_only_its_own_request(sshd: SSHServer, tmp_path: Path) -> None:
    with silent_resolver() as address:
        resolv = tmp_path / "resolv.conf"
        resolv.write_text(f"nameserver {address}\noptions timeout:20 attempts:1\n")
        script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        argv = ["unshare", "-m", "bash", "-c", script, str(resolv)]
        argv += [sys.executable, "-c", ASK, str(sshd.port), sshd.user]
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **sshd.environment}
        done = subprocess.run(
            argv, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT
        )
    assert done.returncode == 0, done.stderr
    (text, quick), (sent, took), (database, database_took), (stages, check_took), said, stuck = json.loads(done.stdout)
    assert (text, quick < 2 + SLACK) == ("done\n", True)
    assert ("the name server (DNS) does not answer" in sent, took < 2 + SLACK) == (True, True)
    assert ("host cannot be resolved" in database, database_took < 2 + SLACK) == (True, True)
    assert stages[0][:2] == ["resolve", False]
    assert "The name server (DNS) does not answer for login0.example.org." in stages[0][2]
    assert check_took < 2 + SLACK
    for detail, waited in said:
        assert "cannot be reached: the name server (DNS) does not answer" in detail
        assert waited < 2 + SLACK + 2
    assert stuck <= bounded.THREADS


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_fifo_instead_of_a_file_is_rejected_without_waiting(
    account: StubAccount, sshd: SSHServer, settings: Any, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    runner = get_runner(sshd.config())
    known = settings.RUNNERS_KNOWN_HOSTS
    settings.RUNNERS_KNOWN_HOSTS = str(fifo)
    with pytest.raises(RunnerUnreachable, match="known_hosts file .* it is not a regular file"):
        runner.execute("true", timeout=TIMEOUT)
    settings.RUNNERS_KNOWN_HOSTS = "/dev/null"  # a common way to say: no known_hosts file
    with pytest.raises(HostKeyUnknown):
        runner.execute("true", timeout=TIMEOUT)
    settings.RUNNERS_KNOWN_HOSTS = known

    settings.RUNNERS_SSH_CONFIG = str(fifo)
    assert f"{fifo} is not a file" in config.lookup("a").problem
    including = tmp_path / "config"
    including.write_text(f"Include {fifo}\n")
    settings.RUNNERS_SSH_CONFIG = str(including)
    assert f"{fifo} is not a file" in config.lookup("a").problem
    settings.RUNNERS_SSH_CONFIG = "/dev/null"
    assert not config.lookup("a").problem

    settings.RUNNERS_SSH_KEYS = [str(fifo), *settings.RUNNERS_SSH_KEYS]
    assert runner.execute("echo done", timeout=TIMEOUT).stdout == b"done\n"
    settings.RUNNERS_SSH_KEYS = [str(fifo)]
    sshd.drop_connections()
    with pytest.raises(AuthenticationFailed, match="fifo cannot be read: it is not a regular file"):
        runner.execute("true", timeout=TIMEOUT)


@contextmanager
def dead_mount(place: Path) -> Iterator[None]:
    """Mount a file system (FUSE) whose server never answers, like a lost network home. Accesses fail once it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    place.mkdir()
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={server},rootmode=40000,user_id=0,group_id=0"
        done = libc.mount(b"dead", bytes(place), b"fuse.dead", 0, options.encode())
        assert done == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            libc.umount2(bytes(place), 2)  # MNT_DETACH
    finally:
        os.close(server)


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and /dev/fuse")
def test_a_hanging_home_costs_one_deadline_and_one_thread(
    account: StubAccount, sshd: SSHServer, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "FILE_TIMEOUT", 1.0)
    monkeypatch.setattr(config, "LOOKUP_TIMEOUT", 1.0)
    runner = get_runner(sshd.config())
    healthy = {name: getattr(settings, name) for name in sshd.settings}
    dead = tmp_path / "dead"
    with dead_mount(dead):
        settings.RUNNERS_KNOWN_HOSTS = str(dead / "known_hosts")

        def attempt(_: int) -> str:
            try:
                runner.execute("true", timeout=TIMEOUT)
            except RunnerUnreachable as error:
                return error.detail
            finally:
                connections.close_all()
            return ""

        begin = time.monotonic()
        with ThreadPoolExecutor(9) as pool:
            said = " ".join(set(pool.map(attempt, range(9))))
        assert time.monotonic() - begin < 2 * (1 + SLACK)
        assert f"cannot read its known_hosts file {dead}/known_hosts: no answer within 1 s" in said
        assert sum(thread.name == "files" for thread in threading.enumerate()) == 1
        settings.RUNNERS_KNOWN_HOSTS = healthy["RUNNERS_KNOWN_HOSTS"]

        settings.RUNNERS_SSH_CONFIG = str(dead / "config")
        assert seconds(lambda: config.lookup("a")) < 1 + SLACK
        assert "no answer within 1 s" in config.lookup("a").problem
        settings.RUNNERS_SSH_CONFIG = healthy["RUNNERS_SSH_CONFIG"]

        settings.RUNNERS_SSH_KEYS = [str(dead / "key"), *healthy["RUNNERS_SSH_KEYS"]]
        assert runner.execute("echo done", timeout=TIMEOUT).stdout == b"done\n"
    wait_for(lambda: not any(thread.name == "files" for thread in threading.enumerate()), what="the calls' end")


# --- the deadline of one login ----------------------------------------------------------------------------------------


def test_unreachable_addresses_and_many_keys_share_one_deadline(sshd: SSHServer, settings: Any) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT = 2
    with socket.socket() as full:  # its queue is full, so further connections get no answer
        full.bind(("127.0.0.98", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.98", port))
        dead = (socket.AF_INET, ("127.0.0.98", port))
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            bounded.connect([dead] * 4, begin + 2)
        assert time.monotonic() - begin < 2 + SLACK
        with bounded.connect([dead, dead, (socket.AF_INET, ("127.0.0.1", sshd.port))], time.monotonic() + 2) as found:
            assert found.getpeername() == ("127.0.0.1", sshd.port)
        for filler in fillers:
            filler.close()
    with sshd.frozen():
        runner = get_runner(replace(sshd.config(), target=SSHTarget("127.0.0.1", sshd.port, sshd.user)))
        begin = time.monotonic()
        with pytest.raises(RunnerUnreachable, match="no answer within 2 s"):
            runner.execute("true", timeout=TIMEOUT)
        assert time.monotonic() - begin < 2 + SLACK
        begin = time.monotonic()
        with pytest.raises(RunnerUnreachable, match="no answer within 2 s"):
            host_keys.scan("127.0.0.1", sshd.port)
        assert time.monotonic() - begin < 2 + SLACK


@pytest.mark.parametrize(
    "words", [b"hello\r\n", b"S", b"SSH-2.0-x\r\n\0\0\x01\xfc\x0a\x14"], ids=["lines", "bytes", "packet"]
)
def test_an_endless_greeting_ends_at_the_deadline(sshd: SSHServer, settings: Any, words: bytes) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT = 2
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            there, _ = server.accept()
            with there, suppress(OSError):
                there.sendall(words)
                while True:
                    time.sleep(0.3)
                    there.sendall(words[-2:] if words.startswith(b"SSH") else words)

        threading.Thread(target=talk, daemon=True).start()
        runner = get_runner(replace(sshd.config(), target=SSHTarget("127.0.0.1", server.getsockname()[1], sshd.user)))
        begin = time.monotonic()
        with pytest.raises(RunnerUnreachable, match="no answer within 2 s"):
            runner.execute("true", timeout=TIMEOUT)
        assert time.monotonic() - begin < 2 + SLACK


def test_a_server_that_asks_for_a_second_factor_is_named(
    account: StubAccount, make_sshd: Callable[..., SSHServer]
) -> None:
    options = {"AuthenticationMethods": "publickey,keyboard-interactive", "UsePAM": "yes"}
    need(os.geteuid() == 0, "root, for PAM")
    sshd = make_sshd(account.home, options={**options, "KbdInteractiveAuthentication": "yes"})
    with pytest.raises(AuthenticationFailed, match=r"asks for a second factor \(keyboard-interactive\)"):
        get_runner(sshd.config()).execute("true", timeout=TIMEOUT)


def test_a_server_that_hangs_up_after_some_keys_is_not_said_to_have_refused_them(
    account: StubAccount, make_sshd: Callable[..., SSHServer], settings: Any, tmp_path: Path
) -> None:
    sshd = make_sshd(account.home, options={"MaxAuthTries": "2"})
    for kind, bits in (("rsa", "2048"), ("ecdsa", "256"), ("ed25519", "256")):
        argv = ["ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-f", str(tmp_path / kind)]
        subprocess.run(argv, check=True)
    good = settings.RUNNERS_SSH_KEYS
    settings.RUNNERS_SSH_KEYS = [str(tmp_path / "rsa")]
    with pytest.raises(AuthenticationFailed, match="rejected the service's keys"):
        get_runner(sshd.config()).execute("true", timeout=TIMEOUT)
    settings.RUNNERS_SSH_KEYS = [str(tmp_path / "rsa"), str(tmp_path / "ecdsa"), str(tmp_path / "ed25519"), *good]
    with pytest.raises(RunnerUnreachable, match="may allow fewer .MaxAuthTries."):
        get_runner(sshd.config()).execute("true", timeout=TIMEOUT)
    secret = tmp_path / "secret"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", "a passphrase", "-f", str(secret)], check=True
    )
    settings.RUNNERS_SSH_KEYS = [str(secret)]
    with pytest.raises(AuthenticationFailed, match="is protected by a passphrase. Use an ssh-agent"):
        get_runner(sshd.config()).execute("true", timeout=TIMEOUT)
