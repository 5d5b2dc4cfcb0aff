"""Changes of the database that could not be stored while it was not reachable. They are stored when it is back."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError, connection

from runners.services.db_connection import LOST

logger = logging.getLogger(__name__)


class Later:
    """A queue of changes, and the thread that stores them in their order.

    The changes are lost if the process ends. So each of them belongs to a row that names the process, and other
    processes see that it has ended.
    """

    MOST = 1000  # changes; further ones are only logged
    PAUSE = 1.0  # seconds between two attempts

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes: deque[tuple[str, Callable[[], object]]] = deque()
        self._is_running = False

    def add(self, what: str, store: Callable[[], object]) -> None:
        """Call `store` in a thread until it raises none of LOST. `what`: the change, for the log."""
        with self._lock:
            if len(self._changes) >= self.MOST:
                return
            self._changes.append((what, store))
            if self._is_running:
                return
            self._is_running = True
        threading.Thread(target=self._run, name="later", daemon=True).start()

    def _run(self) -> None:
        try:
            while change := self._next():
                what, store = change
                try:
                    store()
                except LOST:
                    connection.close()
                    time.sleep(self.PAUSE)
                    continue
                except (DatabaseError, InterfaceError) as error:
                    logger.error("A change was not stored (%s): %s", error, what)
                except BaseException:  # a bug ends this thread; the next change starts another one
                    with self._lock:
                        self._changes.popleft()
                        self._is_running = False
                    raise
                with self._lock:
                    self._changes.popleft()
        finally:
            connection.close()

    def _next(self) -> tuple[str, Callable[[], object]] | None:
        with self._lock:
            self._is_running = bool(self._changes)
            return self._changes[0] if self._changes else None


LATER = Later()
