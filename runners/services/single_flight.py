"""Calls that many threads ask for at the same time are made once, for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class StillUnderWay(Exception):
    """Another thread makes the same call, and the call has not ended within the time to wait."""


class SingleFlight(Generic[Key, Value]):
    """At most one call per key is under way in this process. Nothing is kept after its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[Key, Future[Value]] = {}

    def call(self, key: Key, function: Callable[[], Value], *, patience: float) -> Value:
        """The result of `function()`, or of the call that another thread makes for the same key now.

        Who calls is not interrupted: `function` needs a deadline of its own. Who waits does so for `patience` seconds
        at most. Raises what the call raises; StillUnderWay.
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
