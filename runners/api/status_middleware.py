"""Answer the most frequent request, a status with valid credentials, without sessions, URL resolution and DRF.

Every open page of every client polls get-runner-run-status. DRF and the middleware for browsers take longer than the
queries and the response together. This middleware answers only a plain request that succeeds, with the same functions
as `RunStatusView`. Every other request reaches the view, and only the view rejects requests.
"""

from __future__ import annotations

import re
from functools import cached_property

from django.conf import settings
from django.core.exceptions import BadRequest
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch, resolve, reverse
from rest_framework.exceptions import AuthenticationFailed

from runners.api.authentication import user_of
from runners.api.commands.views import status_fields
from runners.api.renderers import CompactJSONRenderer
from runners.commands.parameters import EXPID_LIMIT, EXPID_PATTERN
from runners.exceptions import RunNotFound
from runners.models import ApiToken, TokenScope
from runners.services import runs
from runners.services.strangers import rate_of
from runners.web.middleware import GetResponse

SPACE = rb"[ \t\n\r]*"  # of JSON; `\s` would also match a form feed
# The body of a request without options, as JSON libraries write it. The view parses every other form.
PLAIN_BODY = re.compile(SPACE.join((b"", rb"\{", b'"expid"', b":", b'"(%s)"' % EXPID_PATTERN.encode(), rb"\}", b"")))
MOST_BYTES = 200
RENDERER = CompactJSONRenderer()
# Of DRF, and of the middleware that is left out.
HEADERS = {"Allow": "POST, OPTIONS", "X-Frame-Options": settings.X_FRAME_OPTIONS}


class StatusMiddleware:
    """Middleware for POST get-runner-run-status with a bearer credential, while PROTECTION_LEVEL is ALL.

    It checks the host, the credentials, their scope and who may see the run. Its place in MIDDLEWARE is after the
    limits of the body and the headers of security, and before everything that needs a session.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info == self._path and _is_plain(request):
            request.get_host()  # raises DisallowedHost, as CommonMiddleware does
            if response := _answer(request):
                request.resolver_match = self._match  # for the metrics
                return response
        return self.get_response(request)

    @cached_property
    def _path(self) -> str:
        return reverse("command-get-runner-run-status")

    @cached_property
    def _match(self) -> ResolverMatch:
        return resolve(self._path)


def _is_plain(request: HttpRequest) -> bool:
    length = request.META.get("CONTENT_LENGTH") or ""
    return (
        request.method == "POST"
        and "HTTP_AUTHORIZATION" in request.META
        and request.META.get("CONTENT_TYPE") == "application/json"
        and length.isascii()
        and length.isdigit()
        and len(length) <= 3
        and int(length) <= MOST_BYTES
        and settings.PROTECTION_LEVEL == "ALL"
        and rate_of(settings.THROTTLE_READS) is None
    )


def _answer(request: HttpRequest) -> HttpResponse | None:
    """Return the response; None if the request is not plain, or if its response is an error."""
    try:
        found = PLAIN_BODY.fullmatch(request.body)
    except UnreadablePostError:
        raise BadRequest("The connection was closed before the complete body was received.") from None
    if found is None or len(found[1]) > EXPID_LIMIT:
        return None
    try:
        credentials = user_of(request.META["HTTP_AUTHORIZATION"].encode("iso-8859-1", "replace"))
        if credentials is None:
            return None
        user, auth = credentials
        if isinstance(auth, ApiToken) and not auth.allows(TokenScope.READ):
            return None
        run = runs.get_run(expid=found[1].decode("ascii"), viewer=user)
        content = RENDERER.render(status_fields(run, user))
    except (AuthenticationFailed, RunNotFound, DatabaseError, InterfaceError):
        return None
    return HttpResponse(
        content, content_type="application/json", headers={**HEADERS, "Content-Length": str(len(content))}
    )
