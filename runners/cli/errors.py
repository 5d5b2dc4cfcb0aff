"""The exit codes of the client, and the error that ends it."""

from __future__ import annotations

import enum
from typing import Any


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
    UNCONFIRMED = 9  # as ACTIVE, but its machine has not confirmed it for an hour
    TIMED_OUT = 124  # the time of `wait --timeout` is over, and the run is active; as timeout(1)
    INTERRUPTED = 130  # Ctrl-C


EXIT_TEXTS = {
    Exit.OK: "success; after waiting for a run: it is COMPLETED",
    Exit.FAILED: "the run is TERMINATED, or the command ran and failed; `check`, `log --grep`, `config diff`: no",
    Exit.USAGE: "the command line is invalid, or the service rejected a value",
    Exit.NOT_THERE: "not found; or the experiment is not running",
    Exit.UNREACHABLE: "the service, or the machine that it uses, is unreachable; nothing was executed",
    Exit.REFUSED: "forbidden: credentials, permissions, or an endpoint that is switched off",
    Exit.CONFLICT: "conflict: the experiment is already running, or the file has changed",
    Exit.UNKNOWN: "unknown: the command may have been executed; retry it with its key",
    Exit.ACTIVE: "`status`: the run is ACTIVE",
    Exit.UNCONFIRMED: "`status`: ACTIVE is the last known state, not confirmed by the machine for an hour or more",
    Exit.TIMED_OUT: "the time of `wait --timeout`, or of a login, is over",
    Exit.INTERRUPTED: "Ctrl-C; a started command continues",
}

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


def exit_code_of(status: int, code: str) -> Exit:
    """Return the exit code for an error of the service: its HTTP status and its code."""
    return BY_CODE.get(code) or BY_STATUS.get(status, Exit.UNREACHABLE)


# What the code raises if an answer is valid JSON of another form: a member is missing, or has another type or value.
UNKNOWN_FORM = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Problem(Exception):
    """An error that ends the program: a message for people and an exit code for scripts."""

    def __init__(self, code: Exit, text: str, body: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.body = body
