"""The common parts of all pages: the required sign-in, the audit record of a command, the errors for templates."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth import mixins
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.generic import TemplateView

from profiles.models import RunnerProfile
from runners.services.access import Action, user_may


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
