"""The views of jobs and their logs."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from profiles.accounts import person_of
from runners.api.base import ReadOnlyAPIView, query_of, viewer
from runners.api.jobs import schema
from runners.api.jobs.serializers import ExperimentJobsQuery, JobLogQuery, JobsAnswer, JobsQuery
from runners.api.logs import log_answer
from runners.api.pagination import cursor_of, next_link
from runners.models import TokenScope
from runners.services import access, jobs, runs
from runners.services.machines.jobs import JobPage, JobQuery
from runners.services.machines.registry import get_runner
from runners.web.fields import ExpidField
from runners.web.requests import enabled_profile


class RunJobsView(ReadOnlyAPIView):
    @schema.get_run_jobs
    def get(self, request: Request, id: int) -> Response:
        sent, query = query_of(request, JobsQuery)
        run = runs.get(pk=id, viewer=viewer(request))
        return _answer(request, sent, run.expid, query["wanted"], jobs.page_of(run, query["wanted"]))


class ExperimentJobsView(ReadOnlyAPIView):
    """It uses the account of a profile, so it needs the same credentials and groups as a command."""

    required_scope = TokenScope.RUN

    @schema.get_experiment_jobs
    def get(self, request: Request, expid: str) -> Response:
        sent, query = query_of(request, ExperimentJobsQuery)
        ExpidField().run_validation(expid)
        user = viewer(request)
        profile = enabled_profile(query["profile_name"], user)
        access.require(user, profile, access.Action.RUN)
        access.require_view(user, profile)
        runner = get_runner(profile.resolve({}, person_of(user)))
        return _answer(request, sent, expid, query["wanted"], jobs.page(runner, expid, query["wanted"]))


class JobLogView(ReadOnlyAPIView):
    @schema.get_job_log
    def get(self, request: Request, id: int, name: str) -> HttpResponseBase:
        _, query = query_of(request, JobLogQuery)
        run = runs.get(pk=id, viewer=viewer(request))
        which = {"stream": query.pop("stream"), "attempt": query.pop("attempt", None)}
        return log_answer(request, query, partial(jobs.log_of, run, name, **which))


def _answer(request: Request, sent: dict[str, Any], expid: str, query: JobQuery, page: JobPage) -> Response:
    end = query.offset + len(page.jobs)
    cursor = cursor_of(end) if page.jobs and end < page.matching else None
    answer = {
        "expid": expid,
        "total": page.counts.total,
        "counts": page.counts.by_status,
        "failed_jobs": page.counts.failed_jobs,
        "matching": page.matching,
        "attempts_known": page.has_history,
        "results": page.jobs,
        "next_cursor": cursor,
        "next": next_link(request.path, sent, cursor) if cursor else None,
    }
    return Response(JobsAnswer(answer).data)
