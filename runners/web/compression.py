"""Compress responses for clients that accept gzip.

If a response contains a secret and a text chosen by an attacker, its compressed length can reveal the secret (BREACH).
docs/decisions/2026-11-26-compressed-answers.md says why compression is safe here, and what is not compressed.
"""

from __future__ import annotations

import re

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.functional import cached_property

FEWEST_BYTES = 1400  # a response that fits into one packet does not arrive sooner if it is compressed
_GZIP = re.compile(r"(?:^|[\s,])gzip(?=[\s,;]|$)(?!\s*;\s*q=0(?:\.0{0,3})?\s*(?:,|$))", re.IGNORECASE)


def accepts_gzip(request: HttpRequest) -> bool:
    return _GZIP.search(request.META.get("HTTP_ACCEPT_ENCODING", "")[:500]) is not None


def ready(request: HttpRequest, body: bytes, compressed: bytes) -> HttpResponse:
    """Return an HTML response. The caller caches both forms of its body, because many clients request it."""
    response = HttpResponse(body)
    if len(body) >= FEWEST_BYTES:
        patch_vary_headers(response, ("Accept-Encoding",))
        if accepts_gzip(request):
            response.content = compressed
            response["Content-Encoding"] = "gzip"
    return response


class CompressionMiddleware(GZipMiddleware):
    """Django's GZipMiddleware, which adds random bytes to each response, except for the admin, downloads and short
    responses.

    Pages contain the CSRF token; Django masks it with new random bytes in each response.
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
