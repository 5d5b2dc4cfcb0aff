"""Reading the log of a run or of a job: part by part, line by line, its last lines."""

from __future__ import annotations

import base64
import collections
import time
from typing import Any, Iterator

from runners.cli.service import Service
from runners.cli.terminal import Printer

LOG_POLL = 1.0  # seconds between two polls of a live log
LOG_LIMIT = 262_144  # bytes of the log in one response
LARGEST_TAIL = 1_000_000  # bytes, as the service allows
LONGEST_LINE = 65_536  # bytes of a line that are kept for --lines and --grep; a log may be one line of 300 MB


def last_lines(service: Service, path: str, query: dict[str, Any], count: int) -> tuple[bytes, int]:
    """Return the last `count` lines, and the offset behind them. A longer end than 1 MB is read from the front."""
    size = 4096
    while True:
        chunk = service.get(path, tail=size, encoding="base64", **query)
        data = base64.b64decode(chunk["data"])
        lines = data.split(b"\n")
        end = 1 if lines[-1] else 0  # a last line without an end counts
        if len(lines) - 1 + end > count or len(data) >= chunk["size"]:
            return b"\n".join(lines[-(count + 1 - end) :]) if count else b"", chunk["next_offset"]
        if size >= LARGEST_TAIL:
            break
        size = min(size * 8, LARGEST_TAIL)
    kept: collections.deque[bytes] = collections.deque(maxlen=count)
    end = 0
    for _, line, offset in lines_of(service, path, query, 0, live=False):
        kept.append(line)
        end = offset
    return b"".join(kept), end


def parts(service: Service, path: str, offset: int, *, live: bool, **query: Any) -> Iterator[tuple[bytes, int]]:
    """Yield the parts of a log from `offset` on, and the offset behind each.

    They end at the present end; with `live`, when the run has ended and its log is complete.
    """
    while True:
        chunk = service.get(path, offset=offset, limit=LOG_LIMIT, encoding="base64", **query)
        offset = chunk["next_offset"]
        yield base64.b64decode(chunk["data"]), offset
        if chunk["ended"] or (offset >= chunk["size"] and not live):
            return
        if offset >= chunk["size"]:
            time.sleep(LOG_POLL)


def follow(service: Service, path: str, offset: int, printer: Printer, *, live: bool = True, **query: Any) -> None:
    """Write a log from `offset` to its present end; with `live`, until the run has ended and its log is complete."""
    for data, _ in parts(service, path, offset, live=live, **query):
        printer.write(data)


def lines_of(
    service: Service, path: str, query: dict[str, Any], offset: int, *, live: bool
) -> Iterator[tuple[int, bytes, int]]:
    """Yield number, bytes and end of each line. Of a line that is longer than LONGEST_LINE, only the beginning."""
    line, number, end = b"", 0, offset
    for data, end in parts(service, path, offset, live=live, **query):
        *whole, rest = data.split(b"\n")
        for piece in whole:
            number += 1
            yield number, (line + piece[: LONGEST_LINE - len(line)]) + b"\n", end
            line = b""
        line += rest[: max(0, LONGEST_LINE - len(line))]
    if line:
        yield number + 1, line, end
