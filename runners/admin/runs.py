"""Runs: find, view, refresh and stop them, or declare them ended if their machine cannot be asked any more."""

from __future__ import annotations

import shlex
from functools import partial
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from profiles.config import RunnerConfig
from runners.admin.base import (
    ChoiceFilter,
    DateFilter,
    HostFilter,
    ProfileFilter,
    ReadOnlyAdmin,
    StartedByFilter,
    as_json,
    badge_of_run,
    block,
    clipped,
    short,
)
from runners.commands.stop_experiment import STOP_EXPERIMENT
from runners.exceptions import LogNotFound, ProfileForbidden, RunnerServiceError
from runners.models import AuditRecord, RunnerRun, RunReason, RunStatus
from runners.services import access, execute, logs, lookup, probing, runs, stopping
from runners.services.machines.output import plain_text
from runners.templatetags.formatting import directory, lasted, local_time, outcome
from runners.web.audit import audit_command
from runners.web.problems import error_context, with_retry_after

LOG_TAIL = 16 * 1024  # bytes
AUDIT_TRAIL = 100  # records
MOST_TO_ASK = 500  # runs that one action refreshes
UNREADABLE = "The stored configuration of this run is invalid, so its machine is not known."


class StatusFilter(ChoiceFilter):
    title = "status"
    parameter_name = "status"
    meanings = {
        **{status.value: (status.value, Q(status=status.value)) for status in RunStatus},
        "unreachable": ("UNREACHABLE", Q(status=RunStatus.ACTIVE, reachable=False)),
        "silent": ("ACTIVE, silent", Q(silent_since__isnull=False)),
        "log_too_large": ("with a very large log", Q(log_too_large=True)),
    }


class ReasonFilter(ChoiceFilter):
    title = "reason"
    parameter_name = "reason"
    meanings = {
        # With the status, a contradiction to the filter of the status costs nothing.
        reason.value: (reason.value.replace("_", " "), Q(reason=reason.value, status=RunStatus.TERMINATED))
        for reason in RunReason
    }


class StopForm(forms.Form):
    force = forms.BooleanField(
        required=False,
        label="Kill it immediately",
        help_text="Without autosubmit stop, so Autosubmit cannot save its state. For a run that hangs.",
    )
    cancel_jobs = forms.BooleanField(
        required=False, label="Cancel its jobs, too", help_text="Otherwise submitted jobs continue."
    )


class AbandonForm(forms.Form):
    reason = forms.CharField(
        max_length=1000,
        label="The reason why it is certain that the run has ended",
        help_text="It is stored with the run and in the audit log, with your name.",
        widget=forms.Textarea(attrs={"rows": 3, "cols": 80}),
    )


@admin.register(RunnerRun)
class RunnerRunAdmin(ReadOnlyAdmin):
    list_display = ("id", "expid", "listed_state", "used", "started", "length", "confirmed")
    list_display_links = ("id", "expid")
    list_filter = (StatusFilter, ReasonFilter, ProfileFilter, HostFilter, StartedByFilter, ("created", DateFilter))
    search_fields = ("expid__exact", "started_by__exact", "user__exact", "host__icontains", "profile_name__icontains")
    few_values = ("host", "profile_name")
    search_help_text = "Experiment, person, account; parts of a host or profile"
    sortable_by = ("id", "started")
    actions = ("ask",)
    fieldsets = (
        (None, {"fields": ("expid", "state", "words", "exit_code", "signal", "detail")}),
        ("When", {"fields": ("began", "ended", "length", "last_known", "started_by", "stopped_by", "stop_asked")}),
        ("Where", {"fields": ("profile_name", "where", "configuration", "script")}),
        ("On its machine", {"fields": ("pid", "shown_identity", "directory", "reachable", "unreachable_detail")}),
        ("Output", {"fields": ("last_output", "silent", "log_size", "log_too_large")}),
    )
    readonly_fields = (
        *("state", "words", "began", "ended", "length", "last_known", "stop_asked", "where", "configuration", "script"),
        *("shown_identity", "directory", "last_output", "silent", "log_size", "log_too_large"),
    )

    class Media:
        js = ("admin_ui/run_log.js",)

    # --- what is shown ---

    @admin.display(description="status", ordering="status")
    def listed_state(self, run: RunnerRun) -> SafeString:
        return format_html('{}<span class="words">{}</span>', badge_of_run(run), outcome(run))

    @admin.display(description="status")
    def state(self, run: RunnerRun) -> SafeString:
        return badge_of_run(run)

    @admin.display(description="in words")
    def words(self, run: RunnerRun) -> str:
        return outcome(run)

    @admin.display(description="where", ordering="host")
    def where(self, run: RunnerRun) -> str:
        return f"{run.user}@{run.host or '?'} ({run.runner})"

    @admin.display(description="where")
    def used(self, run: RunnerRun) -> SafeString:
        account = f"{run.user}@{run.host or '?'}"
        return format_html('{}<span class="words">{}</span>', clipped(account), clipped(run.profile_name))

    @admin.display(description="started", ordering="created")
    def started(self, run: RunnerRun) -> SafeString:
        by = clipped(f"by {run.started_by}") if run.started_by else ""
        return format_html('{}<span class="words">{}</span>', short(run.created), by)

    @admin.display(description="started")
    def began(self, run: RunnerRun) -> SafeString | str:
        return local_time(run.created)

    @admin.display(description="ended")
    def ended(self, run: RunnerRun) -> SafeString | str:
        return local_time(run.finished) or "-"

    @admin.display(description="duration")
    def length(self, run: RunnerRun) -> str:
        return lasted(run)

    @admin.display(description="confirmed")
    def confirmed(self, run: RunnerRun) -> SafeString | str:
        return short(run.confirmed_at) if run.confirmed_at else "never"

    @admin.display(description="confirmed")
    def last_known(self, run: RunnerRun) -> SafeString | str:
        return local_time(run.confirmed_at) or "never"

    @admin.display(description="stop requested")
    def stop_asked(self, run: RunnerRun) -> SafeString | str:
        return local_time(run.stop_requested_at) or "-"

    @admin.display(description="last output")
    def last_output(self, run: RunnerRun) -> SafeString | str:
        return local_time(run.last_output_at) or "-"

    @admin.display(description="silent since")
    def silent(self, run: RunnerRun) -> SafeString | str:
        return local_time(run.silent_since) or "-"

    @admin.display(description="configuration")
    def configuration(self, run: RunnerRun) -> SafeString:
        return as_json(run.config)

    @admin.display(description="script")
    def script(self, run: RunnerRun) -> SafeString | str:
        config = config_of(run)
        if config is None:
            return f"not readable: {UNREADABLE}"
        plan = execute.plan_run(expid=run.expid, config=config, params=run.command_params, key=run.key)
        return block(plan.script)

    @admin.display(description="identity")
    def shown_identity(self, run: RunnerRun) -> SafeString:
        return as_json(run.identity)

    @admin.display(description="directory")
    def directory(self, run: RunnerRun) -> SafeString:
        removed = format_html(" (removed {})", local_time(run.cleaned_at)) if run.cleaned_at else ""
        return format_html("{}{}", directory(run), removed)

    def has_act_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may refresh and end runs: the permission "change". Rows are never edited."""
        return request.user.has_perm("runners.change_runnerrun")

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        run = self.get_object(request, object_id) if object_id else None
        may_act = self.has_act_permission(request) and run is not None and run.is_active and bool(config_of(run))
        context: dict[str, Any] = {"may_act": may_act}
        context["may_stop"] = may_act and run is not None and access.user_may_stop(request.user, run)
        if run and self.has_view_permission(request, run):
            context["audit"] = AuditRecord.objects.filter(run_id=run.pk).order_by("id")[:AUDIT_TRAIL]
            if "log" in request.GET:
                context |= log_of(run)
        return super().changeform_view(request, object_id, form_url, {**context, **(extra_context or {})})

    # --- pages and actions ---

    def get_urls(self) -> list[URLPattern]:
        view, name = self.admin_site.admin_view, "runners_runnerrun_{}".format
        return [
            path("<int:pk>/log/", view(self.log_tail), name=name("log")),
            path("<int:pk>/refresh/", view(require_POST(self.refresh)), name=name("refresh")),
            path("<int:pk>/stop/", view(self.stop), name=name("stop")),
            path("<int:pk>/abandon/", view(self.abandon), name=name("abandon")),
            *super().get_urls(),
        ]

    def log_tail(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Return an HTML fragment. run_log.js fetches it, so that the page of a run does not wait for the machine."""
        run = get_object_or_404(RunnerRun, pk=pk)
        if not self.has_view_permission(request, run):
            raise PermissionDenied
        return TemplateResponse(request, "admin/runners/runnerrun/_log.html", log_of(run))

    @admin.action(description="Probe the machines of the selected runs", permissions=["act"])
    def ask(self, request: HttpRequest, queryset: QuerySet[RunnerRun]) -> None:
        runs = [run for run in queryset.filter(status=RunStatus.ACTIVE)[:MOST_TO_ASK] if config_of(run)]
        probing.refresh(runs, wait=settings.RUNNERS_STATUS_WAIT, patient=True)
        unreached = [run for run in runs if run.is_active and not run.reachable]
        text = f"Probed {len(runs)} active run(s); {sum(not run.is_active for run in runs)} had ended."
        self.message_user(request, text, messages.SUCCESS)
        if unreached:
            names = ", ".join(f"{run.pk} ({run.unreachable_detail})" for run in unreached[:5])
            self.message_user(request, f"{len(unreached)} could not be confirmed: {names}", messages.WARNING)

    def refresh(self, request: HttpRequest, pk: int) -> HttpResponse:
        run = self._acted_on(request, pk)
        probing.refresh([run], wait=settings.RUNNERS_STATUS_WAIT, patient=True)
        if not run.is_active or run.reachable:
            self.message_user(request, f"Run {run.pk} of {run.expid}: {outcome(run)}.", messages.SUCCESS)
        else:
            self.message_user(request, f"The state is not known: {run.unreachable_detail}", messages.WARNING)
        return redirect("admin:runners_runnerrun_change", pk)

    def stop(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Ask for confirmation, then stop the run. No toggle disables this: an admin who disables runs may want to end
        those that are active."""
        run = self._acted_on(request, pk)
        form = StopForm(request.POST if request.method == "POST" else None)
        context: dict[str, Any] = {"form": form, "run": run, "title": f"Stop run {pk} of {run.expid}"}
        if request.method == "POST" and form.is_valid():
            authorize = partial(access.require_stop_of, request.user, run)
            try:
                with audit_command(request, STOP_EXPERIMENT.name, user=request.user, expid=run.expid) as audit:
                    stopped = stopping.stop_experiment(
                        expid=run.expid,
                        audit=audit,
                        viewer=request.user,
                        scope=lookup.of_run(run),
                        authorize=authorize,
                        **form.cleaned_data,
                    )
            except RunnerServiceError as error:
                context["error"] = {**error_context(error, request.user), "steps": error.facts.get("steps", [])}
            else:
                is_success = not stopped.cancellation or stopped.cancellation.is_complete
                level = messages.SUCCESS if is_success else messages.WARNING
                self.message_user(request, f"Run {pk}: {stopped.message}", level)
                for warning in stopped.warnings:
                    self.message_user(request, warning, messages.WARNING)
                return redirect("admin:runners_runnerrun_change", pk)
            run.refresh_from_db()
        context["argv"] = shlex.join(STOP_EXPERIMENT.argv(run.expid, force=False, cancel_jobs=False))
        return self._page(request, "stop", context)

    def abandon(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Declare a run ended whose machine cannot be asked. The service asks once more and rejects it otherwise."""
        run = self._acted_on(request, pk)
        form = AbandonForm(request.POST if request.method == "POST" else None)
        context: dict[str, Any] = {"form": form, "run": run, "title": f"Declare run {pk} of {run.expid} ended"}
        if request.method == "POST" and form.is_valid():
            try:
                with audit_command(request, "abandon-run", user=request.user) as audit:
                    runs.abandon_run(pk=pk, audit=audit, viewer=request.user, **form.cleaned_data)
            except RunnerServiceError as error:
                context["error"] = error_context(error, request.user)
            else:
                self.message_user(request, f"Run {pk} of {run.expid} is now recorded as ended.", messages.SUCCESS)
                return redirect("admin:runners_runnerrun_change", pk)
        return self._page(request, "abandon", context)

    def _acted_on(self, request: HttpRequest, pk: int) -> RunnerRun:
        run = get_object_or_404(RunnerRun, pk=pk)
        if not self.has_act_permission(request):
            raise PermissionDenied
        if config_of(run) is None:
            raise Http404(UNREADABLE)
        return run

    def _page(self, request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
        context = {**self.admin_site.each_context(request), "opts": self.opts, **context}
        try:
            access.require_stop(request.user, context["run"])
        except ProfileForbidden as error:  # do not show a form that would be rejected
            context |= {"error": error_context(error, request.user), "is_refused": True}
        shown = context.get("error", {})
        template = f"admin/runners/runnerrun/{name}.html"
        return with_retry_after(TemplateResponse(request, template, context, status=shown.get("status", 200)), shown)


def config_of(run: RunnerRun) -> RunnerConfig | None:
    """Return the configuration, or None if it is not readable. This service does not write such rows."""
    try:
        return run.runner_config
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def log_of(run: RunnerRun) -> dict[str, Any]:
    """Return the end of a run's log, or the reason why it cannot be read."""
    if config_of(run) is None:
        return {"log_problem": f"The log cannot be read. {UNREADABLE}"}
    try:
        page = logs.read(run, limit=LOG_TAIL, tail=LOG_TAIL)
    except LogNotFound as error:
        return {"log_problem": error.detail}
    except RunnerServiceError as error:
        return {"log_problem": f"The log cannot be read now. {error.detail}"}
    return {"log": plain_text(page.data), "log_offset": page.offset, "log_size": page.size}
