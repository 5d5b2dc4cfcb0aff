"""Answer the polls of dashboards that find nothing new, before sessions, permissions and the database are asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch, resolve, reverse

from runners.pages import run_lists


class UnchangedPollMiddleware:
    """Answer 304 to the poll of a dashboard whose lists certainly have not changed: see `run_lists.is_unchanged`.

    Every open dashboard polls each three seconds, and nearly all of these polls find nothing new. Loading the session
    and the person for each of them would take ten times as long as the rest.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        etag = request.META.get("HTTP_IF_NONE_MATCH")
        if etag and request.path_info == self._path and request.method == "GET":
            session = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
            is_mine = request.META.get("QUERY_STRING") == "mine=1"
            if session and run_lists.is_unchanged(session, etag, is_mine=is_mine):
                request.resolver_match = self._match  # for the metrics
                return HttpResponse(status=304, headers={"ETag": etag, "Cache-Control": "no-store, private"})
        return self.get_response(request)

    @cached_property
    def _path(self) -> str:
        return reverse("pages:runs")

    @cached_property
    def _match(self) -> ResolverMatch:
        return resolve(self._path)
