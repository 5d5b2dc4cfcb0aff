"""The common parts of all pages: the required sign-in, the audit record of a command, the errors for templates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth import mixins
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.generic import TemplateView
from rest_framework.throttling import SimpleRateThrottle

from profiles.models import RunnerProfile
from runners.api.base import plain
from runners.api.throttling import CommandThrottle
from runners.exceptions import RunnerServiceError, TooManyRequests
from runners.models import AuditRecord
from runners.services.access import Action, detail_for, may_see, user_may
from runners.services.audit import audited
from runners.services.machines.bulkheads import BULKHEADS
from runners.web.client_address import client_address
from runners.web.problems import problem_type_of


class LoginRequiredMixin(mixins.LoginRequiredMixin):
    """Django's mixin, also for requests of htmx for a part of a page: they get the whole login page."""

    request: HttpRequest

    def handle_no_permission(self) -> HttpResponse:  # type: ignore[override]  # Django only redirects
        request = self.request
        if not is_partial(request):
            return super().handle_no_permission()
        here = request.headers.get("HX-Current-URL", "")
        target = here if url_has_allowed_host_and_scheme(here, {request.get_host()}) else "/"
        there = f"{resolve_url(settings.LOGIN_URL)}?{urlencode({'next': target})}"
        return HttpResponse(status=204, headers={"HX-Redirect": there})


class PageView(LoginRequiredMixin, TemplateView):
    """A page. `title` is its heading and the title of the window."""

    title = ""


def is_partial(request: HttpRequest) -> bool:
    """Return True if htmx asks for a part of a page."""
    return request.headers.get("HX-Request") == "true"


def usable_profiles(user: Any, action: Action) -> list[RunnerProfile]:
    """Return the enabled profiles with which `user` may do `action`, sorted by name."""
    profiles = RunnerProfile.objects.filter(enabled=True).prefetch_related(*RunnerProfile.ACTIONS).order_by("name")
    return [profile for profile in profiles if user_may(user, profile, action)]


@contextmanager
def recorded(request: HttpRequest, endpoint: str, *, expid: str = "", profile_name: str = "") -> Iterator[AuditRecord]:
    """Audit a command that was sent from a page, also if it is rejected. `endpoint` is the command's name on the wire.

    The command counts for the rate limit of the person, together with the commands sent through the API. Raises
    TooManyRequests.
    """
    address = client_address(request)
    with (
        audited(
            endpoint=endpoint,
            actor=request.user.get_username(),
            address=address[:64],
            expid=plain(expid, 16),
            profile_name=plain(profile_name, 100),
            worded=partial(detail_for, request.user),  # other people can read the record on the experiment's page
        ) as audit,
        BULKHEADS.command(endpoint, person=audit.actor, profile_name=audit.profile_name),
    ):
        if wait := seconds_to_wait(request, CommandThrottle()):
            raise TooManyRequests(f"You have asked for too many commands. Try again in {wait} s.", retry_after=wait)
        yield audit


def seconds_to_wait(request: HttpRequest, throttle: SimpleRateThrottle) -> int:
    """Count the request and return 0 if the rate limit allows it; else return the seconds that the sender must wait."""
    if throttle.allow_request(request, None):  # type: ignore[arg-type]  # our throttles read what both requests have
        return 0
    return max(1, ceil(throttle.wait() or 1))


def error_context(error: RunnerServiceError, user: Any) -> dict[str, Any]:
    """Return an error for a template: `status` (HTTP), `title`, `detail`, `output`, `run`, `run_id`, `retry_after`.

    `run`, `run_id` and `retry_after` are None if the error has none. If the run is hidden from `user`, `run` is None
    and `detail` tells nothing about the run.
    """
    problem_type = problem_type_of(error)
    run = getattr(error, "run", None)
    return {
        "status": problem_type.status if problem_type else 500,
        "title": problem_type.title if problem_type else "The command failed",
        "detail": detail_for(user, error),
        "output": error.facts.get("output", ""),
        "run": run if run and may_see(user, run) else None,
        "run_id": error.facts.get("run_id"),
        "retry_after": error.facts.get("retry_after"),
    }
