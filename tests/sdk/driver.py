"""The main job over the generated Python client, as somebody who uses it would write it: driver.py URL TOKEN PROFILE.

It is type-checked with `mypy --strict` and executed against a live server by test_python_client.py. It prints what it
has seen, one `name: value` a line, and fails with what was answered instead.
"""

# ruff: noqa: T201  (a program that prints what it sees)

from __future__ import annotations

import sys
import time
import uuid
from typing import TypeVar

from autosubmit_runners_client import AuthenticatedClient
from autosubmit_runners_client.api.commands import create_experiment, create_job_list, run_experiment, stop_experiment
from autosubmit_runners_client.api.configuration import get_profile_requirements, list_profiles
from autosubmit_runners_client.api.operations import get_operation
from autosubmit_runners_client.api.runs import get_run_log, get_runner_run_status, list_runs
from autosubmit_runners_client.models import (
    CommandAnswer,
    CreateExperimentParams,
    CreateExperimentRequest,
    CreateJobListRequest,
    ExperimentCreatedAnswer,
    LogChunkAnswer,
    Operation,
    OperationStatus,
    PlanAnswer,
    Problem,
    ProfileMap,
    RequirementsAnswer,
    Run,
    RunExperimentRequest,
    RunPage,
    RunReason,
    RunStartedAnswer,
    RunStatus,
    RunStatusRequest,
    RunStoppedAnswer,
    StopExperimentRequest,
)
from autosubmit_runners_client.types import Unset

PATIENCE = 60  # seconds
T = TypeVar("T")


def expect(kind: type[T], answer: object) -> T:
    """The answer, which has to be of this kind; of a Problem it shows what it says."""
    if not isinstance(answer, kind):
        detail = answer.detail if isinstance(answer, Problem) else answer
        raise SystemExit(f"expected {kind.__name__}, got {type(answer).__name__}: {detail}")
    return answer


def create(client: AuthenticatedClient, profile: str, description: str) -> str:
    """A new experiment with its job list; its expid. Sent twice, as after a lost answer: there is still one."""
    body = CreateExperimentRequest(
        profile_name=profile,
        command_params=CreateExperimentParams(description=description, dummy=True, hpc="local"),
    )
    key = str(uuid.uuid4())
    first = expect(ExperimentCreatedAnswer, create_experiment.sync(client=client, body=body, idempotency_key=key))
    again = create_experiment.sync_detailed(client=client, body=body, idempotency_key=key)
    assert expect(ExperimentCreatedAnswer, again.parsed).expid == first.expid
    assert again.headers["Idempotent-Replayed"] == "true"
    request = CreateJobListRequest(profile_name=profile, expid=first.expid)
    expect(CommandAnswer, create_job_list.sync(client=client, body=request))
    return first.expid


def status(client: AuthenticatedClient, expid: str) -> Run:
    return expect(Run, get_runner_run_status.sync(client=client, body=RunStatusRequest(expid=expid)))


def ended(client: AuthenticatedClient, expid: str) -> Run:
    """Its run once it is over."""
    deadline = time.monotonic() + PATIENCE
    while (run := status(client, expid)).status is RunStatus.ACTIVE:
        if time.monotonic() > deadline:
            raise SystemExit(f"{expid} is still running after {PATIENCE} s")
        time.sleep(0.2)
    return run


def whole_log(client: AuthenticatedClient, runner_id: int) -> str:
    text, offset, at_end = "", 0, False
    while not at_end:
        part = expect(LogChunkAnswer, get_run_log.sync(id=runner_id, client=client, offset=offset))
        text, offset, at_end = text + (part.text or ""), part.next_offset, part.ended
    return text


def run_to_completion(client: AuthenticatedClient, profile: str) -> None:
    expid = create(client, profile, "completes")
    request = RunExperimentRequest(profile_name=profile, expid=expid, dry_run=True)
    plan = expect(PlanAnswer, run_experiment.sync(client=client, body=request))
    print("plan:", " ".join(plan.argv))
    request.dry_run = False
    started = expect(RunStartedAnswer, run_experiment.sync(client=client, body=request))
    print("started:", started.message)
    run = ended(client, expid)
    print("ended:", run.status, run.exit_code, repr(str(run.reason)), run.runner_id == started.runner_id)
    print("log:", "Run successful" in whole_log(client, run.runner_id))
    page = expect(RunPage, list_runs.sync(client=client, expid=expid, status=RunStatus.COMPLETED))
    print("listed:", [each.runner_id for each in page.results] == [run.runner_id])


def run_and_stop(client: AuthenticatedClient, profile: str) -> None:
    expid = create(client, profile, "is stopped")
    request = RunExperimentRequest(profile_name=profile, expid=expid)
    started = expect(RunStartedAnswer, run_experiment.sync(client=client, body=request))
    again = expect(Problem, run_experiment.sync(client=client, body=request))
    assert isinstance(again.run, Run)
    print("again:", again.status, again.code, again.run.runner_id == started.runner_id)
    stop = StopExperimentRequest(expid=expid)
    stopped = expect(RunStoppedAnswer, stop_experiment.sync(client=client, body=stop))
    print("stopped:", stopped.status, stopped.reason is RunReason.STOPPED, stopped.steps[-1].ended)
    print("stop again:", expect(Problem, stop_experiment.sync(client=client, body=stop)).code)


def in_the_background(client: AuthenticatedClient, profile: str) -> None:
    request = CreateJobListRequest(profile_name=profile, expid=create(client, profile, "is made in the background"))
    operation = expect(Operation, create_job_list.sync(client=client, body=request, prefer="respond-async"))
    deadline = time.monotonic() + PATIENCE
    while operation.status in (OperationStatus.PENDING, OperationStatus.RUNNING) and time.monotonic() < deadline:
        time.sleep(0.2)
        operation = expect(Operation, get_operation.sync(id=operation.operation_id, client=client))
    print("operation:", operation.kind, operation.status)


def errors(client: AuthenticatedClient, profile: str) -> None:
    unknown = get_runner_run_status.sync(client=client, body=RunStatusRequest(expid="zzzz"))
    print("unknown:", expect(Problem, unknown).code)
    refused = RunExperimentRequest(profile_name=profile, expid="Not an expid")
    problem = expect(Problem, run_experiment.sync(client=client, body=refused))
    assert not isinstance(problem.errors, Unset)
    print("refused:", problem.status, problem.code, sorted(problem.errors.additional_properties))
    stranger = AuthenticatedClient(base_url=str(client.get_httpx_client().base_url), token="asr_of_nobody")
    with stranger:
        print("stranger:", expect(Problem, list_profiles.sync(client=stranger)).code)


def main(url: str, token: str, profile: str) -> None:
    with AuthenticatedClient(base_url=url, token=token) as client:
        profiles = expect(ProfileMap, list_profiles.sync(client=client))
        print("profile:", profiles[profile].runner_type)
        needed = expect(RequirementsAnswer, get_profile_requirements.sync(profile, client=client))
        print("needed:", [each.parameter for each in needed.requirements if each.required])
        run_to_completion(client, profile)
        run_and_stop(client, profile)
        in_the_background(client, profile)
        errors(client, profile)


if __name__ == "__main__":
    main(*sys.argv[1:])
