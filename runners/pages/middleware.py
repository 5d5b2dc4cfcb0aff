"""The Content-Security-Policy of everything that a browser shows."""

from __future__ import annotations

from csp.middleware import CSPMiddleware
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from runners.api.middleware import API_PREFIX


class PagePolicy(CSPMiddleware):
    """Not for the API: its JSON is never rendered, and the status is asked for a thousand times a second."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(API_PREFIX):
            return self.get_response(request)  # type: ignore[return-value]  # under WSGI it is never a coroutine
        return super().__call__(request)  # type: ignore[return-value]
