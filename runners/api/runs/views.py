"""The views of runs, logs, operations and profiles."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from profiles.models import RunnerProfile
from runners.api.base import CommandViewSet, Reading, plain, viewer
from runners.api.commands.serializers import ProfiledSerializer, StrictSerializer, enabled_profile, usable_profile
from runners.api.operations import RETRY_AFTER, operation_fields
from runners.api.runs import schema
from runners.api.runs.serializers import (
    AbandonRunRequest,
    CheckProfileRequest,
    LogQuery,
    RunsQuery,
    cursor_of,
    next_link,
    stage_fields,
)
from runners.models import DetachedCommand
from runners.models.token import TokenScope
from runners.services import access, operations, runs
from runners.services.audit import begin
from runners.services.check import check_profile
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.machines.registry import get_runner
from runners.services.representations import run_fields


def query_of(request: Request, serializer_class: type[StrictSerializer]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the query as it was sent, and validated. Raises ValidationError, with the errors of each parameter."""
    sent = request.query_params
    twice = {name: ["Give it once."] for name, values in sent.lists() if len(values) > 1}
    if twice:
        raise ValidationError(twice)
    serializer = serializer_class(data=sent.dict())
    serializer.is_valid(raise_exception=True)
    understood: dict[str, Any] = serializer.validated_data
    return sent.dict(), understood


class RunsView(Reading):
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


class RunView(Reading):
    @schema.get_run
    def get(self, request: Request, id: int) -> Response:
        return Response(run_fields(runs.get(pk=id, viewer=viewer(request))))


class RunAbandon(CommandViewSet):
    """Declare a run ended whose machine cannot be asked any more. Only a person can decide this."""

    required_scope = TokenScope.MANAGE
    serializer_class = AbandonRunRequest
    command = "abandon-run"

    @schema.abandon_run
    def abandon(self, request: Request, id: int) -> Response:
        authorize = partial(access.require_stop, request.user)
        run = runs.abandon_run(pk=id, audit=self.audit, authorize=authorize, **self.validated(request))
        return Response({"message": f"Run {run.pk} of {run.expid} counts as ended now.", **run_fields(run)})


class RunLogView(Reading):
    @schema.get_run_log
    def get(self, request: Request, id: int) -> HttpResponseBase:
        _, query = query_of(request, LogQuery)
        return log_answer(request, runs.get(pk=id, viewer=viewer(request)), query)


class OperationView(Reading):
    @schema.get_operation
    def get(self, request: Request, id: int) -> Response:
        operation = operations.get(pk=id, viewer=viewer(request))
        headers = {"Retry-After": str(RETRY_AFTER)} if operation.is_active else {}
        return Response(operation_fields(operation), headers=headers)


class OperationLogView(Reading):
    @schema.get_operation_log
    def get(self, request: Request, id: int) -> HttpResponseBase:
        _, query = query_of(request, LogQuery)
        return log_answer(request, operations.get(pk=id, viewer=viewer(request)), query)


def log_answer(request: Request, row: DetachedCommand, query: dict[str, Any]) -> HttpResponseBase:
    """Return a part of a log: JSON, or the raw bytes for a client that accepts text/plain but not JSON."""
    encoding = query.pop("encoding")
    page = runs.read_log(row, **query)
    accepted = request.headers.get("Accept", "")
    if "text/plain" in accepted and "application/json" not in accepted:
        headers = {
            "X-Log-Offset": str(page.offset),
            "X-Log-Next-Offset": str(page.next_offset),
            "X-Log-Size": str(page.size),
            "X-Log-Ended": "true" if page.ended else "false",
            "Vary": "Accept",
        }
        return HttpResponse(page.data, content_type="text/plain; charset=utf-8", headers=headers)
    if encoding == "text":
        page = page.whole_characters()
    return Response(
        {
            "offset": page.offset,
            "next_offset": page.next_offset,
            "size": page.size,
            "ended": page.ended,
            "text": page.data.decode("utf-8", "replace") if encoding == "text" else None,
            "data": base64.b64encode(page.data).decode() if encoding == "base64" else None,
        },
        headers={"Vary": "Accept"},
    )


class ProfileRequirementsView(Reading):
    @schema.get_profile_requirements
    def get(self, request: Request, name: str) -> Response:
        profile = usable_profile(name, viewer(request))
        return Response({"profile_name": profile.name, "requirements": profile.requirements()})


class ProfileCheck(CommandViewSet):
    """Check a profile step by step. It changes nothing, but is a command, because it connects and starts a process."""

    serializer_class = CheckProfileRequest
    command = "check-profile"

    @schema.check_profile
    def check(self, request: Request, name: str) -> Response:
        self.audit.profile_name = plain(name, 100)
        profile = enabled_profile(name, viewer(request))
        body = self.validated(request)
        serializer = ProfiledSerializer(data={**body, "profile_name": name}, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        config = serializer.validated_data["config"]
        BULKHEADS.admit(get_runner(config).target, get_runner(config).where)
        begin(self.audit)
        stages = list(check_profile(config, RunnerProfile.usable_by(request.user)))
        failed = [stage.name for stage in stages if stage.ok is False]
        self.audit.detail = f"failed: {', '.join(failed)}" if failed else ""
        return Response(
            {
                "profile_name": name,
                "ok": not failed,
                "milliseconds": sum(stage.milliseconds for stage in stages),
                "stages": [stage_fields(stage) for stage in stages],
                "warnings": profile.warnings,
            }
        )
