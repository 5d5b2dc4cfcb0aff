"""The views of the commands. Each view validates the body, calls one use case, and serializes the result."""

from __future__ import annotations

from typing import Any

from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from profiles.models import EndpointToggle
from runners.api.base import ReadOnlyAPIView, viewer
from runners.api.commands import schema
from runners.api.commands.responses import CommandsAnswer
from runners.api.idempotency import IdempotentViewSet, idempotent
from runners.commands.base import Command, OneShotCommand
from runners.commands.registry import COMMANDS, one_shot_commands
from runners.commands.run_experiment import RUN_EXPERIMENT
from runners.commands.stop_experiment import STOP_EXPERIMENT
from runners.exceptions import RunNotFound
from runners.models import RunnerRun, TokenScope
from runners.services import access, execute, foreign_runs, idempotency, runs, starting, stopping
from runners.services.cancelling import NOT_REQUESTED
from runners.services.representations import run_fields
from runners.web.requests import RunExperimentRequest, RunStatusRequest, StopExperimentRequest, request_of


def command(found: Command, serializer_class: type) -> Any:
    """Return a decorator that makes a method the action `command/<name>`, which obeys `Idempotency-Key`."""
    decorate = action(
        detail=False,
        methods=["post"],
        url_path=found.name,
        url_name=found.name,
        serializer_class=serializer_class,
        command=found.name,
        endpoint=found.toggle.name,
    )
    return lambda method: decorate(idempotent(method))


class ExperimentCommands(IdempotentViewSet):
    """The commands that change something. Runs and stops have methods; the others are added from the registry."""

    @schema.run_experiment
    @command(RUN_EXPERIMENT, RunExperimentRequest)
    def run_experiment(self, request: Request) -> Response:
        data = self.validated(request)
        if data["dry_run"]:
            return self.planned(execute.check_run(expid=data["expid"], config=data["config"], params=data["params"]))
        run = starting.run_experiment(
            expid=data["expid"],
            config=data["config"],
            profile_name=data["profile_name"],
            audit=self.audit,
            key=self.record.run_key if self.record else "",
            params=data["params"],
            restart=data["restart"],
        )
        return Response({"message": f"Experiment {run.expid} started successfully.", **run_fields(run)})

    @schema.stop_experiment
    @command(STOP_EXPERIMENT, StopExperimentRequest)
    def stop_experiment(self, request: Request) -> Response:
        data = self.validated(request)
        if data.pop("foreign"):
            return self._stop_foreign(request, data)

        def authorize(run: RunnerRun) -> None:
            access.require_stop(request.user, run)
            if self.record:
                idempotency.bind_run(self.record, run)

        if data.pop("dry_run"):
            where = {name: data.pop(name) for name in ("expid", "scope", "place")}
            run = stopping.run_to_stop(**where, viewer=request.user, cancel_jobs=data["cancel_jobs"])
            authorize(run)
            return self.planned(execute.plan_stop(run=run, **data))
        outcome = stopping.stop_experiment(**data, viewer=request.user, audit=self.audit, authorize=authorize)
        return Response(stopped_answer(outcome))

    def _stop_foreign(self, request: Request, data: dict[str, Any]) -> Response:
        """Stop a run that this service has not started."""
        expid = data["expid"]
        place = foreign_runs.place_to_stop(expid, request.user, data["scope"], data["place"])
        if data["dry_run"]:
            return self.planned(execute.plan_foreign_stop(expid=expid, place=place, force=data["force"]))
        outcome = foreign_runs.stop(
            expid=expid, place=place, audit=self.audit, force=data["force"], cancel_jobs=data["cancel_jobs"]
        )
        return Response(outcome.as_dict())


def _add(found: OneShotCommand) -> None:
    """Add the action of a one-shot command to ExperimentCommands."""

    def method(self: ExperimentCommands, request: Request) -> Response:
        return self.execute_or_enqueue(request, found, self.validated(request))

    method.__name__ = found.name.replace("-", "_")
    decorated = schema.one_shot(found)(command(found, request_of(found))(method))
    setattr(ExperimentCommands, method.__name__, decorated)


for _command in one_shot_commands().values():
    _add(_command)


def stopped_answer(outcome: stopping.StopOutcome) -> dict[str, Any]:
    """Return the members of `RunStoppedAnswer`."""
    return {
        "message": outcome.message,
        **run_fields(outcome.run),
        "steps": outcome.steps,
        "cancel": outcome.cancellation.as_dict() if outcome.cancellation else NOT_REQUESTED,
        "warnings": outcome.warnings,
    }


class CommandsView(ReadOnlyAPIView):
    """The commands of the registry."""

    @schema.list_commands
    def get(self, request: Request) -> Response:
        context = {"states": EndpointToggle.states()}
        return Response(CommandsAnswer({"commands": list(COMMANDS.values())}, context=context).data)


def status_fields(run: RunnerRun, user: Any) -> dict[str, Any]:
    """Return the response of get-runner-run-status: the run, and a foreign run of the experiment that is known."""
    seen = foreign_runs.seen(run.expid, user, run=run)
    return run_fields(run) | ({"foreign": seen} if seen else {})


class RunStatusView(ReadOnlyAPIView):
    """The status of the last run of an experiment: a POST that only reads, and the endpoint that every client polls.

    No toggle disables it: active runs have to stay visible while RUNNER_RUN is off. It leaves no audit record.
    `status_middleware.py` answers the most frequent requests before this view.
    """

    required_scope = TokenScope.READ

    @schema.get_runner_run_status
    def post(self, request: Request) -> Response:
        user = viewer(request)
        body = RunStatusRequest(data=request.data, context={"viewer": user})
        body.is_valid(raise_exception=True)
        expid, scope = body.validated_data["expid"], body.validated_data["scope"]
        try:
            run = runs.get_run(expid=expid, scope=scope, viewer=user)
        except RunNotFound as error:
            if seen := foreign_runs.seen(expid, user, scope=scope):
                error.facts["foreign"] = seen
            raise
        return Response(status_fields(run, user))
