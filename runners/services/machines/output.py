"""The output of commands: bounded while it arrives, converted to plain text when it is read."""

from __future__ import annotations

import re

from runners import printable

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
LAST_BYTES = 65_536  # bytes at the end of an output in which its last lines are searched
_CODE_DIGITS = 3  # of an exit code
NOISE_LIMIT = 4096  # bytes of start-up files' output that are kept, for the error message if the marker never arrives


class BoundedOutput:
    """A buffer for one stream: the last `limit` bytes between the marker line and the second marker line.

    The shell that started the script prints the second line, `<marker> <exit code>`. Later output comes from processes
    that the script has left behind. `last_line`: a sentinel line; once it arrives the output is complete and the reader
    need not wait for end-of-file.
    """

    def __init__(self, marker: str, limit: int, *, last_line: str = "") -> None:
        self._marker = f"\n{marker}\n".encode()
        self._end = f"\n{marker} ".encode()
        self._limit = limit
        self._last_line = f"\n{last_line}\n".encode() if last_line else b""
        self._buffer = bytearray()
        self.started = False
        self.exit_code: int | None = None  # 0 to 255
        self._dropped = 0

    def feed(self, chunk: bytes) -> None:
        if self.is_ended:
            return
        # Start the search before the new chunk, because the end may be split between two chunks.
        seen = max(0, len(self._buffer) - len(self._end) - _CODE_DIGITS)
        self._buffer += chunk
        if not self.started and (place := self._buffer.find(self._marker)) >= 0:
            self.started = True
            del self._buffer[: place + len(self._marker)]
            seen = 0
        self._find_end(seen)
        if not self.started:
            del self._buffer[:-NOISE_LIMIT]
        elif len(self._buffer) > 2 * self._limit:  # trim only now and then, so that a flood of output costs linear time
            self._trim()

    def _find_end(self, start: int) -> None:
        while (place := self._buffer.find(self._end, start)) >= 0:
            start = place + len(self._end)
            code, newline, _ = bytes(self._buffer[start : start + _CODE_DIGITS + 1]).partition(b"\n")
            if newline and code.isdigit() and int(code) <= 255:
                self.exit_code = int(code)
                del self._buffer[place:]

    def _trim(self) -> None:
        excess = len(self._buffer) - self._limit
        if excess > 0:
            self._dropped += excess
            del self._buffer[:excess]

    @property
    def is_ended(self) -> bool:
        return self.exit_code is not None

    @property
    def has_last_line(self) -> bool:
        return self.started and bool(self._last_line) and self._buffer.endswith(self._last_line)

    @property
    def data(self) -> bytes:
        if not self.started:
            return b""
        self._trim()
        data = bytes(self._buffer)
        # A start-up file or a wrapper may have joined the two streams. Then a second marker follows the first one.
        return data.removeprefix(self._marker)

    @property
    def noise(self) -> bytes:
        return b"" if self.started else bytes(self._buffer)

    @property
    def truncated(self) -> bool:
        return self.started and (self._dropped > 0 or len(self._buffer) > self._limit)


def plain_text(data: bytes) -> str:
    """Return text without terminal escapes. Carriage returns become line ends; undecodable bytes and NUL become U+FFFD.

    PostgreSQL cannot store a NUL, so the end of a run whose last lines contain one could not be stored. Credentials in
    addresses are masked here, before the text is cut anywhere, because git and Autosubmit print them.
    """
    text = data.replace(b"\0", b"\xff").decode("utf-8", "replace")
    return printable.without_credentials(_ESCAPE.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


def last_lines(data: bytes, *, lines: int = 15, characters: int = 2000) -> str:
    """Return the last non-empty lines of a command's output, printable, at most `characters`."""
    kept = [line.rstrip() for line in plain_text(data[-LAST_BYTES:]).splitlines() if line.strip()]
    return printable.last_text("\n".join(kept[-lines:]), characters)
