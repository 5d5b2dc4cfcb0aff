"""The queries, request bodies and response bodies of the resources."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import urlencode

from rest_framework import serializers

from profiles.api.serializers import ProfileSSHSerializer
from profiles.config import ModuleLoaderType, RunnerType
from profiles.installations import MAX_INSTALLATION
from runners.api.answers import RunSerializer
from runners.api.commands.serializers import StrictSerializer, TypedProfileParamsField
from runners.api.fields import ExpidField, StrictTextField
from runners.models import RunStatus
from runners.services.check import STAGES, Stage

PAGE, LARGEST_PAGE = 50, 500
LOG_BYTES, MOST_LOG_BYTES, FEWEST_LOG_BYTES = 65_536, 1_000_000, 16
LARGEST_NUMBER = 2**63 - 1
ORDERINGS = {"-created": "newest first", "created": "oldest first"}
ENCODINGS = {"text": "the characters, in `text`", "base64": "the bytes, in `data`"}
STAGE_CHOICES = list(STAGES.items())
PARAMETER_TYPES = ("choice", "string", "integer", "strings")


class MomentField(serializers.DateTimeField):
    """An ISO 8601 time. The + of its offset arrives as a blank if the client did not write it as %2B in the query."""

    def to_internal_value(self, value: Any) -> Any:
        if isinstance(value, str):
            value = re.sub(r" (\d\d:\d\d)$", r"+\1", value)
        return super().to_internal_value(value)


def cursor_of(number: int) -> str:
    """Return the cursor of the next page: an opaque text that holds the number of the last run on this page."""
    return base64.urlsafe_b64encode(f"run {number}".encode()).decode().rstrip("=")


class RunsQuery(StrictSerializer):
    """Filters are named as the members that they look at; several are combined with AND."""

    expid = ExpidField(required=False, help_text="Runs of this experiment.")
    status = serializers.ChoiceField(choices=RunStatus.values, required=False)
    profile_name = StrictTextField(required=False, max_length=100, help_text="Runs started with this profile.")
    installation = StrictTextField(
        required=False, max_length=MAX_INSTALLATION, help_text="Runs of this installation, by its whole name."
    )
    runner = serializers.ChoiceField(choices=RunnerType.values, required=False)
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


class LogQuery(StrictSerializer):
    """From `offset`, or the last `tail` bytes."""

    # `offset` and `limit` have no `default`: generated clients would send it, also together with `tail`.
    offset = serializers.IntegerField(
        min_value=0,
        max_value=LARGEST_NUMBER,
        required=False,
        help_text="The first byte, 0 unless given. Go on with `next_offset`.",
    )
    limit = serializers.IntegerField(
        min_value=FEWEST_LOG_BYTES,
        max_value=MOST_LOG_BYTES,
        required=False,
        help_text=f"At most so many bytes, {LOG_BYTES} unless given.",
    )
    tail = serializers.IntegerField(
        min_value=FEWEST_LOG_BYTES,
        max_value=MOST_LOG_BYTES,
        required=False,
        help_text="The last bytes; give neither offset nor limit with it.",
    )
    encoding = serializers.ChoiceField(
        choices=list(ENCODINGS), default="text", help_text="text: whole characters in `text`. base64: bytes in `data`."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "tail" in attrs and (beside := [name for name in ("offset", "limit") if name in attrs]):
            raise serializers.ValidationError(
                {name: f"Leave out {name} or tail: tail is the end of the log by itself." for name in beside}
            )
        return {"limit": LOG_BYTES, **attrs}


class AbandonRunRequest(StrictSerializer):
    """Why it is certain that nothing runs any more."""

    reason = StrictTextField(max_length=1000, help_text="It stays with the run and in the audit log, with your name.")


class RunPage(serializers.Serializer[Any]):
    """Some runs, and where the next ones are."""

    results = RunSerializer(many=True)
    next_cursor = serializers.CharField(allow_null=True, help_text="null: there are no more.")
    next = serializers.CharField(allow_null=True, help_text="The same as a link, relative to this server.")


def next_link(path: str, query: dict[str, Any], cursor: str) -> str:
    return f"{path}?{urlencode(query | {'cursor': cursor})}"


class LogChunkAnswer(serializers.Serializer[Any]):
    """A part of a log. Ask again with `offset=next_offset` until `ended` is true."""

    offset = serializers.IntegerField(help_text="The first byte of this part.")
    next_offset = serializers.IntegerField(help_text="The first byte behind it.")
    size = serializers.IntegerField(help_text="How many bytes the log has now.")
    ended = serializers.BooleanField(help_text="The command is over and its whole log has been read.")
    text = serializers.CharField(
        allow_null=True, help_text="Never begins or ends within a character; U+FFFD stands for what is no UTF-8."
    )
    data = serializers.CharField(  # type: ignore[assignment]  # a member, not the attribute of a serializer
        allow_null=True, help_text="base64, when it was asked for."
    )


class RequirementSerializer(serializers.Serializer[Any]):
    """A parameter that the profile leaves open."""

    parameter = serializers.CharField(help_text="Its path in profile_params, such as SSH.USER.")
    type = serializers.ChoiceField(choices=PARAMETER_TYPES, help_text="strings: one text, or a list of texts.")
    required = serializers.BooleanField()  # type: ignore[assignment]  # a member, not the attribute of a field
    required_when = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="Required if each of these parameters has one of these values.",
    )
    choices = serializers.ListField(child=serializers.CharField(), required=False)
    minimum = serializers.IntegerField(required=False)
    maximum = serializers.IntegerField(required=False)
    max_length = serializers.IntegerField(required=False)
    allowed_patterns = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="It has to match one of these: * stands for any text, ? for one character, [ab] for a or b. In hosts "
        "case does not count.",
    )
    allowed_roots = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="An environment that is given by its path has to lie in one of these directories, links followed.",
    )
    default = serializers.JSONField(required=False, help_text="What is taken when it is not given.")
    help = serializers.CharField(required=False)


class RequirementsAnswer(serializers.Serializer[Any]):
    """What a launch with this profile may or must still be given, in the order of a form."""

    profile_name = serializers.CharField()
    requirements = RequirementSerializer(many=True)


class CheckProfileRequest(StrictSerializer):
    """What the profile leaves open."""

    profile_params = TypedProfileParamsField(help_text="What the profile leaves open.")


class CheckStage(serializers.Serializer[Any]):
    """One step of the check."""

    name = serializers.ChoiceField(choices=STAGE_CHOICES)
    title = serializers.CharField(help_text="What it does, in words.")
    ok = serializers.BooleanField(allow_null=True, help_text="null: not tried, or there is nothing to try.")
    milliseconds = serializers.IntegerField()
    detail = serializers.CharField(help_text="What was found.")
    remedy = serializers.CharField(allow_blank=True, help_text="What to do about it.")
    facts = serializers.DictField(help_text="More about a failure, such as the fingerprint of an unknown host key.")


class CheckAnswer(serializers.Serializer[Any]):
    """Whether commands will work, and if not, what to do."""

    profile_name = serializers.CharField()
    ok = serializers.BooleanField(help_text="No stage has failed.")
    milliseconds = serializers.IntegerField()
    stages = CheckStage(many=True)
    warnings = serializers.ListField(
        child=serializers.CharField(), help_text="What an admin should know of the profile, whatever the stages say."
    )


def stage_fields(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "title": stage.title,
        "ok": stage.ok,
        "milliseconds": stage.milliseconds,
        "detail": stage.detail,
        "remedy": stage.remedy,
        "facts": stage.facts,
    }


class PlannedProfile(serializers.Serializer[Any]):
    """The resolved configuration."""

    RUNNER_TYPE = serializers.ChoiceField(choices=RunnerType.choices)
    MODULE_LOADER_TYPE = serializers.ChoiceField(choices=ModuleLoaderType.choices)
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
