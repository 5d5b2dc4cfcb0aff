"""A client that says what it expects, and texts that nobody wants to see executed."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

from django.test import Client

from tests.support.examples import DOCUMENT, OPERATIONS

# Of each operation of the document: method and path, as a pattern.
PATTERNS = {
    name: (method, re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))))
    for name, (method, path) in OPERATIONS.items()
}
OUTSIDE = (405, 500)  # of no operation, and a bug that a test has made

PREFIX = "/v4/runners/command/"

NASTY = [
    "$(touch tripwire)",
    "`touch tripwire`",
    "a001; touch tripwire",
    "a001 && touch tripwire",
    "a001 | touch tripwire",
    "a001\ntouch tripwire",
    "a001\0touch",
    "'; touch tripwire; '",
    '"; touch tripwire; "',
    "--help",
    "-x",
    "../../etc/passwd",
    "\x1b[31mred\x1b[0m",
    "${IFS}touch",
    "\u202eabc",
    "ａ００１",
    "🐈" * 50,
    "x" * 100_000,
]

PROBLEM_MEMBERS = {"type", "title", "status", "detail", "code", "error", "error_message"}


class Api:
    def __init__(self, client: Client, headers: dict[str, str] | None = None) -> None:
        self.client = client
        self.headers = headers or {}

    def path(self, command: str) -> str:
        return command if command.startswith("/") else PREFIX + command

    def post(self, command: str, body: object, *, expect: int | tuple[int, ...] = 200) -> dict[str, Any]:
        return self.raw(command, json.dumps(body).encode(), expect=expect)

    def raw(
        self,
        command: str,
        body: bytes,
        *,
        content_type: str = "application/json",
        expect: int | tuple[int, ...] = 200,
    ) -> dict[str, Any]:
        response = self.client.post(self.path(command), body, content_type, headers=self.headers)
        return check(response, expect)

    def get(self, path: str, *, expect: int | tuple[int, ...] = 200) -> Any:
        return check(self.client.get(path, headers=self.headers), expect)


def assert_documented(response: Any, body: Any) -> None:
    """The OpenAPI document names the status of this answer, and the code of an error, at its operation."""
    asked, place = response.request["REQUEST_METHOD"], response.request["PATH_INFO"]
    found = [name for name, (method, path) in PATTERNS.items() if method == asked and path.fullmatch(place)]
    if not found or response.status_code in OUTSIDE or body_code(body) == "bad_request":
        return
    method, path = OPERATIONS[found[0]]
    answers = DOCUMENT["paths"][path][method.lower()]["responses"]
    assert str(response.status_code) in answers, f"{found[0]} answers {response.status_code}: {body}"
    if response.status_code >= 400:
        assert f"- `{body['code']}`:" in answers[str(response.status_code)]["description"], (found[0], body)


def body_code(body: Any) -> str:
    return str(body.get("code", "")) if isinstance(body, dict) else ""


def check(response: Any, expect: int | tuple[int, ...]) -> Any:
    """The JSON body of an answer with the expected status. Every error has to have the one body."""
    expected = expect if isinstance(expect, tuple) else (expect,)
    assert response.status_code in expected, (response.status_code, response.content[:2000])
    body = response.json()
    assert_documented(response, body)
    if response.status_code >= 400:
        assert body.keys() >= PROBLEM_MEMBERS, body
        assert body["status"] == response.status_code
        assert isinstance(body["detail"], str)
        assert body["detail"] == body["error_message"]
        assert body["error"] is True
        assert body["type"].endswith(body["code"])
        assert response["Content-Type"] == "application/problem+json"
    return body


def unused_expid() -> str:
    """Return a random expid.

    `autosubmit stop` finds a run by its id alone, so concurrent test runs must not share one.
    """
    return f"u{uuid4().hex[:5]}"


def create_body(profile: str = "HERE", **params: Any) -> dict[str, Any]:
    return {"profile_name": profile, "command_params": {"description": "of the tests"} | params}
