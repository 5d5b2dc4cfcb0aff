"""The output of the drivers when everything works."""

from __future__ import annotations

_LINES = """\
profile: LOCAL
needed: []
plan: autosubmit run a000
started: Experiment a000 started successfully.
ended: COMPLETED 0 '' True
log: True
listed: True
run again: True COMPLETED
again: 409 already_running True
stopped: TERMINATED True True
stop again: not_running
operation: create-job-list succeeded
jobs: 3 ['COMPLETED', 'FAILED', 'RUNNING'] ['t000_1_SIM', 't000_2_SIM']
first job: FAILED 1
files: ['expdef_t000.yml']
changed: True True
changed before: 412 precondition_failed
filter: --filter_status=FAILED
filter: --filter_status=FAILED READY
unknown: run_not_found
refused: 400 invalid_request ['expid']
stranger: invalid_credentials
""".splitlines()


def _without(*names: str) -> list[str]:
    return [line for line in _LINES if line.partition(":")[0] not in names]


EXPECTED = {
    "python": _LINES,
    "typescript": [line.replace("True", "true") for line in _without("filter")],
    "java": [line for line in _LINES if line.partition(":")[0] in ("profile", "plan", "started", "ended", "unknown")],
}
