"""Create, run and stop experiments with the generated Python client, as a user would.

driver.py URL TOKEN PROFILE EXPID. EXPID is an experiment with a job list and a configuration file.

The tests type-check this program with `mypy --strict` and execute it against a live server. It prints what it observes,
one `name: value` per line. If a response is not the expected one, the program fails and prints the response.
"""

# ruff: noqa: T201  (a program that prints what it sees)

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from typing import TypeVar

from autosubmit_runners_client import (
    ApiClient,
    ApiException,
    CommandAnswer,
    CommandsApi,
    Configuration,
    ConfigurationApi,
    CreateExperimentParams,
    CreateExperimentRequest,
    CreateJobListRequest,
    ExperimentCreatedAnswer,
    ExperimentsApi,
    FinalStatus,
    Operation,
    OperationsApi,
    OperationStatus,
    PlanAnswer,
    Problem,
    RunAgainAnswer,
    RunAgainRequest,
    RunExperimentRequest,
    RunReason,
    RunsApi,
    RunStartedAnswer,
    RunStatus,
    RunStatusAnswer,
    RunStatusRequest,
    RunStoppedAnswer,
    SetJobStatusParams,
    SetJobStatusRequest,
    StopExperimentRequest,
    TextOrTexts,
    WriteFileRequest,
)

PATIENCE = 60  # seconds
T = TypeVar("T")


def expect(kind: type[T], answer: object) -> T:
    """Return the response, or the object that it wraps. Exit unless the result is of this kind."""
    answer = getattr(answer, "actual_instance", answer)
    if not isinstance(answer, kind):
        raise SystemExit(f"expected {kind.__name__}, got {type(answer).__name__}: {answer}")
    return answer


def refused(ask: Callable[[], object]) -> Problem:
    """Return the Problem of an error response."""
    try:
        answer = ask()
    except ApiException as error:
        return expect(Problem, error.data)
    raise SystemExit(f"expected an error, got {answer}")


class Driver:
    def __init__(self, client: ApiClient, profile: str) -> None:
        self.profile = profile
        self.commands, self.runs = CommandsApi(client), RunsApi(client)
        self.configuration, self.operations = ConfigurationApi(client), OperationsApi(client)
        self.experiments = ExperimentsApi(client)

    def create(self, description: str) -> str:
        """Create an experiment with its job list and return its expid.

        The request is sent twice, as after a lost response. There is still only one experiment.
        """
        params = CreateExperimentParams(description=description, dummy=True, hpc="local")
        request = CreateExperimentRequest(profile_name=self.profile, command_params=params)
        key = str(uuid.uuid4())
        first = expect(ExperimentCreatedAnswer, self.commands.create_experiment(request, idempotency_key=key))
        again = self.commands.create_experiment_with_http_info(request, idempotency_key=key)
        assert expect(ExperimentCreatedAnswer, again.data).expid == first.expid
        assert again.headers and again.headers["Idempotent-Replayed"] == "true"
        job_list = CreateJobListRequest(profile_name=self.profile, expid=first.expid)
        expect(CommandAnswer, self.commands.create_job_list(job_list))
        return first.expid

    def ended(self, expid: str) -> RunStatusAnswer:
        """Return the experiment's run once it has ended."""
        deadline = time.monotonic() + PATIENCE
        while (run := self.runs.get_runner_run_status(RunStatusRequest(expid=expid))).status is RunStatus.ACTIVE:
            if time.monotonic() > deadline:
                raise SystemExit(f"{expid} is still running after {PATIENCE} s")
            time.sleep(0.2)
        return run

    def whole_log(self, runner_id: int) -> str:
        text, offset, at_end = "", 0, False
        while not at_end:
            part = self.runs.get_run_log(runner_id, offset=offset)
            text, offset, at_end = text + (part.text or ""), part.next_offset, part.ended
        return text

    def look_around(self) -> None:
        kind = self.configuration.list_profiles()[self.profile].runner_type
        print("profile:", kind and kind.value)
        needed = self.configuration.get_profile_requirements(self.profile)
        print("needed:", [each.parameter for each in needed.requirements if each.required])

    def run_to_completion(self) -> None:
        expid = self.create("completes")
        request = RunExperimentRequest(profile_name=self.profile, expid=expid, dry_run=True)
        print("plan:", " ".join(expect(PlanAnswer, self.commands.run_experiment(request)).argv))
        request.dry_run = False
        started = expect(RunStartedAnswer, self.commands.run_experiment(request))
        print("started:", started.message)
        run = self.ended(expid)
        print("ended:", run.status.value, run.exit_code, repr(run.reason.value), run.runner_id == started.runner_id)
        print("log:", "Run successful" in self.whole_log(run.runner_id))
        page = self.runs.list_runs(expid=expid, status=RunStatus.COMPLETED)
        print("listed:", [each.runner_id for each in page.results] == [run.runner_id])
        again = expect(RunAgainAnswer, self.runs.run_again(run.runner_id, run_again_request=RunAgainRequest()))
        print("run again:", again.previous_run == run.runner_id, self.ended(expid).status.value)

    def jobs(self, expid: str) -> None:
        """Read the job list of an experiment, filtered, in pages of one job."""
        page = self.runs.get_experiment_jobs(expid, self.profile, status="FAILED,RUNNING", page_size=1)
        rest = self.runs.get_experiment_jobs(
            expid, self.profile, status="FAILED,RUNNING", page_size=1, cursor=page.next_cursor
        )
        print("jobs:", page.total, sorted(page.counts), [job.name for job in (*page.results, *rest.results)])
        print("first job:", page.results[0].status.value, page.results[0].chunk)

    def configuration_files(self, expid: str) -> None:
        """Change a configuration file, and read who is told that it has changed in the meantime."""
        files = self.experiments.list_configuration_files(expid, self.profile).files
        print("files:", [file.path for file in files])
        path = files[0].path
        file = self.experiments.read_configuration_file(expid, path, self.profile)
        request = WriteFileRequest(content=file.content.replace("1", "2"))
        change = self.experiments.write_configuration_file(file.etag, expid, path, self.profile, request)
        print("changed:", change.is_changed, "+CHUNKS: 2" in change.difference)
        problem = refused(
            lambda: self.experiments.write_configuration_file(file.etag, expid, path, self.profile, request)
        )
        print("changed before:", problem.status, problem.code)

    def run_and_stop(self) -> None:
        expid = self.create("is stopped")
        request = RunExperimentRequest(profile_name=self.profile, expid=expid)
        started = expect(RunStartedAnswer, self.commands.run_experiment(request))
        again = refused(lambda: self.commands.run_experiment(request))
        print("again:", again.status, again.code, again.run is not None and again.run.runner_id == started.runner_id)
        stop = StopExperimentRequest(expid=expid)
        stopped = expect(RunStoppedAnswer, self.commands.stop_experiment(stop))
        print("stopped:", stopped.status.value, stopped.reason is RunReason.STOPPED, stopped.steps[-1].ended)
        print("stop again:", refused(lambda: self.commands.stop_experiment(stop)).code)

    def in_the_background(self) -> None:
        request = CreateJobListRequest(profile_name=self.profile, expid=self.create("is made in the background"))
        # The generator gives the response the type of status 200. The response of status 202 is an Operation.
        operation = expect(Operation, self.commands.create_job_list(request, prefer="respond-async"))
        deadline = time.monotonic() + PATIENCE
        while operation.status in (OperationStatus.PENDING, OperationStatus.RUNNING) and time.monotonic() < deadline:
            time.sleep(0.2)
            operation = self.operations.get_operation(operation.operation_id)
        print("operation:", operation.kind.value, operation.status.value)

    def filters(self) -> None:
        """Send a member that is one text or several, in both forms."""
        for filter_status in ("FAILED", ["FAILED", "READY"]):
            params = SetJobStatusParams(final_status=FinalStatus.READY, filter_status=TextOrTexts(filter_status))
            request = SetJobStatusRequest(profile_name=self.profile, expid="a000", command_params=params, dry_run=True)
            plan = expect(PlanAnswer, self.commands.set_job_status(request))
            print("filter:", plan.argv[-1])

    def errors(self) -> None:
        unknown = RunStatusRequest(expid="zzzz")
        print("unknown:", refused(lambda: self.runs.get_runner_run_status(unknown)).code)
        # model_construct: otherwise the client itself would reject the value by the pattern in the document.
        request = RunExperimentRequest.model_construct(profile_name=self.profile, expid="Not an expid")
        problem = refused(lambda: self.commands.run_experiment(request))
        print("refused:", problem.status, problem.code, sorted(problem.errors or {}))


def main(url: str, token: str, profile: str, with_jobs: str) -> None:
    with ApiClient(Configuration(host=url, access_token=token)) as client:
        driver = Driver(client, profile)
        driver.look_around()
        driver.run_to_completion()
        driver.run_and_stop()
        driver.in_the_background()
        driver.jobs(with_jobs)
        driver.configuration_files(with_jobs)
        driver.filters()
        driver.errors()
    with ApiClient(Configuration(host=url, access_token="asr_of_nobody")) as client:
        print("stranger:", refused(ConfigurationApi(client).list_profiles).code)


if __name__ == "__main__":
    main(*sys.argv[1:])
