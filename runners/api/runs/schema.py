"""The OpenAPI descriptions of runs."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema

from runners.api.commands.responses import RunStartedAnswer
from runners.api.openapi.describe import COMMON, LOG_ERRORS, log, problems, reading
from runners.api.runs.log_search import LogSearchAnswer, LogSearchQuery
from runners.api.runs.serializers import AbandonRunRequest, CancelRestartRequest, RunPage, RunSerializer, RunsQuery

list_runs = reading(
    "list_runs",
    "List runs",
    "Newest first by default, in pages. The states are the last known ones: no machine is probed. For the next page "
    "send the same query with `cursor` set to the `next_cursor` of this page. Runs that are started in the meantime "
    "do not shift the pages.",
    answer=RunPage,
    codes=("invalid_request",),
    query=RunsQuery,
)

get_run = reading(
    "get_run",
    "One run by its number",
    "Like get-runner-run-status, for any run: its machine is probed unless it was just probed or the run has ended.",
    answer=RunSerializer,
    codes=("run_not_found",),
)

abandon_run = extend_schema(
    operation_id="abandon_run",
    summary="Declare a run ended whose machine is gone for good",
    description="Nothing changes on the machine. It is probed once more first: 409 `still_reachable` if it answers, "
    "because then the run can be stopped."
    " The run becomes TERMINATED with the reason `abandoned`. Needs a token with "
    "the scope `manage`, or a session of staff.",
    tags=["runs"],
    request=AbandonRunRequest,
    responses={
        200: RunStartedAnswer,
        **problems(*COMMON, "profile_forbidden", "run_not_found", "not_running", "still_reachable"),
    },
)


cancel_restart = extend_schema(
    operation_id="cancel_restart",
    summary="Cancel the pending restart of a run",
    description="The run is not started again. 409 `not_running` if no restart is pending (any more). stop-experiment "
    "does the same if the experiment is not running.",
    tags=["runs"],
    request=CancelRestartRequest,
    responses={200: RunStartedAnswer, **problems(*COMMON, "profile_forbidden", "run_not_found", "not_running")},
)


get_run_log = log("get_run_log", "The log of a run", ("run_not_found",), "runs")

search_run_log = reading(
    "search_run_log",
    "Search the log of a run",
    "The machine searches the whole log, so it is not transferred. A search takes at most some seconds: continue with "
    "`resume` until it is null. The number of a match's line is null behind the first 512 MiB, or on a slow machine.",
    answer=LogSearchAnswer,
    codes=("invalid_request", "run_not_found", "log_not_found", "command_failed", *LOG_ERRORS),
    query=LogSearchQuery,
)
