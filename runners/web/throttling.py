"""Rate limits per person, from the settings THROTTLE_<SCOPE>. Commands of the API and of the pages count together."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest

from runners.models import ApiToken
from runners.services.strangers import rate_of
from runners.web.client_address import client_address


def sender_of(request: HttpRequest, token: ApiToken | None = None) -> str:
    """Return who sent a request, as the rate limits count it: the token, else the user, else the address."""
    if token:
        return token.token_key
    return f"user-{request.user.pk}" if request.user.is_authenticated else client_address(request)


def seconds_to_wait(scope: str, sender: Callable[[], str]) -> int:
    """Count a request and return 0, or return the seconds after which the sender may try again.

    `scope`: "commands" or "reads". `sender` is called only if there is a limit, because it may read credentials. Each
    server process counts for itself. A rejected request is not counted.
    """
    rate = rate_of(getattr(settings, f"THROTTLE_{scope.upper()}"))
    if rate is None:
        return 0
    most, period = rate
    key, now = f"throttle-{scope}-{sender()}", time.monotonic()
    times = [each for each in cache.get(key, []) if each > now - period]  # the latest first
    if len(times) >= most:
        return max(1, ceil(times[-1] + period - now))
    cache.set(key, [now, *times], period)
    return 0
