"""What both drivers print when everything is as it should be; `True` is `true` in TypeScript."""

from __future__ import annotations

_LINES = """\
profile: LOCAL
needed: []
plan: autosubmit run a000
started: Experiment a000 started successfully.
ended: COMPLETED 0 '' True
log: True
listed: True
again: 409 already_running True
stopped: TERMINATED True True
stop again: not_running
operation: create-job-list succeeded
unknown: run_not_found
refused: 400 invalid_request ['expid']
stranger: invalid_credentials
"""
EXPECTED = {"python": _LINES.splitlines(), "typescript": _LINES.replace("True", "true").splitlines()}
