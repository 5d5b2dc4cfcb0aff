"""Middleware for requests: limit the body, tell the audit who acts, normalize the paths of the API."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

from runners.client_address import client_address
from runners.services import acting

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
            return _refused(request, 400, "bad_request", "The Content-Length is no number.")
        if len(declared) > 18 or int(declared) > limit:
            return _refused(request, 413, "too_large", f"The body has more than {limit} bytes.")
        return self.get_response(request)


def _is_api(request: HttpRequest) -> bool:
    return request.path_info.lstrip("/").startswith(API_PREFIX[1:])


def _refused(request: HttpRequest, status: int, code: str, detail: str) -> HttpResponse:
    if not _is_api(request):
        return HttpResponse(f"{detail}\n", status=status, content_type="text/plain; charset=utf-8")
    from runners.api.exception_handler import KINDS_BY_CODE, PROBLEM_TYPE, problem  # it imports views' modules

    return JsonResponse(problem(KINDS_BY_CODE[code], detail), status=status, content_type=PROBLEM_TYPE)


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


class ApiPathMiddleware:
    """Collapse repeated slashes in paths under /v4, and remove a trailing slash.

    If the GUI's base URL ends in a slash, the GUI sends `//v4/...`. Clients send both forms, because the Autosubmit API
    accepts both.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        path = request.path_info
        if "//" in path or (path.endswith("/") and path.startswith(API_PREFIX)):
            path = re.sub(r"/{2,}", "/", path)
            if path.startswith(API_PREFIX):
                path = path.rstrip("/")
                request.path_info = path
                request.path = request.META.get("SCRIPT_NAME", "").rstrip("/") + path
        return self.get_response(request)
