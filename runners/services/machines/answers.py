"""Parse the output of a machine with strict, bounded primitives. Every parser of a machine's output is built on them.

Machines are untrusted: a run's owner can write anything into the run's directory, and a forced command or a wrapper can
answer anything. So each primitive takes a text and checks its length before its pattern. It returns a value within the
documented bounds or raises `Unreadable`. The caller turns that error into "cannot tell", or into an error of one
request.

The texts of a machine that people read are made printable by `runners.printable`.
"""

from __future__ import annotations

import re

from runners.printable import line

NAME_LIMIT = 255  # characters of a host name; the longest name of the DNS, and the width of the columns `host`

PID_LEAST, PID_MOST = 2, 2**31 - 1  # pid 1 is init, and `kill -- -1` means every process: neither is a command of ours
INT64_MOST = 2**63 - 1
EXIT_CODE_MOST = 255
# A clock outside of 2000 to 2100 is wrong. Such a time is ignored, and the rest of the answer is still valid.
EPOCH_LEAST, EPOCH_MOST = 946_684_800, 4_102_444_800
EPOCH_DIGITS = 12

_HOST = re.compile(r"[A-Za-z0-9._-]{1,255}|\(none\)")  # Linux reports "(none)" before a name was set
_BOOT_ID = re.compile(r"[0-9A-Za-z-]{1,64}")  # a UUID, /proc/sys/kernel/random/boot_id
_NAMESPACE = re.compile(r"[a-z_]{1,32}:\[[0-9]{1,20}\]")  # the target of the link /proc/self/ns/pid, namespaces(7)
_SIGNAL = re.compile(r"[A-Z0-9]{1,16}|RTM(?:IN|AX)[+-][0-9]{1,2}")  # as `kill -l` of bash prints it, without SIG
_INTEGER = re.compile(r"-?[0-9]{1,20}")  # ASCII digits only; int() would take "1_000", " 1 " and "１"


class Unreadable(ValueError):
    """A word of a machine's output does not have the expected form. The message quotes a cleaned, short piece of it."""

    def __init__(self, what: str, word: str) -> None:
        super().__init__(f"{what} expected, got {line(word, 60)!r}")


def integer(word: str, least: int, most: int, *, what: str = "an integer") -> int:
    """Return a decimal integer from `least` to `most`. Raises Unreadable."""
    if len(word) <= 21 and _INTEGER.fullmatch(word) and least <= (number := int(word)) <= most:
        return number
    raise Unreadable(what, word)


def size(word: str) -> int:
    """Return a number of bytes or an offset: 0 to 2^63 - 1. Raises Unreadable."""
    return integer(word, 0, INT64_MOST, what="a number of bytes")


def pid(word: str, *, least: int = PID_LEAST) -> int:
    """Return a process id that may be signalled: 2 to 2^31 - 1 (pid_t is 32 bits wide). Raises Unreadable."""
    return integer(word, least, PID_MOST, what="a process id")


def ticks(word: str) -> int:
    """Return a start time in clock ticks since boot, /proc/PID/stat: 0 to 2^63 - 1. Raises Unreadable."""
    return integer(word, 0, INT64_MOST, what="a start time")


def exit_code(word: str) -> int:
    """Return an exit code, 0 to 255, as `wait` of a shell reports it. Raises Unreadable."""
    return integer(word, 0, EXIT_CODE_MOST, what="an exit code")


def epoch(word: str) -> int | None:
    """Return whole seconds since 1970; None for a number that comes from a wrong clock. Raises Unreadable."""
    seconds = integer(word, 0, 10**EPOCH_DIGITS - 1, what="a time")
    return seconds if EPOCH_LEAST <= seconds <= EPOCH_MOST else None


def signal_name(word: str) -> str:
    """Return `TERM`, `KILL`, ...; empty for `-`, which means that no signal ended the command. Raises Unreadable."""
    return "" if word == "-" else _matching(_SIGNAL, word, "a signal's name", 16)


def host_name(word: str) -> str:
    """Return a host name: 1 to 255 letters, digits, dots, dashes and underscores. Raises Unreadable."""
    return _matching(_HOST, word, "a host name", NAME_LIMIT)


def boot_id(word: str) -> str:
    """Return a boot id: 1 to 64 letters, digits and dashes. Raises Unreadable."""
    return _matching(_BOOT_ID, word, "a boot id", 64)


def namespace(word: str) -> str:
    """Return a namespace such as `pid:[4026531836]`. Raises Unreadable."""
    return _matching(_NAMESPACE, word, "a namespace", 60)


def _matching(pattern: re.Pattern[str], word: str, what: str, most: int) -> str:
    if len(word) <= most and pattern.fullmatch(word):
        return word
    raise Unreadable(what, word)
