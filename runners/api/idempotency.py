"""The `Idempotency-Key` header on commands: read the key, replay a stored response, or store a new one."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from runners.api.long_commands import LongCommandViewSet, Preference
from runners.exceptions import InvalidRequest, NotRunning, RunnerServiceError, StoppedDuringLaunch
from runners.models import IdempotencyRecord, RunReason
from runners.services import idempotency
from runners.services.audit import begin
from runners.services.cancelling import NOT_REQUESTED
from runners.services.representations import run_fields
from runners.services.stopping import HAD_ENDED
from runners.web.problems import PROBLEM_CONTENT_TYPE

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
NOTHING_DONE = ("dry_run", "preview")  # members of requests that execute nothing, so that they need no key
KEPT_HEADERS = ("Location", "Preference-Applied", "Retry-After")
# A structured-field string, as the IETF draft says, or the key without quotes, as most clients send it.
KEY_PATTERN = r'"([ !#-\[\]-~]{1,255})"|([!#-~]{1,255})'
_KEY = re.compile(KEY_PATTERN)

Method = Callable[[Any, Request], Response]


def key_of(request: Request) -> str | None:
    """Return the key of a request, None without the header. Raises InvalidRequest if the key is malformed."""
    text = request.headers.get(HEADER)
    if text is None:
        return None
    found = _KEY.fullmatch(text.strip())
    if found is None:
        sentence = "Give 1 to 255 printable ASCII characters without blanks, such as a UUID."
        raise InvalidRequest(f"{HEADER}: {sentence}", {HEADER: [sentence]})
    return found[1] or found[2]


def idempotent(method: Method) -> Method:
    """Make an action of an IdempotentViewSet obey `Idempotency-Key`. Requests without the header are not affected."""

    @wraps(method)
    def handler(view: IdempotentViewSet, request: Request) -> Response:
        return view.execute_once(request, partial(method, view, request))

    return handler


class IdempotentViewSet(LongCommandViewSet):
    """Commands that are executed once for each `Idempotency-Key`, however often the request is sent."""

    def execute_once(self, request: Request, execute: Callable[[], Response]) -> Response:
        """Return the stored response of an earlier request with the same key; else call `execute` and store.

        The key is looked up after the checks of credentials, toggle and rate, and before the body is validated. A retry
        therefore gets its stored response even if the profile has changed and would now make the body invalid.
        """
        key = key_of(request)
        if key is None or self.body_error or any(_members(request).get(name) for name in NOTHING_DONE):
            return execute()
        with idempotency.claimed(
            caller=self.audit.actor,
            key=key,
            endpoint=self.command,
            # The path may name a run.
            request_hash=idempotency.hash_of(self.command, {**_members(request), **self.kwargs}),
        ) as record:
            if record.answer_status is not None:
                return self._replayed(record, record.answer_status)
            self.record = record
            try:
                response = self._resumed(request, record) or execute()
            except StoppedDuringLaunch as error:  # store this error: a retry must not start a second run
                response = self.handle_exception(error)
            except NotRunning:
                stopped = self._stopped_before(record)
                if stopped is None:
                    raise
                response = stopped
            headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
            idempotency.answer(record, status=response.status_code, body=response.data, headers=headers)
            return response

    def _replayed(self, record: IdempotencyRecord, status: int) -> Response:
        self.audit.outcome, self.audit.detail = "replayed", f"the answer of {record}"
        headers = {**record.answer_headers, REPLAYED: "true"}
        content_type = PROBLEM_CONTENT_TYPE if status >= 400 else None
        return Response(record.answer_body, status=status, headers=headers, content_type=content_type)

    def _resumed(self, request: Request, record: IdempotencyRecord) -> Response | None:
        """Return the response of an earlier request whose server died, built from the run or operation it started.

        None if the earlier request started nothing, and for a stop: a retried stop is executed again while its run
        lives.
        """
        if not record.is_repeated or record.endpoint == idempotency.STOP:
            return None
        begin(self.audit)
        response = None
        if operation := idempotency.operation_of(record):
            try:
                response = self.operation_response(operation, Preference.of(request))
            except RunnerServiceError as error:
                if operation.is_active or idempotency.never_started(operation):
                    raise
                response = self.handle_exception(error)
        elif run := idempotency.run_of(record):
            response = Response({"message": f"Experiment {run.expid} started successfully.", **run_fields(run)})
            self.audit.run_id = run.pk
        if response is None:
            idempotency.forget_attempt(record)
            return None
        response[REPLAYED] = "true"
        return response

    def _stopped_before(self, record: IdempotencyRecord) -> Response | None:
        """Return the response of an earlier stop whose server died after it had found its run, if the run has ended.

        None if this request is not a retry, or if the run of the earlier stop is unknown or still ACTIVE.
        """
        run = idempotency.stopped_run(record) if record.is_repeated else None
        if run is None:
            return None
        self.audit.run_id, self.audit.profile_name = run.pk, run.profile_name
        how = "stopped successfully" if run.reason == RunReason.STOPPED else "had already ended"
        message = f"Experiment {run.expid} {how}."
        body = {"message": message, **run_fields(run), "steps": [HAD_ENDED], "cancel": NOT_REQUESTED, "warnings": []}
        return Response(body, headers={REPLAYED: "true"})


def _members(request: Request) -> dict[str, Any]:
    body = request.data
    assert isinstance(body, dict)  # StrictJSONParser guarantees it
    return body
