"""The pages of machines: which of them answer, what runs there, and their maintenance."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from profiles.numbers import number
from runners.exceptions import InvalidRequest, MachineNotFound, NotPermitted, RunnerServiceError
from runners.models import AuditRecord, RunnerRun
from runners.models.machine import MAX_TEXT
from runners.pages.base import PageView
from runners.services import access, login_lines, machine_list, maintenance, stop_together
from runners.web.audit import audit_command
from runners.web.client_address import AUDIT_LIMIT, client_address
from runners.web.problems import error_context, with_retry_after

ANNOUNCE, END, FORGET = "runners.add_maintenance", "runners.delete_maintenance", "runners.delete_machine"
MOST_RUNS = 500  # runs that the page of a machine lists


class Machines(PageView):
    """All machines that the person may see. No machine is asked: the page shows what was seen last."""

    template_name = "pages/machines.html"
    title = "Machines"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        user = self.request.user
        found = machine_list.machines_for(user)
        return super().get_context_data(**kwargs, machines=[shown(each, user) for each in found])


def shown(machine: machine_list.SeenMachine, user: Any) -> dict[str, Any]:
    """Return what the pages show of a machine.

    The words of an error may name an account, so people who are not staff get them from runs that they see.
    """
    row = machine.row
    silent = [run for run in machine.runs if not run.reachable and run.unreachable_detail]
    words = row.last_error if machine_list.is_admin(user) else silent[0].unreachable_detail if silent else ""
    return {
        "machine": machine,
        "name": machine.name,
        "label": "this machine" if machine.name == machine_list.LOCALHOST else machine.name,
        "state": machine.state,
        "error_title": machine.error_words,
        "error_words": words,
        "lines": login_lines.lines_for(user) if machine.state == machine_list.LOGIN_FAILS else None,
    }


class MaintenanceForm(forms.Form):
    """An announcement. Times are in the time zone of the service."""

    text = forms.CharField(
        label="Text",
        max_length=MAX_TEXT,
        strip=True,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="People read it when their command is refused: the reason, and whom to ask.",
    )
    starts = forms.DateTimeField(
        label="From",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        help_text="Empty: from now on.",
    )
    ends = forms.DateTimeField(
        label="Until",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        help_text="Empty: until an admin ends it.",
    )

    def __init__(self, data: Any = None) -> None:
        super().__init__(data, label_suffix="")
        zone = timezone.localtime().tzname() or settings.TIME_ZONE
        for name in ("starts", "ends"):
            self.fields[name].label = f"{self.fields[name].label} ({zone})"


class MachinePage(PageView):
    """One machine. POST has an `action`: `ask`, `announce`, `end`, `stop` (several runs) or `forget`."""

    template_name = "pages/machine.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        user: Any = self.request.user
        try:
            machine = machine_list.machine_for(user, kwargs["name"])
        except MachineNotFound as error:
            raise Http404(str(error)) from None
        found = shown(machine, user)
        self.title = f"Machine {found['label']}" if found["label"] == found["name"] else "This machine"
        runs = [{"run": run, "may_stop": access.user_may_stop(user, run)} for run in machine.runs[:MOST_RUNS]]
        context = {
            "form": MaintenanceForm(),
            "may_announce": user.has_perm(ANNOUNCE),
            "may_end": user.has_perm(END),
            "may_forget": user.has_perm(FORGET),
            "runs": runs,
            "more_runs": len(machine.runs) - len(runs),
            "can_stop_some": any(each["may_stop"] for each in runs),
            "most_stopped": stop_together.MOST_RUNS,
            **found,
        }
        return super().get_context_data(**{**context, **kwargs})

    def post(self, request: HttpRequest, name: str) -> HttpResponse:
        actions: dict[str, Callable[[HttpRequest, str], HttpResponse]] = {
            "ask": self._ask,
            "announce": self._announce,
            "end": self._end,
            "stop": self._stop,
            "forget": self._forget,
        }
        action = actions.get(request.POST.get("action", ""))
        if action is None:
            return self._page(name, status=400)
        try:
            return action(request, name)
        except MachineNotFound as error:
            raise Http404(str(error)) from None
        except RunnerServiceError as error:
            found = error_context(error, request.user)
            return with_retry_after(self._page(name, status=found["status"], error=found), found)

    def _page(self, name: str, *, status: int = 200, **context: Any) -> HttpResponse:
        return self.render_to_response(self.get_context_data(name=name, **context), status=status)

    def _ask(self, request: HttpRequest, name: str) -> HttpResponse:
        with audit_command(request, "ask-machine", user=request.user) as audit:
            audit.detail = name
            machine = machine_list.ask(name=name, user=request.user, audit=audit)
        if machine.state == machine_list.ANSWERS:
            messages.success(request, f"{machine.name} answers.")
        else:
            messages.warning(request, f"{machine.name} was asked, and has not answered yet.")
        return redirect("pages:machine", name=name)

    def _announce(self, request: HttpRequest, name: str) -> HttpResponse:
        form = MaintenanceForm(request.POST)
        with audit_command(request, "announce-maintenance", user=request.user, holds_changes=True) as audit:
            self._require(ANNOUNCE, name, audit)
            if not form.is_valid():
                audit.outcome = "invalid_request"
                return self._page(name, status=400, form=form)
            data: dict[str, datetime | None] = form.cleaned_data
            try:
                maintenance.announce(
                    machine=name, text=form.cleaned_data["text"], starts=data["starts"], ends=data["ends"], audit=audit
                )
            except InvalidRequest as error:
                if not error.errors:
                    raise
                audit.outcome, audit.detail = error.code, error.detail
                for field, words in error.errors.items():
                    form.add_error(field, words)
                return self._page(name, status=400, form=form)
        messages.success(request, "The maintenance is announced.")
        return redirect("pages:machine", name=name)

    def _end(self, request: HttpRequest, name: str) -> HttpResponse:
        pk = number(request.POST.get("maintenance")) or 0
        with audit_command(request, "end-maintenance", user=request.user, holds_changes=True) as audit:
            self._require(END, name, audit)
            maintenance.end(pk=pk, machine=name, audit=audit)
        messages.success(request, "The maintenance is over. Commands are accepted again.")
        return redirect("pages:machine", name=name)

    def _stop(self, request: HttpRequest, name: str) -> HttpResponse:
        chosen = {text for text in request.POST.getlist("run") if text.isascii() and text.isdecimal()}
        machine = machine_list.machine_for(request.user, name)
        runs = [run for run in machine.runs if str(run.pk) in chosen]
        if not runs:
            raise InvalidRequest("Choose at least one run that is still active.")
        if len(runs) > stop_together.MOST_RUNS:
            raise InvalidRequest(f"Choose at most {stop_together.MOST_RUNS} runs at once.")
        results = stop_together.stop_together(
            runs,
            user=request.user,
            address=client_address(request)[:AUDIT_LIMIT],
            force="force" in request.POST,
            cancel_jobs="cancel_jobs" in request.POST,
        )
        rows = [result_row(each, request.user) for each in results]
        failed = sum(1 for row in rows if row["error"])
        return self._page(name, results=rows, stopped=len(rows) - failed, not_stopped=failed)

    def _forget(self, request: HttpRequest, name: str) -> HttpResponse:
        with audit_command(request, "forget-machine", user=request.user, holds_changes=True) as audit:
            self._require(FORGET, name, audit)
            machine_list.forget(name=name, user=request.user, audit=audit)
        messages.success(request, f"{name} is forgotten.")
        return redirect("pages:machines")

    def _require(self, permission: str, name: str, audit: AuditRecord) -> None:
        """Raise NotPermitted without the permission, and MachineNotFound for a machine that the person cannot see."""
        user: Any = self.request.user
        audit.detail = name
        if not user.has_perm(permission):
            raise NotPermitted("Only admins may do this. Ask an admin.")
        machine_list.machine_for(user, name)


def result_row(result: stop_together.Result, user: Any) -> dict[str, Any]:
    run: RunnerRun = result.run
    error = error_context(result.error, user) if result.error else None
    words = error["detail"] if error else " ".join([result.outcome.message, *result.outcome.warnings])  # type: ignore[union-attr]
    return {"run": run, "error": error, "words": words}
