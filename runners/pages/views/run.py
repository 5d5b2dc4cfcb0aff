"""The page of one run: its state, its growing log, its outcome, and the page that stops it."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.templatetags.static import static

from profiles.models import EndpointToggle
from runners.commands.run_experiment import RUN_EXPERIMENT
from runners.commands.stop_experiment import STOP_EXPERIMENT
from runners.exceptions import EndpointDisabled, RunnerServiceError
from runners.models import AuditRecord, RunnerRun, RunReason, RunStatus
from runners.pages import rows
from runners.pages.base import PageView, is_partial
from runners.pages.offers import offers
from runners.services import access, interrupted, lookup, mail, probing, stopping
from runners.templatetags import formatting as words
from runners.web.audit import audit_command
from runners.web.problems import error_context, with_retry_after

_SENTENCE = re.compile(r"[.:!?]\s*$")
STOP_POLLING = 286  # the HTTP status that htmx understands as "swap this, and stop polling"


def phase(run: RunnerRun) -> str:
    """Return a text that changes if the parts of the page that are not polled have to be rendered again."""
    return f"{run.status}.{run.pid or 0}.{int(run.stop_requested_at is not None)}.{int(is_being_stopped(run))}"


def is_being_stopped(run: RunnerRun) -> bool:
    """Return True while a stop of the run is under way, or the cancel of the jobs that the run has left."""
    return interrupted.is_under_way(run)


def title(run: RunnerRun) -> str:
    """Return the title of a run's page: it tells the state in a tab in the background."""
    return f"{words.badge(run)}: {run.expid}, run {run.pk}"


def state_of(run: RunnerRun) -> dict[str, Any]:
    """Return what run.js and the top of the page show of a run.

    `title`, `tone`, `icon` (a path), `words` (one sentence) and `active`; `reason`: why it has ended, in one sentence;
    `more`: the rest of the explanation; `has_log`: the log may show the reason.
    """
    tone = words.tone(run)
    reason, more = ("", "") if run.is_active else why_it_ended(run)
    by_hand = run.reason in (RunReason.ABANDONED, RunReason.NEVER_STARTED, RunReason.STOPPED)
    return {
        "title": f"{title(run)} · Autosubmit Runners",
        "tone": tone,
        "icon": static(f"runners/icon-{tone}.svg"),
        "words": reason or words.outcome(run),
        "active": run.is_active,
        "reason": reason,
        "more": more,
        "has_log": bool(reason) and not by_hand and run.cleaned_at is None and run.status == RunStatus.TERMINATED,
    }


def why_it_ended(run: RunnerRun) -> tuple[str, str]:
    """Return the reason of a run's end in one sentence, and the rest of its explanation. Both may be empty."""
    if run.reason == RunReason.ABANDONED:
        return f"An admin declared that it has ended: {run.detail}", ""
    first, _, rest = run.detail.strip().partition("\n")
    if run.status == RunStatus.COMPLETED or not first:
        return first, rest.strip()
    if run.jobs and not _SENTENCE.search(first):  # nothing but the last words of the log
        return "", run.detail
    return first, rest.strip()


def visible_run(request: HttpRequest, pk: int) -> RunnerRun:
    """Return a run. Raises Http404 if it does not exist, or if the person may not see it."""
    return get_object_or_404(access.visible(RunnerRun.objects.all(), request.user), pk=pk)


class RunBaseView(PageView):
    """A page, or a part of a page, about the run whose number is in the path."""

    run: RunnerRun

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)
        if request.user.is_authenticated:
            self.run = visible_run(request, kwargs["pk"])
            interrupted.mark(self.run)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        run = self.run
        self.title = title(run)
        return super().get_context_data(
            **kwargs,
            run=run,
            state=state_of(run),
            offers=offers(run, self.request.user),
            is_mine=bool(run.started_by) and run.started_by == self.request.user.get_username(),
            phase=phase(run),
            progress=rows.progress_of(run),
            why_no_stop=self._why_no_stop(),
            can_cancel_jobs=self._can_cancel_jobs(),
            is_being_stopped=is_being_stopped(run),
        )

    def _why_no_stop(self) -> str:
        """Return the reason why the person cannot stop the run, in words; empty if the person can stop it."""
        if not self.run.is_active:
            return "It has ended."
        return self._prohibition()

    def _prohibition(self) -> str:
        """Return the reason why the person may not stop the run or cancel its jobs, in words; empty if they may."""
        if not self._enabled():
            return "It cannot be stopped here: an admin has disabled starting and stopping."
        if not access.user_may_stop(self.request.user, self.run):
            return f"You may not stop it: the profile {self.run.profile_name} allows this to other groups only."
        return ""

    def _can_cancel_jobs(self) -> bool:
        """Return True if the run has ended, is the last run of its experiment, and the person may cancel its jobs."""
        if self.run.is_active or self._prohibition():
            return False
        return not newer(self.run).exists()

    def _enabled(self) -> bool:
        return EndpointToggle.is_enabled(STOP_EXPERIMENT.toggle.name)


class RunDetailPage(RunBaseView):
    template_name = "pages/run.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs, **details(self.run, self.request.user))


def details(run: RunnerRun, user: Any) -> dict[str, Any]:
    return {
        "argv": RUN_EXPERIMENT.argv(run.expid, run.command_params),
        "audit": AuditRecord.objects.filter(run_id=run.pk).order_by("id")[:100],
        "newer": access.visible(newer(run), user).order_by("-id").first(),
        "can_follow": mail.is_on(),
        "is_followed": mail.is_following(user, run),
    }


def newer(run: RunnerRun) -> QuerySet[RunnerRun]:
    """Return the later runs of the same experiment."""
    return RunnerRun.objects.filter(expid=run.expid, installation=run.installation, pk__gt=run.pk)


class StateFragment(RunBaseView):
    """The state at the top of the page. The event `runChanged` tells the rest of the page that it is stale."""

    template_name = "pages/_run_state.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = super().get(request, *args, **kwargs)
        if not self.run.is_active and not is_being_stopped(self.run):
            response.status_code = STOP_POLLING
        if request.GET.get("phase") != phase(self.run):
            response["HX-Trigger"] = "runChanged"
        return response


class RunEnd(RunBaseView):
    """The facts of `state_of` as JSON, for a tab in the background, which polls nothing else."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if self.run.is_active:
            probing.refresh_if_stale(self.run, patient=False)
        return JsonResponse(state_of(self.run))


class DetailsFragment(RunDetailPage):
    """The details below the log, together with the buttons at the top."""

    template_name = "pages/_run_details.html"
    extra_context = {"is_partial": True}


class RefreshRun(RunBaseView):
    """Ask the machine of this run, and store the new state in the row."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        probing.refresh_if_stale(self.run, patient=False)
        return HttpResponse(status=204)


class StopPage(RunBaseView):
    """Confirm and execute a stop. GET is a page that asks for the confirmation, for browsers without JavaScript; with
    JavaScript, a dialog of the run's page asks.

    The response comes when the run has ended or could not be stopped, after about seven seconds. Cancelling its jobs
    adds up to RUNNERS_CANCEL_TIMEOUT. Meanwhile the state fragment shows each step. If the run has already ended, the
    request only cancels the jobs.
    """

    template_name = "pages/stop.html"

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        force, cancel_jobs = "force" in request.POST, "cancel_jobs" in request.POST
        context: dict[str, Any] = {"run": self.run}
        try:
            with audit_command(request, STOP_EXPERIMENT.name, user=request.user, expid=self.run.expid) as audit:
                if not self._enabled():
                    raise EndpointDisabled(f"The {STOP_EXPERIMENT.name} endpoint is currently disabled.")
                outcome = stopping.stop_experiment(
                    expid=self.run.expid,
                    audit=audit,
                    viewer=request.user,
                    scope=lookup.of_run(self.run),
                    force=force,
                    cancel_jobs=cancel_jobs,
                    authorize=partial(access.require_stop_of, request.user, self.run),
                )
            context["outcome"] = outcome
        except RunnerServiceError as error:
            context["error"] = error_context(error, request.user)
        if is_partial(request):
            response = render(request, "pages/_stop_outcome.html", context)
            response["HX-Trigger"] = "runChanged"
            return with_retry_after(response, context.get("error", {}))
        if "error" in context:
            shown = context["error"]
            page = render(request, self.template_name, {**self.get_context_data(), **context}, status=shown["status"])
            return with_retry_after(page, shown)
        say = messages.warning if outcome.cancellation and not outcome.cancellation.is_complete else messages.success
        say(request, " ".join([outcome.message, *outcome.warnings]))
        return redirect("pages:run", pk=pk)
