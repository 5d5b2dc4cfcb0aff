"""The view that runs the experiment of a run again."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from runners.api.idempotency import IdempotentViewSet
from runners.api.run_again import schema
from runners.api.run_again.serializers import RunAgainRequest
from runners.commands.run_experiment import RUNNER_RUN
from runners.services import run_again
from runners.services.representations import run_fields


class RunAgainView(IdempotentViewSet):
    serializer_class = RunAgainRequest
    command = run_again.RUN_AGAIN
    endpoint = RUNNER_RUN.name

    @schema.run_again
    def run_again(self, request: Request, id: int) -> Response:
        return self.execute_once(request, lambda: self._run_again(request, id))

    def _run_again(self, request: Request, number: int) -> Response:
        data = self.validated(request)
        found = run_again.prepare(
            pk=number,
            user=request.user,
            first=run_again.First(data["first"]),
            params=data.get("command_params"),
            audit=self.audit,
        )
        if data["dry_run"]:
            previewed = found.preview(self.audit)
            answer = self.planned(previewed.plan)
            answer.data["steps"] = [step.as_dict() for step in previewed.steps]
            return answer
        run, steps = found.execute(self.audit, key=self.record.run_key if self.record else "")
        return Response(
            {
                "message": f"Experiment {run.expid} was started again, as run {run.pk}.",
                **run_fields(run),
                "steps": [step.as_dict() for step in steps],
                "warnings": found.warnings,
            }
        )
