"""Normalize the paths of the API."""

from __future__ import annotations

import re

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from runners.web.middleware import API_PREFIX, GetResponse


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
