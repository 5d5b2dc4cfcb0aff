"""The body of an operation."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from runners.api.commands.responses import ChangeCounts
from runners.api.problems import Problem
from runners.models.operation import Operation, OperationKind, OperationStatus
from runners.services import operations
from runners.services.representations import iso_time
from runners.services.results import body_of
from runners.web.problems import problem, problem_type_of


class OperationResult(serializers.Serializer[Any]):
    """What the command answers when it is waited for."""

    message = serializers.CharField()
    warnings = serializers.ListField(child=serializers.CharField())
    changed = serializers.DictField(
        child=serializers.CharField(), required=False, help_text="set-job-status: as the command answers it."
    )
    counts = ChangeCounts(required=False, help_text="set-job-status: as the command answers it.")
    expid = serializers.CharField(required=False, help_text="create-experiment: the id of the new experiment.")


class OperationSerializer(serializers.Serializer[Operation]):
    """A command that goes on without its request."""

    operation_id = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=OperationKind.choices, help_text="The command.")
    status = serializers.ChoiceField(
        choices=OperationStatus.choices,
        help_text="pending and running go on. unknown: its process is gone and it said neither yes nor no.",
    )
    expid = serializers.CharField(allow_blank=True, help_text="create-experiment: empty until it has succeeded.")
    profile_name = serializers.CharField()
    started_by = serializers.CharField(allow_blank=True)
    host = serializers.CharField(allow_blank=True, help_text="The machine it runs on, by its own name.")
    exit_code = serializers.IntegerField(allow_null=True)
    created = serializers.DateTimeField()
    modified = serializers.DateTimeField(help_text="When the state last changed.")
    finished = serializers.DateTimeField(allow_null=True)
    confirmed_at = serializers.DateTimeField(allow_null=True, help_text="When the machine last confirmed the state.")
    reachable = serializers.BooleanField(help_text="false: the last known state is shown, the machine cannot tell now.")
    unreachable_detail = serializers.CharField(allow_blank=True, help_text="Why the machine could not tell.")
    result = OperationResult(allow_null=True, help_text="What it brought, once it has succeeded.")
    error = Problem(allow_null=True, help_text="Why it failed, as the command itself would have answered.")

    def to_representation(self, instance: Operation) -> dict[str, Any]:
        return operation_fields(instance)


def operation_fields(operation: Operation) -> dict[str, Any]:
    """Return the members that OperationSerializer documents. A test compares the two."""
    return {
        "operation_id": operation.pk,
        "kind": operation.kind,
        "status": operation.state,
        "expid": operation.expid,
        "profile_name": operation.profile_name,
        "started_by": operation.started_by,
        "host": operation.host,
        "exit_code": operation.exit_code,
        "created": iso_time(operation.created),
        "modified": iso_time(operation.modified),
        "finished": iso_time(operation.finished),
        "confirmed_at": iso_time(operation.confirmed_at),
        "reachable": operation.reachable,
        "unreachable_detail": operation.unreachable_detail,
        "result": _result(operation),
        "error": _error(operation),
    }


def _result(operation: Operation) -> dict[str, Any] | None:
    if operation.result is None:
        return None
    return body_of(OperationKind(operation.kind), operations.outcome(operation))


def _error(operation: Operation) -> dict[str, Any] | None:
    error = operations.error_of(operation)
    problem_type = problem_type_of(error) if error else None
    if error is None or problem_type is None:
        return None
    facts = {name: fact for name, fact in error.facts.items() if name != "retry_after"}
    return problem(problem_type, error.detail, errors=getattr(error, "errors", None), **facts)
