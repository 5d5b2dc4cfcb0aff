"""The pages that ask for a command: choose a profile, fill in what it leaves open, look at what would happen, do it."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode

from profiles.config import Endpoint
from profiles.models import EndpointToggle
from runners.exceptions import EndpointDisabled, RunnerServiceError
from runners.models import AuditRecord, RunnerRun
from runners.pages.base import PageView, in_words, recorded
from runners.pages.forms import (
    PARAM,
    CommandForm,
    CreateExperimentForm,
    DescriptionForm,
    JobListForm,
    RunForm,
    SetStatusForm,
)
from runners.services import dry_run, experiments
from runners.services.dry_run import Plan

LAST_PARAMS = "page_params"  # in the session: what was given last, by profile


class CommandPage(PageView):
    """GET shows the form. POST: `action` is `choose` (show the fields of another profile), `preview` or `do`.

    `command` is its name on the wire and in the audit, `endpoint` the toggle that covers it.
    """

    template_name = "pages/command.html"
    form_class: ClassVar[type[CommandForm]]
    endpoint: ClassVar[Endpoint]
    command: ClassVar[str]
    intro = ""
    button = ""
    preview_button = "Preview"
    preview_template = "pages/_plan.html"

    def plan(self, data: dict[str, Any]) -> Plan:
        """What would be executed, from the validated data."""
        raise NotImplementedError

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        """The use case. Answers with a redirection. Raises RunnerServiceError."""
        raise NotImplementedError

    def preview(self, form: CommandForm) -> dict[str, Any]:
        """What the preview's template needs. Raises RunnerServiceError."""
        return {"plan": self.plan(form.validated)}

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._page(self._fresh(request.GET.dict()))

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        action = request.POST.get("action")
        if action == "choose":
            return self._page(self._fresh(request.POST.dict()))
        form = self.form_class(request, data=request.POST)
        if not form.is_valid():
            return self._page(form, status=422)
        self._remember(form)
        try:
            if action == "preview":
                return self._page(form, **self.preview(form))
            facts = {name: form.validated.get(name, "") for name in ("expid", "profile_name")}
            with recorded(request, self.command, **facts) as audit:
                if not self._enabled():
                    raise EndpointDisabled(f"The {self.command} endpoint is currently disabled.")
                return self.execute(form.validated, audit)
        except RunnerServiceError as error:
            shown = in_words(error)
            return self._page(form, error=shown, status=shown["status"])

    def _enabled(self) -> bool:
        return EndpointToggle.is_enabled(self.endpoint)

    def _fresh(self, given: dict[str, Any]) -> CommandForm:
        """An unbound form. Of a profile just chosen, what was given for it last is offered again."""
        form = self.form_class(self.request, initial=given)
        if form.profile is None:
            return form
        last = self.request.session.get(LAST_PARAMS, {}).get(form.profile.name, {})
        return self.form_class(self.request, initial={"profile_name": form.profile.name, **last, **given})

    def _remember(self, form: CommandForm) -> None:
        assert form.profile
        given = {name: value for name, value in form.cleaned_data.items() if name.startswith(PARAM) and value}
        known = self.request.session.get(LAST_PARAMS, {})
        if given and known.get(form.profile.name) != given:
            self.request.session[LAST_PARAMS] = {**known, form.profile.name: given}

    def _page(self, form: CommandForm, *, status: int = 200, **context: Any) -> HttpResponse:
        context = self.get_context_data(form=form, enabled=self._enabled(), **context)
        return self.render_to_response(context, status=status)

    def done(self, text: str, warnings: list[str]) -> None:
        """Say on the next page what was done."""
        messages.success(self.request, text)
        for warning in warnings:
            messages.warning(self.request, f"Autosubmit warns: {warning}")


def link(name: str, *args: Any, **query: str) -> str:
    """The address of a page with a query."""
    return reverse(name, args=args) + (f"?{urlencode(query)}" if query else "")


class StartRun(CommandPage):
    form_class = RunForm
    endpoint = Endpoint.RUNNER_RUN
    command = "run-experiment"
    title = "Start a run"
    intro = "Runs an experiment that has a job list, until its workflow ends or somebody stops it."
    button = "Start the run"

    def plan(self, data: dict[str, Any]) -> Plan:
        return dry_run.run_experiment(expid=data["expid"], config=data["config"])

    def preview(self, form: CommandForm) -> dict[str, Any]:
        active = RunnerRun.objects.active().filter(expid=form.validated["expid"]).first()
        return {**super().preview(form), "active": active}

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        run = experiments.run_experiment(
            expid=data["expid"], config=data["config"], profile_name=data["profile_name"], audit=audit
        )
        return redirect("pages:run", pk=run.pk)


class CreateExperiment(CommandPage):
    form_class = CreateExperimentForm
    endpoint = Endpoint.CREATE_EXPERIMENT
    command = "create-experiment"
    title = "Create an experiment"
    intro = "Autosubmit chooses its id. Edit its configuration on the machine, then make its job list."
    button = "Create the experiment"

    def plan(self, data: dict[str, Any]) -> Plan:
        return dry_run.create_experiment(config=data["config"], params=data["params"])

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        outcome = experiments.create_experiment(config=data["config"], params=data["params"], audit=audit)
        self.done(f"Experiment {outcome.expid} was created. Its job list comes next.", outcome.warnings)
        return redirect(link("pages:create-job-list", expid=outcome.expid, profile_name=data["profile_name"]))


class CreateJobList(CommandPage):
    form_class = JobListForm
    endpoint = Endpoint.CREATE_EXPERIMENT
    command = "create-job-list"
    title = "Make the job list"
    intro = "An experiment can be run once it has a job list. Make it again after the configuration was changed."
    button = "Make the job list"

    def plan(self, data: dict[str, Any]) -> Plan:
        return dry_run.create_job_list(expid=data["expid"], config=data["config"], params=data["params"])

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        outcome = experiments.create_job_list(
            expid=data["expid"], config=data["config"], params=data["params"], audit=audit
        )
        self.done(f"The job list of {outcome.expid} was made. It can be run now.", outcome.warnings)
        return redirect(link("pages:experiment", outcome.expid, profile_name=data["profile_name"]))


class SetJobStatus(CommandPage):
    form_class = SetStatusForm
    endpoint = Endpoint.SET_JOB_STATUS
    command = "set-job-status"
    title = "Set the status of jobs"
    intro = "Say which jobs: what is given is combined with AND. The experiment must not be running."
    button = "Set the status"
    preview_button = "Preview the changes"
    preview_template = "pages/_changes.html"

    def plan(self, data: dict[str, Any]) -> Plan:
        return dry_run.set_job_status(expid=data["expid"], config=data["config"], params=data["params"])

    def preview(self, form: CommandForm) -> dict[str, Any]:
        """Asks Autosubmit on the machine, without saving: some two seconds."""
        data = form.validated
        facts = {"expid": data["expid"], "profile_name": data["profile_name"]}
        with recorded(self.request, "preview-job-status", **facts) as audit:
            if not self._enabled():
                raise EndpointDisabled(f"The {self.command} endpoint is currently disabled.")
            changes = experiments.preview_job_status(
                expid=data["expid"], config=data["config"], params=data["params"], audit=audit
            )
        return {"plan": self.plan(data), "changes": changes}

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        outcome = experiments.set_job_status(
            expid=data["expid"], config=data["config"], params=data["params"], audit=audit
        )
        self.done(f"The jobs of {outcome.expid} were set to {data['params'].final_status}.", outcome.warnings)
        return redirect(link("pages:experiment", outcome.expid, profile_name=data["profile_name"]))


class UpdateDescription(CommandPage):
    form_class = DescriptionForm
    endpoint = Endpoint.UPDATE_EXPERIMENT_DETAILS
    command = "update-experiment-description"
    title = "Change the description"
    intro = "Replaces the description that Autosubmit keeps of an experiment. It may be running."
    button = "Change the description"

    def plan(self, data: dict[str, Any]) -> Plan:
        return dry_run.update_description(expid=data["expid"], config=data["config"], description=data["description"])

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        outcome = experiments.update_description(
            expid=data["expid"], config=data["config"], description=data["description"], audit=audit
        )
        self.done(f"The description of {outcome.expid} was changed.", outcome.warnings)
        return redirect(link("pages:experiment", outcome.expid, profile_name=data["profile_name"]))
