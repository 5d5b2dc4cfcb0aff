"""The intended differences: case -> {difference, as text of compare.py: reason}. Any other one fails the suite."""

from __future__ import annotations

_NAMED = "500 says that the service is broken. Here every refusal has a code of its own, and 500 is a bug."
_PORT = "The port arrives as text from the GUI. There it is ignored and 22 used; here text of digits is a port."
_STOPPED_PORT = (
    "The port is not stored with a run there, so stop tries port 22. Here a run keeps its whole configuration."
)

DIFFERENCES: dict[str, dict[str, str]] = {
    "GET preferred-username, nothing stored yet": {
        "HTTP status: 400 -> 200": "Nothing was wrong with the request. The GUI shows an empty field either way."
    },
    "run-experiment, the port typed in the GUI (a string)": {"HTTP status: 500 -> 200": _PORT},
    "run-experiment, what the profile leaves open is not given": {"HTTP status: 500 -> 400": _NAMED},
    "run-experiment, SSH user not given": {"HTTP status: 500 -> 400": _NAMED},
    "run-experiment, profile that does not exist": {"HTTP status: 500 -> 404": _NAMED},
    "run-experiment of what runs already": {
        "HTTP status: 500 -> 409": _NAMED + " The answer holds the run that is in the way."
    },
    "run-experiment, venv that does not exist": {
        "HTTP status: 200 -> 502": "There the answer is that the run was started. Here a start counts when the "
        "environment stands and the command is about to be executed; the answer holds the words of what failed."
    },
    "get-runner-run-status, SSH run that ended with exit code 0": {
        "status: 'TERMINATED' -> 'COMPLETED'": "There the exit code is asked of a shell that is not the parent and is "
        "always 127: no SSH run is ever COMPLETED. Here the parent of the command writes it down."
    },
    "get-runner-run-status, never run": {
        "HTTP status: 500 -> 404": _NAMED
        + " The GUI polls this every 10 s, so it also fills the server's error log there."
    },
    "stop-experiment over SSH, sshd not on port 22": {"HTTP status: 500 -> 200": _STOPPED_PORT},
    "stop-experiment, never run": {"HTTP status: 500 -> 404": _NAMED},
    "stop-experiment, not running any more": {"HTTP status: 500 -> 409": _NAMED},
    "set-job-status to FAILED, which the GUI offers and Autosubmit refuses": {
        "HTTP status: 500 -> 400": _NAMED
        + " The answer says which statuses Autosubmit accepts, and nothing is executed."
    },
    "set-job-status, profile that does not exist": {"HTTP status: 500 -> 404": _NAMED},
    "create-experiment, description with shell text in it": {
        "description: 'a b executed executed' -> 'a \"b\" $(echo executed) `echo executed`'": "There the description "
        "passes through a shell inside double quotes: what is in $(...) is executed as the service's account. Here "
        "Autosubmit gets the text."
    },
    "all endpoints off: get-runner-run-status": {
        "HTTP status: 403 -> 200": "The toggle RUNNER_RUN forbids starting and stopping. What still runs stays "
        "visible here."
    },
    "PROTECTION_LEVEL WRITEONLY: run-experiment without credentials": {
        "HTTP status: 200 -> 401": "There the runners' commands need credentials with ALL only: with WRITEONLY anybody "
        "may create, run and stop experiments. Here the level does what it is called."
    },
}
