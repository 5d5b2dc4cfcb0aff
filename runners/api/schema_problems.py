"""One example of each error for the OpenAPI document. They say what the service says."""

from __future__ import annotations

from typing import Any

from runners.api.exception_handler import KINDS, Kind, problem

_HOST_KEY = {"host": "autosubmit.example.com", "key_type": "ssh-ed25519"}
_NEW_KEY = "SHA256:Nb1h4jZ3kZl0Cm2bVSV8sC7Ih5o2FJbYc0m5W2d6nYQ"
_OLD_KEY = "SHA256:2kqv1iB3l4cQ0N7uT9oH2a8WcE5rXyZ6dGfMjKpSsLw"
_WHERE = "autosubmit_user@autosubmit.example.com:22"
_NO_EXPERIMENT = "[CRITICAL] Experiment does not exist [eCode=7012]"
_CLONE_FAILED = (
    "Can not clone main https://git.example.com/model.git into /home/autosubmit_user/autosubmit/a001/proj\n"
    "fatal: Remote branch main not found in upstream origin"
)
_OPEN_USER = "The profile leaves open as which user to connect: give SSH.USER in profile_params."
_NOT_FAILED = "Autosubmit knows no status 'DONE'. It knows READY, COMPLETED, WAITING, SUSPENDED, UNKNOWN, HELD, ..."

# For each code: what `detail` says, and the members that come with it.
EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "invalid_request": (
        f"command_params.final_status: {_NOT_FAILED}",
        {"errors": {"command_params.final_status": [_NOT_FAILED]}},
    ),
    "invalid_profile": (
        f"profile_params.SSH.USER: {_OPEN_USER}",
        {"errors": {"profile_params.SSH.USER": [_OPEN_USER]}},
    ),
    "invalid_json": ("The body is no valid JSON: Expecting value: line 1 column 11 (char 10).", {}),
    "not_authenticated": ("Send the header 'Authorization: Bearer TOKEN'.", {}),
    "invalid_credentials": ("This token is not known. Ask an admin for a new one.", {}),
    "endpoint_disabled": ("The set-job-status endpoint is currently disabled.", {}),
    "profile_forbidden": (
        "You may not run with MY_RUNNER_PROFILE_1: an admin has given that to certain groups. Ask an admin to add you "
        "to one of them.",
        {},
    ),
    "permission_denied": (
        "This token may only read: the request needs the scope 'run'. Ask for another token.",
        {},
    ),
    "profile_not_found": ("There is no profile 'MY_RUNNER'. Did you mean 'MY_RUNNER_PROFILE_1'?", {}),
    "experiment_not_found": (
        f"Autosubmit on {_WHERE} knows no experiment a001.",
        {"exit_code": 100, "error_code": 7012, "output": _NO_EXPERIMENT},
    ),
    "run_not_found": ("Experiment a001 was never run here.", {}),
    "log_not_found": (
        "There is no log: nothing was started, or its directory was removed from the machine.",
        {},
    ),
    "operation_not_found": ("There is no operation 5.", {}),
    "not_found": ("Nobody is signed in, so there is nobody whose settings these could be.", {}),
    "idempotency_in_progress": (
        "The first request with this Idempotency-Key is still under way. Send it again in a moment for its answer.",
        {},
    ),
    "idempotency_key_reused": (
        "This Idempotency-Key came with another request before (create-experiment). Make a new key for each request; "
        "send the same key only with the same body.",
        {},
    ),
    "stopped_during_launch": (
        "Experiment a001 was stopped by ana while it was being started (run 17). To start it all the same, send a new "
        "request, with another Idempotency-Key.",
        {},
    ),
    "already_running": ("Experiment a001 is already running since 2026-01-20 09:30:00 UTC (run 17).", {}),
    "not_running": ("Experiment a001 is not running: its last run (run 17) is TERMINATED.", {}),
    "too_large": ("The body has more than 1048576 bytes.", {}),
    "unsupported_media_type": (
        "Send the body as JSON, with the header 'Content-Type: application/json'.",
        {},
    ),
    "throttled": ("Too many requests. Try again in 12 s.", {}),
    "runner_unreachable": (
        f"{_WHERE} cannot be reached: connection refused; is an SSH server running there on that port?",
        {},
    ),
    "host_key_unknown": (
        f"The host key of autosubmit.example.com is not known (ssh-ed25519 {_NEW_KEY}). An admin can compare this "
        "fingerprint with the machine's own and approve it (admin pages, Trusted host keys, or `manage.py "
        "trust_host`), or add it to the service's known_hosts.",
        {**_HOST_KEY, "fingerprint": _NEW_KEY},
    ),
    "host_key_changed": (
        f"The host key of autosubmit.example.com has changed: it shows ssh-ed25519 {_NEW_KEY}, trusted is ssh-ed25519 "
        f"{_OLD_KEY}. Nothing was sent. If the machine was really given a new key, an admin has to replace the "
        "trusted one (admin pages, Trusted host keys, or `manage.py trust_host`).",
        {**_HOST_KEY, "fingerprint": _NEW_KEY, "trusted_fingerprint": _OLD_KEY},
    ),
    "authentication_failed": (
        f"{_WHERE} refused the service's keys. Add one of its public keys (configuration/ssh-public-keys) to "
        "~/.ssh/authorized_keys of autosubmit_user there.",
        {},
    ),
    "outcome_unknown": (
        "The connection to autosubmit.example.com was lost while the command ran; it may have gone on and ended "
        "there. Check the experiment before you repeat it.",
        {"host": "autosubmit.example.com"},
    ),
    "command_failed": (
        f"The command failed on {_WHERE} with exit code 153: {_CLONE_FAILED}",
        {"exit_code": 153, "error_code": 7065, "output": _CLONE_FAILED},
    ),
    "command_timed_out": (
        f"The command on {_WHERE} was ended after 300 s.",
        {"output": "Checking the job list"},
    ),
    "stop_not_confirmed": (
        f"Experiment a001 is still running on {_WHERE} after every step of the stop. Its "
        "process may be waiting for a disk; stop it again later, or ask the machine's admins.",
        {
            "run_id": 17,
            "steps": [
                {"action": "autosubmit stop", "outcome": "exit code 0", "seconds": 20.0, "ended": False},
                {"action": "signal KILL", "outcome": "sent", "seconds": 10.0, "ended": False},
            ],
        },
    ),
    "still_reachable": (
        "Run 17 of a001 was just confirmed by its machine: stop it instead.",
        {"run_id": 17},
    ),
    "database_unavailable": (
        "The service's database does not answer now. Nothing is lost; try again in some seconds.",
        {},
    ),
}

KIND_OF_CODE: dict[str, Kind] = {kind.code: kind for kind in KINDS.values()}


def example(code: str, **facts: Any) -> dict[str, Any]:
    """A whole error body. KeyError for a code that the document does not name."""
    detail, more = EXAMPLES[code]
    return problem(KIND_OF_CODE[code], detail, **{**more, **facts})
