"""The page of one run: its state, its growing log, its outcome, and the page that stops it."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views import View

from profiles.models import EndpointToggle
from runners.commands.run_experiment import RUN_EXPERIMENT
from runners.commands.stop_experiment import STOP_EXPERIMENT
from runners.exceptions import EndpointDisabled, LogNotFound, RunnerServiceError
from runners.models import AuditRecord, RunnerRun
from runners.pages import rows
from runners.pages.ansi import PLAIN, Style, to_html
from runners.pages.base import LoginRequiredMixin, PageView, is_partial
from runners.pages.offers import offers
from runners.services import access, interrupted, logs, lookup, mail, probing, stopping
from runners.web.audit import audit_command
from runners.web.problems import error_context, with_retry_after

STOP_POLLING = 286  # the HTTP status that htmx understands as "swap this, and stop polling"


def phase(run: RunnerRun) -> str:
    """Return a text that changes if the parts of the page that are not polled have to be rendered again."""
    return f"{run.status}.{run.pid or 0}.{int(run.stop_requested_at is not None)}.{int(is_being_stopped(run))}"


def is_being_stopped(run: RunnerRun) -> bool:
    """Return True while a stop of the run is under way, or the cancel of the jobs that the run has left."""
    return interrupted.is_under_way(run)


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
        self.title = f"Run {run.pk} of {run.expid}"
        return super().get_context_data(
            **kwargs,
            run=run,
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
        "offers": offers(run, user),
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


class LogChunkView(RunBaseView):
    """A piece of the log as JSON, for log.js.

    `?from=OFFSET&style=...` returns the part from that offset, `?before=OFFSET` the part before it, and without both,
    the end of the log. While the run is active, the part has only whole lines. If the machine is unreachable, the
    response is still 200: `problem` describes it, and the page retries.

    If the machine is unreachable and another request probes the run now, or has just done so, return the last known
    error without contacting the machine (`was_asked`: false). Otherwise every viewer would block a thread until the
    timeout.
    """

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        run = self.run
        answer: dict[str, Any] = {"active": run.is_active, "html": "", "problem": "", "note": "", "was_asked": True}
        asking = run.probing_until
        if run.is_active and not run.reachable and asking and asking > timezone.now():
            return JsonResponse(answer | {"problem": run.unreachable_detail, "was_asked": False})
        offset = number(request.GET.get("from"))
        try:
            page = logs.read_lines(run, offset=offset, before=number(request.GET.get("before")))
        except LogNotFound:
            answer |= {"note": logs.why_no_log(run), "start": 0, "next": 0, "size": 0, "done": not run.is_active}
            return JsonResponse(answer | {"style": ""})
        except RunnerServiceError as error:
            return JsonResponse(answer | {"problem": error.detail})
        style = Style.decode(request.GET.get("style", "")) if offset is not None else PLAIN
        html, style = to_html(page.data.decode("utf-8", "replace"), style)
        answer |= {"html": html, "style": style.encode(), "start": page.offset, "next": page.next_offset}
        return JsonResponse(answer | {"size": page.size, "done": page.ended})


def number(text: str | None) -> int | None:
    """Return a byte offset of a query; None if it is absent or not a number."""
    return int(text) if text and re.fullmatch(r"[0-9]{1,15}", text) else None


class Download(LoginRequiredMixin, View):
    """The whole log as a text file. `?colours` keeps the terminal's colour codes."""

    def get(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        run = visible_run(request, pk)
        try:
            chunks = logs.download(run)
        except LogNotFound:
            nothing = {"title": "Nothing to download", "detail": logs.why_no_log(run)}
            return render(request, "pages/problem.html", {"error": nothing, "run": run}, status=404)
        except RunnerServiceError as error:
            shown = error_context(error, request.user)
            problem = render(request, "pages/problem.html", {"error": shown, "run": run}, status=shown["status"])
            return with_retry_after(problem, shown)
        content = chunks if "colours" in request.GET else logs.plain_lines(chunks)
        response = StreamingHttpResponse(content, content_type="text/plain; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="{run.expid}-run{run.pk}.log"'
        return response
