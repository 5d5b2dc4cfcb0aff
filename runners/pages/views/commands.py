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

from profiles.models import EndpointToggle
from runners.commands.base import Command, OneShotCommand
from runners.commands.create_experiment import CREATE_EXPERIMENT
from runners.commands.create_job_list import CREATE_JOB_LIST
from runners.commands.run_experiment import RUN_EXPERIMENT
from runners.commands.set_job_status import SET_JOB_STATUS
from runners.commands.update_description import UPDATE_DESCRIPTION
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
from runners.models.operation import IdempotencyRecord
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
from runners.services import access, execute, idempotency, operations, starting
from runners.services.execute import Plan
from runners.services.operations import WAIT_GRACE
from runners.web.audit import audit_command
from runners.web.problems import error_context, with_retry_after

LAST_PARAMS = "page_params"  # key of the session: the last values of open parameters, by profile


class CommandPage(PageView):
    """The page of a command.

    GET shows the form. POST has an `action`: `choose` (show the fields of another profile), `preview` or `do`.

    A preview leaves the audit record of a dry run in the API, and an invalid form that of an invalid request.
    """

    template_name = "pages/command.html"
    form_class: ClassVar[type[CommandForm]]
    command: ClassVar[Command]
    is_once = False  # True: a form that is sent twice must execute the command only once
    preview_template = "pages/_plan.html"

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
        command = (self._preview_name if is_preview else "") or self.command.name
        expid, profile_name = request.POST.get("expid", ""), request.POST.get("profile_name", "")
        try:
            with audit_command(request, command, user=request.user, expid=expid, profile_name=profile_name) as audit:
                if not self._enabled():
                    raise EndpointDisabled(f"The {self.command.name} endpoint is currently disabled.")
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

    @property
    def title(self) -> str:  # type: ignore[override]
        return self.command.page.title

    @property
    def _preview_name(self) -> str:
        """The name of a preview in the audit, if it is more than a dry run."""
        return self.command.preview_name if isinstance(self.command, OneShotCommand) else ""

    def _enabled(self) -> bool:
        return EndpointToggle.is_enabled(self.command.toggle.name)

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
    command = RUN_EXPERIMENT

    def plan(self, data: dict[str, Any]) -> Plan:
        return execute.plan_run(expid=data["expid"], config=data["config"])

    def preview(self, data: dict[str, Any], audit: AuditRecord) -> dict[str, Any]:
        found = RunnerRun.objects.active().filter(expid=data["expid"], installation=data["config"].installation)
        active = access.visible(found, self.request.user).first()
        return {**super().preview(data, audit), "active": active}

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        run = starting.run_experiment(
            expid=data["expid"], config=data["config"], profile_name=data["profile_name"], audit=audit
        )
        return redirect("pages:run", pk=run.pk)


class OneShotPage(CommandPage):
    """The page of a one-shot command."""

    command: ClassVar[OneShotCommand]

    def plan(self, data: dict[str, Any]) -> Plan:
        return execute.plan(self.command, **_given(data))

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        outcome = execute.execute(self.command, audit=audit, **_given(data))
        self.done(self.command.page_message(outcome, data["params"]), outcome.warnings)
        return redirect(link("pages:experiment", outcome.expid, profile_name=data["profile_name"]))


class CreateExperiment(OneShotPage):
    form_class = CreateExperimentForm
    command = CREATE_EXPERIMENT
    is_once = True

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
            with idempotency.claimed(
                caller=audit.actor, key=key, endpoint=self.command.name, request_hash=key
            ) as record:
                if record.answer_status is None:
                    expid, warnings = self._create(record, data, audit)
                    told = self.command.page.done.format(expid=expid)
                else:
                    assert record.answer_body
                    expid, warnings = record.answer_body["expid"], []
                    audit.expid, audit.outcome, audit.detail = expid, "replayed", f"the answer of {record}"
                    told = f"This form was already sent. It has created experiment {expid}."
        except IdempotencyInProgress as error:
            raise IdempotencyInProgress(
                "This form was already sent, and the experiment is being created. Send it again in some seconds to "
                "see the result. Nothing is created twice.",
                **error.facts,
            ) from None
        self.done(told, warnings)
        return redirect(link("pages:create-job-list", expid=expid, profile_name=data["profile_name"]))

    def _create(self, record: IdempotencyRecord, data: dict[str, Any], audit: AuditRecord) -> tuple[str, list[str]]:
        """Create the experiment with an operation and wait for its end.

        If this server dies meanwhile, the same form finds the operation. Returns the expid and the warnings.
        """
        try:
            operation = idempotency.operation_of(record) or operations.start(
                command=self.command,
                params=data["params"],
                config=data["config"],
                profile_name=data["profile_name"],
                timeout=ceil(settings.RUNNERS_COMMAND_TIMEOUT),
                audit=audit,
                on_insert=idempotency.bind_operation(record),
            )
            operations.wait(operation, seconds=operation.timeout + WAIT_GRACE)
            outcome = operations.outcome(operation)
        except (AccountBusy, CommandFailed, CommandTimedOut, InvalidRequest):
            idempotency.forget_attempt(record)  # the operation is certainly over: the same form may try again
            raise
        audit.expid = outcome.expid
        idempotency.answer(record, status=200, body={"expid": outcome.expid}, headers={})
        return outcome.expid, outcome.warnings


class CreateJobList(OneShotPage):
    form_class = JobListForm
    command = CREATE_JOB_LIST


class SetJobStatus(OneShotPage):
    form_class = SetStatusForm
    command = SET_JOB_STATUS
    preview_template = "pages/_changes.html"

    def preview(self, data: dict[str, Any], audit: AuditRecord) -> dict[str, Any]:
        """Ask Autosubmit on the machine for the changes, without saving them. This takes about two seconds."""
        outcome = execute.preview(self.command, audit=audit, **_given(data))
        return {"plan": self.plan(data), "changes": outcome.changes, "warnings": outcome.warnings}


class UpdateDescription(OneShotPage):
    form_class = DescriptionForm
    command = UPDATE_DESCRIPTION


def _given(data: dict[str, Any]) -> dict[str, Any]:
    """Select the arguments of `execute` from the validated data."""
    return {"config": data["config"], "params": data["params"], "expid": data.get("expid", "")}
