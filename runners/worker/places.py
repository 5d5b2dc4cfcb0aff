"""Which looks may use the shared places of a worker.

Looks are grouped by account, and a host may have hundreds of accounts. If the host freezes, each look waits until its
deadline. So that these looks do not hold all places, a host that does not answer gets none of them, and a host of which
this is not known gets a few. The other looks at such a host are done in the silent queue.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from runners.models import Machine
from runners.models.machine import MAX_MACHINE
from runners.services import watching
from runners_project import clock

UNKNOWN_AT_ONCE = 4  # looks of this process at a host that has not answered recently
RECENTLY = timedelta(minutes=2)

_lock = threading.Lock()
_taken: Counter[str] = Counter()  # by host


@contextmanager
def place(machine: str, node: str) -> Iterator[bool]:
    """Take a shared place for a look, within this block. Yield False if the look belongs to the silent queue.

    Raises DatabaseError, InterfaceError.
    """
    host = watching.host_of(machine, node)[:MAX_MACHINE]
    row = Machine.objects.filter(name=host).first()
    if row and row.is_answering is False:
        yield False
        return
    if not host or (row and row.last_answer and row.last_answer > clock.now() - RECENTLY):
        yield True
        return
    with _lock:
        has_place = _taken[host] < UNKNOWN_AT_ONCE
        _taken[host] += has_place
    try:
        yield has_place
    finally:
        with _lock:
            _taken[host] -= has_place
            if not _taken[host]:
                del _taken[host]
