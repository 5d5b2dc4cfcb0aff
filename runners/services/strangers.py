"""Rate limit for requests without valid credentials, counted per address.

Above the rate, requests without any credentials are rejected at once, and requests with missing or wrong credentials
are not listed in the audit log one by one. Each server process counts for itself. One audit record per address and
period says how many requests were not listed. It is inserted at the first of them, and updated when their number has
doubled and when the next period begins.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from django.conf import settings
from django.db import DatabaseError, InterfaceError

from runners.models import AuditRecord

logger = logging.getLogger(__name__)

MOST_ADDRESSES = 10_000  # above this, the least recently seen addresses are evicted first
PERIODS = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # seconds, by the first letter
ENDPOINT, OUTCOME = "refused-requests", "throttled"


@dataclass(slots=True)
class Window:
    """One period of one address. `row`: the number of the audit record; 0: none."""

    start: float
    count: int = 0
    unlisted: int = 0
    row: int = 0


class Strangers:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: OrderedDict[str, Window] = OrderedDict()

    def refuses(self, address: str) -> int:
        """Return the seconds until an address may send a request without credentials; 0: now.

        Rejected requests are counted.
        """
        rate = rate_of(settings.THROTTLE_STRANGERS)
        if rate is None:
            return 0
        most, period = rate
        with self._lock:
            window, ended = self._window(address, period)
            is_over = window.count >= most
            write = is_over and self._unlisted(window)
            wait = max(1, round(window.start + period - time.monotonic()))
        self._write(address, ended, window if write else None)
        return wait if is_over else 0

    def counts(self, address: str) -> bool:
        """Count a request with missing or wrong credentials. Return True if it gets its own audit record."""
        rate = rate_of(settings.THROTTLE_STRANGERS)
        if rate is None:
            return True
        most, period = rate
        with self._lock:
            window, ended = self._window(address, period)
            window.count += 1
            is_listed = window.count <= most
            write = not is_listed and self._unlisted(window)
        self._write(address, ended, window if write else None)
        return is_listed

    def _window(self, address: str, period: float) -> tuple[Window, Window | None]:
        """Return the current window, and the previous one if it just ended and its record has to be updated."""
        now = time.monotonic()
        window = self._windows.get(address)
        ended = None
        if window is None or now - window.start >= period:
            ended = window if window and window.unlisted else None
            window = self._windows[address] = Window(now)
        self._windows.move_to_end(address)
        while len(self._windows) > MOST_ADDRESSES:
            self._windows.popitem(last=False)
        return window, ended

    @staticmethod
    def _unlisted(window: Window) -> bool:
        """Count an unlisted request. Return True if the record has to be written now."""
        window.unlisted += 1
        return window.unlisted & (window.unlisted - 1) == 0  # 1, 2, 4, 8, ...

    def _write(self, address: str, *windows: Window | None) -> None:
        for window in filter(None, windows):
            detail = f"{window.unlisted} requests without valid credentials were rejected and are not listed."
            try:
                if window.row:
                    AuditRecord.objects.filter(pk=window.row).update(detail=detail)
                else:
                    row = AuditRecord(endpoint=ENDPOINT, address=address[:64], outcome=OUTCOME, detail=detail)
                    row.save()
                    window.row = row.pk
            except (DatabaseError, InterfaceError) as error:
                logger.warning("A count of rejected requests was not saved: %s", error)


def rate_of(text: str) -> tuple[int, float] | None:
    """Parse a setting such as 60/min into requests and seconds; None: no limit."""
    number, _, period = text.partition("/")
    return (int(number), PERIODS[period[0]]) if text else None


STRANGERS = Strangers()
