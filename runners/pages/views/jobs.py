"""The jobs of a run's experiment: the list on the run's page, and the log of one job."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from profiles.numbers import number
from runners.exceptions import JobsNotFound, LogNotFound, RunnerServiceError
from runners.pages.ansi import PLAIN, to_html
from runners.pages.base import is_partial
from runners.pages.views.run import RunBaseView
from runners.services import jobs, logs
from runners.services.machines.jobs import DONE, STATUSES, Job, JobPage, JobQuery
from runners.web.problems import error_context, with_retry_after

SHOWN = 25  # jobs on a page of the list
# The colours of pages.css.
TONES = {
    "COMPLETED": "completed",
    "SKIPPED": "completed",
    "FAILED": "failed",
    "RUNNING": "active",
    "SUSPENDED": "stopped",
}
# The choices of the list: what is shown, and which statuses that means.
CHOICES = {
    "failed": ("Failed", ("FAILED",)),
    "running": ("Running", ("RUNNING", "SUBMITTED", "QUEUING", "HELD")),
    "waiting": ("Waiting", ("WAITING", "DELAYED", "PREPARED", "READY", "SUSPENDED", "UNKNOWN")),
    "done": ("Done", DONE),
    "all": ("All", STATUSES),
}
_IN_PATH = re.compile(r"[A-Za-z0-9_.-]{1,255}")  # other names cannot be in the path of a page


class RunJobs(RunBaseView):
    """Counts of the jobs, and one page of the list. `?show=` one of CHOICES, `&page=` from 1, `&name=` a part of it.

    htmx asks for the part of the run's page; a browser without JavaScript gets a page.
    """

    template_name = "pages/jobs.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if is_partial(request):
            self.template_name = "pages/_run_jobs.html"
        return super().get(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        self.title = f"Jobs of {self.run.expid}"
        show = self.request.GET.get("show", "")
        name = self.request.GET.get("name", "")[:255]
        number_of_page = min(max(1, number(self.request.GET.get("page")) or 1), 10_000)
        context |= {"show": show, "name": name, "page_number": number_of_page, "title": self.title}
        try:
            counts = jobs.counts_of(self.run)
            if show not in CHOICES:
                show = "failed" if counts.failed else "running" if counts.running else "all"
            statuses = CHOICES[show][1] if show != "all" else ()
            query = JobQuery(statuses, name=name or None, offset=(number_of_page - 1) * SHOWN, limit=SHOWN)
            context |= _shown(self.run.pk, jobs.page_of(self.run, query), show, number_of_page)
        except JobsNotFound as error:
            context["note"] = error.detail
        except RunnerServiceError as error:
            context["error"] = error_context(error, self.request.user)
        return context


def _shown(pk: int, page: JobPage, show: str, number_of_page: int) -> dict[str, Any]:
    """Return what the template shows of a page of jobs."""
    by_status = page.counts.by_status
    choices = [
        {"key": key, "label": label, "count": sum(by_status.get(status, 0) for status in statuses)}
        for key, (label, statuses) in CHOICES.items()
    ]
    last = max(1, -(-page.matching // SHOWN))
    return {
        "show": show,
        "counts": page.counts,
        "choices": choices,
        "jobs": [_row(pk, job) for job in page.jobs],
        "matching": page.matching,
        "last_page": last,
        "previous": number_of_page - 1 if number_of_page > 1 else None,
        "following": number_of_page + 1 if number_of_page < last else None,
    }


def _row(pk: int, job: Job) -> dict[str, Any]:
    has_page = bool(job.attempts and _IN_PATH.fullmatch(job.name))
    return {
        "job": job,
        "tone": TONES.get(job.status, "other"),
        "err_url": _log_url(pk, job.name, "err") if has_page else "",
        "out_url": _log_url(pk, job.name, "out") if has_page else "",
    }


def _log_url(pk: int, name: str, stream: str, **more: Any) -> str:
    return f"{reverse('pages:job-log', args=[pk, name])}?{urlencode({'stream': stream, **more})}"


class NoJobLog(RunBaseView):
    """Nothing, which closes the log of a job on the run's page."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return HttpResponse()


class JobLog(RunBaseView):
    """The end of a job's log. `?stream=err|out`, `&attempt=` its number, `&before=` the part before this byte."""

    template_name = "pages/job_log.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        context = self.get_context_data(**kwargs)
        if is_partial(request):  # htmx shows a part with the status 200 only
            return render(request, "pages/_job_log.html", {**context, "is_partial": True})
        response = self.render_to_response(context)
        if error := context.get("error"):
            response.status_code = error["status"]
            return with_retry_after(response, error)
        return response

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        name: str = kwargs["name"]
        self.title = f"Log of {name}"
        stream = "out" if self.request.GET.get("stream") == "out" else "err"
        attempt, before = number(self.request.GET.get("attempt")), number(self.request.GET.get("before"))
        chosen = {"attempt": attempt} if attempt else {}
        streams = [(each, _log_url(self.run.pk, name, each, **chosen)) for each in ("err", "out")]
        context |= {"name": name, "stream": stream, "attempt": attempt, "streams": streams, "title": self.title}
        context["here"] = _log_url(self.run.pk, name, stream, **chosen)
        try:
            page = self._page(name, stream, attempt, before)
        except LogNotFound as error:
            return context | {"note": error.detail}
        except RunnerServiceError as error:
            return context | {"error": error_context(error, self.request.user)}
        html, _ = to_html(page.data.decode("utf-8", "replace"), PLAIN)
        earlier = _log_url(self.run.pk, name, stream, before=page.offset, **chosen) if page.offset else ""
        return context | {"html": html, "page": page, "earlier": earlier}

    def _page(self, name: str, stream: str, attempt: int | None, before: int | None) -> logs.LogPage:
        if before is None:
            page = jobs.log_of(self.run, name, stream=stream, attempt=attempt, limit=logs.TAIL, tail=logs.TAIL)
        else:
            start = max(0, before - logs.TAIL)
            page = jobs.log_of(self.run, name, stream=stream, attempt=attempt, offset=start, limit=before - start)
        whole = page.whole_lines(first=True, last=False)
        return whole if whole.data else page  # a line may be longer than the part
