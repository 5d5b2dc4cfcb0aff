"""The pages for commands: choose a profile, fill in its open parameters, preview the command, execute it."""

from __future__ import annotations

from math import ceil
from typing import Any, ClassVar
from uuid import uuid4

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.http import urlencode

from profiles.config import Endpoint
from profiles.models import EndpointToggle
from runners.commands import autosubmit
from runners.exceptions import (
    AccountBusy,
    CommandFailed,
    CommandTimedOut,
    EndpointDisabled,
    IdempotencyInProgress,
    InvalidRequest,
    RunnerServiceError,
)
from runners.models import AuditRecord, RunnerRun
from runners.models.operation import IdempotencyRecord, OperationKind
from runners.pages.base import PageView
from runners.pages.forms import (
    PARAM,
    CommandForm,
    CreateExperimentForm,
    DescriptionForm,
    JobListForm,
    RunForm,
    SetStatusForm,
)
from runners.services import access, dry_run, execute, idempotency, operations, starting
from runners.services.dry_run import Plan
from runners.services.operations import WAIT_GRACE
from runners.services.results import message_of
from runners.web.audit import audit_command
from runners.web.problems import error_context, with_retry_after

LAST_PARAMS = "page_params"  # key of the session: the last values of open parameters, by profile


class CommandPage(PageView):
    """The page of a command.

    GET shows the form. POST has an `action`: `choose` (show the fields of another profile), `preview` or `do`.

    `command` is its name on the wire and in the audit. `endpoint` is the toggle that can disable it. A preview
    leaves the audit record of a dry run in the API, and an invalid form that of an invalid request.
    """

    template_name = "pages/command.html"
    form_class: ClassVar[type[CommandForm]]
    endpoint: ClassVar[Endpoint]
    command: ClassVar[str]
    intro = ""
    button = ""
    is_once = False  # True: a form that is sent twice must execute the command only once
    preview_button = "Preview"
    preview_template = "pages/_plan.html"
    preview_command = ""  # the command's name in the audit, if the preview is more than a dry run

    def plan(self, data: dict[str, Any]) -> Plan:
        """Return what the command would execute, from the validated data."""
        raise NotImplementedError

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        """Execute the command and return a redirect. Raises RunnerServiceError."""
        raise NotImplementedError

    def preview(self, data: dict[str, Any], audit: AuditRecord) -> dict[str, Any]:
        """Return the context for the preview's template. Raises RunnerServiceError."""
        plan = self.plan(data)
        audit.argv, audit.outcome = plan.argv, "dry_run"
        return {"plan": plan}

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._page(self._fresh(request.GET.dict()))

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        action = request.POST.get("action")
        if action == "choose":
            return self._page(self._fresh(request.POST.dict()))
        form = self.form_class(request, data=request.POST)
        is_preview = action == "preview"
        command = self.preview_command if is_preview and self.preview_command else self.command
        expid, profile_name = request.POST.get("expid", ""), request.POST.get("profile_name", "")
        try:
            with audit_command(request, command, user=request.user, expid=expid, profile_name=profile_name) as audit:
                if not self._enabled():
                    raise EndpointDisabled(f"The {self.command} endpoint is currently disabled.")
                if not form.is_valid():
                    audit.outcome, audit.detail = form.refusal
                    return self._page(form, status=422)
                self._remember(form)
                if is_preview:
                    return self._page(form, **self.preview(form.validated, audit))
                return self.execute(form.validated, audit)
        except RunnerServiceError as error:
            shown = error_context(error, request.user)
            return with_retry_after(self._page(form, error=shown, status=shown["status"]), shown)

    def _enabled(self) -> bool:
        return EndpointToggle.is_enabled(self.endpoint)

    @cached_property
    def once(self) -> str:
        """The identifier of one filled-in form. It stays the same until the command of the form was executed."""
        return self.request.POST.get("once") or uuid4().hex

    def _fresh(self, given: dict[str, Any]) -> CommandForm:
        """Return an unbound form. Its open parameters get the values that the person used last with the profile."""
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
        if self.is_once:
            context["once"] = self.once
        context = self.get_context_data(form=form, enabled=self._enabled(), **context)
        return self.render_to_response(context, status=status)

    def done(self, text: str, warnings: list[str]) -> None:
        """Show on the next page what was done, and the warnings."""
        messages.success(self.request, text)
        for warning in warnings:
            messages.warning(self.request, f"Autosubmit warns: {warning}")


def link(name: str, *args: Any, **query: str) -> str:
    """Return the path of a page, with a query."""
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

    def preview(self, data: dict[str, Any], audit: AuditRecord) -> dict[str, Any]:
        found = RunnerRun.objects.active().filter(expid=data["expid"], installation=data["config"].installation)
        active = access.visible(found, self.request.user).first()
        return {**super().preview(data, audit), "active": active}

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        run = starting.run_experiment(
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
    is_once = True

    def plan(self, data: dict[str, Any]) -> Plan:
        return dry_run.create_experiment(config=data["config"], params=data["params"])

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        """Create the experiment. A form that is sent again (double click, reload, lost response) creates no second one:
        it leads to the experiment that was created first.

        The key is a hash of the form's identifier and its fields, so a form with changed fields is a new request.
        """
        fields = {
            name: values for name, values in self.request.POST.lists() if name not in ("csrfmiddlewaretoken", "once")
        }
        key = idempotency.hash_of(self.once, fields)
        try:
            record = idempotency.claim(caller=audit.actor, key=key, endpoint=self.command, request_hash=key)
        except IdempotencyInProgress as error:
            raise IdempotencyInProgress(
                "This form was sent before, and what it asks for is under way. Send it again in some seconds to see "
                "what became of it: nothing is created twice.",
                **error.facts,
            ) from None
        if record.answer_status is None:
            expid, warnings = self._create(record, data, audit)
            self.done(f"Experiment {expid} was created. Its job list comes next.", warnings)
        else:
            assert record.answer_body
            expid = audit.expid = record.answer_body["expid"]
            audit.outcome, audit.detail = "replayed", f"the answer of {record}"
            self.done(f"This form was sent before: it has created experiment {expid}.", [])
        return redirect(link("pages:create-job-list", expid=expid, profile_name=data["profile_name"]))

    def _create(self, record: IdempotencyRecord, data: dict[str, Any], audit: AuditRecord) -> tuple[str, list[str]]:
        """Create the experiment with an operation and wait for its end.

        If this server dies meanwhile, the same form finds the operation. Returns the expid and the warnings.
        """
        try:
            operation = idempotency.operation_of(record) or operations.start(
                kind=OperationKind.CREATE_EXPERIMENT,
                config=data["config"],
                profile_name=data["profile_name"],
                argv=autosubmit.expid(data["params"]),
                timeout=ceil(settings.RUNNERS_COMMAND_TIMEOUT),
                audit=audit,
                on_insert=idempotency.bind_operation(record),
            )
            operations.wait(operation, seconds=operation.timeout + WAIT_GRACE)
            outcome = operations.outcome(operation)
        except (
            AccountBusy,
            CommandFailed,
            CommandTimedOut,
            InvalidRequest,
        ):  # the operation is certainly over: the same form may try again
            idempotency.forget_attempt(record)
            idempotency.release(record)
            raise
        except BaseException:
            idempotency.release(record)
            raise
        audit.expid = outcome.expid
        idempotency.answer(record, status=200, body={"expid": outcome.expid}, headers={})
        return outcome.expid, outcome.warnings


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
        outcome = execute.create_job_list(
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
    preview_command = "preview-job-status"

    def plan(self, data: dict[str, Any]) -> Plan:
        return dry_run.set_job_status(expid=data["expid"], config=data["config"], params=data["params"])

    def preview(self, data: dict[str, Any], audit: AuditRecord) -> dict[str, Any]:
        """Ask Autosubmit on the machine for the changes, without saving them. This takes about two seconds."""
        outcome = execute.preview_job_status(
            expid=data["expid"], config=data["config"], params=data["params"], audit=audit
        )
        return {"plan": self.plan(data), "changes": outcome.changes, "warnings": outcome.warnings}

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        outcome = execute.set_job_status(expid=data["expid"], config=data["config"], params=data["params"], audit=audit)
        changes = outcome.changes
        if changes and changes.changed:
            jobs = "1 job" if changes.changed == 1 else f"{changes.changed} jobs"
            rest = f" {changes.unchanged} of those selected stayed as they were." if changes.unchanged else ""
            text = f"{jobs} of {outcome.expid} set to {data['params'].final_status}.{rest}"
        else:
            text = message_of(OperationKind.SET_JOB_STATUS, outcome)
        self.done(text, outcome.warnings)
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
        outcome = execute.update_description(
            expid=data["expid"], config=data["config"], description=data["description"], audit=audit
        )
        self.done(f"The description of {outcome.expid} was changed.", outcome.warnings)
        return redirect(link("pages:experiment", outcome.expid, profile_name=data["profile_name"]))
