"""The views of runs and their logs."""

from __future__ import annotations

from functools import partial

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from runners.api.base import CommandViewSet, ReadOnlyAPIView, query_of, viewer
from runners.api.logs import LogQuery, log_answer
from runners.api.pagination import cursor_of, next_link
from runners.api.runs import schema
from runners.api.runs.log_search import LogSearchQuery, search_answer
from runners.api.runs.serializers import AbandonRunRequest, CancelRestartRequest, RunsQuery
from runners.models import TokenScope
from runners.services import log_search, logs, restart_plans, runs
from runners.services.representations import run_fields


class RunsView(ReadOnlyAPIView):
    """The list of past and present runs, with their last known states: a list asks no machine."""

    @schema.list_runs
    def get(self, request: Request) -> Response:
        sent, query = query_of(request, RunsQuery)
        size = query.pop("page_size")
        found = list(
            runs.find(
                oldest_first=query.pop("ordering") == "created",
                beyond=query.pop("cursor", None),
                viewer=viewer(request),
                **query,
            )[: size + 1]
        )
        page = found[:size]
        cursor = cursor_of(page[-1].pk) if len(found) > size else None
        return Response(
            {
                "results": [run_fields(run) for run in page],
                "next_cursor": cursor,
                "next": next_link(request.path, sent, cursor) if cursor else None,
            }
        )


class RunView(ReadOnlyAPIView):
    @schema.get_run
    def get(self, request: Request, id: int) -> Response:
        return Response(run_fields(runs.get(pk=id, viewer=viewer(request))))


class RunAbandon(CommandViewSet):
    """Declare a run ended whose machine is gone for good. Only a person can decide this."""

    required_scope = TokenScope.MANAGE
    serializer_class = AbandonRunRequest
    command = "abandon-run"

    @schema.abandon_run
    def abandon(self, request: Request, id: int) -> Response:
        run = runs.abandon_run(pk=id, audit=self.audit, viewer=request.user, **self.validated(request))
        return Response({"message": f"Run {run.pk} of {run.expid} is now recorded as ended.", **run_fields(run)})


class RunCancelRestart(CommandViewSet):
    """Cancel the pending restart of a run that has ended."""

    serializer_class = CancelRestartRequest
    command = "cancel-restart"

    @schema.cancel_restart
    def cancel(self, request: Request, id: int) -> Response:
        self.validated(request)
        run = restart_plans.cancel_restart(pk=id, audit=self.audit, viewer=request.user)
        return Response({"message": f"The restart of run {run.pk} of {run.expid} was cancelled.", **run_fields(run)})


class RunLogView(ReadOnlyAPIView):
    @schema.get_run_log
    def get(self, request: Request, id: int) -> HttpResponseBase:
        _, query = query_of(request, LogQuery)
        return log_answer(request, query, partial(logs.read, runs.get(pk=id, viewer=viewer(request))))


class RunLogSearchView(ReadOnlyAPIView):
    @schema.search_run_log
    def get(self, request: Request, id: int) -> Response:
        _, query = query_of(request, LogSearchQuery)
        return Response(search_answer(log_search.search(runs.get(pk=id, viewer=viewer(request)), **query)))
