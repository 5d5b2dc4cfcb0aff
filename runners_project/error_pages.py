"""Handlers of errors outside of any view, for the API and the pages."""

from __future__ import annotations

import sys

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.middleware.csrf import REASON_BAD_ORIGIN
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views import defaults

from runners.web.problems import (
    BAD_REQUEST,
    DATABASE_RETRY,
    DATABASE_UNAVAILABLE,
    NOT_FOUND,
    PROBLEM_CONTENT_TYPE,
    SERVER_ERROR,
    ProblemType,
    problem,
    problem_type_of,
)


def _wants_problem(request: HttpRequest) -> bool:
    return request.path_info.startswith(("/v4", "/api"))


def _problem(problem_type: ProblemType, detail: str) -> HttpResponse:
    return JsonResponse(problem(problem_type, detail), status=problem_type.status, content_type=PROBLEM_CONTENT_TYPE)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer 400, also for a Host header that is not in ALLOWED_HOSTS. Only Django's log has the reason."""
    if _wants_problem(request):
        return _problem(BAD_REQUEST, "The request is not valid. The log of the service has the reason.")
    return defaults.bad_request(request, exception)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if _wants_problem(request):
        return _problem(NOT_FOUND, "There is nothing at this path. GET /openapi.json lists all paths.")
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Answer 503 if the database does not answer, 500 for a bug. Django has already logged the traceback."""
    error = sys.exc_info()[1]
    if error and problem_type_of(error) is DATABASE_UNAVAILABLE:
        return database_unavailable(request)
    if _wants_problem(request):
        return _problem(
            SERVER_ERROR, "Internal error of the service. It is logged. Report it to an admin with the time."
        )
    return defaults.server_error(request)


def database_unavailable(request: HttpRequest, detail: str = "") -> HttpResponseBase:
    """Answer 503, with `detail` as the reason if it is known."""
    if _wants_problem(request):
        detail = detail or f"{DATABASE_UNAVAILABLE.title}. Try again in some seconds."
        response = _problem(DATABASE_UNAVAILABLE, detail)
    else:  # without the request, because the page must not query who is signed in
        page = render_to_string("503.html", {"detail": detail})
        response = HttpResponse(page, status=DATABASE_UNAVAILABLE.status)
    response["Retry-After"] = str(DATABASE_RETRY)
    return response


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form without its CSRF token, or with an Origin that differs from the service's own address.

    The second happens to everybody if a proxy does TLS and the service is not configured for it.
    """
    context: dict[str, object] = {}
    if reason.startswith(REASON_BAD_ORIGIN.partition("%")[0]):
        origin, here = request.headers.get("Origin", ""), f"{request.scheme}://{request.get_host()}"
        context = {"origin": origin, "here": here, "is_https_unknown": origin == f"https://{request.get_host()}"}
    return render(request, "403_csrf.html", context, status=403)
