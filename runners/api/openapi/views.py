"""The views of the OpenAPI document and of the list of error codes."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import condition, require_safe

from runners.api.openapi.document import document
from runners.web.problems import PROBLEM_TYPES_BY_CODE


@require_safe
def errors(request: HttpRequest) -> HttpResponse:
    """List every `code` of the API, from the table of errors. The `type` member of an error links here."""
    problem_types = PROBLEM_TYPES_BY_CODE.values()
    return render(
        request,
        "errors.html",
        {"problem_types": sorted(problem_types, key=lambda problem_type: (problem_type.status, problem_type.code))},
    )


def _openapi(media: str, content_type: str) -> Callable[[HttpRequest], HttpResponse]:
    """Return a view of the OpenAPI document. A client that has the current version (If-None-Match) gets 304."""

    @require_safe
    @condition(etag_func=lambda request: document(media).etag)
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(document(media).body, content_type=content_type)

    return view


openapi_json = _openapi("json", "application/json")
openapi_yaml = _openapi("yaml", "application/yaml")
