"""What the client prints. Text of the service and of logs cannot control the terminal."""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from typing import Any

# Sequences that only colour a text, and those that set a title or the like, are dropped as a whole.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?)")
# Control characters, and those that hide or reorder text. Line ends and tabs stay.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def harmless(text: str) -> str:
    """Return the text without escape sequences; each other control character becomes a replacement character."""
    text = text.replace("\r\n", "\n")
    return _CONTROL.sub("\ufffd", _SEQUENCE.sub("", text)) if _CONTROL.search(text) else text


def prepare() -> None:
    """Let the standard streams accept every text: in a locale without UTF-8 a letter becomes ? and is no error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def say(text: str) -> None:
    """Print progress or an error, for people, to standard error."""
    sys.stderr.write(harmless(text) + "\n")
    sys.stderr.flush()


def put(text: str, end: str = "\n") -> None:
    """Print a result, for scripts, to standard output."""
    sys.stdout.write(harmless(text) + end)
    sys.stdout.flush()


def put_json(value: Any) -> None:
    """Print a value as JSON. It is ASCII, so that it is the same in every locale."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()


class Printer:
    """Prints a log part by part: exactly its bytes into a file or pipe, harmless text on a terminal."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_terminal = sys.stdout.isatty()
        self._rest = ""

    def write(self, data: bytes) -> None:
        if not self._is_terminal:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        text = self._rest + self._decoder.decode(data)
        # A sequence may be cut at the end of a part: keep its beginning for the next one, if it is short.
        at = text.rfind("\x1b")
        cut = at if at >= 0 and len(text) - at < 256 and not _SEQUENCE.match(text, at) else len(text)
        if text.endswith("\r"):
            cut = min(cut, len(text) - 1)
        self._rest = text[cut:]
        put(text[:cut], end="")

    def close(self) -> None:
        if self._is_terminal and self._rest:
            put(self._rest, end="")
            self._rest = ""


def colour(text: str, code: str) -> str:
    """Return the text in a colour of the terminal, unless NO_COLOR is set or the output is no terminal."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if is_plain else f"\x1b[{code}m{text}\x1b[0m"


def confirm(question: str) -> bool:
    """Ask on the terminal. Anything but y or yes, also the end of the input, is no."""
    sys.stderr.write(f"{harmless(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def is_asked() -> bool:
    """Return True if a person can answer a question: standard input and error are a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
