"""A cache of logs: all viewers of one run in this process share one read per second.

The last bytes that were read of a log are cached. For SHARED_SECONDS after the read, viewers get their part from the
cache. The next read continues where the last one ended, so viewers with different offsets share that read, too.

This module does not check permissions: callers check them before they read.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from copy import copy
from dataclasses import dataclass
from functools import partial

from django.conf import settings

from runners.exceptions import RunnerServiceError, RunnerUnreachable
from runners.models import DetachedCommand
from runners.services import lifecycle
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.machines.probe import LogChunk
from runners_project.shared_calls import SharedCalls, StillUnderWay

SHARED_SECONDS = 1.0  # how long a read, or its error, is used for the next viewers
FORGOTTEN_SECONDS = 30.0  # after which cached bytes are dropped
PATIENCE = 2.0  # seconds that a viewer waits for a read of another viewer's request
KEPT_BYTES = 1024**2  # of each log
KEPT_LOGS = 32  # so a process keeps at most 32 MB

# The key of a run's or operation's directory, and whether it was active before the read. A read from before the end is
# not used after the end, because it may lack the last bytes of the log.
Log = tuple[str, bool]


@dataclass(frozen=True, slots=True)
class _Read:
    """The result of the last read, at the time `arrived` (`time.monotonic`). Neither chunk nor error: no log exists."""

    arrived: float
    chunk: LogChunk | None = None
    error: RunnerServiceError | None = None

    @property
    def age(self) -> float:
        return time.monotonic() - self.arrived


_lock = threading.Lock()
_last: OrderedDict[Log, _Read] = OrderedDict()
_reads = SharedCalls()


def read(row: DetachedCommand, *, offset: int, limit: int) -> LogChunk | None:
    """Return the same as `Runner.read_log` with the row's key, up to SHARED_SECONDS old.

    Raises the errors of `Runner.read_log`; MachineBusy; RunnerUnreachable also if another viewer's read takes longer
    than PATIENCE.
    """
    log = (row.key, row.is_active)
    with _lock:
        last = _last.get(log)
    if last and last.age < SHARED_SECONDS:
        if last.error:
            raise copy(last.error)
        if last.chunk is None:
            return None
        if part := _part(last.chunk, offset, limit):
            return part
    known = last.chunk if last and last.age < FORGOTTEN_SECONDS else None
    if known and known.offset <= offset <= known.next_offset:
        chunk = _read_once(row, log, known.next_offset, limit)
        if chunk is None:
            return None
        whole = _joined(known, chunk)
        if part := whole and _part(whole, offset, limit):
            return part
    return _read_once(row, log, offset, limit)


def forget() -> None:
    """Clear the cache, for tests that write directly into a log."""
    with _lock:
        _last.clear()


def _read_once(row: DetachedCommand, log: Log, offset: int, limit: int) -> LogChunk | None:
    runner = lifecycle.runner_of(row)
    try:
        with BULKHEADS.reading(runner.target, PATIENCE) as seconds:
            if seconds is None:
                raise BULKHEADS.busy(runner.target, runner.where)
            read = partial(_read_and_keep, row, log, offset, limit)
            return _reads.call((log, offset, limit), read, seconds)
    except StillUnderWay:
        raise RunnerUnreachable(
            "Another request is reading this log, and the machine has not answered yet. Try again in some seconds."
        ) from None


def _read_and_keep(row: DetachedCommand, log: Log, offset: int, limit: int) -> LogChunk | None:
    try:
        runner = lifecycle.runner_of(row)
        chunk = runner.read_log(row.key, offset=offset, limit=limit, timeout=settings.RUNNERS_PROBE_TIMEOUT)
        if chunk is None and (node := lifecycle.runner_at_node(row, runner)):  # the nodes may have no shared home
            chunk = node.read_log(row.key, offset=offset, limit=limit, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    except RunnerServiceError as error:
        _keep(log, error=copy(error))
        raise
    _keep(log, chunk=chunk)
    return chunk


def _keep(log: Log, *, chunk: LogChunk | None = None, error: RunnerServiceError | None = None) -> None:
    with _lock:
        last = _last.pop(log, None)
        known = last.chunk if last and last.age < FORGOTTEN_SECONDS else None
        if error:
            kept = known
        elif chunk is None or known is None:
            kept = chunk
        elif chunk.next_offset < known.next_offset <= chunk.size:
            _last[log] = last  # type: ignore[assignment]  # keep the later part: most viewers read the end
            return
        else:
            kept = _joined(known, chunk) or chunk
        if kept and len(kept.data) > KEPT_BYTES:
            kept = LogChunk(kept.next_offset - KEPT_BYTES, kept.size, kept.data[-KEPT_BYTES:])
        _last[log] = _Read(time.monotonic(), kept, error)
        while len(_last) > KEPT_LOGS or next(iter(_last.values())).age > FORGOTTEN_SECONDS:
            _last.popitem(last=False)


def _joined(known: LogChunk, chunk: LogChunk) -> LogChunk | None:
    """Return both chunks as one; None if `chunk` does not continue `known`, or if the log has become shorter."""
    if not known.offset <= chunk.offset <= known.next_offset <= chunk.size or chunk.next_offset < known.next_offset:
        return None
    return LogChunk(known.offset, chunk.size, known.data[: chunk.offset - known.offset] + chunk.data)


def _part(known: LogChunk, offset: int, limit: int) -> LogChunk | None:
    """Return what a read with these arguments would have returned; None if `known` does not contain all of it."""
    start = offset if offset >= 0 else max(0, known.size + offset)
    is_to_the_end = known.next_offset >= known.size
    if not known.offset <= start <= known.next_offset or not (is_to_the_end or start + limit <= known.next_offset):
        return None
    begin = start - known.offset
    return LogChunk(start, known.size, known.data[begin : begin + limit])
