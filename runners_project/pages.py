"""The API's documents, and errors outside of any view. The pages for people are in runners/pages."""

from __future__ import annotations

import sys
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.middleware.csrf import REASON_BAD_ORIGIN
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views import defaults
from django.views.decorators.http import condition, require_safe

from runners.api.document import document
from runners.api.exception_handler import (
    BAD_REQUEST,
    DATABASE_RETRY,
    DATABASE_UNAVAILABLE,
    KINDS_BY_CODE,
    NOT_FOUND,
    PROBLEM_TYPE,
    SERVER_ERROR,
    Kind,
    kind_of,
    problem,
)


@require_safe
def errors(request: HttpRequest) -> HttpResponse:
    """Every `code` of the API, made from the table itself. The `type` member of an error leads here."""
    kinds = KINDS_BY_CODE.values()
    return render(request, "errors.html", {"kinds": sorted(kinds, key=lambda kind: (kind.status, kind.code))})


def _openapi(media: str, content_type: str) -> Callable[[HttpRequest], HttpResponse]:
    """A view of the OpenAPI document. A client that has the current one (If-None-Match) gets 304."""

    @require_safe
    @condition(etag_func=lambda request: document(media).etag)
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(document(media).body, content_type=content_type)

    return view


openapi_json = _openapi("json", "application/json")
openapi_yaml = _openapi("yaml", "application/yaml")


def _wants_problem(request: HttpRequest) -> bool:
    return request.path_info.startswith(("/v4", "/api"))


def _problem(kind: Kind, detail: str) -> HttpResponse:
    return JsonResponse(problem(kind, detail), status=kind.status, content_type=PROBLEM_TYPE)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Also a Host header that ALLOWED_HOSTS does not know. Django logs the reason; the answer does not repeat it."""
    if _wants_problem(request):
        return _problem(BAD_REQUEST, "The request is not valid. The service's log says why.")
    return defaults.bad_request(request, exception)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if _wants_problem(request):
        return _problem(NOT_FOUND, "There is nothing at this path. GET /openapi.json lists all of them.")
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Runs after Django has logged the traceback. A database that does not answer is told apart from a bug."""
    error = sys.exc_info()[1]
    if error and kind_of(error) is DATABASE_UNAVAILABLE:
        if _wants_problem(request):
            response = _problem(DATABASE_UNAVAILABLE, f"{DATABASE_UNAVAILABLE.title}. Try again in some seconds.")
        else:  # without the request: the page must not look who is signed in
            response = HttpResponse(render_to_string("503.html"), status=DATABASE_UNAVAILABLE.status)
        response["Retry-After"] = str(DATABASE_RETRY)
        return response
    if _wants_problem(request):
        return _problem(SERVER_ERROR, "An error in the service. It is logged; tell an admin when it happened.")
    return defaults.server_error(request)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form that came without its token, or from another place than the service believes to be at.

    The second happens to everybody when a proxy does TLS and nobody has told the service.
    """
    context: dict[str, object] = {}
    if reason.startswith(REASON_BAD_ORIGIN.partition("%")[0]):
        origin, here = request.headers.get("Origin", ""), f"{request.scheme}://{request.get_host()}"
        context = {"origin": origin, "here": here, "is_https_unknown": origin == f"https://{request.get_host()}"}
    return render(request, "403_csrf.html", context, status=403)
