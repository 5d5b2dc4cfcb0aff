"""Signing in with a password, on the pages' form and the admin's: guessing is slowed down.

What is right counts, too, and is counted before it is judged: else one could go on until a guess is right, or make many
at the same time.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render

from profiles.names import MAX_USERNAME, canonical
from runners.api.permissions import FailedLoginThrottle, Throttle
from runners.pages.base import seconds_to_wait

View = Callable[..., HttpResponseBase]

_counting = threading.Lock()  # a count is read and written in two steps
_flight = threading.Lock()
_in_flight: dict[str, int] = {}  # by account, what is being judged now in this process


class AccountLoginThrottle(Throttle):
    """Of the sign-in forms, by the account that is asked for, from whatever address."""

    scope = "account_logins"

    def get_cache_key(self, request: Any, view: Any) -> str | None:
        return f"throttle-{self.scope}-{account_of(request)}"


def account_of(request: HttpRequest) -> str:
    """The account that a form asks for, as a short key: names that look the same are one."""
    name = request.POST.get("username", "")[:MAX_USERNAME]
    return hashlib.sha256(canonical(name.strip()).encode("utf-8", "replace")).hexdigest()


def slow_to_guess(view: View) -> View:
    """Let a sign-in form be sent only so often from one address, and for one account, and only few at the same time."""

    @wraps(view)
    def limited(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        with _counting:
            wait = seconds_to_wait(request, FailedLoginThrottle()) or seconds_to_wait(request, AccountLoginThrottle())
        if wait:
            return _refusal(request, wait)
        with _judging(account_of(request)) as may:
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
