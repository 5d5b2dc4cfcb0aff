"""The error responses of the API: what `EXCEPTION_HANDLER` returns for an exception in a view."""

from __future__ import annotations

import logging
from typing import Any

from rest_framework import exceptions as drf
from rest_framework.response import Response

from profiles.exceptions import InvalidProfile
from runners import exceptions as ours
from runners.services.access import detail_for, facts_for, may_see
from runners.services.representations import run_fields
from runners.web.problems import (
    DATABASE_RETRY,
    DATABASE_UNAVAILABLE,
    PROBLEM_CONTENT_TYPE,
    flatten,
    problem,
    problem_type_of,
    sentence,
)

logger = logging.getLogger(__name__)

PARAMS = "profile_params"  # the member of the body to which the paths of InvalidProfile are relative
MAX_ERRORS = 50  # rejected members that a response lists


def handle(exc: Exception, context: dict[str, Any]) -> Response | None:
    """Return the response for an exception (DRF's EXCEPTION_HANDLER).

    None for a bug: then Django logs the traceback and calls handler500.
    """
    problem_type = problem_type_of(exc)
    if problem_type is None:
        return None
    headers: dict[str, str] = {}
    extra: dict[str, Any] = {}
    errors: dict[str, list[str]] = {}
    if isinstance(exc, ours.RunnerServiceError):
        detail, extra = exc.detail, dict(exc.facts)
        errors = getattr(exc, "errors", {})
        if run := getattr(exc, "run", None):
            user = context["request"].user
            detail, extra = detail_for(user, exc), facts_for(user, exc)
            extra |= {"run": run_fields(run)} if may_see(user, run) else {}
        if seconds := extra.pop("retry_after", None):
            headers["Retry-After"] = str(seconds)
    elif isinstance(exc, InvalidProfile):
        errors = {PARAMS if path == PARAMS else f"{PARAMS}.{path}": texts for path, texts in exc.errors.items()}
        detail = sentence(errors)
    elif isinstance(exc, drf.ValidationError):
        errors = flatten(exc.detail)
        detail = sentence(errors)
    elif problem_type is DATABASE_UNAVAILABLE:
        logger.error("The database is unavailable: %s", exc)
        detail = "The service's database is unavailable. Nothing was started. Try again in some seconds."
        headers["Retry-After"] = str(DATABASE_RETRY)
    elif isinstance(exc, drf.UnsupportedMediaType):
        detail = "Send the body as JSON, with the header 'Content-Type: application/json'."
    elif isinstance(exc, drf.NotAuthenticated):
        detail = "Send the header 'Authorization: Bearer TOKEN'."
    elif isinstance(exc, drf.Throttled):
        wait = max(1, round(getattr(exc, "wait", None) or 1))
        detail = f"Too many requests. Try again in {wait} s."
        headers["Retry-After"] = str(wait)
    elif isinstance(exc, drf.APIException):
        detail = str(exc.detail)
    else:
        detail = problem_type.title + "."
    if auth_header := getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = auth_header
    if len(errors) > MAX_ERRORS:
        errors = dict(list(errors.items())[:MAX_ERRORS])
    body = problem(problem_type, detail, errors=errors, **extra)
    response = Response(body, status=problem_type.status, headers=headers, content_type=PROBLEM_CONTENT_TYPE)
    # Keep Django from logging a warning for each 4xx: rejected commands are in the audit, and every open page of the
    # GUI asks every 10 s for a status, also for that of an experiment that was never run.
    response._has_been_logged = problem_type.status < 500  # type: ignore[attr-defined]
    return response
