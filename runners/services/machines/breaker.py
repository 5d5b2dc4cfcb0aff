"""The circuit breaker: a machine that has just failed to answer is not contacted again for some seconds.

Each process remembers the failures that it has seen itself, per account of a machine and credentials (`Runner.login`).
While the breaker of a target is open (the pause after a failure), every attempt gets the same error at once. After the
pause it is half-open: one attempt goes through, and the others still get the error until that attempt has succeeded,
which closes the breaker. Each further failure doubles the pause (RUNNERS_RETRY_PAUSE, RUNNERS_RETRY_PAUSE_LONGEST).

The log gets one line for the first failure of a target, one with the number of failures every LOG_AGAIN seconds, and
one when the target is reached again.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass

from django.conf import settings

from runners import printable
from runners.exceptions import RunnerUnreachable

logger = logging.getLogger(__name__)

Target = tuple[str, ...]

MOST_TARGETS = 10_000  # requests may name any number of hosts and users; the oldest failures are forgotten first
LOG_AGAIN = 600.0  # seconds between two lines about a target that goes on failing
HALF_OPEN_RETRY = 1  # seconds after which to retry while the one attempt is under way


@dataclass(slots=True)
class Failure:
    """The remembered failure of a target. The times are of `time.monotonic`."""

    error: RunnerUnreachable
    count: int
    open_until: float  # no attempt goes through before
    since: float
    logged: float
    half_open_until: float = 0.0  # the one attempt after the pause counts as under way until then


class Breaker:
    """The failures that this process remembers. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: OrderedDict[Target, Failure] = OrderedDict()

    @contextmanager
    def attempt(self, target: Target) -> Iterator[None]:
        """Contact a machine within this block.

        Raises the remembered error, with the fact `retry_after` (seconds), if the machine has just failed to answer.
        A RunnerUnreachable of the block is remembered if its `is_remembered` is true. The block calls `answered` when
        the machine gives a sign of life.
        """
        self._enter(target)
        try:
            yield
        except RunnerUnreachable as error:
            if error.is_remembered:
                self._failed(target, error)
            else:
                self._end_half_open(target)
            raise
        except BaseException:
            self._end_half_open(target)
            raise
        self._end_half_open(target)

    def answered(self, target: Target) -> None:
        """Forget the failure of a machine that gave a sign of life, so that everybody may contact it."""
        if target in self._failures:  # without the lock: this is called for each command
            with self._lock:
                failure = self._failures.pop(target, None)
            if failure:
                seconds = round(time.monotonic() - failure.since)
                logger.info("%s is reached again after %s s, %s", _name(target), seconds, _failures(failure.count))

    def known(self, target: Target) -> RunnerUnreachable | None:
        """Return the error that `attempt` would raise now; None if the machine may be contacted."""
        with self._lock:
            failure = self._failures.get(target)
            return self._open_error(failure) if failure else None

    def let_through(self, target: Target) -> None:
        """Let the next attempt through at once, because somebody wants to know. The failure stays known until then."""
        with self._lock:
            if failure := self._failures.get(target):
                failure.open_until = failure.half_open_until = 0.0

    def forget(self) -> None:
        """Forget all failures, because somebody has changed something that may have caused them."""
        with self._lock:
            self._failures.clear()

    def _enter(self, target: Target) -> None:
        if target not in self._failures:
            return
        with self._lock:
            failure = self._failures.get(target)
            if failure is None:
                return
            if refusal := self._open_error(failure):
                raise refusal
            failure.half_open_until = time.monotonic() + 2 * settings.RUNNERS_CONNECT_TIMEOUT

    @staticmethod
    def _open_error(failure: Failure) -> RunnerUnreachable | None:
        now = time.monotonic()
        if now < failure.open_until:
            seconds = math.ceil(failure.open_until - now)
        elif now < failure.half_open_until:
            seconds = HALF_OPEN_RETRY
        else:
            return None
        known = copy(failure.error)
        known.facts["retry_after"] = seconds
        known.is_remembered = False  # the machine was not asked again
        return known

    def _failed(self, target: Target, error: RunnerUnreachable) -> None:
        first, longest = settings.RUNNERS_RETRY_PAUSE, settings.RUNNERS_RETRY_PAUSE_LONGEST
        if first <= 0:
            return
        now = time.monotonic()
        with self._lock:
            failure = self._failures.get(target)
            if failure is not None and now < failure.open_until:
                return  # this attempt began before the pause
            count = failure.count + 1 if failure else 1
            pause = min(longest, first * 2.0 ** min(count - 1, 30))
            since, logged = (failure.since, failure.logged) if failure else (now, float("-inf"))
            is_logged = now >= logged + LOG_AGAIN
            self._failures[target] = Failure(copy(error), count, now + pause, since, now if is_logged else logged)
            self._failures.move_to_end(target)
            while len(self._failures) > MOST_TARGETS:
                self._failures.popitem(last=False)
        error.facts.setdefault("retry_after", math.ceil(pause))
        if is_logged:
            reason = printable.line(error.detail)
            if count == 1:
                logger.warning("%s cannot be reached: %s", _name(target), reason)
            else:
                so_far = f"{round(now - since)} s, {_failures(count)}"
                logger.warning("%s has not been reached for %s: %s", _name(target), so_far, reason)

    def _end_half_open(self, target: Target) -> None:
        if target not in self._failures:  # without the lock, as above
            return
        with self._lock:
            if failure := self._failures.get(target):
                failure.half_open_until = 0.0


def _name(target: Target) -> str:
    """Return a target for the log. Hosts and users come from requests."""
    return printable.line(" ".join(each for each in target if each))


def _failures(count: int) -> str:
    return "1 failure" if count == 1 else f"{count} failures"


BREAKER = Breaker()
