"""Work that continues without the request that started it. It runs in a bounded number of threads per process."""

from __future__ import annotations

import threading
from collections.abc import Callable

from django.db import connection

from runners.services.machines.bulkheads import BULKHEADS

AT_ONCE = 64  # pieces of work that may be under way in one process

_slots = threading.BoundedSemaphore(AT_ONCE)


def begin(work: Callable[[], None], *, name: str) -> bool:
    """Start the work in a thread. Return False if too much is under way. A process that ends does not wait for it.

    `work` may use the database, and has to handle its own errors.
    """
    if not _slots.acquire(blocking=False):
        return False

    def run() -> None:
        try:
            with BULKHEADS.background():
                work()
        finally:
            connection.close()
            _slots.release()

    threading.Thread(target=run, name=name, daemon=True).start()
    return True
