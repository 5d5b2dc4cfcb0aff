"""The HTTP client of the service. It retries with back-off; a retry never executes a command twice."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any

from runners.cli import __version__
from runners.cli.errors import Exit, Problem, exit_code_of
from runners.cli.terminal import say

LATER = ("idempotency_in_progress", "throttled", "database_unavailable")  # codes of errors that a retry may avoid
KEY = "Idempotency-Key"
LARGEST_RESPONSE, LARGEST_ERROR = 67_108_864, 1_048_576  # bytes that are read
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 20.0  # seconds before a retry: the first and the longest back-off


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
        self._ahead = 0.0  # seconds by which the clock of the service is ahead of this machine's
        self.is_quiet = False  # no message about a retry
        self._open = urllib.request.build_opener(NoRedirect).open

    @property
    def code_of_failure(self) -> Exit:
        """Return the exit code if a response tells nothing: the command may have been executed, if it was sent."""
        return Exit.UNKNOWN if self.was_sent else Exit.UNREACHABLE

    def now(self) -> float:
        """Return the time of the service, in seconds since 1970. This machine's own clock may be wrong."""
        return time.time() + self._ahead

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
                if not self.is_quiet:
                    say(f"{later.problem} Retrying in {wait:g} s.")
                time.sleep(wait)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _ask_once(self, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/v4/runners/{path}", data=data, method=method)  # noqa: S310
        request.add_header("Accept", "application/json")
        request.add_header("User-Agent", f"asr/{__version__}")
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        for name, value in headers.items():
            request.add_header(name, value)
        was_sent, self.was_sent = self.was_sent, self.was_sent or KEY in headers
        try:
            with self._open(request, timeout=self.timeout) as response:
                self._learn_time(response.headers.get("Date", ""))
                return self._json(response.read(LARGEST_RESPONSE + 1))
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

    def _learn_time(self, date: str) -> None:
        with contextlib.suppress(TypeError, ValueError, IndexError, OverflowError):  # what a malformed date can raise
            self._ahead = email.utils.parsedate_to_datetime(date).timestamp() - time.time()

    def _json(self, data: bytes) -> dict[str, Any]:
        try:
            body = json.loads(data) if len(data) <= LARGEST_RESPONSE else None
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise Problem(self.code_of_failure, f"{self.url} is not an Autosubmit Runners service.")
        return body

    def _problem(self, error: urllib.error.HTTPError, method: str) -> Exception:
        """Return the exception for a response with status 400 or more: Later if a retry may help, else Problem."""
        try:
            body = json.loads(error.read(LARGEST_ERROR))
        except (ValueError, OSError, RecursionError, http.client.HTTPException):
            body = {}
        if not (isinstance(body, dict) and isinstance(body.get("code"), str) and isinstance(body.get("detail"), str)):
            problem = Problem(Exit.UNREACHABLE, f"{self.url} answers {error.code} {error.reason}.")
            return Later(problem) if error.code >= 500 else problem  # from a proxy: the service is down
        problem = Problem(exit_code_of(error.code, body["code"]), body["detail"], body)
        # If a machine cannot be reached, retry a request that only reads, but report the error of a command.
        if body["code"] in LATER or (method == "GET" and error.code in (502, 504)):
            wait = error.headers.get("Retry-After", "")
            return Later(problem, float(wait) if wait.isdecimal() else 0)
        return problem
