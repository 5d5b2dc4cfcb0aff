"""Bugs of paramiko, tested with a real sshd. Each test names paramiko's issue."""

# mypy: disable-error-code="attr-defined"
# types-paramiko leaves out private members.

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from weakref import WeakValueDictionary

import paramiko
import pytest
from django.db import connections

from runners.services.machines.registry import get_runner
from runners.services.machines.runner import Runner
from runners.services.machines.ssh import connect
from runners.services.machines.ssh.paramiko_fixes import Channel, Transport
from runners.services.machines.ssh.pool import open_session
from tests.support.environments import StubAccount
from tests.support.faults import in_background
from tests.support.processes import PATIENCE, wait_for
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db(transaction=True)

TIMEOUT = 60.0


@pytest.fixture
def client(sshd: SSHServer) -> Iterator[paramiko.SSHClient]:
    (client,) = connect.connect(sshd.target, time.monotonic() + 20)
    with closing(client):
        yield client


def transport_of(client: paramiko.SSHClient) -> Transport:
    transport = client.get_transport()
    assert isinstance(transport, Transport)
    return transport


def run(client: paramiko.SSHClient, command: bytes) -> tuple[bytes, int]:
    """Return the output and the exit status of a command."""
    with closing(open_session(client, 20)) as channel:
        channel.settimeout(20)
        channel.request_exec(command)
        output = b""
        while data := channel.recv(65536):
            output += data
        assert channel.status_event.wait(20 * PATIENCE)
        return output, channel.exit_status


def sent_by(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Record (type, the server's channel number) of all messages that are sent from now on. Return the growing list."""
    sent: list[tuple[int, int]] = []
    whole = transport._send_message

    def noted(data: Any) -> None:
        raw = data.asbytes()
        sent.append((raw[0], int.from_bytes(raw[1:5], "big")))
        whole(data)

    monkeypatch.setattr(transport, "_send_message", noted)
    return sent


EOF, CLOSE, DATA = 96, 97, 94


def test_1115_a_closed_channel_sends_nothing_more(
    client: paramiko.SSHClient, sshd: SSHServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller is about to send EOF when the server's CLOSE arrives. paramiko then sends CLOSE, and EOF after it."""
    transport = transport_of(client)
    sent = sent_by(transport, monkeypatch)
    channel = open_session(client, 20)
    whole = Channel._send_eof

    def late(self: Channel) -> Any:
        message = whole(self)
        if threading.current_thread() is not transport:
            time.sleep(0.5)  # meanwhile the command ends and the server closes the channel
        return message

    monkeypatch.setattr(Channel, "_send_eof", late)
    channel.request_exec(b"true")
    channel.shutdown_write()
    channel.close()
    assert [kind for kind, _ in sent if kind in (EOF, CLOSE)] == [EOF, CLOSE]
    assert run(client, b"echo alive") == (b"alive\n", 0)
    assert "nonexistent channel" not in sshd.log.read_text(errors="replace")


def test_1115_the_transport_thread_sends_nothing_for_a_channel(
    client: paramiko.SSHClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = sent_by(transport_of(client), monkeypatch)
    with closing(open_session(client, 20)) as channel:
        channel.request_exec(b"true")
        wait_for(lambda: channel.is_closed_there, what="the server's CLOSE")
        assert not [kind for kind, _ in sent if kind in (EOF, CLOSE)]
    assert [kind for kind, _ in sent if kind in (EOF, CLOSE)] == [EOF, CLOSE]
    channel.close()
    channel.shutdown_write()
    assert [kind for kind, _ in sent if kind in (EOF, CLOSE)] == [EOF, CLOSE]


def test_the_garbage_collector_waits_for_no_lock(client: paramiko.SSHClient) -> None:
    """It may run at any allocation, even in a thread that holds the connection's locks."""

    class Collecting(WeakValueDictionary[int, Channel]):
        def __setitem__(self, number: int, channel: Channel) -> None:
            gc.collect()
            super().__setitem__(number, channel)

    gc.disable()
    try:
        closed = closed_channel(client)
        run(client, b"true")  # the transport's thread keeps the last channel that it served
        transport_of(client)._channels._map = Collecting()
        assert in_background(lambda: run(client, b"echo alive")).result(20 * PATIENCE) == (b"alive\n", 0)
    finally:
        gc.enable()
    assert closed() is None


def closed_channel(client: paramiko.SSHClient) -> weakref.ref[Channel]:
    """Return a channel that is closed on both sides and that only the garbage collector can remove."""
    channel = open_session(client, 20)
    channel.request_exec(b"true")
    wait_for(lambda: channel.is_closed_there, what="the server's CLOSE")
    channel.close()
    channel.cycle = channel
    return weakref.ref(channel)


def test_822_paramiko_does_not_start_a_key_exchange(
    client: paramiko.SSHClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    packetizer = transport_of(client).packetizer
    assert packetizer.REKEY_BYTES > 2**60
    assert packetizer.REKEY_PACKETS > 2**60


def test_822_commands_go_on_while_the_server_asks_for_new_keys(
    account: StubAccount, make_sshd: Callable[..., SSHServer]
) -> None:
    """New keys every 64 kB, with keepalives and ends of channels. A message of the transport's thread waited 30 s."""
    sshd = make_sshd(account.home, options={"RekeyLimit": "64K", "ClientAliveInterval": "1"})
    runner = get_runner(sshd.config())
    size = 100_000

    def execute(number: int) -> int:
        try:
            return len(runner.execute(f"head -c {size} /dev/zero; exit 0", timeout=TIMEOUT).stdout)
        finally:
            connections.close_all()

    begin = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(execute, range(80))) == [size] * 80
    assert time.monotonic() - begin < 25
    assert sshd.connection_count() <= 4


def test_822_a_message_of_the_transport_thread_does_not_wait_for_a_key_exchange(
    client: paramiko.SSHClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = transport_of(client)
    sent = sent_by(transport, monkeypatch)
    whole = transport._parse_newkeys
    kept: list[int] = []

    def with_a_message(m: Any) -> None:
        message = paramiko.Message()
        message.add_byte(bytes([2]))  # SSH_MSG_IGNORE
        message.add_string("")
        begin = time.monotonic()
        transport._send_user_message(message)
        assert time.monotonic() - begin < 1 * PATIENCE
        kept.append(len(transport._kept))
        whole(m)

    monkeypatch.setitem(transport._handler_table, 21, with_a_message)  # SSH_MSG_NEWKEYS
    transport.renegotiate_keys()
    assert kept == [1]
    wait_for(lambda: any(kind == 2 for kind, _ in sent), what="the message")
    assert run(client, b"echo alive") == (b"alive\n", 0)


def test_1585_close_and_recv_raise_nothing_on_a_lost_connection(client: paramiko.SSHClient) -> None:
    channel = open_session(client, 20)
    channel.settimeout(20)
    channel.request_exec(b"head -c 1500000 /dev/zero; sleep 60")
    wait_for(lambda: len(channel.in_buffer) >= 1_000_000, what="output that calls for a window adjustment")
    transport_of(client).sock.close()
    assert len(channel.recv(10_000_000)) >= 1_000_000
    channel.close()
    transport_of(client).close()


def test_598_an_exit_signal_is_stored(client: paramiko.SSHClient) -> None:
    with closing(open_session(client, 20)) as channel:
        channel.request_exec(b"kill -USR1 $$")
        assert channel.status_event.wait(20 * PATIENCE)
        assert (channel.exit_signal, channel.exit_status) == ("USR1", -1)


def test_each_channel_has_its_own_refusal(account: StubAccount, make_sshd: Callable[..., SSHServer]) -> None:
    sshd = make_sshd(account.home, max_sessions=1)
    (client,) = connect.connect(sshd.target, time.monotonic() + 20)
    with closing(client), closing(open_session(client, 20)):

        def refused(_: int) -> type[BaseException] | None:
            try:
                open_session(client, 20)
            except Exception as error:  # noqa: BLE001 -- which one it is, is the question
                return type(error)
            return None

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(refused, range(40))) == {paramiko.ChannelException}


# --- many commands, much output ---------------------------------------------------------------------------------------


def test_none_of_many_commands_is_lost(sshd: SSHServer, account: StubAccount) -> None:
    """Do for seconds what `make bench` does with 10,000 commands and 2 GB: short commands, 30 at once, much output."""
    runner = get_runner(sshd.config())
    before = sshd.connection_count()

    def short(number: int) -> bool:
        return _good(runner, f"echo {number}", f"{number}\n")

    def long(number: int) -> bool:
        return _good(runner, f"head -c 20000000 /dev/zero; echo; echo {number}", f"\n{number}\n")

    with ThreadPoolExecutor(30) as pool:
        assert all(pool.map(short, range(1000)))
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(long, range(12)))
    assert sshd.connection_count() - before <= 4


def _good(runner: Runner, script: str, end: str) -> bool:
    try:
        result = runner.execute(script, timeout=TIMEOUT)
        return result.exit_code == 0 and result.stdout.endswith(end.encode())
    finally:
        connections.close_all()
