"""Signing in with a password, on the pages' form and the admin's: guessing is slowed down."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import render

from runners.api.permissions import FailedLoginThrottle
from runners.pages.base import seconds_to_wait

View = Callable[..., HttpResponseBase]


def slow_to_guess(view: View) -> View:
    """Let a sign-in form be sent as often from one address as credentials of the API may be refused there.

    What is right counts, too, and is counted before it is judged: else one could go on until a guess is right, or make
    many at the same time.
    """

    @wraps(view)
    def limited(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        wait = seconds_to_wait(request, FailedLoginThrottle()) if request.method == "POST" else 0
        if wait:
            response = render(request, "429.html", {"wait": wait}, status=429)
            response["Retry-After"] = str(wait)
            return response
        return view(request, *args, **kwargs)

    return limited
