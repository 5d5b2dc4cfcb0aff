"""/livez, /readyz, /version and /metrics, for load balancers and monitoring. This layer comes before the other ones.

A load balancer calls a node by its address, over HTTP and without credentials. So these paths ignore ALLOWED_HOSTS, the
redirect to HTTPS and the protection level. Their answers contain no names. /metrics needs METRICS_TOKEN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.http.response import HttpResponseBase
from prometheus_client import CONTENT_TYPE_LATEST

from runners.services import health, monitoring
from runners_project import __version__
from runners_project.error_pages import database_unavailable
from runners_project.secrets_in_use import is_secret


class HealthMiddleware:
    """Middleware that answers the four paths itself."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        answer = ANSWERS.get(request.path_info)
        is_metrics = request.path_info == "/metrics" and bool(settings.METRICS_TOKEN)
        if answer is None and not is_metrics:
            return self.get_response(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if answer is None:
            return metrics(request)
        status, body = answer()
        return JsonResponse(body, status=status, headers={"Cache-Control": "no-store"})


class MigrationsMiddleware:
    """Answer 503 while the database lacks migrations of this version, instead of failing in the middle of a command."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if problem := health.why_not_migrated():
            return database_unavailable(request, f"The database is not ready for this version: {problem}")
        return self.get_response(request)


def livez() -> tuple[int, dict[str, Any]]:
    """Return 200 if the process answers. Nothing else is checked: a restart would not bring a database back."""
    return 200, {"status": "alive"}


def readyz() -> tuple[int, dict[str, Any]]:
    """Return 503 without a database, or while migrations are pending. Other problems are warnings in the body."""
    report = health.report()
    return (200 if report.is_ready else 503), report.as_dict()


def version() -> tuple[int, dict[str, Any]]:
    return 200, {"version": __version__}


def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics of all processes in the text format of Prometheus, or 401 without METRICS_TOKEN."""
    scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme != "Bearer" or not is_secret("METRICS_TOKEN", token.encode()):
        return HttpResponse(
            "Send METRICS_TOKEN as a bearer token.\n", "text/plain", 401, headers={"WWW-Authenticate": "Bearer"}
        )
    return HttpResponse(monitoring.exposition(), CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})


ANSWERS = {"/livez": livez, "/readyz": readyz, "/version": version}
