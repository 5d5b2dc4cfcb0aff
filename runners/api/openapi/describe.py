"""What the OpenAPI descriptions of several resources share: the lists of error codes, and decorators."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema

from runners.api.logs import LogChunkAnswer, LogQuery
from runners.api.openapi import extensions  # noqa: F401  (drf-spectacular finds them once they are imported)
from runners.api.problems import Problem
from runners.commands.parameters import EXPID_PATTERN
from runners.web.problems import PROBLEM_CONTENT_TYPE, PROBLEM_TYPES_BY_CODE

LOG_ERRORS: tuple[str, ...] = ("runner_unreachable", "host_key_unknown", "host_key_changed", "authentication_failed")
LOG_ERRORS += ("outcome_unknown", "command_timed_out", "run_directory_unusable", "machine_busy")


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


EXPID_IN_PATH = OpenApiParameter(
    "expid",
    {"type": "string", "pattern": f"^{EXPID_PATTERN}$"},
    OpenApiParameter.PATH,
    description="The id of the experiment.",
)
_LOG_HEADERS = [
    OpenApiParameter(f"X-Log-{name}", kind, OpenApiParameter.HEADER, response=[200], description=text)
    for name, kind, text in (
        ("Offset", OpenApiTypes.INT, "text/plain: the first byte of this part."),
        ("Next-Offset", OpenApiTypes.INT, "text/plain: the first byte after this part."),
        ("Size", OpenApiTypes.INT, "text/plain: size of the log in bytes."),
        ("Ended", OpenApiTypes.BOOL, "text/plain: the command has ended and its whole log has been read."),
    )
]


def log(
    operation_id: str,
    summary: str,
    not_found: tuple[str, ...],
    tag: str,
    *,
    query: Any = LogQuery,
    text: str = "The output of the command, standard output and error together.",
) -> Any:
    return reading(
        operation_id,
        summary,
        f"{text} Begin with `offset=0` or `tail`, and continue with `offset=next_offset` until `ended` is true. "
        "`Accept: text/plain` returns the exact bytes.",
        answer=LogChunkAnswer,
        codes=("invalid_request", *not_found, "log_not_found", *LOG_ERRORS),
        tag=tag,
        query=query,
        more={(200, "text/plain"): OpenApiResponse(OpenApiTypes.STR)},
        headers=_LOG_HEADERS,
    )


# The codes that each operation can answer; a test compares them with what tests/api/test_examples.py sees.
READING = ("not_authenticated", "invalid_credentials", "throttled", "database_unavailable")
BODY = ("invalid_request", "invalid_json", "length_required", "too_large", "unsupported_media_type")
COMMON = (*READING, *BODY, "permission_denied")  # of operations that may change something
ON_MACHINE: tuple[str, ...] = ("runner_unreachable", "host_key_unknown", "host_key_changed", "authentication_failed")
BUSY: tuple[str, ...] = ("machine_busy", "too_many_commands")  # 503: no machine was asked
ON_MACHINE += ("outcome_unknown", "command_failed", "run_directory_unusable", "command_timed_out", *BUSY)


def explained(*codes: str) -> dict[int, str]:
    """Return a description for each status: a list of its codes and their titles."""
    by_status: dict[int, dict[str, str]] = {}
    for problem_type in PROBLEM_TYPES_BY_CODE.values():
        if problem_type.code in codes:
            by_status.setdefault(problem_type.status, {})[problem_type.code] = problem_type.title
    return {
        status: "\n".join(f"- `{code}`: {title}" for code, title in kinds.items())
        for status, kinds in sorted(by_status.items())
    }


def problems(*codes: str) -> dict[tuple[int, str], OpenApiResponse]:
    return {
        (status, PROBLEM_CONTENT_TYPE): OpenApiResponse(Problem, description=text)
        for status, text in explained(*codes).items()
    }
