"""Problem types: one table from exception class to HTTP status and code, and one body of error responses.

The body is that of RFC 9457, with the members that today's GUI reads. An exception is looked up in the table by the
MRO of its class. An exception that is not in the table is a bug: Django answers 500 and logs the traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from django.core.exceptions import PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpResponse
from rest_framework import exceptions as drf

from profiles.exceptions import ForbiddenParameter, InvalidProfile
from runners import exceptions as ours
from runners import printable
from runners.services import login_lines
from runners.services.access import detail_for, facts_for, may_see

Response = TypeVar("Response", bound=HttpResponse)

PROBLEM_CONTENT_TYPE = "application/problem+json"
DATABASE_RETRY = 5  # seconds
PATH_LIMIT = 100  # characters of a member's path in `detail`; no member of ours has a longer path


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A type of problem. Clients may rely on its `code` and `status`: they never change."""

    status: int
    code: str
    title: str


class TooLarge(drf.APIException):
    """The body of a request is larger than the setting allows."""


NOT_FOUND = ProblemType(404, "not_found", "Not found")
DATABASE_UNAVAILABLE = ProblemType(503, "database_unavailable", "The service's database is unavailable")
BAD_REQUEST = ProblemType(400, "bad_request", "The request is not valid HTTP")
SERVER_ERROR = ProblemType(500, "internal_error", "Internal error of the service")

PROBLEM_TYPES: dict[type[BaseException], ProblemType] = {
    ours.InvalidRequest: ProblemType(400, "invalid_request", "A member of the request is invalid"),
    InvalidProfile: ProblemType(400, "invalid_profile", "The profile and its parameters do not match"),
    ours.EndpointDisabled: ProblemType(403, "endpoint_disabled", "An admin has disabled this endpoint"),
    ours.ProfileForbidden: ProblemType(403, "profile_forbidden", "The profile may not be used this way"),
    ForbiddenParameter: ProblemType(403, "profile_forbidden", "The profile may not be used this way"),
    ours.ProfileNotFound: ProblemType(404, "profile_not_found", "Profile not found"),
    ours.ExperimentNotFound: ProblemType(404, "experiment_not_found", "Autosubmit does not know this experiment there"),
    ours.RunNotFound: ProblemType(404, "run_not_found", "The experiment was never run here"),
    ours.FileNotFound: ProblemType(404, "file_not_found", "The configuration file or its version does not exist"),
    ours.FileRejected: ProblemType(
        422, "file_rejected", "The file is a link, too large, no text, or of another account"
    ),
    ours.PreconditionRequired: ProblemType(428, "precondition_required", "The header If-Match is missing"),
    ours.PreconditionFailed: ProblemType(412, "precondition_failed", "The file has changed since it was read"),
    ours.LogNotFound: ProblemType(404, "log_not_found", "The log does not exist or was deleted"),
    ours.ScriptNotFound: ProblemType(404, "script_not_found", "The job script was not generated"),
    ours.JobsNotFound: ProblemType(404, "jobs_not_found", "The experiment has no job list on the machine"),
    ours.JobsUnreadable: ProblemType(502, "jobs_unreadable", "The machine cannot read the job list"),
    ours.OperationNotFound: ProblemType(404, "operation_not_found", "Operation not found"),
    ours.MachineNotFound: ProblemType(404, "machine_not_found", "The service knows no such machine"),
    ours.MaintenanceNotFound: ProblemType(404, "maintenance_not_found", "No such maintenance is announced"),
    ours.MachineInUse: ProblemType(409, "machine_in_use", "The machine is in use"),
    ours.IdempotencyInProgress: ProblemType(
        409, "idempotency_in_progress", "The first request with this Idempotency-Key is in progress"
    ),
    ours.IdempotencyKeyReused: ProblemType(
        422, "idempotency_key_reused", "This Idempotency-Key was used for another request"
    ),
    ours.AlreadyRunning: ProblemType(409, "already_running", "The experiment is running"),
    ours.ForeignRun: ProblemType(409, "foreign_run", "A process that this service has not started runs the experiment"),
    ours.NotRunning: ProblemType(409, "not_running", "The experiment is not running"),
    ours.NothingToRun: ProblemType(409, "nothing_to_run", "The job list has nothing left to run"),
    ours.AmbiguousRun: ProblemType(409, "ambiguous", "Several installations run an experiment with this id"),
    ours.StoppedDuringLaunch: ProblemType(
        409, "stopped_during_launch", "The run was stopped while it was being started"
    ),
    ours.StillReachable: ProblemType(409, "still_reachable", "The machine answers, so the run can be stopped"),
    ours.RunnerUnreachable: ProblemType(
        502, "runner_unreachable", "The machine cannot be reached; nothing was started"
    ),
    ours.HostKeyUnknown: ProblemType(502, "host_key_unknown", "The machine's host key is not trusted yet"),
    ours.HostKeyChanged: ProblemType(502, "host_key_changed", "The host key of the machine has changed"),
    ours.AuthenticationFailed: ProblemType(502, "authentication_failed", "SSH authentication failed on the machine"),
    ours.MachineInMaintenance: ProblemType(
        503, "machine_in_maintenance", "The machine is in maintenance; nothing was started"
    ),
    ours.MachineBusy: ProblemType(
        503, "machine_busy", "Too many concurrent requests for the machine; nothing was started"
    ),
    ours.AccountBusy: ProblemType(503, "account_busy", "Another experiment is being created in the account"),
    ours.TooManyCommands: ProblemType(503, "too_many_commands", "Too many concurrent commands of one person"),
    ours.OutcomeUnknown: ProblemType(502, "outcome_unknown", "The connection was lost during the command"),
    ours.CommandFailed: ProblemType(502, "command_failed", "The command ran and failed"),
    ours.RunDirectoryUnusable: ProblemType(
        502, "run_directory_unusable", "The directory of runs on the machine cannot be used; nothing was started"
    ),
    ours.CommandTimedOut: ProblemType(504, "command_timed_out", "The command timed out"),
    ours.StopNotConfirmed: ProblemType(504, "stop_not_confirmed", "The run is still alive after all steps of the stop"),
    drf.ValidationError: ProblemType(400, "invalid_request", "A member of the request is invalid"),
    drf.ParseError: ProblemType(400, "invalid_json", "The body is not a JSON object"),
    drf.NotAuthenticated: ProblemType(401, "not_authenticated", "Credentials are required"),
    drf.AuthenticationFailed: ProblemType(401, "invalid_credentials", "The credentials are invalid"),
    drf.PermissionDenied: ProblemType(403, "permission_denied", "Not allowed"),
    ours.NotPermitted: ProblemType(403, "permission_denied", "Not allowed"),
    PermissionDenied: ProblemType(403, "permission_denied", "Not allowed"),
    drf.NotFound: NOT_FOUND,
    Http404: NOT_FOUND,
    drf.MethodNotAllowed: ProblemType(405, "method_not_allowed", "Wrong method"),
    TooLarge: ProblemType(413, "too_large", "The body is too large"),
    drf.UnsupportedMediaType: ProblemType(415, "unsupported_media_type", "The body has to be JSON"),
    ours.TooManyRequests: ProblemType(429, "throttled", "Too many requests"),
    drf.Throttled: ProblemType(429, "throttled", "Too many requests"),
    OperationalError: DATABASE_UNAVAILABLE,
    InterfaceError: DATABASE_UNAVAILABLE,
}


LENGTH_REQUIRED = ProblemType(411, "length_required", "The length of the body is not declared")
PROBLEM_TYPES_BY_CODE = {
    problem_type.code: problem_type
    for problem_type in (*PROBLEM_TYPES.values(), BAD_REQUEST, LENGTH_REQUIRED, SERVER_ERROR)
}


def problem_type_of(error: BaseException) -> ProblemType | None:
    """Return the table's entry for the nearest class in the MRO of an error; None for a bug."""
    return next((PROBLEM_TYPES[cls] for cls in type(error).__mro__ if cls in PROBLEM_TYPES), None)


def problem(
    problem_type: ProblemType, detail: str, *, errors: dict[str, list[str]] | None = None, **extra: Any
) -> dict[str, Any]:
    """Return the body of an error response. `extra` are extra members; they never replace the standard members."""
    return {
        **extra,
        "type": f"/docs/errors#{problem_type.code}",
        "title": problem_type.title,
        "status": problem_type.status,
        "detail": detail,
        "code": problem_type.code,
        "error": True,
        "error_message": detail,
        **({"errors": errors} if errors else {}),
    }


def flatten(detail: Any, path: str = "") -> dict[str, list[str]]:
    """Flatten DRF's nested error detail to one level: `{"command_params.final_status": ["..."]}`."""
    if isinstance(detail, Mapping):
        found: dict[str, list[str]] = {}
        for name, inner in detail.items():
            here = path if name == "non_field_errors" else f"{path}.{name}" if path else str(name)
            for key, texts in flatten(inner, here).items():
                found.setdefault(key, []).extend(texts)
        return found
    texts = detail if isinstance(detail, list) else [detail]
    if any(isinstance(text, Mapping) for text in texts):  # one mapping per item of a list
        return flatten({str(index): text for index, text in enumerate(texts) if text}, path)
    return {path: [str(text) for text in texts]}


def sentence(errors: dict[str, list[str]], limit: int = 3) -> str:
    """Return field errors as one line, for `detail` and other places that show no `errors`.

    Paths are cleaned and shortened. A path can be any text: an unknown member has the name that the client sent.
    """
    named = ((printable.line(path, PATH_LIMIT), " ".join(texts)) for path, texts in errors.items())
    parts = [f"{path}: {words}" if path else words for path, words in named]
    more = f" ({len(parts) - limit} more in errors)" if len(parts) > limit else ""
    return " ".join(parts[:limit]) + more


def error_context(error: ours.RunnerServiceError, user: Any) -> dict[str, Any]:
    """Return an error for a template: `status` (HTTP), `code`, `title`, `detail`, `output`, `run`, `run_id`,
    `retry_after`, `lines`.

    `run`, `run_id` and `retry_after` are None if the error has none. If the run is hidden from `user`, `run` and
    `run_id` are None and `detail` tells nothing about the run. `lines`: after a rejected login, the lines that let the
    service in.
    """
    problem_type = problem_type_of(error)
    run = getattr(error, "run", None)
    return {
        "status": problem_type.status if problem_type else 500,
        "code": problem_type.code if problem_type else "",
        "title": problem_type.title if problem_type else "The command failed",
        "detail": detail_for(user, error),
        "output": error.facts.get("output", ""),
        "run": run if run and may_see(user, run) else None,
        "run_id": facts_for(user, error).get("run_id"),
        "retry_after": error.facts.get("retry_after"),
        "lines": login_lines.lines_for(user) if isinstance(error, ours.AuthenticationFailed) else None,
    }


def with_retry_after(response: Response, error: dict[str, Any]) -> Response:
    """Add the header `Retry-After` of an error (`error_context`), if the error has one. Return the response."""
    if seconds := error.get("retry_after"):
        response["Retry-After"] = str(seconds)
    return response
