"""Which machines have answered this process, and which have not. `services/machine_states.py` stores it in rows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from profiles.target import Target
from runners.exceptions import RunnerUnreachable
from runners_project import clock

MOST_MACHINES = 1000  # machines that wait to be stored; requests may name any number of hosts


@dataclass(slots=True)
class Seen:
    """The last answer and the last failure of a machine since `taken` was called."""

    answered_at: datetime | None = None
    failed_at: datetime | None = None
    error: RunnerUnreachable | None = None


class Observed:
    """What this process has seen of machines, by target. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[Target, Seen] = {}

    def answered(self, target: Target) -> None:
        """Note that the machine gave a sign of life."""
        seen = self._of(target)
        if seen:
            seen.answered_at = clock.now()

    @contextmanager
    def attempt(self, target: Target) -> Iterator[None]:
        """Contact the machine within this block. Its failure to answer, or its rejection of the login, is noted."""
        try:
            yield
        except RunnerUnreachable as error:
            if error.is_remembered and (seen := self._of(target)):
                seen.failed_at, seen.error = clock.now(), error
            raise

    def taken(self) -> dict[Target, Seen]:
        """Return what was noted since the last call."""
        if not self._seen:  # without the lock: this is called for each probe
            return {}
        with self._lock:
            found, self._seen = self._seen, {}
        return found

    def _of(self, target: Target) -> Seen | None:
        with self._lock:
            if target not in self._seen and len(self._seen) >= MOST_MACHINES:
                return None
            return self._seen.setdefault(target, Seen())


OBSERVED = Observed()
