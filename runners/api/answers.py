"""The bodies of the answers."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from profiles.config import ModuleLoaderType, RunnerType
from runners.models import RunnerRun, RunReason, RunStatus
from runners.services.cancelling import MAX_JOBS, JobOutcome, Outcome
from runners.services.representations import run_fields

REASONS = [("", "not TERMINATED"), *RunReason.choices]
CANCEL_OUTCOMES = [("", "not requested"), *((outcome.value, outcome.value) for outcome in Outcome)]


class JobsOfRun(serializers.Serializer[Any]):
    """What became of the jobs of a run that has ended, by its log."""

    total = serializers.IntegerField(allow_null=True, help_text="Jobs of the experiment; null: the log does not tell.")
    failed = serializers.IntegerField(help_text="Jobs whose last attempt failed.")
    not_run = serializers.IntegerField(
        allow_null=True,
        help_text="Jobs of which this run has seen neither completion nor failure. null: not known, because the run "
        "did not come to its own end, or its log is too long to be read whole.",
    )
    failed_jobs = serializers.ListField(child=serializers.CharField(), help_text="Their names, 50 at most.")
    at_least = serializers.BooleanField(
        required=False, help_text="true: only the end of the long log was read, and more jobs may have failed."
    )


class RunSerializer(serializers.Serializer[RunnerRun]):
    """One `autosubmit run`. The members up to `modified` are those of the Autosubmit API."""

    expid = serializers.CharField()
    runner_id = serializers.IntegerField(help_text="The number of this run.")
    runner = serializers.ChoiceField(choices=RunnerType.choices)
    module_loader = serializers.ChoiceField(choices=ModuleLoaderType.choices)
    modules = serializers.CharField(allow_blank=True, help_text="Several modules stand on lines of their own.")
    status = serializers.ChoiceField(
        choices=RunStatus.choices,
        help_text="COMPLETED: ended with exit code 0 and no stop under way, or its log says that it was complete "
        "before the stop. TERMINATED: ended in any other way.",
    )
    pid = serializers.IntegerField(allow_null=True, help_text="null until the process is known.")
    created = serializers.DateTimeField()
    modified = serializers.DateTimeField(help_text="When the state last changed.")

    exit_code = serializers.IntegerField(allow_null=True, help_text="128 + signal when a signal ended it.")
    signal = serializers.CharField(allow_blank=True, help_text="The signal that ended it, such as TERM; else empty.")
    reason = serializers.ChoiceField(choices=REASONS, help_text="Why it is TERMINATED; empty otherwise.")
    host = serializers.CharField(allow_blank=True, help_text="The machine it runs on, by its own name.")
    user = serializers.CharField(allow_blank=True, help_text="The account that runs it.")
    profile_name = serializers.CharField(allow_blank=True)
    installation = serializers.CharField(
        help_text="The Autosubmit database that it uses, by its name. The same expid in another is another experiment."
    )
    started_by = serializers.CharField(allow_blank=True)
    stopped_by = serializers.CharField(allow_blank=True)
    finished = serializers.DateTimeField(allow_null=True)
    confirmed_at = serializers.DateTimeField(allow_null=True, help_text="When the machine last confirmed the state.")
    reachable = serializers.BooleanField(help_text="false: the last known state is shown, the machine cannot tell now.")
    unreachable_detail = serializers.CharField(allow_blank=True, help_text="Why the machine could not tell.")
    explanation = serializers.CharField(
        allow_blank=True,
        help_text="Why it ended so: the failed jobs, how many were not run, Autosubmit's reason or its last words; or "
        "why it was declared ended.",
    )
    jobs = JobsOfRun(
        allow_null=True, help_text="What became of its jobs; null while it runs, after a stop, and when nobody knows."
    )
    superseded = serializers.BooleanField(
        help_text="true: its experiment was deleted, and a newer one has its id. Status does not tell of it any more."
    )

    def to_representation(self, instance: RunnerRun) -> dict[str, Any]:
        """Return the members without DRF's loop over 21 field objects, which costs more than the query of a status.

        Every client polls the status.
        """
        return run_fields(instance)


class RunStartedAnswer(RunSerializer):
    """`message` and the run."""

    message = serializers.CharField()


class StopStep(serializers.Serializer[Any]):
    """One thing that was tried to end a run."""

    action = serializers.CharField(help_text="Such as 'autosubmit stop' or 'signal TERM'.")
    outcome = serializers.CharField()
    seconds = serializers.FloatField()
    ended = serializers.BooleanField(help_text="Whether the end of the run was seen then.")


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


class RunChoice(serializers.Serializer[Any]):
    """One of several active runs that a stop may mean."""

    runner_id = serializers.IntegerField(help_text="The number of the run.")
    profile_name = serializers.CharField(allow_blank=True)
    installation = serializers.CharField()
    user = serializers.CharField(allow_blank=True, help_text="The account that runs it.")
    host = serializers.CharField(allow_blank=True, help_text="The machine it runs on, by its own name.")
    started_by = serializers.CharField(allow_blank=True)
    created = serializers.DateTimeField()


class Problem(serializers.Serializer[Any]):
    """Every error, as RFC 9457 says, with `detail` and `error_message` as today's clients read them.

    More members may be present, such as `exit_code` and `output` (command_failed) or `run` (already_running).
    """

    type = serializers.CharField(help_text="A reference to the explanation of `code`.")
    title = serializers.CharField(help_text="What `code` means, in a few words.")
    status = serializers.IntegerField(help_text="The HTTP status.")
    detail = serializers.CharField(help_text="What happened here, and what to do about it. Always text.")
    code = serializers.CharField(help_text="Stable; programs should read this one.")
    error = serializers.BooleanField(help_text="Always true.")
    error_message = serializers.CharField(help_text="The same as detail.")
    errors = serializers.DictField(  # type: ignore[assignment]
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="For each refused member, by its path such as command_params.final_status: what is wrong.",
    )
    exit_code = serializers.IntegerField(required=False, allow_null=True, help_text="Of the command that failed.")
    error_code = serializers.IntegerField(required=False, allow_null=True, help_text="Autosubmit's own, its [eCode=N].")
    output = serializers.CharField(required=False, help_text="The last lines of the command that failed.")
    host = serializers.CharField(required=False, help_text="The machine that is meant.")
    key_type = serializers.CharField(required=False, help_text="The type of its host key (host_key_unknown, _changed).")
    fingerprint = serializers.CharField(required=False, help_text="Of the host key that it shows.")
    trusted_fingerprint = serializers.CharField(required=False, help_text="Of the key that is trusted instead.")
    choices = RunChoice(many=True, required=False, help_text="The runs that may be meant (ambiguous), 50 at most.")
    run = RunSerializer(required=False, help_text="The run that is in the way, or the last one.")
    run_id = serializers.IntegerField(required=False, help_text="The run that may have been started, or still lives.")
    machine = serializers.CharField(required=False, help_text="machine_busy: the account of the machine that is meant.")
    requests = serializers.IntegerField(required=False, help_text="machine_busy: how many requests occupy it.")
    of_your_profile = serializers.IntegerField(required=False, help_text="How many of them came with the same profile.")
    of_yours = serializers.IntegerField(required=False, help_text="How many of them are the caller's.")
    profile_name = serializers.CharField(required=False, allow_blank=True, help_text="The profile of the request.")
    operation_id = serializers.IntegerField(required=False, help_text="The operation that is not finished yet.")
    steps = StopStep(many=True, required=False, help_text="What was tried to end the run (errors of stop-experiment).")
