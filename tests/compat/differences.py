"""The intended differences: case -> {difference, as text of compare.py: reason}. Any other one fails the suite."""

from __future__ import annotations

_NAMED = "500 means a bug in the service. Here every rejection has its own code, and only a bug is a 500."
_PORT = (
    "The GUI sends the port as text. The Autosubmit API ignores it and uses 22. This service accepts text of digits "
    "as a port."
)
_STOPPED_PORT = (
    "The Autosubmit API does not store the port of a run, so stop tries port 22. Here a run stores its complete "
    "configuration."
)

DIFFERENCES: dict[str, dict[str, str]] = {
    "GET preferred-username, nothing stored": {
        "HTTP status: 400 -> 200": "The request is valid. The GUI shows an empty field in both cases."
    },
    "run-experiment, the port typed in the GUI (a string)": {"HTTP status: 500 -> 200": _PORT},
    "run-experiment, an open parameter of the profile is missing": {"HTTP status: 500 -> 400": _NAMED},
    "run-experiment, SSH user missing": {"HTTP status: 500 -> 400": _NAMED},
    "run-experiment, profile that does not exist": {"HTTP status: 500 -> 404": _NAMED},
    "run-experiment of an experiment that is already running": {
        "HTTP status: 500 -> 409": _NAMED + " The response contains the active run."
    },
    "run-experiment, venv that does not exist": {
        "HTTP status: 200 -> 502": (
            "The Autosubmit API reports that the run was started. Here a run has started when its environment is "
            "ready and the command is about to be executed. The response contains the error message."
        )
    },
    "get-runner-run-status, SSH run that ended with exit code 0": {
        "status: 'TERMINATED' -> 'COMPLETED'": (
            "The Autosubmit API asks a shell that is not the parent for the exit code, and always gets 127. So SSH "
            "runs are never COMPLETED. Here the parent of the command stores the exit code."
        )
    },
    "get-runner-run-status, never run": {
        "HTTP status: 500 -> 404": _NAMED
        + " The GUI polls this every 10 s, so it also fills the error log of the Autosubmit API."
    },
    "stop-experiment over SSH, sshd not on port 22": {"HTTP status: 500 -> 200": _STOPPED_PORT},
    "stop-experiment, never run": {"HTTP status: 500 -> 404": _NAMED},
    "stop-experiment, the run has ended": {"HTTP status: 500 -> 409": _NAMED},
    "set-job-status to FAILED, which the GUI offers and Autosubmit rejects": {
        "HTTP status: 500 -> 400": _NAMED
        + " The response lists the statuses that Autosubmit accepts, and nothing is executed."
    },
    "set-job-status, profile that does not exist": {"HTTP status: 500 -> 404": _NAMED},
    "create-experiment, description with shell text in it": {
        "description: 'a b executed executed' -> 'a \"b\" $(echo executed) `echo executed`'": (
            "The Autosubmit API puts the description into double quotes in a shell command, so text in $(...) is "
            "executed as the service's account. Here Autosubmit gets the exact text."
        )
    },
    "update-experiment-description of an experiment that does not exist": {"HTTP status: 500 -> 404": _NAMED},
    "all endpoints off: get-runner-run-status": {
        "HTTP status: 403 -> 200": "The toggle RUNNER_RUN forbids starting and stopping. Here active runs stay visible."
    },
    "PROTECTION_LEVEL WRITEONLY: run-experiment without credentials": {
        "HTTP status: 200 -> 401": (
            "In the Autosubmit API, commands of the runners need credentials with ALL only: with WRITEONLY anybody "
            "may create, run and stop experiments. Here WRITEONLY protects commands."
        )
    },
}
