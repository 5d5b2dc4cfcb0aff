"""The dashboard with the active and the recent runs."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render, resolve_url
from django.utils.cache import get_conditional_response
from django.views import View

from runners.commands.parameters import EXPID_PATTERN
from runners.pages import run_lists
from runners.pages.base import LoginRequiredMixin, PageView
from runners.pages.run_filters import MINE, remember_mine, wants_mine
from runners.services import health
from runners.web import compression


class Home(PageView):
    """The dashboard. People who are not signed in get a landing page with a link to the login."""

    template_name = "pages/dashboard.html"
    title = "Dashboard"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return render(request, "pages/landing.html", {"login_url": resolve_url(settings.LOGIN_URL)})
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = super().get(request, *args, **kwargs)
        remember_mine(request, response)
        return response

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        user, is_mine = self.request.user, wants_mine(self.request)
        # Do not use the shared lists: a person who has just started a run has to see it here.
        lists, warnings = run_lists.make_lists(user, is_mine=is_mine), health.report().warnings
        return super().get_context_data(**kwargs, lists=lists, is_mine=is_mine, health_warnings=warnings)


class RunsFragment(LoginRequiredMixin, View):
    """The part of the dashboard that browsers poll. The response is 304 without a body while nothing has changed.

    The first poll of all people within the freshness window asks the machines, and waits ANSWER_WAIT at most.
    """

    def get(self, request: HttpRequest) -> HttpResponseBase:
        is_mine = request.GET.get("mine") == MINE
        run_lists.refresh(request.user, is_mine=is_mine, wait=run_lists.ANSWER_WAIT)
        lists = run_lists.shared_lists(request.user, is_mine=is_mine)
        response = get_conditional_response(request, etag=lists.etag)
        if response is None:
            response = compression.ready(request, lists.body, lists.compressed)
        response["ETag"] = lists.etag
        if request.session.session_key:
            run_lists.remember(request.session.session_key, request.user, is_mine=is_mine)
        return response


class Refresh(LoginRequiredMixin, View):
    """Ask the machines of the active runs and store the new states. The next fragment shows them.

    Pages that show active runs but are not the dashboard send it beside the request for their rows.
    """

    def post(self, request: HttpRequest) -> HttpResponse:
        run_lists.refresh(request.user)
        return HttpResponse(status=204)


class FindExperiment(PageView):
    """Redirect `?expid=` to the page of that experiment, even if the service never ran it."""

    template_name = "pages/no_experiment.html"
    title = "Experiment not found"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        expid = request.GET.get("expid", "").strip().lower()
        if re.fullmatch(EXPID_PATTERN, expid):
            return redirect("pages:experiment", expid=expid)
        return self.render_to_response(self.get_context_data(expid=expid), status=404)
