"""The page of one run: its state, its growing log, its outcome, and the page that stops it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views import View

from profiles.config import Endpoint
from profiles.models import EndpointToggle
from runners.commands import autosubmit
from runners.exceptions import EndpointDisabled, RunnerServiceError
from runners.models import AuditRecord, RunnerRun
from runners.pages.ansi import PLAIN, Style, to_html
from runners.pages.base import LoginRequiredMixin, PageView, is_partial
from runners.services import access, interrupted, lifecycle, lookup, probing, shared_log, stopping
from runners.services.machines.output import plain_text
from runners.services.machines.probe import LogChunk
from runners.web.audit import audit_command
from runners.web.problems import error_context

TAIL = 64 * 1024  # bytes of a log that a page shows first, and that "earlier" adds
CHUNK = 256 * 1024  # most bytes of a growing log in one response
DOWNLOAD_CHUNK = 512 * 1024
DOWNLOAD_LIMIT = 1024**3  # bytes
DOWNLOAD_SECONDS = 600.0
LONGEST_LINE = 1024**2  # bytes
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


class RunView(PageView):
    """A page, or a part of a page, about the run whose number is in the path."""

    run: RunnerRun

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)
        if request.user.is_authenticated:
            self.run = visible_run(request, kwargs["pk"])
            interrupted.settle(self.run)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        run = self.run
        self.title = f"Run {run.pk} of {run.expid}"
        return super().get_context_data(
            **kwargs,
            run=run,
            phase=phase(run),
            hindrance=self._hindrance(),
            can_cancel_jobs=self._can_cancel_jobs(),
            is_being_stopped=is_being_stopped(run),
        )

    def _hindrance(self) -> str:
        """Return the reason why the person cannot stop the run, in words; empty if the person can stop it."""
        if not self.run.is_active:
            return "It has ended."
        return self._prohibition()

    def _prohibition(self) -> str:
        """Return the reason why the person may not stop the run or cancel its jobs, in words; empty if they may."""
        if not self._enabled():
            return "It cannot be stopped here: an admin has switched off starting and stopping for now."
        if not access.user_may_stop(self.request.user, self.run):
            return f"You may not stop it: the profile {self.run.profile_name} leaves that to others."
        return ""

    def _can_cancel_jobs(self) -> bool:
        """Return True if the run has ended, is the last run of its experiment, and the person may cancel its jobs."""
        if self.run.is_active or self._prohibition():
            return False
        return not newer(self.run).exists()

    def _enabled(self) -> bool:
        return EndpointToggle.is_enabled(Endpoint.RUNNER_RUN)


class RunPage(RunView):
    template_name = "pages/run.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs, **details(self.run, self.request.user))


def details(run: RunnerRun, user: Any) -> dict[str, Any]:
    return {
        "argv": autosubmit.run(run.expid),
        "audit": AuditRecord.objects.filter(run_id=run.pk).order_by("id")[:100],
        "newer": access.visible(newer(run), user).order_by("-id").first(),
    }


def newer(run: RunnerRun) -> QuerySet[RunnerRun]:
    """Return the later runs of the same experiment."""
    return RunnerRun.objects.filter(expid=run.expid, installation=run.installation, pk__gt=run.pk)


class StateFragment(RunView):
    """The state at the top of the page. The event `runChanged` tells the rest of the page that it is stale."""

    template_name = "pages/_run_state.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = super().get(request, *args, **kwargs)
        if not self.run.is_active and not is_being_stopped(self.run):
            response.status_code = STOP_POLLING
        if request.GET.get("phase") != phase(self.run):
            response["HX-Trigger"] = "runChanged"
        return response


class DetailsFragment(RunPage):
    """The details below the log, together with the buttons at the top."""

    template_name = "pages/_run_details.html"
    extra_context = {"is_partial": True}


class RefreshRun(RunView):
    """Ask the machine of this run, and store the new state in the row."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        probing.refresh_if_stale(self.run, patient=False)
        return HttpResponse(status=204)


class StopPage(RunView):
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
            with audit_command(request, "stop-experiment", user=request.user, expid=self.run.expid) as audit:
                if not self._enabled():
                    raise EndpointDisabled("The stop-experiment endpoint is currently disabled.")
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
            return response
        if "error" in context:
            status = context["error"]["status"]
            return render(request, self.template_name, {**self.get_context_data(), **context}, status=status)
        say = messages.warning if outcome.cancellation and not outcome.cancellation.is_complete else messages.success
        say(request, " ".join([outcome.message, *outcome.warnings]))
        return redirect("pages:run", pk=pk)


class LogChunkView(RunView):
    """A piece of the log as JSON, for log.js.

    `?from=OFFSET&style=...` returns the part from that offset, `?before=OFFSET` the part before it, and without both,
    the end of the log. While the run is active, the part has only whole lines. If the machine is unreachable, the
    response is still 200: `problem` describes it, and the page retries.

    If the machine is unreachable and another request probes the run now, or has just done so, return the last known
    error without contacting the machine (`was_asked`: false). Otherwise every viewer would block a thread until the
    timeout.
    """

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        is_over = not self.run.is_active  # checked before the log is read: if True, the log is complete
        offset, before = number(request.GET.get("from")), number(request.GET.get("before"))
        if before is not None:
            start = max(0, before - TAIL)
            limit = before - start
        else:
            start, limit = (-TAIL, TAIL) if offset is None else (offset, CHUNK)
        answer: dict[str, Any] = {"active": not is_over, "html": "", "problem": "", "note": "", "was_asked": True}
        asking = self.run.probing_until
        if not is_over and not self.run.reachable and asking and asking > timezone.now():
            return JsonResponse(answer | {"problem": self.run.unreachable_detail, "was_asked": False})
        if limit == 0:
            return JsonResponse(answer | {"start": start, "next": before, "size": before, "done": is_over, "style": ""})
        try:
            chunk = shared_log.read(self.run, offset=start, limit=limit)
        except RunnerServiceError as error:
            return JsonResponse(answer | {"problem": error.detail})
        if chunk is None:
            return JsonResponse(
                answer | {"note": why_no_log(self.run), "start": 0, "next": 0, "size": 0, "done": is_over, "style": ""}
            )
        data, begin = chunk.data, chunk.offset
        if begin > 0 and offset is None:  # begin with a whole line
            cut = data.find(b"\n") + 1
            data, begin = data[cut:], begin + cut
        at_end = begin + len(data) >= chunk.size
        if before is None and not (is_over and at_end):
            # The next response has the rest of an incomplete line. A line longer than CHUNK is not held back.
            cut = data.rfind(b"\n") + 1
            data = data[:cut] if cut or len(data) < CHUNK else data
        style = Style.decode(request.GET.get("style", "")) if offset is not None else PLAIN
        html, style = to_html(data.decode("utf-8", "replace"), style)
        following = begin + len(data)
        answer |= {"html": html, "style": style.encode(), "start": begin, "next": following, "size": chunk.size}
        return JsonResponse(answer | {"done": is_over and following >= chunk.size})


def why_no_log(run: RunnerRun) -> str:
    if run.cleaned_at:
        return f"The log was removed on {run.cleaned_at:%Y-%m-%d}."
    if run.is_active:
        return "Nothing was printed yet."
    return "There is no log: the command was never started, or its directory was removed."


def number(text: str | None) -> int | None:
    """Return a byte offset of a query; None if it is absent or not a number."""
    return int(text) if text and re.fullmatch(r"[0-9]{1,15}", text) else None


def read(run: RunnerRun, offset: int, limit: int) -> LogChunk | None:
    """Read a part of the log from the machine; None if there is no log. Raises RunnerServiceError."""
    runner = lifecycle.runner_of(run)
    return runner.read_log(run.key, offset=offset, limit=limit, timeout=settings.RUNNERS_PROBE_TIMEOUT)


class Download(LoginRequiredMixin, View):
    """The whole log as a text file. `?colours` keeps the terminal's colour codes."""

    def get(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        run = visible_run(request, pk)
        try:
            first = read(run, 0, DOWNLOAD_CHUNK)
        except RunnerServiceError as error:
            shown = error_context(error, request.user)
            return render(request, "pages/problem.html", {"error": shown, "run": run}, status=shown["status"])
        if first is None:
            nothing = {"title": "Nothing to download", "detail": why_no_log(run)}
            return render(request, "pages/problem.html", {"error": nothing, "run": run}, status=404)
        chunks = whole_log(run, first)
        content = chunks if "colours" in request.GET else plain_lines(chunks)
        response = StreamingHttpResponse(content, content_type="text/plain; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="{run.expid}-run{run.pk}.log"'
        return response


def whole_log(run: RunnerRun, first: LogChunk) -> Iterator[bytes]:
    """Yield the log in chunks, up to the size that it had at the first read: a download of a fast-growing log must end.

    A machine is not trusted: it may report any size and send anything. So the download also ends after DOWNLOAD_LIMIT
    bytes, after DOWNLOAD_SECONDS, or at a chunk that is shorter than requested. In these cases, and after an error, a
    last line says how much is missing.
    """
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    chunk: LogChunk | None = first
    done, why = 0, ""
    while chunk and not why:
        yield chunk.data
        done = chunk.next_offset
        if done >= first.size:
            return
        if len(chunk.data) < min(DOWNLOAD_CHUNK, first.size - chunk.offset):
            why = "the machine sends no more"
        elif done >= DOWNLOAD_LIMIT or time.monotonic() > deadline:
            why = f"a download ends after {DOWNLOAD_LIMIT} bytes or {DOWNLOAD_SECONDS:g} s; use the API for the rest"
        else:
            try:
                chunk = read(run, done, DOWNLOAD_CHUNK)
            except RunnerServiceError as error:
                why = error.detail
    why = why or "the log was removed"
    yield f"\n[{done} of {first.size} bytes of the log: {why}]\n".encode()


def plain_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Remove terminal escapes from a log. Chunks are cut at line ends, so that no escape and no character is split.

    A line of LONGEST_LINE bytes or more is cut anyway, because a log without line ends must not fill the memory.
    """
    rest = b""
    for chunk in chunks:
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield plain_text(rest + head + newline).encode()
            rest = tail
        else:
            rest += tail
        if len(rest) >= LONGEST_LINE:
            yield plain_text(rest).encode()
            rest = b""
    if rest:
        yield plain_text(rest).encode()
