"""The bodies of the requirements and of the check of a profile."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from runners.services.check import STAGES
from runners.web.requests import StrictSerializer, TypedProfileParamsField

STAGE_CHOICES = list(STAGES.items())
PARAMETER_TYPES = ("choice", "string", "integer", "strings")


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
