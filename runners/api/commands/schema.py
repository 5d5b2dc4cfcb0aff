"""The OpenAPI descriptions of the commands: their requests, responses and error codes.

The descriptions are not in the module of the views, so that a view stays three lines long. The examples are recorded
(schema_examples.py).
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
    CommandAnswer,
    ExperimentCreatedAnswer,
    JobStatusAnswer,
    PlanAnswer,
    RunStartedAnswer,
    RunStoppedAnswer,
)
from runners.api.idempotency import KEY_PATTERN
from runners.api.openapi.describe import BODY, BUSY, COMMON, ON_MACHINE, READING, problems
from runners.api.operations.serializers import OperationSerializer
from runners.api.runs.serializers import RunSerializer
from runners.web.requests import (
    CreateExperimentRequest,
    CreateJobListRequest,
    RunExperimentRequest,
    RunStatusRequest,
    SetJobStatusRequest,
    StopExperimentRequest,
    UpdateDescriptionRequest,
)

WITH_PROFILE = ("invalid_profile", "endpoint_disabled", "profile_forbidden", "profile_not_found", *ON_MACHINE)
WHICH_RUN = ("profile_not_found", "invalid_profile", "profile_forbidden")

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "pattern": f"^({KEY_PATTERN})$"},
    OpenApiParameter.HEADER,
    description="A text that is new for each request, such as a UUID. The same request sent again with the same key is "
    "not executed again: it gets the first answer, with `Idempotent-Replayed: true`.",
)
REPLAYED, REPLAYED_OR_FAILED = (
    OpenApiParameter(
        "Idempotent-Replayed",
        {"type": "string", "const": "true"},
        OpenApiParameter.HEADER,
        response=statuses,
        description="Stands when this is the answer of an earlier request with the same `Idempotency-Key`.",
    )
    for statuses in ([200], [200, 202, 502, 504])  # the response of a long command that ran and failed is stored, too
)
IN_PROGRESS = OpenApiParameter(
    "Retry-After",
    int,
    OpenApiParameter.HEADER,
    response=[409],
    description="`idempotency_in_progress`: seconds after which to send it again.",
)
PREFER = OpenApiParameter(
    "Prefer",
    str,
    OpenApiParameter.HEADER,
    description="RFC 7240. `respond-async`: answer 202 at once; `respond-async, wait=10`: only if it takes longer than "
    "10 s.",
)
ACCEPTED_HEADERS = [
    OpenApiParameter(name, kind, OpenApiParameter.HEADER, response=[202], description=text)
    for name, kind, text in (
        ("Location", str, "Where to look for the result."),
        ("Preference-Applied", str, "respond-async"),
        ("Retry-After", int, "Seconds after which to look."),
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
    operation_id: str, summary: str, description: str, *, answer: Any, codes: tuple[str, ...], **rest: Any
) -> Any:
    """Describe an operation that obeys `dry_run` and `Idempotency-Key`."""
    return operation(
        operation_id,
        summary,
        description,
        answer=PolymorphicProxySerializer(f"{answer.__name__}OrPlan", [PlanAnswer, answer], None),
        codes=(*codes, "idempotency_in_progress", "idempotency_key_reused"),
        **{"parameters": [IDEMPOTENCY_KEY, REPLAYED, IN_PROGRESS], **rest},
    )


def long_command(operation_id: str, summary: str, description: str, **rest: Any) -> Any:
    """Describe a command that also obeys `Prefer: respond-async`."""
    accepted = OpenApiResponse(OperationSerializer, description="It goes on; `Location` says where to look.")
    return command(
        operation_id,
        summary,
        f"{description} With `Prefer: respond-async` the answer is 202 and an operation, and the command goes on "
        "whatever becomes of the client or of this service.",
        parameters=[IDEMPOTENCY_KEY, REPLAYED_OR_FAILED, IN_PROGRESS, PREFER, *ACCEPTED_HEADERS],
        more={202: accepted},
        **rest,
    )


run_experiment = command(
    "run_experiment",
    "Start an experiment",
    "Starts `autosubmit run` on the profile's machine and answers as soon as it executes. It goes on whatever becomes "
    "of the client or of this service. A second request for a running experiment gets 409 and that run.",
    request=RunExperimentRequest,
    answer=RunStartedAnswer,
    codes=(*WITH_PROFILE, "already_running", "stopped_during_launch"),
)

get_runner_run_status = operation(
    "get_runner_run_status",
    "The last run of an experiment",
    "The active run, else the newest one. When several installations have an experiment of this id: of those in which "
    "the caller has started a run, if there is one; `profile_name` says which is meant. Asks the machine, unless it "
    "has just been asked. While it cannot be reached, the last known state is shown with `reachable: false`.",
    request=RunStatusRequest,
    answer=RunSerializer,
    codes=("run_not_found", *WHICH_RUN),
    common=(*READING, *BODY),
    tag="runs",
)

stop_experiment = command(
    "stop_experiment",
    "Stop an experiment",
    "Answers when the end of the run was seen on its machine: first `autosubmit stop`, then, if that does not help "
    "within its time, signals to the run's own processes. `steps` says what was done. Jobs that are already submitted "
    "go on, unless `cancel_jobs` is given: then Autosubmit cancels them after the end of the run, within "
    "RUNNERS_CANCEL_TIMEOUT, and `cancel` and `warnings` say what became of them. When nothing runs, `cancel_jobs` "
    "cancels the jobs that the last run has left. When several installations run an experiment of this id, "
    "`profile_name` has to say which is meant: otherwise the answer is 409 `ambiguous`, and nothing is stopped.",
    request=StopExperimentRequest,
    answer=RunStoppedAnswer,
    codes=("endpoint_disabled", "run_not_found", "not_running", "runner_unreachable")
    + ("outcome_unknown", "stop_not_confirmed", "ambiguous", *WHICH_RUN, *BUSY),
)

set_job_status = long_command(
    "set_job_status",
    "Change the status of jobs",
    "Executes `autosubmit setstatus` and saves the result. Not possible while the experiment runs. A job that is "
    "submitted, queuing or running on its platform may be cancelled there: Autosubmit 4.1.17.1 cancels it whatever "
    "status it gets, older versions do not cancel running ones.",
    request=SetJobStatusRequest,
    answer=JobStatusAnswer,
    codes=(*WITH_PROFILE, "experiment_not_found", "already_running"),
)

create_experiment = long_command(
    "create_experiment",
    "Create an experiment",
    "Executes `autosubmit expid`. A new experiment needs its job list (create-job-list) before it can run. One "
    "experiment at a time is created in an account: a request waits 2 s for another one's end, with "
    "`Prefer: respond-async` 120 s.",
    request=CreateExperimentRequest,
    answer=ExperimentCreatedAnswer,
    codes=(*WITH_PROFILE, "account_busy"),
)

create_job_list = long_command(
    "create_job_list",
    "Make the job list of an experiment",
    "Executes `autosubmit create -np`. All jobs begin anew, with and without `force`: `warnings` names the COMPLETED "
    "jobs whose progress is lost, and `dry_run` tells it before. Not possible while the experiment runs. Autosubmit "
    "calls it a success even if the configuration has errors: read `warnings`.",
    request=CreateJobListRequest,
    answer=CommandAnswer,
    codes=(*WITH_PROFILE, "experiment_not_found", "already_running"),
)

update_experiment_description = command(
    "update_experiment_description",
    "Replace the description of an experiment",
    "Executes `autosubmit updatedescrip`. Also possible while the experiment runs.",
    request=UpdateDescriptionRequest,
    answer=CommandAnswer,
    codes=(*WITH_PROFILE, "experiment_not_found"),
)
