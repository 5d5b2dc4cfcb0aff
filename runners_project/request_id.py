"""An id for each request, in its answer, in the log and in the audit record."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable
from contextvars import ContextVar

from django.http import HttpRequest
from django.http.response import HttpResponseBase

HEADER = "X-Request-ID"
_GIVEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
# W3C Trace Context: version, trace id, parent id, flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,400})?")
_current: ContextVar[str] = ContextVar("request_id", default="")


def current() -> str:
    """Return the id of the request that this thread handles; empty outside of a request."""
    return _current.get()


class RequestIdMiddleware:
    """Middleware that sends an id with each answer: `X-Request-ID`, the trace id of `traceparent`, or a new id.

    An invalid id (not at most 64 letters, digits and `._:-`) is replaced: a client could write any text into our log.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        name = chosen(request.META.get("HTTP_X_REQUEST_ID", ""), request.META.get("HTTP_TRACEPARENT", ""))
        token = _current.set(name)
        try:
            response = self.get_response(request)
        finally:
            _current.reset(token)
        response[HEADER] = name
        return response


def chosen(request_id: str, traceparent: str) -> str:
    """Return the id for a request with these headers."""
    if len(request_id) <= 64 and _GIVEN.fullmatch(request_id):
        return request_id
    if len(traceparent) <= 512 and (found := _TRACEPARENT.fullmatch(traceparent)) and set(found[1]) != {"0"}:
        return found[1]
    return secrets.token_hex(16)


class RequestIdFilter(logging.Filter):
    """A filter that sets `request_id` of each log record: the id of the request, or `-`."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current() or "-"
        return True
