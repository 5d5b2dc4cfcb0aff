"""What all pages share: people have to be signed in, and errors are said in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.mixins import AccessMixin
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.generic import TemplateView
from rest_framework.throttling import BaseThrottle, SimpleRateThrottle

from profiles.models import RunnerProfile
from runners.api.base import plain
from runners.api.exception_handler import kind_of
from runners.api.permissions import CommandThrottle
from runners.exceptions import RunnerServiceError, TooManyRequests
from runners.models import AuditRecord
from runners.services.access import Action, detail_for, may_see, user_may
from runners.services.audit import audited
from runners.services.bulkheads import BULKHEADS


class SignedIn(AccessMixin):
    """Sends everybody else to the login. A part of a page that htmx asked for sends the whole page there."""

    request: HttpRequest

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.user.is_authenticated:
            return super().dispatch(request, *args, **kwargs)  # type: ignore[misc]  # of the view it is mixed into
        if not is_partial(request):
            return self.handle_no_permission()
        here = request.headers.get("HX-Current-URL", "")
        target = here if url_has_allowed_host_and_scheme(here, {request.get_host()}) else "/"
        there = f"{resolve_url(settings.LOGIN_URL)}?{urlencode({'next': target})}"
        return HttpResponse(status=204, headers={"HX-Redirect": there})


class PageView(SignedIn, TemplateView):
    """A page. `title` is its heading and the window's title."""

    title = ""


def is_partial(request: HttpRequest) -> bool:
    """Whether htmx asks for a part of a page."""
    return request.headers.get("HX-Request") == "true"


def usable_profiles(user: Any, action: Action) -> list[RunnerProfile]:
    """The profiles that a person may choose for a command, by name."""
    profiles = RunnerProfile.objects.filter(enabled=True).prefetch_related(*RunnerProfile.ACTIONS).order_by("name")
    return [profile for profile in profiles if user_may(user, profile, action)]


@contextmanager
def recorded(request: HttpRequest, endpoint: str, *, expid: str = "", profile_name: str = "") -> Iterator[AuditRecord]:
    """The audit record of a command that was asked for on a page, refused or not. `endpoint` as on the wire.

    It counts against the person's rate, together with those that came through the API. Raises TooManyRequests.
    """
    address = BaseThrottle().get_ident(request)  # type: ignore[arg-type]  # it reads only META
    with (
        audited(
            endpoint=endpoint,
            actor=request.user.get_username(),
            address=address[:64],
            expid=plain(expid, 16),
            profile_name=plain(profile_name, 100),
            worded=partial(detail_for, request.user),  # others read the record on the experiment's page
        ) as audit,
        BULKHEADS.command(endpoint, person=audit.actor, profile_name=audit.profile_name),
    ):
        if wait := seconds_to_wait(request, CommandThrottle()):
            raise TooManyRequests(f"You have asked for too many commands. Try again in {wait} s.", retry_after=wait)
        yield audit


def seconds_to_wait(request: HttpRequest, throttle: SimpleRateThrottle) -> int:
    """0, and the request is counted; else how long its sender has to wait."""
    if throttle.allow_request(request, None):  # type: ignore[arg-type]  # our throttles read what both requests have
        return 0
    return max(1, ceil(throttle.wait() or 1))


def in_words(error: RunnerServiceError, user: Any) -> dict[str, Any]:
    """What a template shows of an error: `status` (HTTP), `title`, `detail`, `output`, `run` and `run_id` if any.

    `user` sees nothing of a run that is hidden.
    """
    kind = kind_of(error)
    run = getattr(error, "run", None)
    return {
        "status": kind.status if kind else 500,
        "title": kind.title if kind else "The command failed",
        "detail": detail_for(user, error),
        "output": error.facts.get("output", ""),
        "run": run if run and may_see(user, run) else None,
        "run_id": error.facts.get("run_id"),
        "retry_after": error.facts.get("retry_after"),
    }
