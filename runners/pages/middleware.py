"""What everything that a browser shows gets: a Content-Security-Policy, that it is not stored, and no NUL."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from csp.middleware import CSPMiddleware
from django.core.exceptions import BadRequest
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from runners.api.middleware import API_PREFIX


class NoNul:
    """Answers 400 when the path or the query holds a NUL: PostgreSQL takes no text with one, and nothing is named so.

    Not for the API, whose serializers name the parameter.
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
    """Not for the API: its JSON is never rendered, and the status is asked for a thousand times a second."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(API_PREFIX):
            return self.get_response(request)  # type: ignore[return-value]  # under WSGI it is never a coroutine
        response: HttpResponseBase = super().__call__(request)  # type: ignore[assignment]
        # After signing out, the button Back must not show what was there. Static files do not come this way.
        response.headers["Cache-Control"] = "no-store, private"
        return response
