"""Answers are sent compressed to clients that accept gzip.

Compressing a secret together with text that an attacker chooses tells the secret by the length of the answer (BREACH).
docs/decisions/2026-11-26-compressed-answers.md says why this is safe here, and what is not compressed.
"""

from __future__ import annotations

import re

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.functional import cached_property

FEWEST_BYTES = 1400  # what fits into one packet is not sooner there when it is shorter
_GZIP = re.compile(r"(?:^|[\s,])gzip(?=[\s,;]|$)(?!\s*;\s*q=0(?:\.0{0,3})?\s*(?:,|$))", re.IGNORECASE)


def accepts_gzip(request: HttpRequest) -> bool:
    return _GZIP.search(request.META.get("HTTP_ACCEPT_ENCODING", "")[:500]) is not None


def ready(request: HttpRequest, body: bytes, compressed: bytes) -> HttpResponse:
    """An HTML answer of which both forms are kept, because many ask for it."""
    response = HttpResponse(body)
    if len(body) >= FEWEST_BYTES:
        patch_vary_headers(response, ("Accept-Encoding",))
        if accepts_gzip(request):
            response.content = compressed
            response["Content-Encoding"] = "gzip"
    return response


class CompressionMiddleware(GZipMiddleware):
    """Django's, which adds random bytes to each answer, but for the admin, downloads and short answers.

    Pages hold the CSRF token, which Django masks anew in each of them.
    """

    @cached_property
    def _admin(self) -> str:
        return reverse("admin:index")

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if not isinstance(response, HttpResponse) or len(response.content) < FEWEST_BYTES:
            return response
        if request.path_info.startswith(self._admin):
            return response
        if not accepts_gzip(request):
            patch_vary_headers(response, ("Accept-Encoding",))
            return response
        return super().process_response(request, response)
