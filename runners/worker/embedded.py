"""The worker of one process, which needs no task queue: it finds due work every interval, and does it in threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from django.db import DatabaseError, InterfaceError, close_old_connections, connection

from runners.worker import due
from runners.worker.due import SILENT, Voice, Work

logger = logging.getLogger(__name__)

AT_ONCE = 32
SILENT_AT_ONCE = 16  # machines that do not answer


class EmbeddedWorker:
    """Does due work concurrently, in threads.

    Work whose last execution still runs is skipped. Machines that do not answer have a thread pool of their own, until
    they answer. So a machine that is slow or down delays only its own rows.
    """

    def __init__(self, voice: Voice, find: Callable[[], Iterable[Work]] = due.find) -> None:
        self._voice, self._find = voice, find
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="worker")
        self._silent_pool = ThreadPoolExecutor(SILENT_AT_ONCE, thread_name_prefix="worker-silent")
        self._lock = threading.Lock()
        self._running: set[str] = set()  # the keys of work that waits for a thread or is done by one
        self._is_cancelled = False

    def begin(self) -> None:
        """Start all work that is due and not in progress. Raises DatabaseError, InterfaceError."""
        for work in self._find():
            if connection.in_atomic_block:  # no other thread sees the rows of an open transaction
                if not self._do(work):
                    self._do(replace(work, queue=SILENT))
                continue
            with self._lock:
                if work.key in self._running:
                    continue
                self._running.add(work.key)
            self._submit(work)

    def close(self, *, cancel: bool = True) -> None:
        """Wait until all work in progress has ended. `cancel`: work that has not started is cancelled."""
        self._is_cancelled = cancel
        for pool in (self._pool, self._silent_pool):  # in this order: the first pool gives work to the second one
            pool.shutdown()

    def _submit(self, work: Work) -> None:
        pool = self._silent_pool if work.queue == SILENT else self._pool
        pool.submit(self._do_in_thread, work)

    def _do_in_thread(self, work: Work) -> None:
        is_over = True
        try:
            if not self._is_cancelled:
                is_over = self._do(work)
        finally:
            connection.close()
            if is_over:
                with self._lock:
                    self._running.discard(work.key)
            else:
                self._submit(replace(work, queue=SILENT))

    def _do(self, work: Work) -> bool:
        """Do the work. Return False if it has to be done in the silent pool.

        Its errors are reported, so that the others go on.
        """
        try:
            with due.place(work) as has_place:
                if has_place:
                    due.perform(work, self._voice)
                return has_place
        except (DatabaseError, InterfaceError) as error:  # the database may come back; the rows wait
            self._voice.complain(f"The database is unavailable: {error}")
        except Exception:  # a bug; it must not stop the other work
            logger.exception("Work was aborted by a bug: %s. The worker continues.", work.key)
            self._voice.complain(f"Work was aborted by a bug: {work.key}. The worker continues.")
        return True


def run(worker: EmbeddedWorker, stop: threading.Event, interval: float, beat: Callable[[], None], voice: Voice) -> None:
    """Let the worker begin due work every `interval` seconds, until `stop` is set. No error ends it."""
    while not stop.is_set():
        for step in (beat, worker.begin):
            try:
                step()
            except (DatabaseError, InterfaceError) as error:
                voice.complain(f"The database is unavailable: {error}")
            except Exception:  # a bug; it must not stop the worker
                logger.exception("A round of the worker was aborted. The worker continues.")
        close_old_connections()
        stop.wait(interval)
    worker.close()
