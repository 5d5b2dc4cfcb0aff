"""What all pages share: people have to be signed in, and errors are said in words."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.mixins import AccessMixin
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.generic import TemplateView
from rest_framework.throttling import BaseThrottle

from profiles.models import RunnerProfile
from runners.api.exception_handler import kind_of
from runners.exceptions import RunnerServiceError
from runners.models import AuditRecord
from runners.services.access import Action, user_may
from runners.services.audit import audited


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
        return HttpResponse(status=204, headers={"HX-Redirect": f"{reverse('login')}?{urlencode({'next': target})}"})


class PageView(SignedIn, TemplateView):
    """A page. `title` is its heading and the window's title."""

    title = ""


def is_partial(request: HttpRequest) -> bool:
    """Whether htmx asks for a part of a page."""
    return request.headers.get("HX-Request") == "true"


def usable_profiles(user: Any, action: Action) -> list[RunnerProfile]:
    """The profiles that a person may choose for a command, by name."""
    profiles = RunnerProfile.objects.filter(enabled=True).order_by("name")
    return [profile for profile in profiles if user_may(user, profile, action)]


def recorded(request: HttpRequest, endpoint: str, **facts: str) -> AbstractContextManager[AuditRecord]:
    """The audit record of a command that was asked for on a page. `endpoint` as on the wire."""
    address = BaseThrottle().get_ident(request)  # type: ignore[arg-type]  # it reads only META
    return audited(endpoint=endpoint, actor=request.user.get_username(), address=address[:64], **facts)


def in_words(error: RunnerServiceError) -> dict[str, Any]:
    """What a template shows of an error: `status` (HTTP), `title`, `detail`, `output`, `run` and `run_id` if any."""
    kind = kind_of(error)
    return {
        "status": kind.status if kind else 500,
        "title": kind.title if kind else "The command failed",
        "detail": error.detail,
        "output": error.facts.get("output", ""),
        "run": getattr(error, "run", None),
        "run_id": error.facts.get("run_id"),
    }
