"""Middleware for all requests: limit the body, reject a NUL, tell the audit who acts, add the browser's policy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from urllib.parse import unquote_to_bytes

from csp.middleware import CSPMiddleware
from django.conf import settings
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.http.response import HttpResponseBase

from runners.services import acting
from runners.web.client_address import client_address
from runners.web.problems import PROBLEM_CONTENT_TYPE, PROBLEM_TYPES_BY_CODE, problem

API_PREFIX = "/v4/"
GetResponse = Callable[[HttpRequest], HttpResponseBase]


class BodyLimitMiddleware:
    """Reject a request by the declared length of its body, before any code reads the body.

    Otherwise the CSRF check would read a form with a file completely, to memory or disk. A body without a length
    (chunked) is rejected, too: Django would treat it as empty.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        declared = request.META.get("CONTENT_LENGTH") or ""
        if not declared:
            if request.META.get("HTTP_TRANSFER_ENCODING"):
                return _refused(request, 411, "length_required", "Send the body with its length (Content-Length).")
            return self.get_response(request)
        limit = settings.API_MAX_BODY if _is_api(request) else settings.PAGE_MAX_BODY
        if not (declared.isascii() and declared.isdigit()):
            return _refused(request, 400, "bad_request", "The Content-Length is not a number.")
        if len(declared) > 18 or int(declared) > limit:
            return _refused(request, 413, "too_large", f"The body has more than {limit} bytes.")
        return self.get_response(request)


def _is_api(request: HttpRequest) -> bool:
    return request.path_info.lstrip("/").startswith(API_PREFIX[1:])


def _refused(request: HttpRequest, status: int, code: str, detail: str) -> HttpResponse:
    if not _is_api(request):
        return HttpResponse(f"{detail}\n", status=status, content_type="text/plain; charset=utf-8")
    return JsonResponse(problem(PROBLEM_TYPES_BY_CODE[code], detail), status=status, content_type=PROBLEM_CONTENT_TYPE)


class ActingMiddleware:
    """Tell the audit of changes who sent the request (services/acting.py). This middleware checks no credentials."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        token = acting.OF_REQUEST.set(partial(_actor, request))
        try:
            return self.get_response(request)
        finally:
            acting.OF_REQUEST.reset(token)


def _actor(request: HttpRequest) -> acting.Actor:
    user, token = getattr(request, "user", None), getattr(request, "auth", None)
    name = user.get_username() if user is not None and user.is_authenticated else ""
    address = client_address(request)
    return acting.Actor(name, getattr(token, "token_key", ""), address)


class RejectNulMiddleware:
    """Answer 400 if the path, the query or a form contains a NUL: PostgreSQL rejects such a text, and no name has one.

    The API is excluded, because its serializers reject a NUL and name the parameter. The content of uploaded files is
    not read.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(API_PREFIX):
            query = request.META.get("QUERY_STRING", "")
            if "\0" in request.path_info or b"\0" in unquote_to_bytes(query):
                raise BadRequest("The path or the query contains a NUL character.")
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: object, args: object, kwargs: object) -> None:
        """Check the form. The check of the CSRF token runs before this, and has read the form."""
        if not request.path_info.startswith(API_PREFIX):
            with suppress(UnreadablePostError):  # a view that needs the form finds this out, too
                if any("\0" in text for name, texts in request.POST.lists() for text in (name, *texts)):
                    raise BadRequest("The form contains a NUL character.")


class ContentSecurityPolicyMiddleware(CSPMiddleware):
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
