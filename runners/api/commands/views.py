"""The views of the commands. Each view validates the body, calls one use case, and serializes the result."""

from __future__ import annotations

from functools import partial
from typing import Any

from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from profiles.config import Endpoint
from runners.api.base import ReadOnlyAPIView, viewer
from runners.api.commands import schema
from runners.api.idempotency import IdempotentViewSet, idempotent
from runners.api.long_commands import Preference
from runners.commands import autosubmit
from runners.models import RunnerRun
from runners.models.operation import OperationKind
from runners.models.token import TokenScope
from runners.services import access, dry_run, execute, idempotency, runs, starting, stopping
from runners.services.cancelling import NOT_REQUESTED
from runners.services.representations import run_fields
from runners.web.requests import (
    CreateExperimentRequest,
    CreateJobListRequest,
    RunExperimentRequest,
    RunStatusRequest,
    SetJobStatusRequest,
    StopExperimentRequest,
    UpdateDescriptionRequest,
)


def command(name: str, *, endpoint: Endpoint, serializer_class: type) -> Any:
    """Return a decorator that makes a method the action `command/<name>`, which obeys `Idempotency-Key`.

    `endpoint` is the toggle that can disable the command.
    """
    decorate = action(
        detail=False,
        methods=["post"],
        url_path=name,
        url_name=name,
        serializer_class=serializer_class,
        command=name,
        endpoint=endpoint,
    )
    return lambda method: decorate(idempotent(method))


class ExperimentCommands(IdempotentViewSet):
    """The commands that change something."""

    @schema.run_experiment
    @command("run-experiment", endpoint=Endpoint.RUNNER_RUN, serializer_class=RunExperimentRequest)
    def run_experiment(self, request: Request) -> Response:
        data = self.validated(request)
        if data["dry_run"]:
            return self.planned(dry_run.run_experiment(**_given(data, "expid", "config")))
        run = starting.run_experiment(
            expid=data["expid"],
            config=data["config"],
            profile_name=data["profile_name"],
            audit=self.audit,
            key=self.record.run_key if self.record else "",
        )
        return Response({"message": f"Experiment {run.expid} started successfully.", **run_fields(run)})

    @schema.stop_experiment
    @command("stop-experiment", endpoint=Endpoint.RUNNER_RUN, serializer_class=StopExperimentRequest)
    def stop_experiment(self, request: Request) -> Response:
        data = self.validated(request)

        def authorize(run: RunnerRun) -> None:
            access.require_stop(request.user, run)
            if self.record:
                idempotency.bind_run(self.record, run)

        if data.pop("dry_run"):
            where = {name: data.pop(name) for name in ("expid", "scope")}
            run = stopping.run_to_stop(**where, viewer=request.user, cancel_jobs=data["cancel_jobs"])
            authorize(run)
            return self.planned(dry_run.stop_experiment(run=run, **data))
        outcome = stopping.stop_experiment(**data, viewer=request.user, audit=self.audit, authorize=authorize)
        return Response(stopped_answer(outcome))

    @schema.set_job_status
    @command("set-job-status", endpoint=Endpoint.SET_JOB_STATUS, serializer_class=SetJobStatusRequest)
    def set_job_status(self, request: Request) -> Response:
        data = self.validated(request)
        given = _given(data, "expid", "config", "params")
        if data["dry_run"]:
            return self.planned(dry_run.set_job_status(**given))
        run_inline = partial(execute.set_job_status, **given, audit=self.audit)
        argv = autosubmit.setstatus(data["expid"], data["params"])
        return self.execute_or_enqueue(request, OperationKind.SET_JOB_STATUS, data, argv, run_inline)

    @schema.create_experiment
    @command("create-experiment", endpoint=Endpoint.CREATE_EXPERIMENT, serializer_class=CreateExperimentRequest)
    def create_experiment(self, request: Request) -> Response:
        data = self.validated(request)
        given = _given(data, "config", "params")
        if data["dry_run"]:
            return self.planned(dry_run.create_experiment(**given))
        run_inline = partial(execute.create_experiment, **given, audit=self.audit)
        argv = autosubmit.expid(data["params"], is_detached=Preference.of(request).is_async)
        return self.execute_or_enqueue(request, OperationKind.CREATE_EXPERIMENT, data, argv, run_inline)

    @schema.create_job_list
    @command("create-job-list", endpoint=Endpoint.CREATE_EXPERIMENT, serializer_class=CreateJobListRequest)
    def create_job_list(self, request: Request) -> Response:
        data = self.validated(request)
        given = _given(data, "expid", "config", "params")
        if data["dry_run"]:
            return self.planned(dry_run.create_job_list(**given))
        run_inline = partial(execute.create_job_list, **given, audit=self.audit)
        argv = autosubmit.create(data["expid"], data["params"])
        return self.execute_or_enqueue(request, OperationKind.CREATE_JOB_LIST, data, argv, run_inline)

    @schema.update_experiment_description
    @command(
        "update-experiment-description",
        endpoint=Endpoint.UPDATE_EXPERIMENT_DETAILS,
        serializer_class=UpdateDescriptionRequest,
    )
    def update_experiment_description(self, request: Request) -> Response:
        data = self.validated(request)
        given = _given(data, "expid", "config", "description")
        if data["dry_run"]:
            return self.planned(dry_run.update_description(**given))
        outcome = execute.update_description(**given, audit=self.audit)
        message = f"Description for experiment {data['expid']} updated successfully."
        return Response({"message": message, "warnings": outcome.warnings})


def stopped_answer(outcome: stopping.StopOutcome) -> dict[str, Any]:
    """Return the members of `RunStoppedAnswer`."""
    return {
        "message": outcome.message,
        **run_fields(outcome.run),
        "steps": outcome.steps,
        "cancel": outcome.cancellation.as_dict() if outcome.cancellation else NOT_REQUESTED,
        "warnings": outcome.warnings,
    }


def _given(data: dict[str, Any], *names: str) -> dict[str, Any]:
    """Select the members of the validated body that a use case and its dry run take."""
    return {name: data[name] for name in names}


class RunStatusView(ReadOnlyAPIView):
    """The status of the last run of an experiment: a POST that only reads, and the endpoint that every client polls.

    No toggle disables it: active runs have to stay visible while RUNNER_RUN is off. It leaves no audit record.
    """

    required_scope = TokenScope.READ

    @schema.get_runner_run_status
    def post(self, request: Request) -> Response:
        user = viewer(request)
        body = RunStatusRequest(data=request.data, context={"viewer": user})
        body.is_valid(raise_exception=True)
        return Response(run_fields(runs.get_run(**body.validated_data, viewer=user)))
