"""The request and the responses of `run-again`."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from runners.api.commands.responses import PlanAnswer
from runners.api.runs.serializers import RunSerializer
from runners.commands.run_experiment import RUN_EXPERIMENT
from runners.services.run_again import First
from runners.web.fields import FlagField, WordField
from runners.web.requests import DRY_RUN, StrictSerializer, params_field

FIRST_STEPS = [step.value for step in First]


class RunAgainRequest(StrictSerializer):
    """What is done before the run, and the options of the run. All members are optional."""

    first = WordField(
        choices=tuple(FIRST_STEPS),
        unknown="{value} is not known. Send one of failed_to_waiting, recover, or nothing.",
        required=False,
        default=First.NOTHING,
        help_text="failed_to_waiting: set all FAILED jobs to WAITING first, as set-job-status does. recover: execute "
        "recover-experiment first. Empty or absent: only start the run.",
    )
    command_params = params_field(RUN_EXPERIMENT)
    dry_run = FlagField(help_text=f"{DRY_RUN} Autosubmit on the machine is asked what the first step would change.")


class RunAgainStep(serializers.Serializer[Any]):
    """A command that was executed before the run, or that would be executed."""

    command = serializers.CharField(help_text="Its name, such as set-job-status.")
    message = serializers.CharField()
    warnings = serializers.ListField(child=serializers.CharField())
    changed = serializers.DictField(
        child=serializers.CharField(), required=False, help_text="The new status of each changed job, at most 1,000."
    )
    counts = serializers.DictField(
        child=serializers.IntegerField(allow_null=True), required=False, help_text="How many jobs it met."
    )
    recovered = serializers.DictField(
        child=serializers.CharField(), required=False, help_text="The status of each job that a recovery looked at."
    )


class RunAgainAnswer(RunSerializer):
    """`message`, the new run, and what was done before it."""

    message = serializers.CharField()
    steps = RunAgainStep(
        many=True,
        required=False,
        help_text="What was done before the run. Absent in the response to a retry whose first request was cut off.",
    )
    warnings = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="Jobs that the run will not execute."
    )


class RunAgainPlan(PlanAnswer):
    """What `dry_run` answers: the plan of the run, and what the first step would change."""

    steps = RunAgainStep(many=True, help_text="Empty without `first`.")
