"""Send one script to a machine and receive its output. The same for LOCAL and SSH.

The process that is started is our reader (`scripts.bootstrap`). A start-up file or the server may start another program
in its place. So the input begins with `scripts.OPENING`, a line that ends any shell. Nothing more is sent until the
reader has printed a secret word (the marker). So without the marker, certainly nothing was executed: no other program
has received the script, not even one that would decode it.

At the end, our own shell prints the marker once more, with the exit code. Only one other thing counts as the end of the
script: both streams have ended, and sshd or the kernel has reported an exit code or signal. A channel that was closed
without such a report does not count. The death of the reporting shell while other processes hold its streams does not
count either.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from django.conf import settings

from runners.services.machines import scripts
from runners.services.machines.output import BoundedOutput

# Seconds of silence after which no more output is expected from a process that is known to have ended, but has not
# printed its end on both streams. Processes that it left behind may hold the streams.
SILENCE = 1.0
# The same if only standard error lacks its end: a wrapper may have joined the streams, or the connection is slow.
SILENCE_OF_STDERR = 5.0
# Seconds after which the input is closed if our reader has not printed its marker. Programs such as `cat` and `python`
# read to the end of their input. A login that takes longer gets a second try.
PATIENCE = 10.0
ABANDON_PAUSE = 1.0  # seconds between two checks whether to stop waiting for a silent script
RELEASED = 2.0  # seconds: a marker that comes so soon after the end of the input was caused by that end


@dataclass(slots=True)
class ConnectDeadline:
    """The time bound until the machine has accepted the command line: RUNNERS_CONNECT_TIMEOUT in total, however many
    connections are tried.

    `patience`: a shorter bound in seconds, within which our reader has to answer, too (`bulkheads.Wait`). `restart` is
    called when the machine has given a sign of life, and after a wait for other commands of this service.
    """

    exchange_deadline: float  # by `time.monotonic`
    patience: float | None = None
    end: float = field(init=False)  # by `time.monotonic`

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        seconds = settings.RUNNERS_CONNECT_TIMEOUT
        seconds = seconds if self.patience is None else min(seconds, self.patience)
        self.end = min(self.exchange_deadline, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds, not negative."""
        return max(0.0, self.end - time.monotonic())


@dataclass(slots=True)
class Exchange:
    """One script, its bounds and its output. `deadline` and the other times are of `time.monotonic`.

    `patience`: see PATIENCE; None: up to the deadline. `limit`: bytes that are kept of each stream. `last_line`: the
    output is complete after this line, see BoundedOutput. `on_answer` is called when the marker has come: the machine
    answers. `should_abandon` is called each second while the script is silent. It returns True if the machine has
    stopped answering, so that nobody should wait for the end of the script. `peer`: the address of the machine; empty
    if it is not known.
    """

    argv: list[str]
    script: bytes
    stdin: bytes
    marker: str
    limit: int
    deadline: float
    last_line: str = ""
    peer: str = ""
    on_answer: Callable[[], None] = lambda: None
    should_abandon: Callable[[], bool] | None = None
    patience: float | None = field(default_factory=lambda: PATIENCE)
    connect_deadline: ConnectDeadline = field(init=False)
    stdout: BoundedOutput = field(init=False)
    stderr: BoundedOutput = field(init=False)
    start: float = field(init=False)
    is_handed_over: bool = field(init=False)  # the last byte of the script was sent: it may have been executed
    closed_at: float | None = field(init=False)  # when the input was closed without the script
    begun_at: float | None = field(init=False)  # when the marker came
    status: int | None = field(init=False)  # exit code of the command line, reported by sshd or the kernel
    signal: str = field(init=False)  # what ended the command line, reported by sshd or the kernel
    is_over: bool = field(init=False)  # both streams have ended, and so has the process
    is_late: bool = field(init=False)  # the deadline has passed
    is_abandoned: bool = field(init=False)  # nobody waits for its end

    def __post_init__(self) -> None:
        self.connect_deadline = ConnectDeadline(self.deadline)
        self.restart()

    def restart(self) -> None:
        """Discard all output: the process is started once more."""
        self.stdout = BoundedOutput(self.marker, self.limit, last_line=self.last_line)
        self.stderr = BoundedOutput(self.marker, self.limit)
        self.start = time.monotonic()
        self.closed_at = self.begun_at = self.status = None
        self.is_handed_over = self.is_over = self.is_late = self.is_abandoned = False
        self.signal = ""

    @property
    def exit_code(self) -> int | None:
        """Exit code of the script, or 128 + the signal that ended it; None if none was reported."""
        if self.stdout.has_last_line:
            return 0
        if self.stdout.exit_code is not None or not self.is_over:
            return self.stdout.exit_code
        return self.status if not self.signal else 128 + getattr(signal, f"SIG{self.signal}", 0)

    @property
    def is_complete(self) -> bool:
        """Whether all output has arrived."""
        return self.stdout.has_last_line or (self.stdout.is_ended and self.stderr.is_ended)

    @property
    def was_slow(self) -> bool:
        """Whether our reader started only after the end of the input, and not because of it. Then a retry is useful."""
        return bool(self.closed_at and self.begun_at and self.begun_at - self.closed_at > RELEASED)


class Link(Protocol):
    """The process of the command line, as its starter sees it. Only `wait` blocks."""

    def send(self, data: memoryview) -> int:
        """Send input and return how many bytes were accepted: all of them if nobody reads any more."""

    def end_input(self) -> None: ...

    def receive(self, exchange: Exchange) -> bool:
        """Pass to the exchange what has arrived, and set its `status` or `signal`. Return True if there was output."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more can arrive."""

    def wait(self, seconds: float, *, is_full: bool) -> None:
        """Return when there is something to receive, or room to send if `is_full`."""

    def kill(self) -> None:
        """End the process and its group."""


def pump_streams(exchange: Exchange, link: Link) -> None:
    """Send all input and receive all output, until the end or the deadline. Raises the errors of the link."""
    pending = memoryview(scripts.OPENING)
    rest = len(exchange.stdin)  # bytes after the last one of the script
    is_open, is_offered = True, False  # the input is open; the whole script was offered
    heard = quiet_since = time.monotonic()  # start of the silence
    is_ending = False
    while True:
        got = link.receive(exchange)
        now = time.monotonic()
        if exchange.stdout.started and exchange.begun_at is None:
            exchange.begun_at = now
            exchange.on_answer()
        if exchange.is_complete:
            return
        if got:
            quiet_since = now
        silence = _silence(exchange)
        if got or (silence is not None and not is_ending):
            heard = now
        is_ending = silence is not None
        if is_open:
            if exchange.stdout.started and not is_offered:
                pending, is_offered = memoryview(bytes(pending) + exchange.script + exchange.stdin), True
            pending = pending[link.send(pending) :]
            exchange.is_handed_over = is_offered and len(pending) <= rest
            has_no_patience = exchange.patience is not None and now - exchange.start > exchange.patience
            if (is_offered and not pending) or (not is_offered and has_no_patience):
                link.end_input()
                is_open = False
                exchange.closed_at = None if is_offered else now
        if link.is_over:
            exchange.is_over = True
            return
        left = exchange.deadline - now
        if exchange.connect_deadline.patience is not None and exchange.begun_at is None:
            left = min(left, exchange.connect_deadline.end - now)
        if left <= 0:
            exchange.is_late = True
            link.kill()
            return
        if exchange.should_abandon and exchange.begun_at is not None and not got:
            if now - quiet_since > settings.RUNNERS_CONNECT_TIMEOUT and exchange.should_abandon():
                exchange.is_late = exchange.is_abandoned = True
                return
            left = min(left, ABANDON_PAUSE)
        if silence is not None:
            left = min(left, heard + silence - now)
            if left <= 0:
                return
        elif is_open and not is_offered and exchange.patience is not None:
            left = min(left, max(0.01, exchange.start + exchange.patience - now))
        if not got:
            link.wait(left, is_full=is_open and bool(pending))


def _silence(exchange: Exchange) -> float | None:
    """Return the seconds of silence that end the exchange. None: only the deadline ends it."""
    if exchange.stdout.is_ended:
        return SILENCE_OF_STDERR
    if (
        exchange.signal
        or exchange.status == scripts.KILLED
        or (exchange.status is not None and not exchange.is_handed_over)
    ):
        return SILENCE
    return None  # the reporting shell will still print its last line, however slow it is
