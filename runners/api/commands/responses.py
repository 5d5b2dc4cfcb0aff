"""The response bodies of the commands."""

from __future__ import annotations

from functools import cache
from typing import Any

from rest_framework import serializers

from profiles.api.serializers import SectionsMixin
from profiles.rules import loader_choices, runner_choices
from runners.api.runs.serializers import RunSerializer, StopStep
from runners.commands.base import Member, OneShotCommand
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


@cache
def answer_of(command: OneShotCommand) -> type[CommandAnswer]:
    """Return the serializer of a command's answer. Commands without `members` share CommandAnswer."""
    if not command.members:
        return CommandAnswer
    members = {member.name: member_field(member) for member in command.members}
    more = {"__doc__": command.answer_text or None, "__module__": __name__}
    return type(command.answer_name, (CommandAnswer,), {**members, **more})


def member_field(member: Member, **kwargs: Any) -> serializers.Field[Any, Any, Any, Any]:
    """Return the field that documents a member of an answer. `kwargs` replace those of the member."""
    given: dict[str, Any] = {"help_text": member.help} | ({"allow_null": True} if member.is_nullable else {}) | kwargs
    match member.kind:
        case "text":
            return serializers.CharField(**given)
        case "integer":
            return serializers.IntegerField(**given)
        case "texts":
            return serializers.ListField(child=serializers.CharField(), **given)
        case "text_by_name":
            return serializers.DictField(child=serializers.CharField(), **given)
        case "object":
            return _object(member)(**given)
    raise TypeError(f"{member.name}: there is no kind of member {member.kind!r}")


@cache
def _object(member: Member) -> type[serializers.Serializer[Any]]:
    fields = {each.name: member_field(each) for each in member.members}
    return type(member.title, (serializers.Serializer,), {**fields, "__doc__": member.text, "__module__": __name__})


class PlannedProfile(SectionsMixin, serializers.Serializer[Any]):
    """The resolved configuration."""

    RUNNER_TYPE = serializers.ChoiceField(choices=runner_choices())
    MODULE_LOADER_TYPE = serializers.ChoiceField(choices=loader_choices())
    MODULES = serializers.ListField(child=serializers.CharField())
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
