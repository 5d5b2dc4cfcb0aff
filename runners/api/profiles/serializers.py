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

    parameter = serializers.CharField(help_text="Path in profile_params, such as SSH.USER.")
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
        help_text="It has to match one of these patterns: * matches any text, ? one character, [ab] a or b. Patterns "
        "of hosts are case-insensitive.",
    )
    allowed_roots = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="An environment that is given by its path has to be in one of these directories, after following "
        "links.",
    )
    default = serializers.JSONField(required=False, help_text="The default.")
    help = serializers.CharField(required=False)


class RequirementsAnswer(serializers.Serializer[Any]):
    """What a launch with this profile may or must still be given, in the order of a form."""

    profile_name = serializers.CharField()
    requirements = RequirementSerializer(many=True)


class CheckProfileRequest(StrictSerializer):
    """Values of the open parameters of the profile."""

    profile_params = TypedProfileParamsField(help_text="Values of the open parameters of the profile.")


class CheckStage(serializers.Serializer[Any]):
    """One step of the check."""

    name = serializers.ChoiceField(choices=STAGE_CHOICES)
    title = serializers.CharField(help_text="What it does.")
    ok = serializers.BooleanField(allow_null=True, help_text="null: not tried, or not applicable.")
    milliseconds = serializers.IntegerField()
    detail = serializers.CharField(help_text="The result.")
    remedy = serializers.CharField(allow_blank=True, help_text="The remedy.")
    facts = serializers.DictField(help_text="More about a failure, such as the fingerprint of an unknown host key.")


class CheckAnswer(serializers.Serializer[Any]):
    """Whether commands will work, and if not, what to do."""

    profile_name = serializers.CharField()
    ok = serializers.BooleanField(help_text="No stage has failed.")
    milliseconds = serializers.IntegerField()
    stages = CheckStage(many=True)
    warnings = serializers.ListField(
        child=serializers.CharField(), help_text="Warnings about the profile for admins, independent of the stages."
    )
