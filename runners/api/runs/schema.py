"""The OpenAPI descriptions of the resources. Those of the commands are in schema.py."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema

from runners.api.answers import RunSerializer, RunStartedAnswer
from runners.api.commands.schema import BUSY, COMMON, READING, problems
from runners.api.operations import OperationSerializer
from runners.api.runs.serializers import (
    AbandonRunRequest,
    CheckAnswer,
    CheckProfileRequest,
    LogChunkAnswer,
    LogQuery,
    RequirementsAnswer,
    RunPage,
    RunsQuery,
)

LOG_ERRORS: tuple[str, ...] = ("runner_unreachable", "host_key_unknown", "host_key_changed", "authentication_failed")
LOG_ERRORS += ("outcome_unknown", "command_timed_out", "machine_busy")


def reading(
    operation_id: str,
    summary: str,
    description: str,
    *,
    answer: Any,
    codes: tuple[str, ...] = (),
    tag: str = "runs",
    query: Any = None,
    more: dict[Any, Any] | None = None,
    headers: list[OpenApiParameter] | None = None,
) -> Any:
    """Describe a GET. `more` are responses in addition to the JSON response."""
    return extend_schema(
        operation_id=operation_id,
        summary=summary,
        description=description,
        tags=[tag],
        parameters=[*([query] if query else []), *(headers or [])],
        responses={(200, "application/json"): answer, **(more or {}), **problems(*READING, *codes)},
    )


list_runs = reading(
    "list_runs",
    "List runs",
    "Newest first unless told otherwise, by pages. The states are the last known ones: no machine is asked. For the "
    "next page send the same query with `cursor`, the `next_cursor` of this one. Runs that are started meanwhile move "
    "nothing.",
    answer=RunPage,
    codes=("invalid_request",),
    query=RunsQuery,
)

get_run = reading(
    "get_run",
    "One run by its number",
    "As get-runner-run-status, for any run: its machine is asked unless it has just been asked or the run is over.",
    answer=RunSerializer,
    codes=("run_not_found",),
)

abandon_run = extend_schema(
    operation_id="abandon_run",
    summary="Declare a run ended whose machine cannot be asked any more",
    description="Nothing is sent to the machine. It is asked once more first: 409 `still_reachable` when it answers, "
    "because then the run can be stopped. The run becomes TERMINATED with the reason `abandoned`. Needs a token with "
    "the scope `manage`, or a session of staff.",
    tags=["runs"],
    request=AbandonRunRequest,
    responses={
        200: RunStartedAnswer,
        **problems(*COMMON, "profile_forbidden", "run_not_found", "not_running", "still_reachable"),
    },
)

_LOG_HEADERS = [
    OpenApiParameter(f"X-Log-{name}", kind, OpenApiParameter.HEADER, response=[200], description=text)
    for name, kind, text in (
        ("Offset", OpenApiTypes.INT, "text/plain: the first byte of this part."),
        ("Next-Offset", OpenApiTypes.INT, "text/plain: the first byte behind it."),
        ("Size", OpenApiTypes.INT, "text/plain: how many bytes the log has now."),
        ("Ended", OpenApiTypes.BOOL, "text/plain: the command is over and its whole log has been read."),
    )
]


def log(operation_id: str, summary: str, not_found: str, tag: str) -> Any:
    return reading(
        operation_id,
        summary,
        "What the command prints, standard output and error together. Begin with `offset=0` or `tail`, go on with "
        "`offset=next_offset`, until `ended` is true. With `Accept: text/plain` the bytes come as they are.",
        answer=LogChunkAnswer,
        codes=("invalid_request", not_found, "log_not_found", *LOG_ERRORS),
        tag=tag,
        query=LogQuery,
        more={(200, "text/plain"): OpenApiResponse(OpenApiTypes.STR)},
        headers=_LOG_HEADERS,
    )


get_run_log = log("get_run_log", "The log of a run", "run_not_found", "runs")
get_operation_log = log("get_operation_log", "The log of an operation", "operation_not_found", "operations")

get_operation = reading(
    "get_operation",
    "One operation by its number",
    "An operation is a command that was sent with `Prefer: respond-async`, or that was sent with an `Idempotency-Key`. "
    "Its machine is asked, unless it has just been asked. While it goes on, `Retry-After` says when to ask again.",
    answer=OperationSerializer,
    codes=("operation_not_found",),
    tag="operations",
    headers=[
        OpenApiParameter(
            "Retry-After",
            OpenApiTypes.INT,
            OpenApiParameter.HEADER,
            response=[200],
            description="While it goes on: seconds after which to ask again.",
        )
    ],
)

get_profile_requirements = reading(
    "get_profile_requirements",
    "What a launch with a profile still needs",
    "The parameters that the profile leaves open, with types and limits, in the order of a form.",
    answer=RequirementsAnswer,
    codes=("profile_not_found",),
    tag="configuration",
)

check_profile = extend_schema(
    operation_id="check_profile",
    summary="Try a profile step by step",
    description="From the address of the machine to its directory of runs: which steps work, how long each takes, and "
    "what to do about the first that fails. A failed step is an answer, not an error.",
    tags=["configuration"],
    request=CheckProfileRequest,
    responses={
        200: CheckAnswer,
        **problems(*COMMON, "invalid_profile", "profile_forbidden", "profile_not_found", *BUSY),
    },
)
