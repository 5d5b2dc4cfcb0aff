"""The response bodies of the commands."""

from __future__ import annotations

from functools import cache
from typing import Any

from rest_framework import serializers

from profiles.api.serializers import SectionsMixin
from profiles.rules import loader_choices, runner_choices
from runners.api.runs.serializers import ForeignRunSerializer, RunSerializer, StopStep
from runners.commands.base import Action, Command, Member, OneShotCommand
from runners.commands.parameters import Parameter
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
    """The outcome of the jobs that were to be cancelled."""

    requested = serializers.BooleanField(help_text="True if the request had cancel_jobs.")
    outcome = serializers.ChoiceField(
        choices=CANCEL_OUTCOMES,
        help_text="cancelled: Autosubmit reports all of them as cancelled. not_cancelled: not all, or none. unknown: "
        "some may still run, or the cancellation timed out. nothing_to_cancel: Autosubmit knows of no active job. "
        "Empty if it was not requested.",
    )
    counts = JobCounts()
    jobs = serializers.DictField(
        child=serializers.ChoiceField(choices=list(JobOutcome)),
        help_text=f"The outcome of each job, at most {MAX_JOBS}. cancelled: the platform got the request and reported "
        f"no error. may_go_on: the platform got the request, but platforms of its type are not known to cancel "
        f"reliably. not_cancelled: Autosubmit reports that it could not send the request.",
    )
    verified = serializers.BooleanField(
        help_text="True if the service itself has seen the end of all these jobs. false: only Autosubmit has reported "
        "it."
    )
    detail = serializers.CharField(allow_blank=True)


class RunStoppedAnswer(RunSerializer):
    """`message`, the run, what was done to end it, and the outcome for its jobs."""

    message = serializers.CharField(
        help_text="'Experiment a001 stopped successfully.' only if the run was stopped and all jobs that had to be "
        "cancelled were cancelled."
    )
    steps = StopStep(many=True, help_text="The steps, in order.")
    cancel = CancelAnswer()
    warnings = serializers.ListField(
        child=serializers.CharField(), help_text="What may still run, and what to do before the next run."
    )


class SeenForeignRunSerializer(ForeignRunSerializer):
    """The foreign run that was last seen for an experiment. It may have ended since then."""

    user = serializers.CharField(allow_blank=True, help_text="The account.")
    seen_at = serializers.DateTimeField(help_text="When a run or a stop was requested and found it.")


class RunStatusAnswer(RunSerializer):
    """The last run of an experiment."""

    foreign = SeenForeignRunSerializer(
        required=False,
        help_text="Only if a run that this service has not started was seen after this run. The status itself does not "
        "search for one.",
    )


class ForeignStoppedAnswer(serializers.Serializer[Any]):
    """The answer to a stop with `foreign`: the process, what was done to end it, and the outcome for its jobs."""

    message = serializers.CharField()
    expid = serializers.CharField()
    foreign = ForeignRunSerializer()
    steps = StopStep(many=True, help_text="The steps, in order.")
    cancel = CancelAnswer()
    warnings = serializers.ListField(child=serializers.CharField(), help_text="What may still run.")


class CommandAnswer(serializers.Serializer[Any]):
    message = serializers.CharField()
    warnings = serializers.ListField(
        child=serializers.CharField(), help_text="Warnings of Autosubmit, although the command succeeded."
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


PARAMETER_KINDS = ("flag", "text", "choice", "texts", "words")
ACTIONS = [action.value for action in Action]


class CommandParameter(serializers.Serializer[Any]):
    """One parameter of a command, with what a form or a command line needs to ask for it."""

    name = serializers.CharField(help_text="The name of the member.")
    kind = serializers.ChoiceField(
        choices=PARAMETER_KINDS,
        help_text="flag: true or false. texts: a list. words: a list, or one text with blanks or commas between.",
    )
    required = serializers.BooleanField(  # type: ignore[assignment]
        source="is_required", help_text="A request has to give it."
    )
    in_body = serializers.BooleanField(
        help_text="true: a member of the request itself. false: a member of its `command_params`."
    )
    label = serializers.CharField(  # type: ignore[assignment]
        allow_blank=True, help_text="For a form; empty: the name says it."
    )
    hint = serializers.CharField(allow_blank=True, help_text="What a form says below the field.")
    placeholder = serializers.CharField(allow_blank=True, help_text="An example of a value.")
    is_rare = serializers.BooleanField(help_text="Few people need it: a form may fold it.")
    help = serializers.CharField(allow_blank=True, help_text="What it does.")
    choices = serializers.SerializerMethodField(help_text="The values of a choice, and maybe of words; else empty.")
    max_length = serializers.SerializerMethodField(help_text="Characters of a text; null: other limits apply.")

    def get_choices(self, parameter: Parameter) -> list[str]:
        return list(getattr(parameter, "choices", getattr(parameter, "words", ())))

    def get_max_length(self, parameter: Parameter) -> int | None:
        return getattr(parameter, "max_length", None)


class CommandPageTexts(serializers.Serializer[Any]):
    """The texts of a page for the command."""

    title = serializers.CharField(help_text="The heading.")
    intro = serializers.CharField(help_text="What the command does, and when it is possible.")
    button = serializers.CharField(help_text="The words of the button that executes it.")


class CommandSerializer(serializers.Serializer[Command]):
    """One command: what it takes, and whether it can be used now."""

    name = serializers.CharField(help_text="As in the path: `POST command/{name}`.")
    summary = serializers.CharField(help_text="What it does, in a few words.")
    description = serializers.CharField(help_text="What it does, and what to know about it.")
    page = CommandPageTexts(help_text="The texts of a page for it.")
    toggle = serializers.CharField(source="toggle.name", help_text="The switch of GET configuration/endpoints.")
    enabled = serializers.SerializerMethodField(help_text="Whether an admin has left it switched on.")
    permission = serializers.ChoiceField(
        choices=ACTIONS, source="action", help_text="What the groups of a profile have to allow."
    )
    needs_expid = serializers.BooleanField(help_text="The request names an experiment.")
    needs_profile = serializers.BooleanField(help_text="The request names a profile. Otherwise a run tells it.")
    needs_idle = serializers.BooleanField(help_text="Not possible while the experiment runs.")
    is_long = serializers.BooleanField(help_text="Obeys `Prefer: respond-async`.")
    parameters = CommandParameter(many=True, help_text="In the order of a form.")

    def get_enabled(self, command: Command) -> bool:
        enabled: bool = self.context["states"][command.toggle.name]
        return enabled


class CommandsAnswer(serializers.Serializer[Any]):
    """All commands of this service, those of site packages included."""

    commands = CommandSerializer(many=True, help_text="In the order of the registry.")


class PlannedProfile(SectionsMixin, serializers.Serializer[Any]):
    """The resolved configuration."""

    RUNNER_TYPE = serializers.ChoiceField(choices=runner_choices())
    MODULE_LOADER_TYPE = serializers.ChoiceField(choices=loader_choices())
    MODULES = serializers.ListField(child=serializers.CharField())
    VENV_ROOTS = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="Allowed directories: the environment has to be in one of them.",
    )
    SILENT_AFTER = serializers.IntegerField(
        required=False, help_text="Seconds without output after which the run would be marked as silent."
    )


class PlanAnswer(serializers.Serializer[Any]):
    """What `dry_run` answers."""

    message = serializers.CharField()
    profile = PlannedProfile()
    where = serializers.CharField(help_text="The machine and account.")
    argv = serializers.ListField(child=serializers.CharField())
    script = serializers.CharField(help_text="The script that a login shell would execute there.")
    detached = serializers.BooleanField(help_text="True if the command would continue after the request, like a run.")
    warnings = serializers.ListField(
        child=serializers.CharField(),
        help_text="Side effects. create-job-list: the COMPLETED jobs whose progress would be lost; to find them, "
        "Autosubmit is executed on the machine, without saving.",
    )
