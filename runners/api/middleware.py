"""Paths and bodies as clients really send them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from rest_framework.throttling import BaseThrottle

from runners.services import acting

API_PREFIX = "/v4/"
GetResponse = Callable[[HttpRequest], HttpResponseBase]


class BodyLimitMiddleware:
    """Refuses a body by the length that it declares, before anything reads it. First of all layers.

    A form with a file would otherwise be read whole, to memory or disk, by the check of its CSRF token. A body without
    a length (chunked) is refused, too: Django would take it for an empty one.
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
    """Lets the audit of changes know whose request it is (services/acting.py). It looks at no credentials itself."""

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
    address = BaseThrottle().get_ident(request)  # type: ignore[arg-type]  # it reads only META
    return acting.Actor(name, getattr(token, "token_key", ""), address)


class ApiPathMiddleware:
    """Collapses repeated slashes and drops the last one under /v4.

    The GUI's base URL may end in a slash, which gives `//v4/...`. The Autosubmit API takes both, so clients send them.
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
