"""The HTTP client of the service. It retries with back-off; a retry never executes a command twice."""

from __future__ import annotations

import enum
import http.client
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any

KEY = "Idempotency-Key"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 20.0  # seconds before a retry: the first and the longest back-off


class Exit(enum.IntEnum):
    """The exit codes of the client."""

    OK = 0  # success; after waiting for a run: the run is COMPLETED
    FAILED = 1  # the run was TERMINATED, or the command ran and failed
    USAGE = 2  # the command line is wrong, or the service rejected the request as invalid
    NOT_THERE = 3  # the run, experiment, profile or log does not exist, or the experiment is not running
    UNREACHABLE = 4  # the service, or the machine behind it, cannot be reached; nothing was executed
    REFUSED = 5  # credentials, permissions, or an endpoint that is switched off
    CONFLICT = 6  # already running, or the file has changed
    UNKNOWN = 7  # the command may have been executed, but its outcome is unknown: retry with its key, or check first
    ACTIVE = 8  # `status` without --watch: the run is active
    INTERRUPTED = 130  # Ctrl-C


BY_CODE = {
    "command_failed": Exit.FAILED,
    "stop_not_confirmed": Exit.FAILED,
    "command_timed_out": Exit.FAILED,
    "outcome_unknown": Exit.UNKNOWN,
    "internal_error": Exit.UNKNOWN,
    "not_running": Exit.NOT_THERE,
    "already_running": Exit.CONFLICT,
}
BY_STATUS = {
    400: Exit.USAGE,
    401: Exit.REFUSED,
    403: Exit.REFUSED,
    404: Exit.NOT_THERE,
    409: Exit.CONFLICT,
    412: Exit.CONFLICT,
    413: Exit.USAGE,
    422: Exit.USAGE,
    428: Exit.USAGE,
}


LATER = ("idempotency_in_progress", "throttled", "database_unavailable")


def exit_code_of(body: dict[str, Any]) -> Exit:
    """Return the exit code for an error body of the service."""
    return BY_CODE.get(body["code"]) or BY_STATUS.get(body["status"], Exit.UNREACHABLE)


class Problem(Exception):
    """An error that ends the program: a message for people and an exit code for scripts."""

    def __init__(self, code: Exit, text: str, body: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.body = body


class Later(Exception):
    """A failure that allows a retry, `seconds` later at the earliest, within the limit of `patience`."""

    def __init__(self, problem: Problem, seconds: float = 0) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.seconds = seconds


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow no redirects, because the token must only be sent to the host of `--url`."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def say(text: str) -> None:
    """Print progress or an error, for people, to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def put(text: str, end: str = "\n") -> None:
    """Print a result, for scripts, to standard output."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


class Service:
    """The service at `url`. Commands have an Idempotency-Key, so that a retry does not execute them again."""

    def __init__(self, url: str, token: str, *, timeout: float, patience: float, key: str | None = None) -> None:
        """`timeout`: seconds to wait for one response. `patience`: seconds during which failed requests are retried.

        `key`: the Idempotency-Key of the one command that the program sends. With the key of an earlier call, the
        response tells the outcome of that call.
        """
        self.url = url.rstrip("/")
        self.token = token
        self.timeout = timeout
        self.patience = patience
        self.key = key or str(uuid.uuid4())
        self.was_sent = False  # whether the command may have been received
        self._open = urllib.request.build_opener(NoRedirect).open

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        given = {name: value for name, value in query.items() if value is not None}
        return self._ask("GET", path + (f"?{urllib.parse.urlencode(given)}" if given else ""))

    def post(self, path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
        return self._ask("POST", path, body, headers)

    def send(self, method: str, path: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        return self._ask(method, path, body, headers)

    def command(self, name: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
        """Send a command. It has an Idempotency-Key, so the service executes it only once, even after retries."""
        return self.once(f"command/{name}", body, **headers)

    def once(self, path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
        """Send a request that changes something, with an Idempotency-Key."""
        if not body.get("dry_run"):
            headers[KEY] = self.key
        return self.post(path, body, **headers)

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        pause = FIRST_PAUSE
        first_failure = None
        while True:
            try:
                return self._ask_once(method, path, body, headers or {})
            except Later as later:
                now = time.monotonic()
                first_failure = first_failure or now
                wait = max(pause, later.seconds)
                if now + wait > first_failure + self.patience:
                    if self.was_sent:
                        later.problem.code = Exit.UNKNOWN
                    raise later.problem from None
                say(f"{later.problem} Retrying in {wait:g} s.")
                time.sleep(wait)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _ask_once(self, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/v4/runners/{path}", data=data, method=method)  # noqa: S310
        request.add_header("Accept", "application/json")
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        for name, value in headers.items():
            request.add_header(name, value)
        was_sent, self.was_sent = self.was_sent, self.was_sent or KEY in headers
        try:
            with self._open(request, timeout=self.timeout) as response:
                return self._json(response.read())
        except urllib.error.HTTPError as error:
            if error.code == 429:  # rejected before it was executed
                self.was_sent = was_sent
            with error:
                raise self._problem(error, method) from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.URLError):  # no connection, or it broke before the whole request was sent
                self.was_sent = was_sent
            reason = getattr(error, "reason", None) or error
            raise Later(Problem(Exit.UNREACHABLE, f"{self.url} does not answer: {reason}.")) from None

    def _json(self, data: bytes) -> dict[str, Any]:
        try:
            body = json.loads(data)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Problem(Exit.UNREACHABLE, f"{self.url} is not an Autosubmit Runners service.")
        return body

    def _problem(self, error: urllib.error.HTTPError, method: str) -> Exception:
        """Return the exception for a response with status 400 or more: Later if a retry may help, else Problem."""
        try:
            body = json.loads(error.read())
        except (ValueError, OSError):
            body = {}
        if not isinstance(body, dict) or "code" not in body:
            problem = Problem(Exit.UNREACHABLE, f"{self.url} answers {error.code} {error.reason}.")
            return Later(problem) if error.code >= 500 else problem  # from a proxy: the service is down
        problem = Problem(exit_code_of(body), body["detail"], body)
        # If a machine cannot be reached, retry a request that only reads, but report the error of a command.
        if body["code"] in LATER or (method == "GET" and error.code in (502, 504)):
            wait = error.headers.get("Retry-After", "")
            return Later(problem, float(wait) if wait.isdecimal() else 0)
        return problem
