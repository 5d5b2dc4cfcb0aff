"""Names for the processes of this service, so that other processes can check whether the owner of some work lives."""

from __future__ import annotations

import os
import re
import secrets
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from django.conf import settings

from runners_project import clock

SHORTEST_LEASE = 900  # seconds


def owner() -> str:
    """Return a name of this process for one piece of work: boot id, pid namespace, pid, start time, random word."""
    pid = os.getpid()
    return f"{_machine()} {pid} {_start_of(pid)} {secrets.token_hex(8)}"


def is_here(name: str) -> bool:
    """Return True if the named process belongs to this boot and pid namespace, so that it can be inspected."""
    return name.rsplit(" ", 3)[0] == _machine()


def may_live(name: str) -> bool:
    """Return False only if the named process certainly has ended. A process of another machine cannot be inspected."""
    words = name.rsplit(" ", 3)
    if len(words) != 4 or not words[1].isdecimal():  # the stored name is not valid
        return True
    return not is_here(name) or _start_of(int(words[1])) == words[2]


def is_working(name: str, until: datetime | None) -> bool:
    """Return True if the named process may still do the work that it began, with a lease until `until`."""
    return bool(name) and until is not None and until >= clock.now() and may_live(name)


def lease() -> timedelta:
    """Return twice the longest time that one request can take, and at least SHORTEST_LEASE.

    After that, the request counts as abandoned, even if its process lives.
    """
    longest = settings.RUNNERS_COMMAND_TIMEOUT + settings.RUNNERS_LAUNCH_TIMEOUT + settings.RUNNERS_STOP_TIMEOUT
    longest += settings.RUNNERS_CANCEL_TIMEOUT
    return timedelta(seconds=max(SHORTEST_LEASE, 2 * longest))


@cache
def _machine() -> str:
    """Return the boot id and the pid namespace. Within them, a pid and its start time identify one process."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot_id} {os.readlink('/proc/self/ns/pid')}"


def _start_of(pid: int) -> str:
    """Return when a process was started, in clock ticks since boot; empty if it has ended or is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    fields = re.split(r"\s+", text.rpartition(") ")[2])
    return "" if fields[0] in "ZXx" else fields[19]
