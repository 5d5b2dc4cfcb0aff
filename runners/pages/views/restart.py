"""The button of a run's page that cancels its pending restart, and the fields of the start page about restarts."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from runners.exceptions import RunnerServiceError
from runners.pages.forms import CommandForm
from runners.pages.views.run import RunBaseView
from runners.services import restart_plans
from runners.web.audit import audit_command
from runners.web.problems import error_context

PREFIX = "restart_"
ATTEMPTS = "restart_attempts"
LABELS = {
    restart_plans.LOST: "Start it again after a reboot of the machine",
    restart_plans.PLATFORM: "Start it again if a platform could not be reached",
}


class StartForm(CommandForm):
    """The form that starts a run, with the fields of `restart`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for cause, label in LABELS.items():
            self.fields[PREFIX + cause] = forms.BooleanField(required=False, label=label)
        self.fields[ATTEMPTS] = forms.IntegerField(
            required=False,
            label="Restarts at most",
            initial=restart_plans.DEFAULT_ATTEMPTS,
            min_value=1,
            max_value=restart_plans.MOST_ATTEMPTS,
            help_text="The first one follows after a minute, each further one after twice as long.",
        )
        self.rare += [name for name in self.fields if name.startswith(PREFIX)]

    def body(self) -> dict[str, Any]:
        body = super().body()
        given = {name: body.pop(name, None) for name in list(body) if name.startswith(PREFIX)}
        if causes := [cause for cause in LABELS if given.get(PREFIX + cause)]:
            body["restart"] = {"on": causes, "attempts": given.get(ATTEMPTS) or restart_plans.DEFAULT_ATTEMPTS}
        return body


class CancelRestart(RunBaseView):
    """Cancel the pending restart of a run that has ended."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        try:
            with audit_command(request, "cancel-restart", user=request.user, expid=self.run.expid) as audit:
                restart_plans.cancel_restart(pk=pk, audit=audit, viewer=request.user)
        except RunnerServiceError as error:
            messages.error(request, error_context(error, request.user)["detail"])
        else:
            messages.success(request, f"The restart of run {pk} was cancelled.")
        return redirect("pages:run", pk=pk)
