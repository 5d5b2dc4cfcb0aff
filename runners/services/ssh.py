"""SSH connections: opened on first use, shared, kept alive, closed when idle; host keys always verified.

One pool per process. Fork safe (a child starts with an empty pool) and thread safe. Connections are per (host, port,
user); channels per connection stay below sshd's default `MaxSessions 10`; callers that need the same new connection
share one attempt, because sshd drops unauthenticated connections beyond `MaxStartups`.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import paramiko
from django.conf import settings

from profiles.config import SSHTarget
from runners.exceptions import OutcomeUnknown, RunnerServiceError, RunnerUnreachable
from runners.services import ssh_connect
from runners.services.output import BoundedOutput

CHANNELS_PER_CONNECTION = 8  # sshd's default MaxSessions is 10
CONNECTIONS_PER_TARGET = 4
CONNECTIONS = 64  # per process
IDLE = 120  # seconds after which an unused connection is closed
OLDEST = 3600  # seconds after which a connection gets no new commands: a host key that was revoked stops counting
ATTEMPTS = 6  # connections that may turn out to be broken before a command has started
REFUSALS, REFUSED_PAUSE = 100, 0.05  # sessions that may be refused before a command has started; seconds between them
LIMIT_MEMORY = 30  # seconds for which a refused session tells how many sessions a server allows
OPENING_PAUSE = 1  # seconds before a further connection is tried again when one could not be had
FULL_WINDOW = 0.005  # seconds between looks whether the other side takes more input
KILLED = 137  # exit code of a command that a signal ended: paramiko does not tell which; `timeout` ends with KILL
ENDING = 0.2  # seconds in which a lost connection is noticed after its channels
# Seconds of silence, and in all, after which the output of an ended command is complete.
QUIET, QUIET_MOST = 0.2, 1.0


class Stale(Exception):
    """The connection broke before the command was started; another one may be tried."""


class Refused(Stale):
    """The connection works but takes no further session now."""


@dataclass(eq=False)
class Connection:
    """One authenticated connection. `jumps` are those it goes through, which live as long as it does."""

    client: paramiko.SSHClient
    jumps: list[paramiko.SSHClient]
    channels: int = 0
    opened: float = field(default_factory=time.monotonic)
    used: float = field(default_factory=time.monotonic)
    is_discarded: bool = False  # no longer in the pool; to be closed by the last one who uses it

    @property
    def is_alive(self) -> bool:
        transport = self.client.get_transport()
        return transport is not None and transport.is_active()

    def close(self) -> None:
        ssh_connect.close([*self.jumps, self.client])


@dataclass(eq=False)
class Target:
    """The connections to one (host, port, user), and who is opening another."""

    condition: threading.Condition = field(default_factory=threading.Condition)
    users: int = 0  # threads that have a use for it now; without them and connections it is forgotten
    connections: list[Connection] = field(default_factory=list)
    is_opening: bool = False
    failure: RunnerServiceError | None = None
    failures: int = 0
    limit: int = CHANNELS_PER_CONNECTION
    limit_until: float = 0.0
    open_after: float = 0.0  # while there are connections, no further one is opened before


class Channels(Protocol):
    """Where `run_on_channel` gets its channels from."""

    def channel(self, ssh: SSHTarget, deadline: float) -> AbstractContextManager[paramiko.Channel]: ...

    def discard(self, ssh: SSHTarget) -> None: ...


class ConnectionPool:
    """Shares connections between the threads of a process."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        # After a fork the sockets are still the parent's: they are dropped here, not closed, which would say goodbye
        # on them.
        self._lock = threading.Lock()
        self._targets: dict[SSHTarget, Target] = {}
        self._reaper: threading.Thread | None = None

    @contextmanager
    def channel(self, ssh: SSHTarget, deadline: float) -> Iterator[paramiko.Channel]:
        """A new session channel.

        Raises RunnerUnreachable and its kinds, or Stale when a shared connection turned out to be broken.
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
        """Use the connections to a target that has stopped answering no more, so that the next command opens a new one.

        Those on which other commands are under way are closed after them.
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
        """How many connections are open or being opened."""
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
        """Keep nothing of targets that nobody has a connection to: requests may name any number of hosts and users."""
        with self._lock:
            if not target.users and not target.connections and self._targets.get(ssh) is target:
                del self._targets[ssh]

    @staticmethod
    def _discard(target: Target, connections: Iterable[Connection]) -> None:
        """Take connections out of use; those on which commands are under way are closed after them."""
        with target.condition:
            target.connections = [c for c in target.connections if c not in connections]
            for connection in connections:
                connection.is_discarded = True
            unused = [connection for connection in connections if not connection.channels]
        for connection in unused:
            connection.close()

    def _acquire(self, target: Target, ssh: SSHTarget, deadline: float) -> Connection:
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
                    # A further one cannot be had now; those that are there will be free in a while.
                    target.open_after = time.monotonic() + OPENING_PAUSE

    def _wait_for_turn(self, target: Target, ssh: SSHTarget, deadline: float) -> Connection | None:
        """A connection with room for one more channel; None: the caller is to open another."""
        with target.condition:
            seen = target.failures
            while True:
                now = time.monotonic()
                if target.limit_until < now:
                    target.limit = CHANNELS_PER_CONNECTION
                for dead in [c for c in target.connections if not c.is_alive]:
                    target.connections.remove(dead)
                    dead.close()  # its jump hosts may well be alive
                self._discard(target, [c for c in target.connections if now - c.opened > OLDEST])
                usable = [c for c in target.connections if c.channels < target.limit]
                if usable:
                    connection = min(usable, key=lambda c: c.channels)
                    connection.channels += 1
                    return connection
                pause = target.open_after - now if target.connections else 0.0
                if not target.is_opening and len(target.connections) < CONNECTIONS_PER_TARGET and pause <= 0:
                    target.is_opening = True
                    return None
                if deadline <= now:
                    raise RunnerUnreachable(f"All connections to {ssh.host} stayed busy until the deadline.")
                target.condition.wait(min(deadline - now, pause if pause > 0 else LIMIT_MEMORY))
                if target.failures != seen and target.failure and not target.connections:
                    failure = target.failure  # the attempt we waited for was ours, too
                    raise type(failure)(failure.detail, **failure.facts)

    def _open(self, target: Target, ssh: SSHTarget, deadline: float) -> Connection:
        try:
            self._make_room()
            limit = time.monotonic() + settings.RUNNERS_CONNECT_TIMEOUT
            *jumps, client = ssh_connect.connect(ssh, min(deadline, limit))
            connection = Connection(client, jumps, channels=1)
            with target.condition:
                target.connections.append(connection)
        except RunnerServiceError as error:
            with target.condition:
                target.failure = error
                target.failures += 1
            raise
        finally:
            with target.condition:
                target.is_opening = False
                target.condition.notify_all()
        self._start_reaper()
        return connection

    def _open_channel(self, target: Target, connection: Connection, deadline: float) -> paramiko.Channel:
        transport = connection.client.get_transport()
        if transport is None:
            raise Stale
        try:
            return transport.open_session(
                timeout=max(0.1, min(settings.RUNNERS_CONNECT_TIMEOUT, deadline - time.monotonic()))
            )
        except (paramiko.SSHException, EOFError, OSError) as error:
            # paramiko keeps one refusal per connection: of two threads that are refused at once, the second gets a
            # plain SSHException on a connection that works, and other threads' commands are on it.
            if transport.is_active() and "Timeout" not in str(error):
                # This server allows fewer sessions than the default: remember what it does allow, and ask again.
                with target.condition:
                    target.limit = max(1, connection.channels - 1)
                    # It may also still be closing sessions that we have closed, so this is not true for ever.
                    target.limit_until = time.monotonic() + LIMIT_MEMORY
                raise Refused from error
            self._discard(target, [connection])  # other commands may still get their answers on it
            raise Stale from error

    def _make_room(self) -> None:
        if self.count() > CONNECTIONS:  # with the one that is to be opened
            self._close_idle(0)
        if self.count() > CONNECTIONS:
            raise RunnerUnreachable(f"This process already has {CONNECTIONS} SSH connections in use. Try again soon.")

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


def run_on_channel(
    pool: Channels,
    ssh: SSHTarget,
    command_line: str,
    script: bytes,
    stdin: bytes,
    stdout: BoundedOutput,
    stderr: BoundedOutput,
    deadline: float,
) -> int:
    """`Runner._exchange` over SSH. While the command has certainly not started, a broken connection is replaced."""
    broken = refused = 0
    while broken < ATTEMPTS and refused < REFUSALS:
        try:
            with pool.channel(ssh, deadline) as channel:
                try:
                    channel.fileno()  # paramiko makes a pipe for it, by which `_converse` waits
                except OSError as error:
                    raise RunnerUnreachable(
                        f"This service has no room for another command now: {error.strerror}. Nothing was started."
                    ) from error
                _start(channel, command_line, script)
                return _converse(channel, ssh, script[-1:] + stdin, stdout, stderr, deadline)
        except Refused:
            refused += 1
            time.sleep(REFUSED_PAUSE)
        except Stale:
            broken += 1
        except OutcomeUnknown:
            pool.discard(ssh)
            raise
        if time.monotonic() >= deadline:
            break
    raise RunnerUnreachable(f"The connection to {ssh.host} broke before the command was started. Try again.")


def _start(channel: paramiko.Channel, command_line: str, script: bytes) -> None:
    """Hand over the command line and the script but for its last byte: without that, nothing of it is ever executed."""
    transport = channel.get_transport()
    # paramiko waits for the answer to an exec request without limit; closing the transport ends the wait.
    watchdog = threading.Timer(settings.RUNNERS_CONNECT_TIMEOUT, transport.close)
    watchdog.daemon = True
    watchdog.start()
    try:
        channel.exec_command(command_line.encode())
        channel.settimeout(settings.RUNNERS_CONNECT_TIMEOUT)
        channel.sendall(script[:-1])
    except (paramiko.SSHException, EOFError, OSError) as error:
        if transport.is_active() and channel.closed:
            return  # the shell ended without reading its input: its words tell why
        transport.close()
        raise Stale from error
    finally:
        watchdog.cancel()


def _converse(
    channel: paramiko.Channel,
    ssh: SSHTarget,
    data: bytes,
    stdout: BoundedOutput,
    stderr: BoundedOutput,
    deadline: float,
) -> int:
    """Give the rest of the input and read both streams until the exit status is known or `stdout` is complete.

    The streams share one window, so neither may be left unread. What a command leaves behind may hold them open and go
    on writing, so the exit status counts, not their end. Raises OutcomeUnknown when the connection or the deadline ends
    first.
    """
    pending = memoryview(data)
    channel.settimeout(0)
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    is_over, end = False, deadline
    while True:
        if not is_over and channel.exit_status_ready():
            is_over, end = True, time.monotonic() + QUIET_MOST
        if pending or not channel.eof_sent:
            pending = _feed(channel, pending)
        got = _drain(channel, stdout, stderr)
        if stdout.is_complete:
            return 0
        left = end - time.monotonic()
        if left <= 0 and not is_over:
            raise OutcomeUnknown(
                f"{ssh.host} gave no answer within the deadline. The command is bounded there, too; check the "
                "experiment before you repeat it.",
                host=ssh.host,
            )
        if left <= 0:  # what was left behind writes and writes
            break
        if got:
            continue
        if channel.closed:
            break
        if channel.eof_received:  # keeps the descriptor readable for ever, so wait for the status itself
            if channel.status_event.wait(min(left, 1)):
                break
        elif not poll.poll(min(left, FULL_WINDOW if pending else QUIET) * 1000) and is_over:
            break
    if channel.exit_status != -1:
        return channel.exit_status
    if channel.eof_received and _is_alive(channel.get_transport()):
        return KILLED
    raise OutcomeUnknown(
        f"The connection to {ssh.host} was lost while the command ran; it may have gone on and ended there. Check the "
        "experiment before you repeat it.",
        host=ssh.host,
    )


def _is_alive(transport: paramiko.Transport) -> bool:
    """Whether the connection outlives the end of a channel: else that end was the connection's."""
    transport.join(ENDING)
    return transport.is_active()


def _feed(channel: paramiko.Channel, pending: memoryview) -> memoryview:
    """Send what the window takes now; after the last byte, the end of the input."""
    try:
        while pending and channel.send_ready():
            pending = pending[channel.send(pending[:32768].tobytes()) :]
        if not pending:
            channel.shutdown_write()
    except TimeoutError:
        pass
    except (paramiko.SSHException, EOFError, OSError):  # closed: the reading side tells why
        pending = pending[:0]
        channel.eof_sent = True
    return pending


def _drain(channel: paramiko.Channel, stdout: BoundedOutput, stderr: BoundedOutput) -> bool:
    """Take what has arrived; whether there was anything."""
    got = False
    for ready, receive, output in (
        (channel.recv_ready, channel.recv, stdout),
        (channel.recv_stderr_ready, channel.recv_stderr, stderr),
    ):
        while ready():
            output.feed(receive(65536))
            got = True
    return got
