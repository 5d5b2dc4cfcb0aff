"""The log of a run on its page: the parts that log.js shows, the search on the machine, plain text and the download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views import View

from profiles.numbers import number
from runners.exceptions import LogNotFound, RunnerServiceError
from runners.models import RunnerRun
from runners.pages.ansi import PLAIN, Style, html_lines
from runners.pages.base import LoginRequiredMixin
from runners.pages.views.run import RunBaseView, visible_run
from runners.services import log_search, logs
from runners.web.problems import error_context, with_retry_after
from runners_project import clock

MOST_MATCHES = 100
MOST_CHARACTERS = 200
RAW_BYTES = 8 * 1024**2  # of a log as plain text in the browser


class LogChunkView(RunBaseView):
    """A piece of the log as JSON, for log.js.

    `?from=OFFSET&style=...` returns the part from that offset, `?before=OFFSET` the part before it, `?at=OFFSET` the
    part around it, and without these, the end of the log. While the run is active, the part has only whole lines. If
    the machine is unreachable, the response is still 200: `problem` describes it, and the page retries. `open`: the
    last line has no line end yet.

    If the machine is unreachable and another request probes the run now, or has just done so, return the last known
    error without contacting the machine (`was_asked`: false). Otherwise every viewer would block a thread until the
    timeout.
    """

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        run = self.run
        answer: dict[str, Any] = {"active": run.is_active, "lines": [], "problem": "", "note": "", "was_asked": True}
        asking = run.probing_until
        if run.is_active and not run.reachable and asking and asking > clock.now():
            return JsonResponse(answer | {"problem": run.unreachable_detail, "was_asked": False})
        offset = number(request.GET.get("from"))
        before, around = number(request.GET.get("before")), number(request.GET.get("at"))
        try:
            page = logs.read_lines(run, offset=offset, before=before, around=around)
        except LogNotFound:
            answer |= {"note": logs.why_no_log(run), "start": 0, "next": 0, "size": 0, "done": not run.is_active}
            return JsonResponse(answer | {"style": "", "open": False})
        except RunnerServiceError as error:
            return JsonResponse(answer | {"problem": error.detail})
        style = Style.decode(request.GET.get("style", "")) if offset is not None else PLAIN
        lines, style = html_lines(page.data, page.offset, style)
        answer |= {"lines": lines, "style": style.encode(), "start": page.offset, "next": page.next_offset}
        answer |= {"open": bool(page.data) and not page.data.endswith(b"\n")}
        return JsonResponse(answer | {"size": page.size, "done": page.ended})


class LogSearchView(RunBaseView):
    """Matches in the log as JSON, for log.js: of `?text=`, of `?errors=1`, or `?reason=1` for why the run ended.

    `&from=OFFSET` searches forward, `&before=OFFSET` backward; `&limit=` is the number of matches.
    """

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        query = request.GET
        text = "".join(char for char in query.get("text", "")[:MOST_CHARACTERS] if char.isprintable())
        if not text and not query.keys() & {"errors", "reason"}:
            return JsonResponse({"matches": [], "resume": None, "size": 0, "problem": "Type what to search for."})
        before = number(query.get("before"))
        limit = min(max(1, number(query.get("limit")) or 1), MOST_MATCHES)

        def search() -> dict[str, Any]:
            if "reason" in query:
                found = log_search.reason_of(self.run)
            else:
                offset = 0 if before is not None else number(query.get("from")) or 0
                found = log_search.search(
                    self.run, text=text, ignore_case=True, offset=offset, before=before, limit=limit
                )
            return {
                "matches": [log_search.match_fields(match) for match in found.matches],
                "resume": found.resume,
                "size": found.size,
                "problem": "",
            }

        return JsonResponse(_or_problem(search))


class LogLinesView(RunBaseView):
    """The number of lines before the byte `?before=` as JSON; null if counting them would take too long."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        before = number(request.GET.get("before")) or 0
        return JsonResponse(_or_problem(lambda: {"lines": log_search.lines_before(self.run, before), "problem": ""}))


def _or_problem(answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return answer()
    except LogNotFound as error:
        return {"matches": [], "resume": None, "size": 0, "lines": None, "problem": error.detail}
    except RunnerServiceError as error:
        return {"matches": [], "resume": None, "size": 0, "lines": None, "problem": error.detail}


class RawLog(LoginRequiredMixin, View):
    """The log as plain text in the browser. Of a log of more than RAW_BYTES, the end.

    `?at=OFFSET` shows some lines from that byte on, `?at=reason` those that say why the run ended.
    """

    def get(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        run = visible_run(request, pk)
        place = request.GET.get("at")
        try:
            at = log_search.offset_of_reason(run) if place == "reason" else number(place)
            if at is not None:
                page = logs.read_lines(run, around=at)
                start, chunks = page.offset, iter([page.data])
            else:
                start, chunks = logs.end_of(run, RAW_BYTES)
        except RunnerServiceError as error:
            return _problem(request, run, error)
        content = logs.plain_lines(chunks)
        note = f"[The log from byte {start} on. Download it for the whole log.]\n".encode() if start else b""
        return StreamingHttpResponse(
            (part for each in ([note], content) for part in each), content_type="text/plain; charset=utf-8"
        )


class Download(LoginRequiredMixin, View):
    """The whole log as a text file. `?colours` keeps the terminal's colour codes."""

    def get(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        run = visible_run(request, pk)
        try:
            chunks = logs.download(run)
        except RunnerServiceError as error:
            return _problem(request, run, error)
        content = chunks if "colours" in request.GET else logs.plain_lines(chunks)
        response = StreamingHttpResponse(content, content_type="text/plain; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="{run.expid}-run{run.pk}.log"'
        return response


def _problem(request: HttpRequest, run: RunnerRun, error: RunnerServiceError) -> HttpResponse:
    if isinstance(error, LogNotFound):
        nothing = {"title": "Nothing to download", "detail": logs.why_no_log(run)}
        return render(request, "pages/problem.html", {"error": nothing, "run": run}, status=404)
    shown = error_context(error, request.user)
    problem = render(request, "pages/problem.html", {"error": shown, "run": run}, status=shown["status"])
    return with_retry_after(problem, shown)
