"""SSH connections: opened on first use, shared, kept alive, closed when idle. Host keys are always verified.

There is one pool per process. It is thread safe and fork safe (a child starts with an empty pool). Connections are per
target: host, port, account, and, with certificates, the person for whom the service logs in. The number of channels per
connection stays below sshd's default `MaxSessions 10`. Concurrent callers that need the same new connection share one
attempt, because sshd drops unauthenticated connections beyond `MaxStartups`.
"""

from __future__ import annotations

import logging
import os
import resource
import shlex
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from typing import Protocol

import paramiko
from django.conf import settings

from runners.exceptions import RunnerServiceError, RunnerUnreachable
from runners.services.machines.exchange import ConnectDeadline, Exchange, pump_streams
from runners.services.machines.ssh import connect
from runners.services.machines.ssh.paramiko_fixes import GONE, Channel, Transport
from runners.services.machines.ssh.target import SSHTarget
from runners_project import metrics

logger = logging.getLogger(__name__)

CHANNELS_PER_CONNECTION = 8  # sshd's default MaxSessions is 10
CONNECTIONS_PER_TARGET = 4
IDLE = 120  # seconds after which an unused connection is closed
WARN_AGAIN = 3600  # seconds between two warnings that the bound was reached
# Seconds after which a connection gets no new commands, so that a revoked host key is not accepted for longer.
OLDEST = 3600
ATTEMPTS = 6  # broken connections before a command has started, after which we give up
REFUSALS, REFUSED_PAUSE = 100, 0.05  # refused sessions after which we give up; seconds before each retry
EXEC_REFUSALS = 5  # commands that a server refuses to execute, after which we give up
LIMIT_MEMORY = 30  # seconds for which the session limit that a refused session revealed is remembered
OPENING_PAUSE = 1  # seconds before another attempt to open a further connection, after one has failed


class ConnectionBroken(Exception):
    """The connection broke before the command was started; the caller may retry with another connection."""


class ChannelRefused(ConnectionBroken):
    """The connection works, but the server currently accepts no further session on it."""


class ExecRefused(ChannelRefused):
    """The session was opened, but the server refuses to execute a command in it."""


@dataclass(eq=False)
class Connection:
    """One authenticated connection. `jumps`: the connections to its jump hosts, which live as long as it does."""

    client: paramiko.SSHClient
    jumps: list[paramiko.SSHClient]
    channels: int = 0
    opened: float = field(default_factory=time.monotonic)
    used: float = field(default_factory=time.monotonic)
    is_discarded: bool = False  # no longer in the pool; its last user closes it
    lifetime: float | None = None  # seconds after which it gets no new commands; None: OLDEST
    is_counted: bool = False  # in the gauge of open connections

    @property
    def is_alive(self) -> bool:
        transport = self.client.get_transport()
        return transport is not None and transport.is_active()

    def count(self) -> None:
        """Count the connection in the gauge of open connections until it is closed."""
        self.is_counted = True
        metrics.SSH_CONNECTIONS.inc()

    def close(self) -> None:
        if self.is_counted:
            self.is_counted = False
            metrics.SSH_CONNECTIONS.dec()
        connect.close([*self.jumps, self.client])


@dataclass(eq=False)
class Target:
    """The connections to one SSHTarget, and whether a thread is opening another one."""

    condition: threading.Condition = field(default_factory=threading.Condition)
    users: int = 0  # threads that use it now; without users and connections it is removed
    connections: list[Connection] = field(default_factory=list)
    is_opening: bool = False
    failure: RunnerServiceError | None = None
    failures: int = 0
    limit: int = CHANNELS_PER_CONNECTION
    limit_until: float = 0.0
    open_after: float = 0.0  # while there are connections, no further one is opened before this time


class Channels(Protocol):
    """The part of a connection pool that `exec_on_channel` uses."""

    def channel(self, ssh: SSHTarget, deadline: ConnectDeadline) -> AbstractContextManager[Channel]: ...

    def discard(self, ssh: SSHTarget) -> None: ...


class ConnectionPool:
    """Connections that the threads of a process share."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        # After a fork the parent still uses the sockets. So drop them without closing: closing would send a disconnect
        # message on the parent's connections.
        self._lock = threading.Lock()
        self._targets: dict[SSHTarget, Target] = {}
        self._reaper: threading.Thread | None = None
        self._warned = float("-inf")

    @contextmanager
    def channel(self, ssh: SSHTarget, deadline: ConnectDeadline) -> Iterator[Channel]:
        """Open a new session channel and close it at the end.

        Raises RunnerUnreachable and its subclasses, or ConnectionBroken if a shared connection turned out to be broken.
        """
        with self._target(ssh) as target:
            connection = self._acquire(target, ssh, deadline)
            try:
                channel = self._open_channel(target, connection, deadline)
                try:
                    yield channel
                finally:
                    channel.close()
            finally:
                with target.condition:
                    connection.channels -= 1
                    connection.used = time.monotonic()
                    is_last = connection.is_discarded and not connection.channels
                    target.condition.notify_all()
                if is_last:
                    connection.close()

    def discard(self, ssh: SSHTarget) -> None:
        """Remove the connections to a target that has stopped answering, so that the next command opens a new one.

        Connections on which other commands are running are closed after these commands.
        """
        with self._target(ssh) as target:
            with target.condition:
                discarded = list(target.connections)
            self._discard(target, discarded)

    def close(self) -> None:
        """Close everything (end of the process, tests)."""
        with self._lock:
            targets = list(self._targets)
        for ssh in targets:
            self.discard(ssh)

    def count(self) -> int:
        """Return how many connections are open or being opened."""
        with self._lock:
            return sum(len(target.connections) + target.is_opening for target in self._targets.values())

    @contextmanager
    def _target(self, ssh: SSHTarget) -> Iterator[Target]:
        with self._lock:
            target = self._targets.setdefault(ssh, Target())
            target.users += 1
        try:
            yield target
        finally:
            with self._lock:
                target.users -= 1
            self._forget_unused(ssh, target)

    def _forget_unused(self, ssh: SSHTarget, target: Target) -> None:
        """Remove a target without users and connections: requests may name any number of hosts and users."""
        with self._lock:
            if not target.users and not target.connections and self._targets.get(ssh) is target:
                del self._targets[ssh]

    @staticmethod
    def _discard(target: Target, connections: Iterable[Connection]) -> None:
        """Remove connections from the pool. Those on which commands are running are closed after these commands."""
        with target.condition:
            target.connections = [c for c in target.connections if c not in connections]
            for connection in connections:
                connection.is_discarded = True
            unused = [connection for connection in connections if not connection.channels]
        for connection in unused:
            connection.close()

    def _acquire(self, target: Target, ssh: SSHTarget, deadline: ConnectDeadline) -> Connection:
        while True:
            connection = self._wait_for_turn(target, ssh, deadline)
            if connection is not None:
                return connection
            try:
                return self._open(target, ssh, deadline)
            except RunnerUnreachable:
                with target.condition:
                    if not any(c.is_alive for c in target.connections):
                        raise
                    # No further connection can be opened now. Wait for a free channel on the existing ones.
                    target.open_after = time.monotonic() + OPENING_PAUSE

    def _wait_for_turn(self, target: Target, ssh: SSHTarget, deadline: ConnectDeadline) -> Connection | None:
        """Return a connection with room for one more channel; None: the caller has to open another connection."""
        with target.condition:
            seen = target.failures
            while True:
                now = time.monotonic()
                if target.limit_until < now:
                    target.limit = CHANNELS_PER_CONNECTION
                for dead in [c for c in target.connections if not c.is_alive]:
                    target.connections.remove(dead)
                    dead.close()  # its jump hosts may well be alive
                self._discard(
                    target,
                    [c for c in target.connections if now - c.opened > (OLDEST if c.lifetime is None else c.lifetime)],
                )
                usable = [c for c in target.connections if c.channels < target.limit]
                if usable:
                    connection = min(usable, key=lambda c: c.channels)
                    connection.channels += 1
                    return connection
                pause = target.open_after - now if target.connections else 0.0
                if not target.is_opening and len(target.connections) < CONNECTIONS_PER_TARGET and pause <= 0:
                    target.is_opening = True
                    return None
                if deadline.exchange_deadline <= now:
                    raise RunnerUnreachable(f"All connections to {ssh.host} were busy until the timeout.")
                if target.connections:  # they work, but are fully used by our own commands
                    deadline.restart()
                elif not deadline.left:
                    raise no_answer(ssh)
                target.condition.wait(min(deadline.left, pause if pause > 0 else LIMIT_MEMORY))
                if target.failures != seen and target.failure and not target.connections:
                    raise copy(target.failure)  # we shared the attempt that failed

    def _open(self, target: Target, ssh: SSHTarget, deadline: ConnectDeadline) -> Connection:
        try:
            self._make_room()
            *jumps, client = connect.connect(ssh, deadline.end)
            connection = Connection(client, jumps, channels=1)
            if ssh.uses_person:  # so a revoked certificate is not used for longer than one that was stolen
                connection.lifetime = min(OLDEST, settings.RUNNERS_SSH_CERTIFICATE_LIFETIME)
            metrics.SSH_LOGINS.labels("ok").inc()
            connection.count()
            with target.condition:
                target.connections.append(connection)
        except RunnerServiceError as error:
            metrics.SSH_LOGINS.labels("failed").inc()
            if deadline.patience is not None and not deadline.left:
                error.is_remembered = False  # type: ignore[attr-defined]  # other callers may have more time
                raise
            with target.condition:
                target.failure = copy(error)
                target.failures += 1
            raise
        finally:
            with target.condition:
                target.is_opening = False
                target.condition.notify_all()
        self._start_reaper()
        return connection

    def _open_channel(self, target: Target, connection: Connection, deadline: ConnectDeadline) -> Channel:
        # Use half of the time. If this connection turns out to be dead, the rest is for a new one.
        timeout = max(0.1, deadline.left / 2)
        try:
            return open_session(connection.client, timeout)
        except paramiko.ChannelException as error:
            # This server allows fewer sessions than the default. Remember its limit and retry.
            with target.condition:
                target.limit = max(1, connection.channels - 1)
                # The server may also still be closing sessions that we have closed, so the limit expires.
                target.limit_until = time.monotonic() + LIMIT_MEMORY
            raise ChannelRefused from error
        except GONE as error:
            self._discard(target, [connection])  # other commands may still receive their results on it
            raise ConnectionBroken from error

    def _make_room(self) -> None:
        """Close the least recently used idle connections, as few as needed for the one that is being opened.

        Raises RunnerUnreachable if all connections are in use.
        """
        most = most_connections()
        while self.count() > most:  # the count includes the connection that is being opened
            if time.monotonic() > self._warned + WARN_AGAIN:
                self._warned = time.monotonic()
                logger.warning(
                    "All %s SSH connections of this process are open (RUNNERS_SSH_CONNECTIONS). For each new "
                    "connection, the least recently used one is closed, so commands may need more logins.",
                    most,
                )
            if not self._close_least_recently_used():
                raise RunnerUnreachable(
                    f"This process already has {most} SSH connections in use (RUNNERS_SSH_CONNECTIONS). Try again soon."
                )

    def _close_least_recently_used(self) -> bool:
        """Close the least recently used idle connection. Return False if no connection is idle."""
        with self._lock:
            targets = list(self._targets.items())
        idle = []
        for ssh, target in targets:
            with target.condition:
                idle += [(c.used, id(c), c, ssh, target) for c in target.connections if not c.channels]
        if not idle:
            return False
        *_, connection, ssh, target = min(idle)
        self._discard(target, [connection])  # if a command uses it meanwhile, it is closed after that command
        self._forget_unused(ssh, target)
        return True

    def _start_reaper(self) -> None:
        with self._lock:
            if self._reaper is None:
                self._reaper = threading.Thread(target=self._reap, name="ssh-idle", daemon=True)
                self._reaper.start()

    def _reap(self) -> None:
        while True:
            time.sleep(IDLE / 4)
            self._close_idle(IDLE)

    def _close_idle(self, age: float) -> None:
        with self._lock:
            targets = list(self._targets.items())
        for ssh, target in targets:
            with target.condition:
                old = [c for c in target.connections if not c.channels and time.monotonic() - c.used >= age]
            self._discard(target, old)
            self._forget_unused(ssh, target)


POOL = ConnectionPool()


def most_connections() -> int:
    """Return how many SSH connections this process may have.

    This is RUNNERS_SSH_CONNECTIONS, but at most half of the process's limit of open files.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = settings.RUNNERS_SSH_CONNECTIONS if soft == resource.RLIM_INFINITY else soft // 2
    return max(1, min(settings.RUNNERS_SSH_CONNECTIONS, files))


def open_session(client: paramiko.SSHClient, timeout: float) -> Channel:
    """Open a new session channel. Raises ChannelException if the server refuses it; all other errors are in GONE."""
    transport = client.get_transport()
    if not isinstance(transport, Transport):
        raise EOFError
    return transport.open_channel("session", timeout=timeout)


def exec_on_channel(pool: Channels, ssh: SSHTarget, exchange: Exchange) -> None:
    """Run an exchange over SSH. Retry with another connection while the script was certainly not handed over.

    Raises RunnerUnreachable if the script was not handed over. If the connection is lost later, or there is no answer
    within the deadline, the exchange has no exit code, and the connections to this target get no new commands.
    """
    broken = refused = exec_refused = 0
    while broken < ATTEMPTS and refused < REFUSALS and exec_refused < EXEC_REFUSALS:
        try:
            with pool.channel(ssh, exchange.connect_deadline) as channel:
                link = ChannelLink(channel, exchange.connect_deadline)
                exchange.peer = peer_of(channel)
                link.start("exec " + shlex.join(exchange.argv))
                pump_streams(exchange, link)
                if link.is_lost and not exchange.is_handed_over:
                    raise ConnectionBroken
                if exchange.is_late or link.is_lost:
                    pool.discard(ssh)
                return
        except ExecRefused:
            exec_refused += 1
            time.sleep(REFUSED_PAUSE)
            exchange.connect_deadline.restart()
        except ChannelRefused:
            refused += 1
            time.sleep(REFUSED_PAUSE)
            exchange.connect_deadline.restart()
        except ConnectionBroken:
            broken += 1
        if not exchange.connect_deadline.left:
            break
        exchange.restart()
    if exec_refused:
        raise RunnerUnreachable(
            f"{ssh.host} rejected the execution of a command. It may have reached its limit of processes or open "
            f"files. Nothing was started. Try again."
        )
    if not exchange.connect_deadline.left:
        raise no_answer(ssh)
    raise RunnerUnreachable(f"The connection to {ssh.host} was lost before the command was started. Try again.")


def peer_of(channel: Channel) -> str:
    """Return the address of the machine; empty if the connection goes through a jump host, or has ended."""
    sock = channel.transport.sock
    with suppress(OSError):
        return str(sock.getpeername()[0]) if isinstance(sock, socket.socket) else ""
    return ""


def no_answer(ssh: SSHTarget) -> RunnerUnreachable:
    """Return the error for a machine that accepted the connection but did not accept a command in time."""
    error = RunnerUnreachable(
        f"{ssh.user}@{ssh.host}:{ssh.port} cannot be reached: no answer within {settings.RUNNERS_CONNECT_TIMEOUT:g} s"
    )
    error.is_remembered = error.is_silence = True
    return error


class ChannelLink:
    """A command line on a session channel. See `exchange.Link`."""

    def __init__(self, channel: Channel, deadline: ConnectDeadline) -> None:
        self.channel = channel
        channel.settimeout(0)
        self._answer_by = time.monotonic() + deadline.left / 2

    def start(self, command_line: str) -> None:
        try:
            self.channel.request_exec(command_line.encode())
        except GONE as error:
            raise ConnectionBroken from error

    def send(self, data: memoryview) -> int:
        sent = 0
        try:
            while sent < len(data) and not self._is_closed and self.channel.send_ready():
                sent += self.channel.send(data[sent : sent + 32768].tobytes())
        except TimeoutError:
            return sent
        except GONE:  # `receive` and `is_lost` detect the end
            return sent
        return len(data) if self._is_closed else sent

    @property
    def _is_closed(self) -> bool:
        return self.channel.closed or self.channel.is_closed_there

    def end_input(self) -> None:
        with suppress(*GONE):
            self.channel.shutdown_write()

    def receive(self, exchange: Exchange) -> bool:
        """As `exchange.Link.receive`.

        Raises ExecRefused if the server refuses to execute the command line, ConnectionBroken if it does not answer.
        """
        channel = self.channel
        channel.news.clear()
        if channel.is_granted is False:
            raise ExecRefused
        if channel.is_granted is None and (self.is_lost or time.monotonic() > self._answer_by):
            raise ConnectionBroken
        # Read the end before the streams: all output that precedes the end has then already arrived.
        if channel.exit_status != -1:
            exchange.status = channel.exit_status
        exchange.signal = channel.exit_signal
        got = False
        for ready, receive, output in (
            (channel.recv_ready, channel.recv, exchange.stdout),
            (channel.recv_stderr_ready, channel.recv_stderr, exchange.stderr),
        ):
            while ready():
                output.feed(receive(65536))
                got = True
        return got

    @property
    def is_over(self) -> bool:
        channel = self.channel
        has_no_more = channel.eof_received and (channel.exit_status != -1 or channel.exit_signal)
        return bool(self.is_lost or channel.is_closed_there or has_no_more) and not (
            channel.recv_ready() or channel.recv_stderr_ready()
        )

    @property
    def is_lost(self) -> bool:
        """True if the connection has ended, not only the channel."""
        return self.channel.closed or not self.channel.transport.is_active()

    def wait(self, seconds: float, *, is_full: bool) -> None:
        if self.channel.is_granted is None:
            seconds = min(seconds, max(0.01, self._answer_by - time.monotonic()))
        self.channel.news.wait(seconds)

    def kill(self) -> None:
        self.channel.request_signal("KILL")
