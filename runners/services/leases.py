"""Leases of rows: while one caller probes a row, no other caller does.

A caller renews its lease while it probes, so a slow machine is probed once. The lease of a killed process ends soon.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import Q

from runners.models import DetachedCommand
from runners.services import lifecycle
from runners_project import clock

logger = logging.getLogger(__name__)

LEASE, LEASE_RENEWAL = 3.0, 1.0  # seconds


@contextmanager
def lease(runs: Sequence[DetachedCommand]) -> Iterator[list[DetachedCommand]]:
    """Lease rows of one machine, so that only this caller probes them. Yield the leased rows; free them at the end.

    A thread renews the lease while the block is executed.
    """
    now = clock.now()
    # The random microseconds distinguish this lease from all others, so one statement suffices for all rows.
    until = now + timedelta(seconds=LEASE, microseconds=secrets.randbelow(1_000_000))
    rows = type(runs[0]).objects.active()
    wanted = rows.filter(pk__in=[run.pk for run in runs])
    # Every lease is shorter than this: a lease that ends later was made before the clock jumped.
    longest = now + timedelta(seconds=max(LEASE, lifecycle.RETRY_UNREACHABLE, settings.RUNNERS_PROBE_TIMEOUT) + 2)
    is_free = Q(probing_until=None) | Q(probing_until__lt=now) | Q(probing_until__gt=longest)
    # If another process stored a newer answer since this caller read the row, the caller uses it and does not probe.
    seen = max((run.confirmed_at for run in runs if run.confirmed_at), default=None)
    is_as_read = Q(confirmed_at=None) | Q(confirmed_at__lte=seen) if seen else Q(confirmed_at=None)
    if not wanted.filter(is_free, is_as_read).update(probing_until=until):
        yield []
        return
    got = set(wanted.filter(probing_until=until).values_list("pk", flat=True))
    leased = [run for run in runs if run.pk in got]
    for run in leased:
        run.probing_until = until
    renewal = _Renewal(type(runs[0]), got, until)
    renewal.start()
    try:
        yield leased
    finally:
        renewal.end()
        left = [run.pk for run in leased if run.probing_until == until]  # the others were freed with their answers
        if left:
            rows.filter(pk__in=left, probing_until=renewal.until).update(probing_until=None)


def is_free(run: DetachedCommand) -> bool:
    """Return True if no caller holds the row's lease."""
    return run.probing_until is None or run.probing_until < clock.now()


class _Renewal(threading.Thread):
    """A thread that extends a lease until `end` is called. It opens a database connection only if the probe is slow."""

    def __init__(self, model: type[DetachedCommand], keys: set[int], until: datetime) -> None:
        super().__init__(name="lease", daemon=True)
        self.until = until
        self._model, self._keys = model, keys
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(LEASE_RENEWAL):
            until = clock.now() + timedelta(seconds=LEASE, microseconds=secrets.randbelow(1_000_000))
            try:
                rows = self._model.objects.active().filter(pk__in=self._keys, probing_until=self.until)
                if not rows.update(probing_until=until):
                    break  # all rows have their answers, or somebody else has the lease
            except (
                DatabaseError,
                InterfaceError,
            ) as error:  # the lease ends early, and the machine is probed twice
                logger.warning("The lease of %s rows cannot be renewed: %s", len(self._keys), error)
                break
            self.until = until
        connection.close()

    def end(self) -> None:
        self._is_over.set()
        self.join()
