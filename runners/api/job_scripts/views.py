"""The views of job scripts. They use the account of a profile, so they need the same permissions as a command."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from profiles.accounts import person_of
from runners.api.base import ReadOnlyAPIView, query_of, viewer
from runners.api.job_scripts import schema
from runners.api.job_scripts.serializers import JobScriptQuery, JobScriptsAnswer, JobScriptsQuery
from runners.api.pagination import cursor_of, next_link
from runners.models import TokenScope
from runners.services import access, job_scripts
from runners.services.machines.registry import get_runner
from runners.services.machines.runner import Runner
from runners.web.fields import ExpidField
from runners.web.requests import enabled_profile


class JobScriptsView(ReadOnlyAPIView):
    required_scope = TokenScope.RUN

    @schema.list_job_scripts
    def get(self, request: Request, expid: str) -> Response:
        sent, query = query_of(request, JobScriptsQuery)
        offset = query.get("cursor", 0)
        found = job_scripts.page(_runner(request, expid, query), expid, offset=offset, limit=query["page_size"])
        end = offset + found.read
        cursor = cursor_of(end) if found.read and end < found.total else None
        answer = {
            "total": found.total,
            "results": found.scripts,
            "next_cursor": cursor,
            "next": next_link(request.path, sent, cursor) if cursor else None,
        }
        return Response(JobScriptsAnswer(answer).data)


class JobScriptView(ReadOnlyAPIView):
    required_scope = TokenScope.RUN

    @schema.read_job_script
    def get(self, request: Request, expid: str, name: str) -> Response:
        _, query = query_of(request, JobScriptQuery)
        runner = _runner(request, expid, query)
        part = job_scripts.read(runner, expid, name, offset=query["offset"], limit=query["limit"]).whole_characters()
        return Response(
            {
                "name": name,
                "offset": part.offset,
                "next_offset": part.next_offset,
                "size": part.size,
                "ended": part.ended,
                "text": part.data.decode("utf-8", "replace"),
            }
        )


def _runner(request: Request, expid: str, query: dict[str, Any]) -> Runner:
    """Return the runner of the profile. Raises ProfileNotFound, ProfileForbidden, InvalidProfile, ValidationError."""
    ExpidField().run_validation(expid)
    user = viewer(request)
    profile = enabled_profile(query["profile_name"], user)
    access.require(user, profile, access.Action.RUN)
    access.require_view(user, profile)
    return get_runner(profile.resolve({}, person_of(user)))
