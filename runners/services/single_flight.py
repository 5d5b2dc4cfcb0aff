"""Share one call between all threads that need it at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class StillUnderWay(Exception):
    """Another thread makes the same call, and this call did not end within the time to wait."""


class SingleFlight(Generic[Key, Value]):
    """A guard that allows one call per key at a time in this process. Results are not kept after the call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[Key, Future[Value]] = {}

    def call(self, key: Key, function: Callable[[], Value], *, patience: float) -> Value:
        """Return the result of `function()`, or of the call that another thread currently makes for the same key.

        The thread that makes the call is not interrupted, so `function` needs its own deadline. Other threads wait for
        at most `patience` seconds. Raises the errors of the call; StillUnderWay.
        """
        with self._lock:
            future = self._calls.get(key)
            is_caller = future is None
            if future is None:
                future = self._calls[key] = Future()
        if not is_caller:
            if not wait([future], patience).done:
                raise StillUnderWay
            return future.result()
        try:
            value = function()
        except BaseException as error:
            future.set_exception(error)
            raise
        else:
            future.set_result(value)
            return value
        finally:
            with self._lock:
                del self._calls[key]
