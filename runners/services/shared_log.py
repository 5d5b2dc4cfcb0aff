"""Logs as their viewers read them: all viewers of one run in this process share one read per second.

The last bytes that were read of a log are kept. A viewer gets its part from there for SHARED_SECONDS after the read.
The next read then goes on where the last one has ended, so viewers whose offsets differ share that one, too.

Nothing here asks who the viewer is: callers check that before they read.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from django.conf import settings

from runners.exceptions import RunnerServiceError, RunnerUnreachable
from runners.models import RunnerRun
from runners.models_operations import Operation
from runners.services import lifecycle
from runners.services.bulkheads import BULKHEADS
from runners.services.probe import LogChunk
from runners.services.single_flight import SingleFlight, StillUnderWay

SHARED_SECONDS = 1.0  # how long what was read of a log, or why it could not be read, answers the next viewers
FORGOTTEN_SECONDS = 30.0  # after which nothing that was read is kept
PATIENCE = 2.0  # seconds that a viewer waits for a read that another viewer's request makes
KEPT_BYTES = 1024**2  # of each log
KEPT_LOGS = 32  # so a process keeps 32 MB at most

# The key of a run's or operation's directory, and whether it was active before the read. What was read before the end
# does not count as the whole log afterwards.
Log = tuple[str, bool]


@dataclass(frozen=True, slots=True)
class _Read:
    """What the last read has brought, at `arrived` (of `time.monotonic`). Neither chunk nor error: there is no log."""

    arrived: float
    chunk: LogChunk | None = None
    error: RunnerServiceError | None = None

    @property
    def age(self) -> float:
        return time.monotonic() - self.arrived


_lock = threading.Lock()
_last: OrderedDict[Log, _Read] = OrderedDict()
_reads: SingleFlight[tuple[Log, int, int], LogChunk | None] = SingleFlight()


def read(row: RunnerRun | Operation, *, offset: int, limit: int) -> LogChunk | None:
    """As `Runner.read_log` with the row's key; what it returns may be SHARED_SECONDS old.

    Raises MachineBusy; RunnerUnreachable, also when another viewer's read takes longer than PATIENCE, and as
    `Runner.read_log`.
    """
    log = (row.key, row.is_active)
    with _lock:
        last = _last.get(log)
    if last and last.age < SHARED_SECONDS:
        if last.error:
            raise last.error.with_traceback(None)
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
    """Forget all that was read, for tests that write into a log behind the service's back."""
    with _lock:
        _last.clear()


def _read_once(row: RunnerRun | Operation, log: Log, offset: int, limit: int) -> LogChunk | None:
    runner = lifecycle.runner_of(row)
    try:
        with BULKHEADS.reading(runner.target, PATIENCE) as seconds:
            if seconds is None:
                raise BULKHEADS.busy(runner.target, runner.where)
            read = partial(_read_and_keep, row, log, offset, limit)
            return _reads.call((log, offset, limit), read, patience=seconds)
    except StillUnderWay:
        raise RunnerUnreachable(
            "Its machine is being asked for this log already and has not answered yet. Try again in some seconds."
        ) from None


def _read_and_keep(row: RunnerRun | Operation, log: Log, offset: int, limit: int) -> LogChunk | None:
    try:
        runner = lifecycle.runner_of(row)
        chunk = runner.read_log(row.key, offset=offset, limit=limit, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    except RunnerServiceError as error:
        _keep(log, error=error)
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
            _last[log] = last  # type: ignore[assignment]  # an earlier part: most viewers read the end
            return
        else:
            kept = _joined(known, chunk) or chunk
        if kept and len(kept.data) > KEPT_BYTES:
            kept = LogChunk(kept.next_offset - KEPT_BYTES, kept.size, kept.data[-KEPT_BYTES:])
        _last[log] = _Read(time.monotonic(), kept, error)
        while len(_last) > KEPT_LOGS or next(iter(_last.values())).age > FORGOTTEN_SECONDS:
            _last.popitem(last=False)


def _joined(known: LogChunk, chunk: LogChunk) -> LogChunk | None:
    """Both as one; None when `chunk` does not continue `known`, or the log has become shorter meanwhile."""
    if not known.offset <= chunk.offset <= known.next_offset <= chunk.size or chunk.next_offset < known.next_offset:
        return None
    return LogChunk(known.offset, chunk.size, known.data[: chunk.offset - known.offset] + chunk.data)


def _part(known: LogChunk, offset: int, limit: int) -> LogChunk | None:
    """What a read with these arguments would have brought; None when `known` does not hold all of it."""
    start = offset if offset >= 0 else max(0, known.size + offset)
    is_to_the_end = known.next_offset >= known.size
    if not known.offset <= start <= known.next_offset or not (is_to_the_end or start + limit <= known.next_offset):
        return None
    begin = start - known.offset
    return LogChunk(start, known.size, known.data[begin : begin + limit])
