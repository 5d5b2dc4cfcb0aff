"""Signing in with a password, on the pages' form and the admin's: guessing is slowed down.

What is right counts, too, and is counted before it is judged: else one could go on until a guess is right, or make many
at the same time.
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
from rest_framework.throttling import BaseThrottle

from profiles.names import MAX_USERNAME
from profiles.validators import canonical
from runners.services.sign_in import seconds_to_wait

View = Callable[..., HttpResponseBase]

_flight = threading.Lock()
_in_flight: dict[str, int] = {}  # by account, what is being judged now in this process


def account_of(request: HttpRequest) -> str:
    """The account that a form asks for, or whose password is changed; names that look the same are one."""
    name = request.POST.get("username", "") or request.user.get_username()
    return canonical(name[:MAX_USERNAME].strip())


def slow_to_guess(view: View) -> View:
    """Let a sign-in form be sent only so often from one address, and for one account, and only few at the same time."""

    @wraps(view)
    def limited(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        account = account_of(request)
        with _judging(account) as may:
            address = BaseThrottle().get_ident(request)  # type: ignore[arg-type]  # it reads only META
            wait = may and (
                seconds_to_wait("address", address, settings.THROTTLE_FAILED_LOGINS)
                or seconds_to_wait("account", account, settings.THROTTLE_ACCOUNT_LOGINS)
            )
            if wait:
                return _refusal(request, wait)
            return view(request, *args, **kwargs) if may else _refusal(request, 1)

    return limited


@contextmanager
def _judging(account: str) -> Any:
    """Whether there is room for one more password to be judged: each takes half a second of a core, on purpose."""
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
