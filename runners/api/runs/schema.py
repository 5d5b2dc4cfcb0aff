"""The OpenAPI descriptions of runs."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema

from runners.api.commands.responses import RunStartedAnswer
from runners.api.openapi.describe import COMMON, log, problems, reading
from runners.api.runs.serializers import AbandonRunRequest, RunPage, RunSerializer, RunsQuery

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


get_run_log = log("get_run_log", "The log of a run", "run_not_found", "runs")
