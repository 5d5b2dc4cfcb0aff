"""Rate limits for signing in with a password, on the pages and in the admin, so that guessing a password is slow.

All attempts count, also the successful ones, and each attempt is counted before its password is checked. Otherwise an
attacker could go on until a guess is right, or send many guesses concurrently.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render

from profiles.names import MAX_USERNAME
from profiles.validators import canonical
from runners.services.sign_in import seconds_to_wait
from runners.web.client_address import client_address

View = Callable[..., HttpResponseBase]

_flight = threading.Lock()
_in_flight: dict[str, int] = {}  # the password checks that this process makes now, by account


def account_of(request: HttpRequest) -> str:
    """Return the account that a sign-in form names, or whose password a form changes.

    Names that look the same give the same account.
    """
    name = request.POST.get("username", "") or request.user.get_username()
    return canonical(name[:MAX_USERNAME].strip())


def throttle_login(view: View) -> View:
    """Limit how often a sign-in form is sent from one address and for one account, and how many are checked at once."""

    @wraps(view)
    def limited(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        account = account_of(request)
        with _checking(account) as may:
            address = client_address(request)
            wait = may and (
                seconds_to_wait("address", address, settings.THROTTLE_FAILED_LOGINS)
                or seconds_to_wait("account", account, settings.THROTTLE_ACCOUNT_LOGINS)
            )
            if wait:
                return _refusal(request, wait)
            return view(request, *args, **kwargs) if may else _refusal(request, 1)

    return limited


@contextmanager
def _checking(account: str) -> Any:
    """Yield True if one more password may be checked now. Each check takes half a second of a core, by design.

    At most one check per account and RUNNERS_LOGINS_IN_FLIGHT checks in all are made concurrently in a process.
    """
    with _flight:
        may = not _in_flight.get(account) and sum(_in_flight.values()) < settings.RUNNERS_LOGINS_IN_FLIGHT
        if may:
            _in_flight[account] = 1
    try:
        yield may
    finally:
        if may:
            with _flight:
                del _in_flight[account]


def _refusal(request: HttpRequest, wait: int) -> HttpResponse:
    response = render(request, "429.html", {"wait": wait}, status=429)
    response["Retry-After"] = str(wait)
    return response
