"""The response bodies of the commands."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from profiles.api.serializers import ProfileSSHSerializer
from profiles.rules import loader_choices, runner_choices
from runners.api.runs.serializers import RunSerializer, StopStep
from runners.services.cancelling import MAX_JOBS, JobOutcome, Outcome

CANCEL_OUTCOMES = [("", "not requested"), *((outcome.value, outcome.value) for outcome in Outcome)]


class RunStartedAnswer(RunSerializer):
    """`message` and the run."""

    message = serializers.CharField()


class JobCounts(serializers.Serializer[Any]):
    """How many jobs had which outcome."""

    cancelled = serializers.IntegerField()
    may_go_on = serializers.IntegerField()
    not_cancelled = serializers.IntegerField()


class CancelAnswer(serializers.Serializer[Any]):
    """What became of the jobs that were to be cancelled."""

    requested = serializers.BooleanField(help_text="Whether the request had cancel_jobs.")
    outcome = serializers.ChoiceField(
        choices=CANCEL_OUTCOMES,
        help_text="cancelled: Autosubmit reports all of them as cancelled. not_cancelled: not all, or none. unknown: "
        "some may go on, or the cancel was cut off. nothing_to_cancel: Autosubmit knows of no active job. Empty when "
        "it was not requested.",
    )
    counts = JobCounts()
    jobs = serializers.DictField(
        child=serializers.ChoiceField(choices=list(JobOutcome)),
        help_text=f"The outcome of each job, of {MAX_JOBS} at most. cancelled: the platform was asked and reported no "
        "error. may_go_on: it was asked, but platforms of its type are not known to obey. not_cancelled: Autosubmit "
        "reports that it could not ask.",
    )
    verified = serializers.BooleanField(
        help_text="Whether the service itself has seen the end of all these jobs. false: there is only Autosubmit's "
        "report."
    )
    detail = serializers.CharField(allow_blank=True)


class RunStoppedAnswer(RunSerializer):
    """`message`, the run, what was done to end it, and what became of its jobs."""

    message = serializers.CharField(
        help_text="'Experiment a001 stopped successfully.' only when the run was stopped and no job that was to be "
        "cancelled may go on."
    )
    steps = StopStep(many=True, help_text="What was tried, in order.")
    cancel = CancelAnswer()
    warnings = serializers.ListField(
        child=serializers.CharField(), help_text="What may go on, and what has to be done before the next run."
    )


class CommandAnswer(serializers.Serializer[Any]):
    message = serializers.CharField()
    warnings = serializers.ListField(
        child=serializers.CharField(), help_text="Autosubmit's words that mean trouble although the command succeeded."
    )


class ChangeCounts(serializers.Serializer[Any]):
    """How many jobs a set-job-status met."""

    selected = serializers.IntegerField(
        allow_null=True, help_text="Jobs that the filters select; null when this version of Autosubmit does not say."
    )
    changed = serializers.IntegerField(help_text="Jobs that have a new status.")
    unchanged = serializers.IntegerField(
        allow_null=True,
        help_text="Selected jobs that were not changed: they had the status already, or a warning says why. null as "
        "`selected`.",
    )


class JobStatusAnswer(CommandAnswer):
    """What was changed."""

    changed = serializers.DictField(
        child=serializers.CharField(),
        help_text="The new status of each job that was changed: at most 1,000 of them, `counts.changed` tells how many "
        "there are.",
    )
    counts = ChangeCounts(help_text="How many jobs were selected, changed and left as they were.")


class ExperimentCreatedAnswer(CommandAnswer):
    expid = serializers.CharField(help_text="The id of the new experiment.")


class PlannedProfile(serializers.Serializer[Any]):
    """The resolved configuration."""

    RUNNER_TYPE = serializers.ChoiceField(choices=runner_choices())
    MODULE_LOADER_TYPE = serializers.ChoiceField(choices=loader_choices())
    MODULES = serializers.ListField(child=serializers.CharField())
    SSH = ProfileSSHSerializer(required=False)
    VENV_ROOTS = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="The environment has to be in one of them."
    )


class PlanAnswer(serializers.Serializer[Any]):
    """What `dry_run` answers."""

    message = serializers.CharField()
    profile = PlannedProfile()
    where = serializers.CharField(help_text="The machine and account.")
    argv = serializers.ListField(child=serializers.CharField())
    script = serializers.CharField(help_text="What a login shell would evaluate there.")
    detached = serializers.BooleanField(help_text="It would outlive the request, as a run does.")
    warnings = serializers.ListField(
        child=serializers.CharField(),
        help_text="What it would do besides. create-job-list: the COMPLETED jobs whose progress would be lost; "
        "for this Autosubmit is asked on the machine, without saving.",
    )
