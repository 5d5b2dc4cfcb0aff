"""Make untrusted text printable and short: for people, in answers, rows and errors.

The functions never raise: they truncate and clean. Credentials in addresses are masked here, too. Everything that a
machine prints was masked before it was truncated (`output.plain_text`); some texts come from elsewhere, such as the
message of an exception.
"""

from __future__ import annotations

import re
from collections.abc import Callable

TEXT_LIMIT = 4000  # characters of a text from a machine that are stored or sent: details, explanations, outputs
LINE_LIMIT = 300  # characters of one unexpected line that an error quotes

# After "://", up to the last "@" before the next "/" or blank: a password may hold any other character. One pass.
_USER_INFO = re.compile(r"://([^\s/]*)@")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}\Z")
_WEB = frozenset({"http", "https"})  # for these, the user alone can be a token, as in https://TOKEN@host/
MASK = "***"


def without_credentials(words: str) -> str:
    """Return the text with `***` for the user and password of each address `scheme://user:password@host`.

    A user without password is masked for HTTP only: there it may be a token, while `ssh://git@host` holds no secret.
    """
    return _USER_INFO.sub(_masked, words) if "://" in words else words


def _masked(found: re.Match[str]) -> str:
    scheme = _SCHEME.search(found.string[max(0, found.start() - 31) : found.start()])
    is_web = scheme is None or scheme[0].lower().rpartition("+")[2] in _WEB
    return f"://{MASK}@" if is_web or ":" in found[1] else found[0]


def line(words: str, limit: int = LINE_LIMIT) -> str:
    """Return the beginning of `words` as one printable line of at most `limit` characters.

    Line ends and tabs become blanks.
    """
    return _shortened(
        _printable(without_credentials(words)[: limit + 1], lambda char: " " if char.isspace() else "\ufffd"), limit
    )


def text(words: str, limit: int = TEXT_LIMIT) -> str:
    """Return the beginning of `words` as printable text of at most `limit` characters. Line ends and tabs stay."""
    return _shortened(_printable(without_credentials(words)[: limit + 1], _in_text), limit)


def last_text(words: str, limit: int = TEXT_LIMIT) -> str:
    """Return the same as `text`, but from the end of `words`."""
    return _printable(without_credentials(words)[-limit:], _in_text)


def _in_text(char: str) -> str:
    if char in "\n\t":
        return char
    return "\n" if char in "\r\v\f\x85\u2028\u2029" else " " if char.isspace() else "\ufffd"


def _printable(words: str, substitute: Callable[[str], str]) -> str:
    """Keep Unicode's printable characters (`str.isprintable`) and the blank; substitute any other character.

    This removes control characters, NUL (PostgreSQL cannot store it), lone surrogates (UTF-8 has none) and characters
    that change the direction of a text.
    """
    if words.isprintable():
        return words
    return "".join(char if char.isprintable() else substitute(char) for char in words)


def _shortened(words: str, limit: int) -> str:
    return words if len(words) <= limit else words[: limit - 1] + "…"


def quoted(value: object, limit: int = 60) -> str:
    """Format a rejected value of any type for an error message: printable, and cut after `limit` characters."""
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else f"'{value}'"
    return text if len(text) <= limit else f"{text[:limit]}…"
