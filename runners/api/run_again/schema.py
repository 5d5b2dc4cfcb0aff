"""The OpenAPI description of `run-again`."""

from __future__ import annotations

from drf_spectacular.utils import PolymorphicProxySerializer

from runners.api.commands.schema import IDEMPOTENCY_KEY, IN_PROGRESS, REPLAYED, WITH_PROFILE, operation
from runners.api.run_again.serializers import RunAgainAnswer, RunAgainPlan, RunAgainRequest

run_again = operation(
    "run_again",
    "Run the experiment of a run again",
    "Starts a new run with the profile, the account and the options of a run that has ended, without `start_time` and "
    "`start_after`; `command_params` replaces the options. `first` repairs the job list before. The new run names the "
    "former one in `previous_run`. 409 `nothing_to_run` if the job list has no job that a run would start, with the "
    "remedy. If the first step succeeds and the run does not start, the error says so, with what was done in `steps`. "
    "Every part can be repeated. Needs the permissions and the toggles of run-experiment and of the first step.",
    request=RunAgainRequest,
    answer=PolymorphicProxySerializer("RunAgainAnswerOrPlan", [RunAgainPlan, RunAgainAnswer], None),
    codes=(
        *WITH_PROFILE,
        "run_not_found",
        "experiment_not_found",
        "already_running",
        "nothing_to_run",
        "stopped_during_launch",
        "idempotency_in_progress",
        "idempotency_key_reused",
    ),
    parameters=[IDEMPOTENCY_KEY, REPLAYED, IN_PROGRESS],
    tag="runs",
)
