"""What everything that a browser shows gets: a Content-Security-Policy, and that it is not stored."""

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
        response: HttpResponseBase = super().__call__(request)  # type: ignore[assignment]
        # After signing out, the button Back must not show what was there. Static files do not come this way.
        response.headers["Cache-Control"] = "no-store, private"
        return response
