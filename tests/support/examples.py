"""The examples of the OpenAPI document: requests and answers that tests/api/test_examples.py records from the service.

They are kept in runners/api/openapi/examples.json, by operation, then "request" or status, then name (the error code).
What differs from one recording to the next (times, numbers, machines, accounts) is replaced by fixed values.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping
from typing import Any

from django.test import Client

from runners.api.openapi.document import document
from runners.api.openapi.examples import FILE, Examples
from tests.support.servers import ROOT, current_user

DOCUMENT: dict[str, Any] = json.loads(document("json").body)
OPERATIONS: dict[str, tuple[str, str]] = {  # id -> method, path
    operation["operationId"]: (method.upper(), path)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
# Codes that an operation can give, and that nothing can bring about there on purpose and in time.
UNRECORDED: dict[str, set[str]] = {
    "run_experiment": {"stopped_during_launch"},
    "run_again": {"stopped_during_launch"},
    "stop_experiment": {"stop_not_confirmed", "outcome_unknown"},
    "get_run_log": {"command_timed_out", "outcome_unknown"},
    "search_run_log": {"command_failed", "command_timed_out", "outcome_unknown"},
    "get_operation_log": {"command_timed_out", "outcome_unknown"},
    **dict.fromkeys(("list_job_scripts", "read_job_script"), {"command_timed_out", "outcome_unknown"}),
    # The code of all one-shot commands is the same; these take seconds and are recorded for the older ones.
    **dict.fromkeys(
        (
            *("recover_experiment", "refresh_experiment", "inspect_experiment"),
            *("archive_experiment", "unarchive_experiment", "delete_experiment"),
        ),
        {"idempotency_in_progress", "outcome_unknown"},
    ),
    "get_run_jobs": {"command_timed_out", "outcome_unknown"},
    "get_experiment_jobs": {"command_timed_out", "outcome_unknown"},
    "get_job_log": {"command_timed_out", "outcome_unknown"},
}
BEGAN, ENDED = "2026-01-20T09:30:00+00:00", "2026-01-20T09:42:10+00:00"

# Members whose values differ each time, and what the document shows instead. Values that are null stay null.
BY_NAME: dict[str, Any] = {
    **dict.fromkeys(("created", "submitted", "started"), BEGAN),
    **dict.fromkeys(("modified", "finished", "confirmed_at"), ENDED),
    **dict.fromkeys(("runner_id", "run_id", "previous_run"), 17),
    "operation_id": 5,
    "user_code": "BCDF-GHJK",
    "expires": "2026-04-20T09:30:00+00:00",
    "key": "asr_0123456789a",
    "pid": 4711,
    "host": "login1",
    **dict.fromkeys(("user", "USER", "USERNAME"), "autosubmit_user"),
    "milliseconds": 12,
    "seconds": 6.5,
    "next_cursor": "cnVuIDE3",
    "fingerprint": "SHA256:Nb1h4jZ3kZl0Cm2bVSV8sC7Ih5o2FJbYc0m5W2d6nYQ",
    "trusted_fingerprint": "SHA256:2kqv1iB3l4cQ0N7uT9oH2a8WcE5rXyZ6dGfMjKpSsLw",
}


def shape(value: Any) -> Any:
    """The members and types of an answer, without its values."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        shapes = [shape(each) for each in value]
        return [each for index, each in enumerate(shapes) if each not in shapes[:index]]
    return type(value).__name__


def shapes(examples: Examples) -> Any:
    """Of each example: its shape."""
    return {
        operation: {key: {name: shape(value) for name, value in named.items()} for key, named in keys.items()}
        for operation, keys in examples.items()
    }


def assert_headers_documented(operation: str, response: Any) -> None:
    """Headers that tell clients something are in the document, at the status with which they came."""
    method, path = OPERATIONS[operation]
    answers = DOCUMENT["paths"][path][method.lower()]["responses"]
    told = answers[str(response.status_code)].get("headers", {})
    names = ("Retry-After", "Location", "WWW-Authenticate", "Preference-Applied", "Idempotent-Replayed")
    for name in names:
        assert name in told or name not in response, f"{operation} {response.status_code}: {name} is not documented"


class Recorder:
    """Sends requests with a Django client, and keeps what is sent and answered.

    `replace`: texts of this machine (paths, ports) and what the document shows instead.
    """

    def __init__(self, client: Client, replace: Mapping[str, str]) -> None:
        self.client = client
        self.headers: dict[str, str] = {}
        self.examples: Examples = {}
        self.replace = {**replace, socket.gethostname(): "login1"}

    def ask(
        self,
        operation: str,
        body: Any = None,
        *,
        expect: int | str = 200,
        example: str = "Answer",
        query: str = "",
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        keep: bool = True,
        **path_parameters: object,
    ) -> Any:
        """The body of the answer, which has to have this status or `code`. `body`: bytes are sent as they are."""
        method, path = OPERATIONS[operation]
        path = path.format_map({"id": 4711, "name": "MY_RUNNER_PROFILE_1", "expid": "a001"} | path_parameters) + query
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        response = self.client.generic(method, path, data, content_type, headers={**self.headers, **(headers or {})})
        assert_headers_documented(operation, response)
        answer = response.json()
        code = answer["code"] if response.status_code >= 400 else ""
        assert expect in (response.status_code, code), (
            operation,
            expect,
            response.status_code,
            answer,
        )
        if keep:
            kept = self.examples.setdefault(operation, {})
            kept.setdefault(str(response.status_code), {}).setdefault(code or example, self.normal(answer))
            if response.status_code == 200 and body is not None and example == "Answer":
                kept.setdefault("request", {}).setdefault("Request", self.normal(body))
        return answer

    def normal(self, value: Any, name: str = "") -> Any:
        """The value with what differs each time replaced."""
        if value is not None and name in BY_NAME and not isinstance(value, list):  # a list: the errors of a field
            return BY_NAME[name] if value != "" else ""
        if isinstance(value, dict):
            return {each: self.normal(inner, each) for each, inner in value.items()}
        if isinstance(value, list):
            return [self.normal(each) for each in value]
        if isinstance(value, str):
            return self.text(value)
        return 22 if name == "PORT" and isinstance(value, int) else value

    def text(self, text: str) -> str:
        for here, there in self.replace.items():
            text = text.replace(here, there)
        for pattern, there in (
            (rf"\b{re.escape(current_user())}\b(?=@| there)|(?<=as ){re.escape(current_user())}\b", "autosubmit_user"),
            (r"\[?127\.0\.0\.1\]?(:\d+)?", "autosubmit.example.com"),
            (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d( UTC)?", "2026-01-20 09:30:00 UTC"),
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)", BEGAN),
            (
                r"\b([Rr]un|[Oo]peration) \d+",
                lambda found: f"{found[1]} {5 if found[1].lower() == 'operation' else 17}",
            ),
            (r"SHA256:[A-Za-z0-9+/]{43}", BY_NAME["fingerprint"]),
            (r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{16}", "20260120T093000.123456Z-0123456789abcdef"),
            (r"\b[0-9a-f]{32,}\b", "0123456789abcdef0123456789abcdef"),
            (r"(ssh-ed25519) [A-Za-z0-9+/=]{60,}", r"\1 AAAAC3NzaC1lZDI1NTE5AAAAIB2u9ZJ"),
            (r"device\?code=[A-Z]{4}-[A-Z]{4}", "device?code=BCDF-GHJK"),
            (r"\basr_[0-9a-f]{11}(?=…)", "asr_0123456789a"),
            (r"\basr_[0-9a-f]{64}\b", "asr_" + "0123456789abcdef" * 4),
            (r"cursor=\w+", "cursor=cnVuIDE3"),
            (r"in \d+ s\b", "in 12 s"),
        ):
            text = re.sub(pattern, there, text)
        return text

    def write(self) -> None:
        text = json.dumps(self.sorted(), indent=1, ensure_ascii=False)
        for secret in (str(ROOT), "/tmp/pytest", "127.0.0.1", socket.gethostname()):
            assert secret not in text, f"a recorded answer shows {secret}"
        FILE.write_text(text + "\n")
        FILE.chmod(0o644)  # the service's umask lets nobody else read what it writes

    def sorted(self) -> Examples:
        return {
            operation: {key: dict(sorted(named.items())) for key, named in sorted(self.examples[operation].items())}
            for operation in sorted(self.examples)
        }
