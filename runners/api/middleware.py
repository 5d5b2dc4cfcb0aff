"""Paths as clients really send them."""

from __future__ import annotations

import re
from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

API_PREFIX = "/v4/"


class ApiPathMiddleware:
    """Collapses repeated slashes and drops the last one under /v4.

    The GUI's base URL may end in a slash, which gives `//v4/...`. The Autosubmit API takes both, so clients send them.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
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
