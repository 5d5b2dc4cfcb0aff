"""The body of an operation."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from profiles.api.serializers import IsoTimeField
from runners.api.commands.responses import member_field
from runners.api.problems import Problem
from runners.commands.registry import long_commands, operation_kinds
from runners.models import Operation, OperationStatus
from runners.services import operations


def _result_members() -> dict[str, serializers.Field[Any, Any, Any, Any]]:
    """Return the fields of the members that only some commands answer. The first command of a name describes it."""
    members: dict[str, serializers.Field[Any, Any, Any, Any]] = {}
    for command in long_commands().values():
        for member in command.members:
            text = f"{command.name}: {member.help[0].lower()}{member.help[1:]}"
            members.setdefault(member.name, member_field(member, required=False, help_text=text))
    return members


class _OperationResult(serializers.Serializer[Any]):
    def get_attribute(self, instance: Operation) -> dict[str, Any] | None:
        return operations.body_of(instance) if instance.result is not None else None

    def to_representation(self, instance: dict[str, Any]) -> dict[str, Any]:
        """Return the members that the command answers. The base class shows an absent nullable member as null."""
        return {name: value for name, value in super().to_representation(instance).items() if name in instance}

    message = serializers.CharField()
    warnings = serializers.ListField(child=serializers.CharField())


OperationResult = type(
    "OperationResult",
    (_OperationResult,),
    {**_result_members(), "__doc__": "What the command answers when it is waited for.", "__module__": __name__},
)


class OperationSerializer(serializers.Serializer[Operation]):
    """A command that goes on without its request."""

    operation_id = serializers.IntegerField(source="pk")
    kind = serializers.ChoiceField(choices=operation_kinds(), help_text="The command.")
    status = serializers.ChoiceField(
        source="state",
        choices=OperationStatus.choices,
        help_text="pending and running are in progress. unknown: its process is gone without a result.",
    )
    expid = serializers.CharField(allow_blank=True, help_text="create-experiment: empty until it has succeeded.")
    profile_name = serializers.CharField()
    started_by = serializers.CharField(allow_blank=True)
    host = serializers.CharField(allow_blank=True, help_text="The host name of the machine it runs on.")
    exit_code = serializers.IntegerField(allow_null=True)
    created = IsoTimeField()
    modified = IsoTimeField(help_text="When the state last changed.")
    finished = IsoTimeField(allow_null=True)
    confirmed_at = IsoTimeField(allow_null=True, help_text="When the machine last confirmed the state.")
    reachable = serializers.BooleanField(
        help_text="false: the last known state, because the machine cannot be probed now."
    )
    unreachable_detail = serializers.CharField(allow_blank=True, help_text="The reason why the last probe failed.")
    result = OperationResult(allow_null=True, help_text="The result, after it has succeeded.")
    error = Problem(allow_null=True, help_text="The error, as the command itself would have returned it.")
