"""Share one call between all threads that need its result at the same time."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from copy import copy
from typing import Any, TypeVar

T = TypeVar("T")


class StillUnderWay(TimeoutError):
    """The call did not end within the time that the caller waits."""


class SharedCalls:
    """Calls of one kind: one per key at a time in this process. Results are not kept after the call.

    The thread of the first caller makes the call and is not interrupted, so the function needs its own deadline.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[Hashable, Future[Any]] = {}

    def call(self, key: Hashable, function: Callable[[], T], timeout: float) -> T:
        """Return the result of `function()`, or of the call that another thread makes now for the same key.

        Raises the errors of the call; each caller gets an error of its own, to which it may add facts. Raises
        StillUnderWay if another thread's call takes longer than `timeout` seconds.
        """
        end = time.monotonic() + timeout
        with self._lock:
            future: Future[T] | None = self._running.get(key)
            is_first = future is None
            if future is None:
                future = self._running[key] = Future()
        if is_first:
            self._begin(key, function, future, timeout)
        if not wait([future], max(0.0, end - time.monotonic())).done:
            raise StillUnderWay(errno.ETIMEDOUT, f"no answer within {timeout:.3g} s")
        error = future.exception()
        if error is None:
            return future.result()
        raise copy(error) from error  # nobody gets the one that is shared

    def _begin(self, key: Hashable, function: Callable[[], T], future: Future[T], timeout: float) -> None:
        self._execute(key, function, future)

    def _execute(self, key: Hashable, function: Callable[[], T], future: Future[T]) -> None:
        error: BaseException | None = None
        try:
            result = function()
        except BaseException as failure:  # noqa: BLE001  (whatever it is, the callers' threads raise it)
            error = failure
        self._forget(key)  # before the result is set, so that later callers start a new call
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def _forget(self, key: Hashable) -> None:
        with self._lock:
            self._running.pop(key, None)


class AbandonableCalls(SharedCalls):
    """Calls that cannot be cancelled: each has a daemon thread of its own, so the first caller stops waiting, too.

    At most `most` calls run at the same time. A daemon thread cannot keep the process alive. Fork safe.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name, self._most = name, most
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        super().__init__()
        self._threads = threading.BoundedSemaphore(self._most)

    def _begin(self, key: Hashable, function: Callable[[], T], future: Future[T], timeout: float) -> None:
        if not self._threads.acquire(timeout=max(0.0, timeout)):
            super()._forget(key)
            words = f"{self._most} calls have not returned ({self._name})"
            future.set_exception(TimeoutError(errno.ETIMEDOUT, words))
            return
        args = (key, function, future)
        threading.Thread(target=self._execute, args=args, name=self._name, daemon=True).start()

    def _forget(self, key: Hashable) -> None:
        super()._forget(key)
        self._threads.release()
