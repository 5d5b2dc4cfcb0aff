"""The queries and answers of jobs."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from runners.api.logs import LogQuery
from runners.api.pagination import number_of
from runners.commands.set_job_status import STATUSES
from runners.printable import quoted
from runners.services.machines.jobs import MOST_FAILED, MOST_TEXT, ORDERINGS, JobQuery
from runners.web.fields import StrictTextField
from runners.web.requests import StrictSerializer

PAGE_SIZE, LARGEST_PAGE_SIZE = 100, 500
STREAMS = {"err": "standard error", "out": "standard output"}
LARGEST_NUMBER = 2**31 - 1


@extend_schema_field(serializers.CharField())
class StatusesField(StrictTextField):
    """One or several statuses, separated by commas."""

    def to_internal_value(self, data: object) -> Any:
        words = super().to_internal_value(data).split(",")
        if unknown := [word for word in words if word not in STATUSES]:
            raise serializers.ValidationError(f"{quoted(unknown[0])} is not a status. Known: {', '.join(STATUSES)}.")
        return tuple(dict.fromkeys(words))


class JobsQuery(StrictSerializer):
    """Filters are named as the members that they look at; several are combined with AND."""

    status = StatusesField(
        required=False,
        max_length=200,
        pattern="[A-Za-z0-9_, -]*",
        rule=f"give one or several of {', '.join(STATUSES)}, separated by commas.",
        help_text="One or several statuses, separated by commas: FAILED,RUNNING.",
    )
    section = StrictTextField(required=False, max_length=MOST_TEXT, help_text="Jobs of exactly this section.")
    member = StrictTextField(required=False, max_length=MOST_TEXT, help_text="Jobs of exactly this member.")
    date = StrictTextField(required=False, max_length=MOST_TEXT, help_text="Jobs of this start date, as 20000101.")
    chunk = serializers.IntegerField(
        min_value=1, max_value=LARGEST_NUMBER, required=False, help_text="Jobs of this chunk."
    )
    split = serializers.IntegerField(
        min_value=1, max_value=LARGEST_NUMBER, required=False, help_text="Jobs of this split."
    )
    platform = StrictTextField(required=False, max_length=MOST_TEXT, help_text="Jobs on exactly this platform.")
    name = StrictTextField(
        required=False, max_length=MOST_TEXT, help_text="Jobs whose name contains this text, in any case."
    )
    ordering = serializers.ChoiceField(
        choices=[*ORDERINGS, *(f"-{name}" for name in ORDERINGS)],
        required=False,
        help_text="Without it, the order of the job list. A - reverses the order; jobs without a value come last.",
    )
    page_size = serializers.IntegerField(min_value=1, max_value=LARGEST_PAGE_SIZE, default=PAGE_SIZE)
    cursor = StrictTextField(
        required=False,
        max_length=64,
        help_text="`next_cursor` of the previous page, with the same filters and ordering.",
    )

    def validate_cursor(self, value: str) -> int:
        return number_of(value)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Add `wanted`, the JobQuery."""
        filters = {name: value for name, value in attrs.items() if name not in ("page_size", "cursor", "profile_name")}
        wanted = JobQuery(offset=attrs.get("cursor", 0), limit=attrs["page_size"], **filters)
        return {**attrs, "wanted": wanted}


class ExperimentJobsQuery(JobsQuery):
    """The profile with whose account the job list is read, and the filters."""

    profile_name = StrictTextField(
        max_length=100, help_text="The profile with whose account and environment the job list is read."
    )


class JobLogQuery(LogQuery):
    """Which log of the job, and which part of it: from `offset`, or the last `tail` bytes."""

    stream = serializers.ChoiceField(choices=list(STREAMS), default="err", help_text="err or out.")
    attempt = serializers.IntegerField(
        min_value=1, max_value=1000, required=False, help_text="The number of the attempt; without it, the last one."
    )


class AttemptAnswer(serializers.Serializer[Any]):
    """One submission of a job. A member that Autosubmit has not recorded (yet) is null."""

    number = serializers.IntegerField(help_text="Its number, from 1: the parameter `attempt` of the job's log.")
    status = serializers.CharField(allow_null=True, help_text="The status that Autosubmit recorded.")
    submitted = serializers.DateTimeField(allow_null=True, help_text="When it was submitted.")
    started = serializers.DateTimeField(allow_null=True, help_text="When it began to run.")
    finished = serializers.DateTimeField(allow_null=True, help_text="As Autosubmit records it: see docs/jobs.md.")
    remote_id = serializers.IntegerField(allow_null=True, help_text="The id that the platform gave it.")
    out = serializers.CharField(allow_null=True, help_text="The name of the log of standard output.")
    err = serializers.CharField(allow_null=True, help_text="The name of the log of standard error.")


class JobAnswer(serializers.Serializer[Any]):
    """A job of the experiment. `submitted` to `err` are those of its last attempt. Unknown values are null."""

    name = serializers.CharField(help_text="The name of the job.")
    section = serializers.CharField(allow_null=True, help_text="The section, as SIM.")
    date = serializers.CharField(allow_null=True, help_text="The start date, as 20000101.")
    member = serializers.CharField(allow_null=True, help_text="The member of the ensemble.")
    chunk = serializers.IntegerField(allow_null=True, help_text="The number of the chunk.")
    split = serializers.IntegerField(allow_null=True, help_text="The number of the split.")
    status = serializers.ChoiceField(choices=STATUSES, help_text="Its status in the job list.")
    platform = serializers.CharField(
        allow_null=True, help_text="The platform of the job, by its name in the configuration."
    )
    remote_id = serializers.IntegerField(
        allow_null=True, source="last.remote_id", help_text="The id that the platform gave it."
    )
    submitted = serializers.DateTimeField(allow_null=True, source="last.submitted", help_text="When it was submitted.")
    started = serializers.DateTimeField(allow_null=True, source="last.started", help_text="When it began to run.")
    finished = serializers.DateTimeField(
        allow_null=True, source="last.finished", help_text="As Autosubmit records it; null before, and if not known."
    )
    out = serializers.CharField(allow_null=True, source="last.out", help_text="The name of the log of standard output.")
    err = serializers.CharField(allow_null=True, source="last.err", help_text="The name of the log of standard error.")
    attempts = AttemptAnswer(many=True, help_text="Oldest first, at most 50.")


class JobsAnswer(serializers.Serializer[Any]):
    """Counts of all jobs of the experiment, as they are now, and some of the jobs that match the filters."""

    expid = serializers.CharField(help_text="The experiment.")
    total = serializers.IntegerField(help_text="All jobs of the experiment.")
    counts = serializers.DictField(
        child=serializers.IntegerField(), help_text="How many jobs have each status; only statuses that a job has."
    )
    failed_jobs = serializers.ListField(
        child=serializers.CharField(), help_text=f"The names of failed jobs, at most {MOST_FAILED}."
    )
    matching = serializers.IntegerField(help_text="Jobs that match the filters, on all pages.")
    attempts_known = serializers.BooleanField(
        help_text="false: Autosubmit's history of attempts cannot be read, so only the last attempt may be known."
    )
    results = JobAnswer(many=True, help_text="The jobs of this page.")
    next_cursor = serializers.CharField(allow_null=True, help_text="null on the last page.")
    next = serializers.CharField(allow_null=True, help_text="The same as a relative link.")
