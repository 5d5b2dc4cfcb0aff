"""/livez, /readyz and /version, for load balancers and monitoring. This layer comes before the other ones.

A load balancer calls a node by its address, over HTTP and without credentials. So these paths ignore ALLOWED_HOSTS, the
redirect to HTTPS and the protection level. Their answers contain no names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponseNotAllowed, JsonResponse
from django.http.response import HttpResponseBase

from runners.services import health
from runners_project import __version__


class HealthMiddleware:
    """Middleware that answers the three paths itself."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        answer = ANSWERS.get(request.path_info)
        if answer is None:
            return self.get_response(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        status, body = answer()
        return JsonResponse(body, status=status, headers={"Cache-Control": "no-store"})


def livez() -> tuple[int, dict[str, Any]]:
    """Return 200 if the process answers. Nothing else is checked: a restart would not bring a database back."""
    return 200, {"status": "alive"}


def readyz() -> tuple[int, dict[str, Any]]:
    """Return 503 without a database, or while migrations are pending. Other problems are warnings in the body."""
    report = health.report()
    return (200 if report.is_ready else 503), report.as_dict()


def version() -> tuple[int, dict[str, Any]]:
    return 200, {"version": __version__}


ANSWERS = {"/livez": livez, "/readyz": readyz, "/version": version}
