"""Parts of the forms of the commands that htmx fetches: what a field suggests, and what would prevent the command.

A form never waits for them. They get the fields of the form as they are so far, and change nothing.
"""

from __future__ import annotations

import re
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views import View

from profiles.config import RunnerConfig
from runners.commands.base import Command
from runners.commands.parameters import EXPID_PATTERN
from runners.commands.registry import one_shot_commands
from runners.commands.run_experiment import RUN_EXPERIMENT
from runners.commands.set_job_status import WHILE_RUNNING
from runners.exceptions import RunnerServiceError
from runners.models import RunnerRun
from runners.pages.base import LoginRequiredMixin
from runners.pages.forms import CommandForm
from runners.services import (
    access,
    active_runs,
    experiments,
    foreign_runs,
    job_selection,
    jobs,
    maintenance,
)
from runners.services.job_selection import CannotCount
from runners.services.machines.jobs import JobSelection
from runners.services.machines.registry import get_runner
from runners.web import requests
from runners.web.problems import error_context

SHOWN_JOBS = 100


class Suggestion(LoginRequiredMixin, View):
    """A part of the form of a command. `template_name` gets what `found` returns."""

    http_method_names = ["post"]
    template_name: str

    def post(self, request: HttpRequest, name: str) -> HttpResponse:
        command = RUN_EXPERIMENT if name == RUN_EXPERIMENT.name else one_shot_commands().get(name)
        if command is None:
            raise Http404
        serializer = requests.RunExperimentRequest if command is RUN_EXPERIMENT else requests.request_of(command)
        form = CommandForm(command, serializer, request, data=request.POST)
        return render(request, self.template_name, {"form": form, **self.found(command, form)})

    def found(self, command: Command, form: CommandForm) -> dict[str, Any]:
        raise NotImplementedError


class KnownExperiments(Suggestion):
    """The list of the field of the experiment, with the experiments that the account of the profile can read."""

    template_name = "pages/_experiments.html"

    def found(self, command: Command, form: CommandForm) -> dict[str, Any]:
        config = form.config()
        if config is None or form.profile is None:
            return {}
        try:
            access.require_view(self.request.user, form.profile)
            found = experiments.on_machine(get_runner(config))
        except RunnerServiceError as error:
            return {"error": error_context(error, self.request.user)}
        if found is None:
            return {"has_no_list": True}
        listed = sorted(found.listed, key=lambda each: not each.is_own)
        return {"listed": listed, "total": found.total, "target": config.target.describe()}


class Conflicts(Suggestion):
    """What is known about the experiment of the form and prevents the command. No machine is asked."""

    template_name = "pages/_conflicts.html"

    def found(self, command: Command, form: CommandForm) -> dict[str, Any]:
        expid, config = self.request.POST.get("expid", "").strip(), form.config()
        context: dict[str, Any] = {"expid": expid}
        if config is not None and (planned := maintenance.current(config.target.machine)):
            context["maintenance"] = maintenance.sentence(planned)
        if config is None or not re.fullmatch(EXPID_PATTERN, expid):
            return context
        if command is RUN_EXPERIMENT or command.needs_idle:
            context |= self._in_the_way(command, expid, config)
        context["foreign"] = foreign_runs.last_seen(expid, self.request.user)
        if "active" not in context:
            runs = RunnerRun.objects.filter(expid=expid, installation=config.installation)
            context["last"] = access.visible(runs, self.request.user).order_by("-id").first()
        return context

    def _in_the_way(self, command: Command, expid: str, config: RunnerConfig) -> dict[str, Any]:
        run = active_runs.run_in_the_way(expid, config)
        if run is None:
            return {}
        may_change = any(each.name == WHILE_RUNNING for each in command.parameters)
        return {
            "active": run,
            "may_see": access.may_see(self.request.user, run),
            "while_running": may_change,
            "is_chosen": may_change and bool(self.request.POST.get(WHILE_RUNNING)),
        }


class SelectedJobs(Suggestion):
    """How many jobs the filters of the form select, by the job list of the experiment, and what can be chosen."""

    template_name = "pages/_selected_jobs.html"

    def found(self, command: Command, form: CommandForm) -> dict[str, Any]:
        expid, config = self.request.POST.get("expid", "").strip(), form.config()
        if config is None or form.profile is None or not re.fullmatch(EXPID_PATTERN, expid):
            return {}
        note = ""
        try:
            selection = job_selection.selection_of(self.request.POST.dict())
        except CannotCount as error:
            selection, note = None, str(error)
        try:
            access.require_view(self.request.user, form.profile)
            found = jobs.select(get_runner(config), expid, selection or JobSelection(), limit=SHOWN_JOBS)
        except RunnerServiceError as error:
            return {"expid": expid, "error": error_context(error, self.request.user)}
        return {"expid": expid, "found": found, "is_selected": selection is not None, "note": note}
