"""Middleware for what a browser shows: a Content-Security-Policy, no caching, no NUL in paths and queries."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from csp.middleware import CSPMiddleware
from django.core.exceptions import BadRequest
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from runners.api.middleware import API_PREFIX


class NoNul:
    """Answer 400 if the path or the query contains a NUL: PostgreSQL rejects such a text, and no name contains one.

    The API is excluded, because its serializers reject a NUL and name the parameter.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(API_PREFIX):
            query = request.META.get("QUERY_STRING", "")
            if "\0" in request.path_info or b"\0" in unquote_to_bytes(query):
                raise BadRequest("The path or the query holds a NUL.")
        return self.get_response(request)


class PagePolicy(CSPMiddleware):
    """Add the Content-Security-Policy and forbid caching.

    The API is excluded: a browser never renders its JSON, and clients request the status a thousand times a second.
    """

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(API_PREFIX):
            return self.get_response(request)  # type: ignore[return-value]  # under WSGI it is never a coroutine
        response: HttpResponseBase = super().__call__(request)  # type: ignore[assignment]
        # After a sign-out, the Back button must not show the earlier page. Static files do not pass this middleware.
        response.headers["Cache-Control"] = "no-store, private"
        return response
