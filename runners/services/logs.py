"""Read the logs of runs and operations: the one reader for the API, the pages and the admin.

All readers of one log share a read per second (log_cache.py). This module does not check permissions: callers check
them before they read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from django.conf import settings

from runners.exceptions import LogNotFound, MachineBusy, RunnerServiceError
from runners.models import DetachedCommand, RunnerRun
from runners.services import log_cache
from runners.services.machines.output import plain_text

LOG_HEADER = 128  # bytes of RUNNERS_OUTPUT_LIMIT that are not for the log itself
LONGEST_CHARACTER = 4  # bytes of UTF-8
TAIL = 64 * 1024  # bytes that a viewer gets first, and that an earlier part adds
BEFORE = 8 * 1024  # bytes before the byte that a viewer jumps to
UNBROKEN = 16 * 1024  # bytes of an incomplete line that a viewer gets nevertheless
CHUNK = 256 * 1024  # most bytes of a growing log in one part for a viewer
DOWNLOAD_CHUNK = 512 * 1024
DOWNLOAD_LIMIT = 1024**3  # bytes
DOWNLOAD_SECONDS = 600.0
LONGEST_LINE = 1024**2  # bytes


@dataclass(frozen=True, slots=True)
class LogPage:
    """The bytes `offset` to `next_offset` of a log that is `size` bytes long now.

    `ended`: the command is over and the log was read to its end, so no further request is needed.
    """

    offset: int
    size: int
    ended: bool
    data: bytes = field(repr=False)

    @property
    def next_offset(self) -> int:
        return self.offset + len(self.data)

    def whole_lines(self, *, first: bool, last: bool) -> LogPage:
        """Return the page without an incomplete line at its beginning (`first`) and at its end (`last`).

        The next page has the rest of a line that is incomplete at the end. An incomplete line stays if nothing can
        complete it, or if it is longer than this page.
        """
        start, data = self.offset, self.data
        if first and start:
            cut = data.find(b"\n") + 1
            start, data = start + cut, data[cut:]
        if last and not self.ended:
            cut = data.rfind(b"\n") + 1
            is_short = start + len(data) >= self.size and len(data) < UNBROKEN
            data = data[:cut] if cut or is_short else data
        return LogPage(start, self.size, self.ended, data)

    def from_whole_character(self) -> LogPage:
        """Return the page without the rest of a character at its beginning, which began before the page."""
        cut = _continuation(self.data) if self.offset else 0
        return LogPage(self.offset + cut, self.size, self.ended, self.data[cut:])

    def whole_characters(self) -> LogPage:
        """Return the page without an incomplete character at its end. The next page begins with this character.

        An incomplete character at the very end of a command's output stays, because nothing can complete it.
        """
        if self.ended:
            return self
        kept = self.data[: len(self.data) - _incomplete(self.data)]
        return LogPage(self.offset, self.size, False, kept)


def read(row: DetachedCommand, *, offset: int = 0, limit: int, tail: int | None = None) -> LogPage:
    """Return a part of the log of a run or an operation: at most `limit` bytes from byte `offset`, or the last `tail`.

    If `tail` is given, `offset` and `limit` are ignored, and the part begins with a whole UTF-8 character. The result
    may be `log_cache.SHARED_SECONDS` old. Raises LogNotFound; MachineBusy, which has the last known state of a run;
    RunnerUnreachable and the other errors of `Runner.execute`.
    """
    was_over = not row.is_active  # check before the read: a command that is already over writes nothing after it
    most = _bounded(limit if tail is None else tail)
    chunk = None
    if row.cleaned_at is None:
        try:
            chunk = log_cache.read(row, offset=offset if tail is None else -most, limit=most)
        except MachineBusy as error:
            row.reachable, row.unreachable_detail = False, error.detail  # in this answer only
            error.run = row if isinstance(row, RunnerRun) else None
            raise
    if chunk is None:
        raise LogNotFound("The log does not exist: nothing was started, or its directory was removed from the machine.")
    page = LogPage(chunk.offset, chunk.size, was_over and chunk.next_offset >= chunk.size, chunk.data)
    return page if tail is None else page.from_whole_character()


def read_lines(
    row: DetachedCommand, *, offset: int | None = None, before: int | None = None, around: int | None = None
) -> LogPage:
    """Return whole lines for a viewer: from byte `offset` on, or the part before byte `before`, or else the end.

    The part before `before` ends there, within a line or not. `around`: some lines before this byte, and the lines from
    there on. Raises the errors of `read`.
    """
    if around is not None:
        start = max(0, around - BEFORE)
        page = read(row, offset=start, limit=around - start + TAIL)
        if around < page.size:
            page = page.from_whole_character().whole_characters()
            whole = page.whole_lines(first=True, last=True)
            return whole if whole.offset <= around < whole.next_offset else page  # within a long line
    if before is not None:
        start = max(0, before - TAIL)
        if start == before:
            return LogPage(0, 0, not row.is_active, b"")
        page = read(row, offset=start, limit=before - start)
    elif offset is not None:
        page = read(row, offset=offset, limit=CHUNK).whole_characters()
    else:
        page = read(row, limit=TAIL, tail=TAIL)
    return page.whole_lines(first=offset is None, last=before is None)


def end_of(row: DetachedCommand, most: int) -> tuple[int, Iterator[bytes]]:
    """Return the last `most` bytes of a log in chunks, as `download` does, and the byte at which they begin."""
    first = read(row, limit=DOWNLOAD_CHUNK)
    if first.size > most:
        first = read(row, offset=first.size - most, limit=DOWNLOAD_CHUNK).from_whole_character()
    return first.offset, _chunks(row, first)


def download(row: DetachedCommand) -> Iterator[bytes]:
    """Return the log in chunks, up to the size that it had at the first read: a download of a growing log must end.

    A machine is not trusted: it may report any size and send anything. So the download also ends after DOWNLOAD_LIMIT
    bytes, after DOWNLOAD_SECONDS, or at a chunk that is shorter than requested. In these cases, and after an error, a
    last line says how much is missing. Raises the errors of `read` if nothing can be read; later errors end the log.
    """
    return _chunks(row, read(row, limit=DOWNLOAD_CHUNK))


def _chunks(row: DetachedCommand, first: LogPage) -> Iterator[bytes]:
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    page, done, why = first, 0, ""
    while not why:
        yield page.data
        done = page.next_offset
        if done >= first.size:
            return
        if len(page.data) < min(_bounded(DOWNLOAD_CHUNK), first.size - page.offset):
            why = "the machine sends no more data"
        elif done >= DOWNLOAD_LIMIT or time.monotonic() > deadline:
            why = f"a download ends after {DOWNLOAD_LIMIT} bytes or {DOWNLOAD_SECONDS:g} s; use the API for the rest"
        else:
            try:
                page = read(row, offset=done, limit=DOWNLOAD_CHUNK)
            except LogNotFound:
                why = "the log was removed"
            except RunnerServiceError as error:
                why = error.detail
    yield f"\n[{done} of {first.size} bytes of the log: {why}]\n".encode()


def plain_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Remove terminal escapes from a log. Chunks are cut at line ends, so that no escape and no character is split.

    A line of LONGEST_LINE bytes or more is cut anyway, because a log without line ends must not fill the memory.
    """
    rest = b""
    for chunk in chunks:
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield plain_text(rest + head + newline).encode()
            rest = tail
        else:
            rest += tail
        if len(rest) >= LONGEST_LINE:
            yield plain_text(rest).encode()
            rest = b""
    if rest:
        yield plain_text(rest).encode()


def why_no_log(row: DetachedCommand) -> str:
    """Return a sentence for people about a log that is not there."""
    if row.cleaned_at:
        return f"The log was removed on {row.cleaned_at:%Y-%m-%d}."
    if row.is_active:
        return "No output yet."
    return "The log does not exist: the command was never started, or its directory was removed."


def _bounded(limit: int) -> int:
    return min(limit, settings.RUNNERS_OUTPUT_LIMIT - LOG_HEADER)


def _continuation(data: bytes) -> int:
    """Return how many bytes at the beginning belong to a character that began before `data`."""
    count = 0
    while count < min(len(data), LONGEST_CHARACTER - 1) and data[count] & 0xC0 == 0x80:
        count += 1
    return count


def _incomplete(data: bytes) -> int:
    """Return how many bytes at the end belong to an incomplete character."""
    for count in range(1, min(len(data), LONGEST_CHARACTER - 1) + 1):
        byte = data[-count]
        if byte & 0xC0 != 0x80:  # the first byte of a character; its upper bits give the length of the character
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return count if length > count else 0
    return 0
