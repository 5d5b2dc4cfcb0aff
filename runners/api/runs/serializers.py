"""The queries, request bodies and response bodies of runs."""

from __future__ import annotations

import re
from typing import Any

from rest_framework import serializers

from profiles.installations import MAX_INSTALLATION
from profiles.rules import RUNNERS, loader_choices, runner_choices
from runners.api.pagination import LARGEST_PAGE_SIZE, PAGE_SIZE, number_of
from runners.models import RunnerRun, RunReason, RunStatus
from runners.services.representations import run_fields
from runners.web.fields import ExpidField, StrictTextField, UtcTimeField
from runners.web.requests import RESTART_CAUSES, StrictSerializer

ORDERINGS = {"-created": "newest first", "created": "oldest first"}


class MomentField(UtcTimeField):
    """An ISO 8601 time. The + of its offset arrives as a blank if the client did not write it as %2B in the query."""

    def to_internal_value(self, value: Any) -> Any:
        if isinstance(value, str):
            value = re.sub(r" (\d\d:\d\d)$", r"+\1", value)
        return super().to_internal_value(value)


class QueryFlag(serializers.BooleanField):
    """`true` or `false` in a query. DRF's own field takes many more words."""

    default_error_messages = {"invalid": "Give true or false."}
    TRUE_VALUES = {"true"}
    FALSE_VALUES = {"false"}
    NULL_VALUES: set[Any] = set()


class RunsQuery(StrictSerializer):
    """Filters are named as the members that they look at; several are combined with AND."""

    expid = ExpidField(required=False, help_text="Runs of this experiment.")
    status = serializers.ChoiceField(choices=RunStatus.values, required=False)
    reason = serializers.ChoiceField(
        choices=RunReason.values, required=False, help_text="TERMINATED runs that ended for this reason."
    )
    search = StrictTextField(
        required=False,
        max_length=100,
        help_text="Runs with this number, runs whose expid begins with this text, and runs whose experiment has it in "
        "its description, in upper or lower case. Descriptions are known once the service has seen them; the text "
        "finds at most 500 experiments by their descriptions.",
    )
    profile_name = StrictTextField(required=False, max_length=100, help_text="Runs started with this profile.")
    installation = StrictTextField(
        required=False, max_length=MAX_INSTALLATION, help_text="Runs of the installation with exactly this name."
    )
    runner = serializers.ChoiceField(choices=list(RUNNERS), required=False)
    host = StrictTextField(required=False, max_length=255, help_text="Runs on the machine with this host name.")
    user = StrictTextField(required=False, max_length=100, help_text="Runs of this account of a machine.")
    started_by = StrictTextField(required=False, max_length=150, help_text="Runs that this person has started.")
    silent = QueryFlag(
        required=False,
        help_text="true: runs that print nothing for longer than their profile allows; false: the others.",
    )
    log_too_large = QueryFlag(
        required=False, help_text="true: runs whose log has passed the limit of this service; false: the others."
    )
    created_after = MomentField(required=False, help_text="Runs created at or after this time.")
    created_before = MomentField(required=False, help_text="Runs created before this time.")
    ordering = serializers.ChoiceField(
        choices=list(ORDERINGS), default="-created", help_text="-created: newest first. created: oldest first."
    )
    page_size = serializers.IntegerField(min_value=1, max_value=LARGEST_PAGE_SIZE, default=PAGE_SIZE)
    cursor = StrictTextField(
        required=False,
        max_length=64,
        help_text="`next_cursor` of the previous page, with the same filters and ordering.",
    )

    def validate_cursor(self, value: str) -> int:
        return number_of(value)


class AbandonRunRequest(StrictSerializer):
    """The reason why it is certain that the run has ended."""

    reason = StrictTextField(
        max_length=1000, help_text="It is stored with the run and in the audit log, with your name."
    )


class CancelRestartRequest(StrictSerializer):
    """It has no members: an empty object."""


REASONS = [("", "not TERMINATED"), *RunReason.choices]


class JobsOfRun(serializers.Serializer[Any]):
    """The outcome of the jobs of a run that has ended, by its log."""

    total = serializers.IntegerField(allow_null=True, help_text="Jobs of the experiment; null: not known from the log.")
    failed = serializers.IntegerField(help_text="Jobs whose last attempt failed.")
    not_run = serializers.IntegerField(
        allow_null=True,
        help_text="Jobs that have neither completed nor failed in this run. null: not known, because the run did not "
        "end by itself, or its log is too long to be read completely.",
    )
    failed_jobs = serializers.ListField(child=serializers.CharField(), help_text="Their names, at most 50.")
    at_least = serializers.BooleanField(
        required=False, help_text="true: only the end of the long log was read, and more jobs may have failed."
    )


class ProgressOfRun(serializers.Serializer[Any]):
    """The jobs of the run's experiment, as Autosubmit's own files count them."""

    total = serializers.IntegerField(help_text="All jobs of the experiment.")
    done = serializers.IntegerField(help_text="COMPLETED and SKIPPED jobs.")
    failed = serializers.IntegerField(help_text="FAILED jobs.")
    running = serializers.IntegerField(help_text="RUNNING jobs. The rest waits, or is queued.")
    failed_jobs = serializers.ListField(
        child=serializers.CharField(),
        help_text="Names of FAILED jobs: at most 10 while it runs, at most 50 when it has ended.",
    )


class RestartOfRun(serializers.Serializer[Any]):
    """When a run is started again automatically, and what has become of it."""

    on = serializers.ListField(
        child=serializers.ChoiceField(choices=RESTART_CAUSES), help_text="The ends after which it is started again."
    )
    attempts = serializers.IntegerField(help_text="How many restarts there may be, one after the other.")
    used = serializers.IntegerField(help_text="How many automatic restarts have led to this run.")
    next_at = serializers.DateTimeField(
        allow_null=True, help_text="When it is started again, or tried again. null: no restart is pending."
    )
    detail = serializers.CharField(
        allow_blank=True,
        help_text="What has become of the restart, or why it has to wait. Empty while none was needed.",
    )


class ForeignRunSerializer(serializers.Serializer[Any]):
    """A process that runs an experiment and that this service has not started."""

    pid = serializers.IntegerField()
    since = serializers.DateTimeField(allow_null=True, help_text="When it started, by the machine's clock.")
    host = serializers.CharField(help_text="The host name of the machine.")
    command = serializers.CharField(help_text="Its command line, at most 200 characters.")


class RunSerializer(serializers.Serializer[RunnerRun]):
    """One `autosubmit run`. The members up to `modified` are those of the Autosubmit API."""

    expid = serializers.CharField()
    runner_id = serializers.IntegerField(help_text="The number of this run.")
    runner = serializers.ChoiceField(choices=runner_choices())
    module_loader = serializers.ChoiceField(choices=loader_choices())
    modules = serializers.CharField(allow_blank=True, help_text="Several modules are separated by line ends.")
    status = serializers.ChoiceField(
        choices=RunStatus.choices,
        help_text="COMPLETED: ended with exit code 0 and without a stop in progress, or its log shows that it was "
        "complete before the stop. TERMINATED: ended in any other way.",
    )
    pid = serializers.IntegerField(allow_null=True, help_text="null until the process is known.")
    created = serializers.DateTimeField()
    modified = serializers.DateTimeField(help_text="When the state last changed.")

    exit_code = serializers.IntegerField(allow_null=True, help_text="128 + signal if a signal ended it.")
    signal = serializers.CharField(allow_blank=True, help_text="The signal that ended it, such as TERM; else empty.")
    reason = serializers.ChoiceField(choices=REASONS, help_text="The reason for TERMINATED; empty otherwise.")
    host = serializers.CharField(allow_blank=True, help_text="The host name of the machine it runs on.")
    user = serializers.CharField(allow_blank=True, help_text="The account that runs it.")
    profile_name = serializers.CharField(allow_blank=True)
    installation = serializers.CharField(
        help_text="The name of the Autosubmit database that it uses. The same expid in another installation is "
        "another experiment."
    )
    started_by = serializers.CharField(allow_blank=True)
    stopped_by = serializers.CharField(allow_blank=True)
    finished = serializers.DateTimeField(allow_null=True)
    confirmed_at = serializers.DateTimeField(allow_null=True, help_text="When the machine last confirmed the state.")
    reachable = serializers.BooleanField(
        help_text="false: the last known state, because the machine cannot be probed now."
    )
    unreachable_detail = serializers.CharField(allow_blank=True, help_text="The reason why the last probe failed.")
    explanation = serializers.CharField(
        allow_blank=True,
        help_text="Explanation of the end: the failed jobs, the number of jobs that were not run, Autosubmit's reason "
        "or its last lines, what the rest of the jobs waits for, and the last lines of the error logs of failed jobs; "
        "or the reason why it was declared ended.",
    )
    jobs = JobsOfRun(
        allow_null=True, help_text="The results of its jobs; null while it runs, after a stop, and if unknown."
    )
    superseded = serializers.BooleanField(
        help_text="true: its experiment was deleted, and a newer one has its id. get-runner-run-status does not "
        "return such runs."
    )
    command_params = serializers.DictField(
        child=serializers.JSONField(), help_text="The options of run-experiment that were given; often empty."
    )
    previous_run = serializers.IntegerField(
        allow_null=True,
        help_text="The number of the run that this one continues; null: it was started on its own. That run may have "
        "been deleted.",
    )
    restart = RestartOfRun(allow_null=True, help_text="null: it is never started again automatically.")
    progress = ProgressOfRun(allow_null=True, help_text="Its jobs at the last look at the machine; null: not known.")
    last_output_at = serializers.DateTimeField(
        allow_null=True,
        help_text="When it last printed something, as seen by the last probe; null: nothing yet, or not known.",
    )
    log_size = serializers.IntegerField(
        allow_null=True, help_text="The bytes of its log at the last probe; null: not known."
    )
    silent_since = serializers.DateTimeField(
        allow_null=True,
        help_text="Set while it runs and prints nothing for longer than SILENT_AFTER of its profile: the time of its "
        "last output, or of its start.",
    )
    log_too_large = serializers.BooleanField(help_text="true: its log has passed the limit of this service.")

    def to_representation(self, instance: RunnerRun) -> dict[str, Any]:
        """Return the members without DRF's loop over the field objects, which costs more than the query of a status.

        Every client polls the status.
        """
        return run_fields(instance)


class StopStep(serializers.Serializer[Any]):
    """One thing that was tried to end a run."""

    action = serializers.CharField(help_text="Such as 'autosubmit stop' or 'signal TERM'.")
    outcome = serializers.CharField()
    seconds = serializers.FloatField()
    ended = serializers.BooleanField(help_text="True if the end of the run was seen after this step.")


class RunPage(serializers.Serializer[Any]):
    """Some runs, and where the next ones are."""

    results = RunSerializer(many=True)
    next_cursor = serializers.CharField(allow_null=True, help_text="null on the last page.")
    next = serializers.CharField(allow_null=True, help_text="The same as a relative link.")
