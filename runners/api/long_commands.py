"""Long commands: the header `Prefer: respond-async`, and a command that goes on as an operation."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from runners.api.base import CommandViewSet
from runners.api.operations.serializers import OperationSerializer
from runners.commands.base import OneShotCommand
from runners.commands.set_job_status import WHILE_RUNNING
from runners.models import IdempotencyRecord, Operation
from runners.services import execute, idempotency, operations
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.operations import WAIT_GRACE

RETRY_AFTER = 2  # seconds
LONGEST_WAIT = 60  # seconds that `Prefer: wait=` may hold a connection
APPLIED = "respond-async"


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


class LongCommandViewSet(CommandViewSet):
    """Commands that may take minutes. They run inside the request, or as an operation that outlives it."""

    record: IdempotencyRecord | None = None  # of a request with an Idempotency-Key (api/idempotency.py)

    def execute_or_enqueue(self, request: Request, command: OneShotCommand, data: dict[str, Any]) -> Response:
        """Execute a one-shot command, inside the request or as an operation; with `dry_run`, return what it would do.

        With `preview`, Autosubmit itself tells what the command would change.

        - Default: execute the command inside the request.
        - With `Prefer: respond-async`: start an operation and return 202 at once, or after the time of `wait=`.
        - With an `Idempotency-Key`: start an operation and wait for its end. A retry of the request can then find the
          result, even if this server dies before it answers.

        Only a long command can become an operation. `data`: the validated body.
        """
        given: dict[str, Any] = {"config": data["config"], "params": data["params"], "expid": data.get("expid", "")}
        if data["dry_run"]:
            return self.planned(execute.plan(command, **given))
        if data.get("preview"):
            self.audit.endpoint = command.preview_name
            found = execute.preview(command, audit=self.audit, **given)
            return Response({**execute.body_of(command, found), "message": "Preview: nothing was saved."})
        preference = Preference.of(request)
        # A change of a running experiment is no command that could go on without this request.
        is_inside = not command.is_long or data["params"].get(WHILE_RUNNING)
        if is_inside or not (preference.is_async or self.record):
            return Response(execute.body_of(command, execute.execute(command, audit=self.audit, **given)))
        limit = settings.RUNNERS_OPERATION_TIMEOUT if preference.is_async else settings.RUNNERS_COMMAND_TIMEOUT
        if self.record:
            given["on_insert"] = idempotency.bind_operation(self.record)
        operation = operations.start(
            command=command,
            profile_name=data["profile_name"],
            timeout=math.ceil(limit),
            audit=self.audit,
            is_patient=preference.is_async,
            **given,
        )
        return self.operation_response(operation, preference)

    def operation_response(self, operation: Operation, preference: Preference) -> Response:
        """Wait for an operation and return its outcome. With `Prefer: respond-async`, return 202 while it still runs.

        Raises the error that the command would have raised inside the request; OutcomeUnknown if it still runs.
        """
        if preference.is_async:
            with BULKHEADS.lingering() as may:
                operations.wait(operation, seconds=preference.wait if may else 0)
        else:
            operations.wait(operation, seconds=operation.timeout + WAIT_GRACE)
        if preference.is_async and operation.is_active:
            self.audit.detail = f"operation {operation.pk}"
            place = reverse("api-operation", kwargs={"id": operation.pk})
            headers = {"Location": place, "Preference-Applied": APPLIED, "Retry-After": str(RETRY_AFTER)}
            body = OperationSerializer(operation, context=self.get_serializer_context()).data
            return Response(body, status=202, headers=headers)
        self.audit.expid = operations.outcome(operation).expid
        return Response(operations.body_of(operation))
