"""The OpenAPI descriptions of the commands: their requests, responses and error codes.

The texts stand in the registry of commands. The examples are recorded (runners/api/openapi/examples.json).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
)

from runners.api.commands.responses import (
    CommandsAnswer,
    ForeignStoppedAnswer,
    PlanAnswer,
    RunStartedAnswer,
    RunStatusAnswer,
    RunStoppedAnswer,
    answer_of,
)
from runners.api.idempotency import KEY_PATTERN
from runners.api.openapi.describe import BODY, BUSY, COMMON, ON_MACHINE, READING, problems, reading
from runners.api.operations.serializers import OperationSerializer
from runners.commands.base import Command, OneShotCommand
from runners.commands.run_experiment import RUN_EXPERIMENT
from runners.commands.stop_experiment import STOP_EXPERIMENT
from runners.web.requests import (
    RunExperimentRequest,
    RunStatusRequest,
    StopExperimentRequest,
    request_of,
)

WITH_PROFILE: tuple[str, ...] = (
    "invalid_profile",
    "endpoint_disabled",
    "profile_forbidden",
    "profile_not_found",
    *ON_MACHINE,
)
WITH_PROFILE += ("machine_in_maintenance",)
WHICH_RUN = ("profile_not_found", "invalid_profile", "profile_forbidden")

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "pattern": f"^({KEY_PATTERN})$"},
    OpenApiParameter.HEADER,
    description="A text that is unique for each request, such as a UUID. A retry with the same key is not executed "
    "again: it gets the first response, with `Idempotent-Replayed: true`.",
)
REPLAYED, REPLAYED_OR_FAILED = (
    OpenApiParameter(
        "Idempotent-Replayed",
        {"type": "string", "const": "true"},
        OpenApiParameter.HEADER,
        response=statuses,
        description="Present if this is the response to an earlier request with the same `Idempotency-Key`.",
    )
    for statuses in ([200], [200, 202, 502, 504])  # the response of a long command that ran and failed is stored, too
)
IN_PROGRESS = OpenApiParameter(
    "Retry-After",
    int,
    OpenApiParameter.HEADER,
    response=[409],
    description="`idempotency_in_progress`: seconds after which to retry.",
)
PREFER = OpenApiParameter(
    "Prefer",
    str,
    OpenApiParameter.HEADER,
    description="RFC 7240. `respond-async`: respond with 202 at once; `respond-async, wait=10`: only if it takes "
    "longer than 10 s.",
)
ACCEPTED_HEADERS = [
    OpenApiParameter(name, kind, OpenApiParameter.HEADER, response=[202], description=text)
    for name, kind, text in (
        ("Location", str, "The address of the result."),
        ("Preference-Applied", str, "respond-async"),
        ("Retry-After", int, "Seconds after which to ask for the result."),
    )
]


def operation(
    operation_id: str,
    summary: str,
    description: str,
    *,
    request: Any,
    answer: Any,
    codes: tuple[str, ...],
    common: tuple[str, ...] = COMMON,
    tag: str = "commands",
    parameters: Sequence[OpenApiParameter] = (),
    more: dict[Any, Any] | None = None,
) -> Any:
    """Describe an operation. `more` are responses in addition to the one with status 200."""
    return extend_schema(
        operation_id=operation_id,
        summary=summary,
        description=description,
        tags=[tag],
        parameters=parameters,
        request=request,
        responses={200: answer, **(more or {}), **problems(*common, *codes)},
    )


def command(
    operation_id: str,
    summary: str,
    description: str,
    *,
    answer: Any,
    codes: tuple[str, ...],
    other: tuple[Any, ...] = (),
    **rest: Any,
) -> Any:
    """Describe an operation that obeys `dry_run` and `Idempotency-Key`. `other`: further answers beside `answer`."""
    return operation(
        operation_id,
        summary,
        description,
        answer=PolymorphicProxySerializer(f"{answer.__name__}OrPlan", [PlanAnswer, answer, *other], None),
        codes=(*codes, "idempotency_in_progress", "idempotency_key_reused"),
        **{"parameters": [IDEMPOTENCY_KEY, REPLAYED, IN_PROGRESS], **rest},
    )


def long_command(operation_id: str, summary: str, description: str, **rest: Any) -> Any:
    """Describe a command that also obeys `Prefer: respond-async`."""
    accepted = OpenApiResponse(
        OperationSerializer, description="It is in progress; `Location` has the address of the result."
    )
    return command(
        operation_id,
        summary,
        f"{description} With `Prefer: respond-async` the response is 202 with an operation. The command then "
        f"continues even if the client disconnects or this service restarts.",
        parameters=[IDEMPOTENCY_KEY, REPLAYED_OR_FAILED, IN_PROGRESS, PREFER, *ACCEPTED_HEADERS],
        more={202: accepted},
        **rest,
    )


def of_command(found: Command, *, answer: Any, codes: tuple[str, ...], **rest: Any) -> Any:
    """Describe a command of the registry."""
    describe = long_command if isinstance(found, OneShotCommand) and found.is_long else command
    name = found.name.replace("-", "_")
    return describe(name, found.summary, found.description, answer=answer, codes=codes, **rest)


def one_shot(found: OneShotCommand) -> Any:
    """Describe a one-shot command: everything follows from the registry."""
    codes: tuple[str, ...] = WITH_PROFILE
    if found.needs_expid:
        codes += ("experiment_not_found",)
    if found.needs_idle:
        codes += ("already_running",)
    if found.may_be_busy:
        codes += ("account_busy",)
    return of_command(found, request=request_of(found), answer=answer_of(found), codes=codes)


run_experiment = of_command(
    RUN_EXPERIMENT,
    request=RunExperimentRequest,
    answer=RunStartedAnswer,
    codes=(*(*WITH_PROFILE, "experiment_not_found", "already_running", "foreign_run", "stopped_during_launch"),),
)

stop_experiment = of_command(
    STOP_EXPERIMENT,
    request=StopExperimentRequest,
    answer=RunStoppedAnswer,
    other=(ForeignStoppedAnswer,),
    codes=("endpoint_disabled", "run_not_found", "not_running", "foreign_run", "runner_unreachable")
    + ("outcome_unknown", "stop_not_confirmed", "ambiguous", *WHICH_RUN, *BUSY),
)

list_commands = reading(
    "list_commands",
    "List the commands",
    "What each command takes, and whether it is enabled: for programs that make forms or options of it.",
    answer=CommandsAnswer,
    tag="commands",
)

get_runner_run_status = operation(
    "get_runner_run_status",
    "The last run of an experiment",
    "The active run, else the newest one. If several installations have an experiment with this id, only those in "
    "which the caller has started a run are considered, if there are any; `profile_name` selects one. Probes the "
    "machine, unless it was just probed. While the machine is unreachable, the response has the last known state with "
    "`reachable: false`.",
    request=RunStatusRequest,
    answer=RunStatusAnswer,
    codes=("run_not_found", *WHICH_RUN),
    common=(*READING, *BODY),
    tag="runs",
)
