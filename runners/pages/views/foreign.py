"""The page that ends a run of an experiment that this service has not started."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from profiles.models import EndpointToggle
from runners.commands.stop_experiment import STOP_EXPERIMENT
from runners.exceptions import EndpointDisabled, RunnerServiceError
from runners.pages.base import PageView
from runners.services import foreign_runs
from runners.web.audit import audit_command
from runners.web.problems import error_context, with_retry_after


class StopForeignRun(PageView):
    """Confirm and execute the stop. GET is the confirmation. The response comes when the end of the run was seen."""

    template_name = "pages/stop_foreign.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        expid = kwargs["expid"]
        self.title = f"End the other run of {expid}"
        seen = foreign_runs.last_seen(expid, self.request.user)
        return super().get_context_data(**kwargs, seen=seen)

    def post(self, request: HttpRequest, expid: str) -> HttpResponse:
        try:
            with audit_command(request, STOP_EXPERIMENT.name, user=request.user, expid=expid) as audit:
                if not EndpointToggle.is_enabled(STOP_EXPERIMENT.toggle.name):
                    raise EndpointDisabled(f"The {STOP_EXPERIMENT.name} endpoint is currently disabled.")
                outcome = foreign_runs.stop(
                    expid=expid,
                    place=foreign_runs.place_seen(expid, request.user),
                    audit=audit,
                    force="force" in request.POST,
                )
        except RunnerServiceError as error:
            shown = error_context(error, request.user)
            context = self.get_context_data(expid=expid, error=shown)
            return with_retry_after(self.render_to_response(context, status=shown["status"]), shown)
        say = messages.warning if outcome.warnings else messages.success
        say(request, " ".join([outcome.message, *outcome.warnings]))
        return redirect("pages:experiment", expid)
