"""The rate limit of sign-in attempts, counted in the database, so that all server processes share the count."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from math import ceil

from django.db import transaction

from runners.models import SignInAttempts
from runners.services.strangers import rate_of
from runners_project import clock


def seconds_to_wait(what: str, name: str, rate: str) -> int:
    """Count an attempt and return 0, or return the seconds until the next attempt is allowed.

    `what`: "account" or "address", with its `name`. `rate`: a setting such as 20/min; "" means no limit. In any period
    of that length no more attempts are allowed, even if many are sent at once.
    """
    limit = rate_of(rate)
    if limit is None:
        return 0
    most, period = limit
    key = hashlib.sha256(f"{what} {name}".encode("utf-8", "replace")).hexdigest()
    row = SignInAttempts.objects.filter(key=key).first()
    if row and (wait := _wait(row, most, period, clock.now().timestamp())):
        return wait  # without a write, so that each attempt of a flood costs one query
    SignInAttempts.objects.filter(expires__lt=clock.now()).delete()
    with transaction.atomic():
        row, _ = SignInAttempts.objects.select_for_update().get_or_create(key=key)
        now = clock.now().timestamp()
        if wait := _wait(row, most, period, now):
            return wait
        row.times = [*_recent(row, period, now), now]
        row.expires = clock.now() + timedelta(seconds=period)
        row.save()
    return 0


def _recent(row: SignInAttempts, period: float, now: float) -> list[float]:
    """Return the attempts of the last period.

    The clocks of other processes may be ahead. An attempt that is a whole period ahead is from before a clock was set
    back, and is dropped.
    """
    return [moment for moment in row.times if abs(now - moment) < period]


def _wait(row: SignInAttempts, most: int, period: float, now: float) -> int:
    times = _recent(row, period, now)
    return max(1, ceil(times[-most] + period - now)) if len(times) >= most else 0
