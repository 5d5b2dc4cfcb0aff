"""Long commands: the header `Prefer: respond-async` and the JSON of operations."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from runners.api.answers import ChangeCounts, Problem
from runners.api.exception_handler import kind_of, problem
from runners.models.operation import Operation, OperationKind, OperationStatus
from runners.services import idempotency, operations
from runners.services.execute import CommandOutcome
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.representations import moment

if TYPE_CHECKING:
    from runners.api.base import CommandViewSet

RETRY_AFTER = 2  # seconds
LONGEST_WAIT = 60  # seconds that `Prefer: wait=` may hold a connection
WAIT_GRACE = 30  # seconds to wait beyond the command's own timeout, until its end is confirmed
APPLIED = "respond-async"

MESSAGES = {
    OperationKind.SET_JOB_STATUS: "Job status for experiment {expid} set successfully.",
    OperationKind.CREATE_EXPERIMENT: "Experiment {expid} created successfully.",
    OperationKind.CREATE_JOB_LIST: "Job list for experiment {expid} created successfully.",
}


@dataclass(frozen=True, slots=True)
class Preference:
    """The preferences of a `Prefer` header (RFC 7240). Unknown preferences are ignored, as the RFC requires."""

    is_async: bool = False
    wait: int = 0  # seconds to wait for the end of the command before returning 202

    @classmethod
    def of(cls, request: Request) -> Preference:
        header = request.headers.get("Prefer", "").lower()
        names = {part.partition(";")[0].strip() for part in header.split(",")}
        wait = next((int(found[1]) for name in names if (found := re.fullmatch(r'wait\s*=\s*"?(\d{1,6})"?', name))), 0)
        return cls(APPLIED in names, min(wait, LONGEST_WAIT))


def conduct(
    view: CommandViewSet,
    request: Request,
    kind: OperationKind,
    data: dict[str, Any],
    argv: list[str],
    attended: Callable[[], CommandOutcome],
) -> Response:
    """Execute a long command, inside the request or as an operation.

    - Default: call `attended`, which runs the command inside the request.
    - With `Prefer: respond-async`: start an operation and return 202 at once, or after the time of `wait=`.
    - With an `Idempotency-Key`: start an operation and wait for its end. A retry of the request can then find the
      result, even if this server dies before it answers.
    """
    preference = Preference.of(request)
    if not preference.is_async and view.record is None:
        return Response(body_of(kind, attended()))
    limit = settings.RUNNERS_OPERATION_TIMEOUT if preference.is_async else settings.RUNNERS_COMMAND_TIMEOUT
    operation = operations.start(
        kind=kind,
        config=data["config"],
        profile_name=data["profile_name"],
        argv=argv,
        expid=data.get("expid", ""),
        timeout=math.ceil(limit),
        audit=view.audit,
        **({"on_insert": idempotency.bind_operation(view.record)} if view.record else {}),
    )
    return answer_of(view, operation, preference)


def answer_of(view: CommandViewSet, operation: Operation, preference: Preference) -> Response:
    """Wait for an operation and return its outcome. With `Prefer: respond-async`, return 202 while it still runs.

    Raises the error that the command would have raised inside the request; OutcomeUnknown if it still runs.
    """
    if preference.is_async:
        with BULKHEADS.lingering() as may:
            operations.wait(operation, seconds=preference.wait if may else 0)
    else:
        operations.wait(operation, seconds=operation.timeout + WAIT_GRACE)
    if preference.is_async and operation.is_active:
        view.audit.detail = f"operation {operation.pk}"
        place = reverse("api-operation", kwargs={"id": operation.pk})
        headers = {"Location": place, "Preference-Applied": APPLIED, "Retry-After": str(RETRY_AFTER)}
        return Response(operation_fields(operation), status=202, headers=headers)
    outcome = operations.outcome(operation)
    view.audit.expid = outcome.expid
    return Response(body_of(OperationKind(operation.kind), outcome))


def body_of(kind: OperationKind, outcome: CommandOutcome) -> dict[str, Any]:
    """Return the response body for a long command that has succeeded."""
    body: dict[str, Any] = {"message": message_of(kind, outcome), "warnings": outcome.warnings}
    if kind is OperationKind.CREATE_EXPERIMENT:
        return {"expid": outcome.expid, **body}
    if kind is OperationKind.SET_JOB_STATUS and (changes := outcome.changes):
        counts = {"selected": changes.selected, "changed": changes.changed, "unchanged": changes.unchanged}
        return {**body, "changed": changes.jobs, "counts": counts}
    return body


def message_of(kind: OperationKind, outcome: CommandOutcome) -> str:
    """Return the message for a long command that has succeeded."""
    changes = outcome.changes
    if kind is not OperationKind.SET_JOB_STATUS or changes is None or changes.changed:
        return MESSAGES[kind].format(expid=outcome.expid)
    if changes.selected == 0:
        return f"No job of experiment {outcome.expid} was changed: the filters select none."
    which = f"the {changes.selected} selected jobs have" if changes.selected else "the selected jobs have"
    if changes.selected == 1:
        which = "the selected job has"
    return f"No job of experiment {outcome.expid} was changed: {which} this status already, or see the warnings."


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
        "created": moment(operation.created),
        "modified": moment(operation.modified),
        "finished": moment(operation.finished),
        "confirmed_at": moment(operation.confirmed_at),
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
    kind = kind_of(error) if error else None
    if error is None or kind is None:
        return None
    facts = {name: fact for name, fact in error.facts.items() if name != "retry_after"}
    return problem(kind, error.detail, errors=getattr(error, "errors", None), **facts)
