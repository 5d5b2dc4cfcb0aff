"""The queries, request bodies and response bodies of runs."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from rest_framework import serializers

from profiles.installations import MAX_INSTALLATION
from profiles.rules import RUNNERS, loader_choices, runner_choices
from runners.api.pagination import LARGEST_PAGE, PAGE
from runners.models import RunnerRun, RunReason, RunStatus
from runners.services.representations import run_fields
from runners.web.fields import ExpidField, StrictTextField
from runners.web.requests import StrictSerializer

ORDERINGS = {"-created": "newest first", "created": "oldest first"}


class MomentField(serializers.DateTimeField):
    """An ISO 8601 time. The + of its offset arrives as a blank if the client did not write it as %2B in the query."""

    def to_internal_value(self, value: Any) -> Any:
        if isinstance(value, str):
            value = re.sub(r" (\d\d:\d\d)$", r"+\1", value)
        return super().to_internal_value(value)


class RunsQuery(StrictSerializer):
    """Filters are named as the members that they look at; several are combined with AND."""

    expid = ExpidField(required=False, help_text="Runs of this experiment.")
    status = serializers.ChoiceField(choices=RunStatus.values, required=False)
    profile_name = StrictTextField(required=False, max_length=100, help_text="Runs started with this profile.")
    installation = StrictTextField(
        required=False, max_length=MAX_INSTALLATION, help_text="Runs of this installation, by its whole name."
    )
    runner = serializers.ChoiceField(choices=list(RUNNERS), required=False)
    host = StrictTextField(required=False, max_length=255, help_text="Runs on this machine, by its own name.")
    user = StrictTextField(required=False, max_length=100, help_text="Runs that this account of a machine runs.")
    started_by = StrictTextField(required=False, max_length=150, help_text="Runs that this person has started.")
    created_after = MomentField(required=False, help_text="Runs created then or later.")
    created_before = MomentField(required=False, help_text="Runs created before then.")
    ordering = serializers.ChoiceField(
        choices=list(ORDERINGS), default="-created", help_text="-created: newest first. created: oldest first."
    )
    page_size = serializers.IntegerField(min_value=1, max_value=LARGEST_PAGE, default=PAGE)
    cursor = StrictTextField(
        required=False, max_length=64, help_text="`next_cursor` of the page before, with the same filters and ordering."
    )

    def validate_cursor(self, value: str) -> int:
        """Return the number of the run that the cursor holds."""
        try:
            text = base64.urlsafe_b64decode(value.encode("ascii") + b"==").decode("ascii")
            found = re.fullmatch(r"run (\d{1,18})", text, re.ASCII)
        except (binascii.Error, ValueError):
            found = None
        if not found:
            raise serializers.ValidationError("Give the next_cursor of a page, unchanged, or leave it out.")
        return int(found[1])


class AbandonRunRequest(StrictSerializer):
    """Why it is certain that nothing runs any more."""

    reason = StrictTextField(max_length=1000, help_text="It stays with the run and in the audit log, with your name.")


REASONS = [("", "not TERMINATED"), *RunReason.choices]


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
    runner = serializers.ChoiceField(choices=runner_choices())
    module_loader = serializers.ChoiceField(choices=loader_choices())
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


class StopStep(serializers.Serializer[Any]):
    """One thing that was tried to end a run."""

    action = serializers.CharField(help_text="Such as 'autosubmit stop' or 'signal TERM'.")
    outcome = serializers.CharField()
    seconds = serializers.FloatField()
    ended = serializers.BooleanField(help_text="Whether the end of the run was seen then.")


class RunPage(serializers.Serializer[Any]):
    """Some runs, and where the next ones are."""

    results = RunSerializer(many=True)
    next_cursor = serializers.CharField(allow_null=True, help_text="null: there are no more.")
    next = serializers.CharField(allow_null=True, help_text="The same as a link, relative to this server.")
