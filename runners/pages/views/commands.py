"""The pages for commands: choose a profile, fill in its open parameters, preview the command, execute it."""

from __future__ import annotations

from math import ceil
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.http import urlencode

from profiles.models import EndpointToggle
from runners.commands.base import Command, CommandOutcome, OneShotCommand
from runners.commands.run_experiment import RUN_EXPERIMENT
from runners.exceptions import (
    AccountBusy,
    CommandFailed,
    CommandTimedOut,
    EndpointDisabled,
    IdempotencyInProgress,
    InvalidRequest,
    RunnerServiceError,
)
from runners.models import AuditRecord, IdempotencyRecord, RunnerRun
from runners.pages.base import PageView
from runners.pages.forms import PARAM, CommandForm
from runners.services import access, execute, form_values, idempotency, operations, starting
from runners.services.operations import WAIT_GRACE
from runners.web import requests
from runners.web.audit import audit_command
from runners.web.problems import error_context, with_retry_after


class CommandPage(PageView):
    """The page of a command. `title`, `intro` and `button` are its `Page`.

    GET shows the form. POST has an `action`: `choose` (show the fields of another profile), `preview` or `do`.
    A preview is audited like a dry run of the API, and an invalid form like an invalid request.
    """

    template_name = "pages/command.html"
    preview_template = "pages/_plan.html"
    command: Command = None  # type: ignore[assignment]  # `as_view` gives it
    serializer_class: type[requests.ProfiledSerializer]
    form_class: type[CommandForm] = CommandForm
    preview_name = ""  # the command's name in the audit, if the preview is more than a dry run
    is_once = False  # True: a form that is sent twice must execute the command only once

    @property
    def title(self) -> str:  # type: ignore[override]
        return self.command.page.title

    def preview(self, data: dict[str, Any], audit: AuditRecord) -> dict[str, Any]:
        """Return the context for the preview's template: `plan` and more. Raises RunnerServiceError."""
        raise NotImplementedError

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        """Execute the command and return a redirect. Raises RunnerServiceError."""
        raise NotImplementedError

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._page(self._fresh(request.GET.dict()))

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        action = request.POST.get("action")
        if action == "choose":
            return self._page(self._fresh(request.POST.dict()))
        form = self._form(data=request.POST)
        is_preview = action == "preview"
        name = is_preview and self.preview_name or self.command.name
        expid, profile_name = request.POST.get("expid", ""), request.POST.get("profile_name", "")
        try:
            with audit_command(request, name, user=request.user, expid=expid, profile_name=profile_name) as audit:
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

    def _enabled(self) -> bool:
        return EndpointToggle.is_enabled(self.command.toggle.name)

    @cached_property
    def once(self) -> str:
        """The identifier of one filled-in form. It stays the same until the command of the form was executed."""
        return self.request.POST.get("once") or uuid4().hex

    def _form(self, **given: Any) -> CommandForm:
        return self.form_class(self.command, self.serializer_class, self.request, **given)

    def _fresh(self, given: dict[str, Any]) -> CommandForm:
        """Return an unbound form. Without a profile that the person may use, it has the one that was used last.

        Its open parameters get the values that the person used last with the profile.
        """
        form = self._form(initial=given)
        last = form_values.last(self.request.user)
        name = form.profile.name if form.profile else last.profile_name
        if name not in [profile.name for profile in form.profiles]:
            return form
        used = {PARAM + path: value for path, value in form_values.values_of(last, name).items()}
        return self._form(initial={**used, **given, "profile_name": name})

    def _remember(self, form: CommandForm) -> None:
        assert form.profile
        given = {name.removeprefix(PARAM): value for name, value in form.cleaned_data.items() if name.startswith(PARAM)}
        form_values.remember(self.request.user, form.profile.name, given)

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
    """The page that starts a run."""

    command = RUN_EXPERIMENT
    serializer_class = requests.RunExperimentRequest

    def preview(self, data: dict[str, Any], audit: AuditRecord) -> dict[str, Any]:
        plan = execute.check_run(expid=data["expid"], config=data["config"], params=data["params"])
        audit.argv, audit.outcome = plan.argv, "dry_run"
        found = RunnerRun.objects.active().filter(expid=data["expid"], installation=data["config"].installation)
        return {"plan": plan, "active": access.visible(found, self.request.user).first()}

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        run = starting.run_experiment(
            expid=data["expid"],
            config=data["config"],
            profile_name=data["profile_name"],
            audit=audit,
            params=data["params"],
            restart=data["restart"],
        )
        return redirect("pages:run", pk=run.pk)


def given(data: dict[str, Any]) -> dict[str, Any]:
    """Select the arguments of `execute` from the validated data."""
    return {"config": data["config"], "params": data["params"], "expid": data.get("expid", "")}


class OneShotCommandPage(CommandPage):
    """The page of a command that is executed, ends, and tells its result. It needs nothing but the registry."""

    command: OneShotCommand

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.serializer_class = requests.request_of(self.command)
        self.is_once = not self.command.needs_expid
        self.preview_name = self.command.preview_name
        if self.preview_name:
            self.preview_template = "pages/_changes.html"

    def preview(self, data: dict[str, Any], audit: AuditRecord) -> dict[str, Any]:
        """Return the plan; if the command has a preview, also what Autosubmit on the machine says it would change."""
        if not self.preview_name:
            plan = execute.plan(self.command, **given(data))
            audit.argv, audit.outcome = plan.argv, "dry_run"
            return {"plan": plan}
        outcome = execute.preview(self.command, audit=audit, **given(data))
        plan = execute.plan(self.command, **given(data), with_notes=False)
        return {"plan": plan, "changes": outcome.changes, "warnings": outcome.warnings}

    def execute(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        if self.is_once:
            return self._execute_once(data, audit)
        outcome = execute.execute(self.command, audit=audit, **given(data))
        self.done(self.command.page_message(outcome, data["params"]), outcome.warnings)
        return self._next(outcome.expid, data)

    def _next(self, expid: str, data: dict[str, Any]) -> HttpResponse:
        """Redirect to the page of the command that usually comes next, or else to the page of the experiment."""
        profile_name = data["profile_name"]
        if following := self.command.page.next_command:
            return redirect(link(f"pages:{following}", expid=expid, profile_name=profile_name))
        return redirect(link("pages:experiment", expid, profile_name=profile_name))

    def _execute_once(self, data: dict[str, Any], audit: AuditRecord) -> HttpResponse:
        """Execute the command. A form that is sent again (double click, reload, lost response) creates nothing twice:
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
                    outcome = self._operate(record, data, audit)
                    expid, warnings = outcome.expid, outcome.warnings
                    told = self.command.page_message(outcome, data["params"])
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
        return self._next(expid, data)

    def _operate(self, record: IdempotencyRecord, data: dict[str, Any], audit: AuditRecord) -> CommandOutcome:
        """Execute the command as an operation and wait for its end.

        If this server dies meanwhile, the same form finds the operation.
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
        return outcome
