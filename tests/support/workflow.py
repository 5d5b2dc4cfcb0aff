"""A workflow of members, chunks and splits, one job of which fails: what a scientist does with it, over the API.

One scenario for both: tests/api runs it with few jobs on the local platform, tests/slurm with 300 on a real Slurm.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from tests.support.processes import wait_for
from tests.support.servers import Answer, AppServer

RUNNERS = "/v4/runners/"
MISSING = "the restart file is missing"
# For `import_profiles`: what the scenario needs and what is off until an admin enables it.
ENDPOINTS = {"EDIT_CONFIGURATION": {"ENABLED": True}}


class Workflow:
    """One SIM per member and chunk, and `splits` DN after each SIM. The SIM of chunk 2 of the last member fails.

    The SIMs run until `release` is called. `file`: the configuration file that holds the jobs, below conf.
    `statuses` returns the job list as Autosubmit itself has it, by the names of the jobs.
    """

    def __init__(
        self,
        app: AppServer,
        *,
        profile: str,
        expid: str,
        file: str,
        gate: Path,
        statuses: Callable[[str], dict[str, str]],
        members: int,
        chunks: int,
        splits: int,
        seconds: float,
    ) -> None:
        self.app, self.profile, self.expid, self.file, self.gate = app, profile, expid, file, gate
        self._statuses = statuses
        self.members = [f"fc{number}" for number in range(members)]
        self.chunks, self.splits = chunks, splits
        self.sims = members * chunks
        self.total = self.sims * (1 + splits)
        self.seconds = seconds  # within which a step of the workflow has to end
        self.failing = f"{expid}_20000101_{self.members[-1]}_2_SIM"

    # --- requests ---

    def command(self, name: str, expect: int = 200, **body: Any) -> Any:
        answer = self.app.post(f"{RUNNERS}command/{name}", {"expid": self.expid, "profile_name": self.profile, **body})
        return self._body(answer, expect)

    def get(self, path: str, **query: Any) -> Any:
        return self._body(self.app.get(f"{RUNNERS}{path}?{urlencode(query)}"), 200)

    def status(self) -> Any:
        return self._body(self.app.post(f"{RUNNERS}command/get-runner-run-status", {"expid": self.expid}), 200)

    def ended(self) -> Any:
        def look() -> Any:
            status = self.status()
            return status if status["status"] != "ACTIVE" else None

        return wait_for(look, self.seconds, what=f"the end of {self.expid}", interval=0.5)

    def stopped(self) -> Any:
        """Stop the run and cancel its jobs. Return the answer.

        Autosubmit's own stop examines all processes of the machine, and fails if one of them ends meanwhile. Then the
        request is repeated, as its warning says.
        """
        body = {"expid": self.expid, "cancel_jobs": True}
        answer: Any = {}
        for _ in range(5):
            answer = self._body(self.app.post(f"{RUNNERS}command/stop-experiment", body), 200)
            if "process no longer exists" not in answer["cancel"]["detail"]:
                break
        return answer

    @staticmethod
    def _body(answer: Answer, expect: int) -> Any:
        assert answer.status == expect, (answer.status, answer.body)
        return answer.body

    # --- the configuration ---

    def configure(self, *, is_repaired: bool) -> None:
        """Replace the jobs in the configuration, by the API. Without `is_repaired`, one SIM will fail."""
        path = f"{RUNNERS}experiments/{self.expid}/config/file?" + urlencode(
            {"profile_name": self.profile, "path": self.file}
        )
        read = self.app.get(path)
        present = self._body(read, 200)
        lines = [f"until [ -e {self.gate} ]; do sleep 0.2; done"]
        if not is_repaired:
            where = f"{self.members[-1]}_2"
            lines.append(f'if [ "%MEMBER%_%CHUNK%" = {where} ]; then echo "{MISSING}" >&2; exit 3; fi')
        jobs = {
            "SIM": {"SCRIPT": "\n".join(lines), "RUNNING": "chunk", "WALLCLOCK": "00:10"},
            "DN": {"SCRIPT": "true", "RUNNING": "chunk", "SPLITS": self.splits, "WALLCLOCK": "00:10"}
            | {"DEPENDENCIES": {"SIM": {}}},
        }
        content = yaml.safe_load(present["content"]) or {}
        content["EXPERIMENT"] = {
            "DATELIST": "20000101",
            "MEMBERS": " ".join(self.members),
            "NUMCHUNKS": self.chunks,
            "CHUNKSIZEUNIT": "month",
            "CHUNKSIZE": 1,
        }
        content["JOBS"] = jobs
        etag = read.headers["ETag"]
        written = self.app.request("PUT", path, {"content": yaml.safe_dump(content)}, If_Match=etag)
        assert self._body(written, 200)["is_changed"] is True
        again = self.app.request("PUT", path, {"content": "JOBS: {}\n"}, If_Match=etag)
        assert again.status == 412, again.body

    def release(self) -> None:
        self.gate.touch()
        self.gate.chmod(0o644)

    # --- the state ---

    def counts(self) -> dict[str, int]:
        """Return how many jobs have which status in Autosubmit's own job list."""
        found = list(self._statuses(self.expid).values())
        return {status: found.count(status) for status in set(found)}

    def progress(self, **wanted: int) -> Any:
        """Wait until the progress of the run has these numbers. Return the run."""

        def look() -> Any:
            status = self.status()
            progress = status["progress"] or {}
            return status if all(progress.get(name) == value for name, value in wanted.items()) else None

        return wait_for(look, self.seconds, what=f"a progress of {wanted}", interval=0.5)


def live_through(flow: Workflow) -> None:
    """Watch, stop, recover, run, reconfigure, repair and complete the workflow."""
    flow.configure(is_repaired=False)
    flow.command("create-job-list")
    assert sum(flow.counts().values()) == flow.total

    # It runs, and is watched.
    flow.command("run-experiment")
    run = flow.progress(total=flow.total, running=flow.sims, done=0, failed=0)
    page = flow.get(f"runs/{run['runner_id']}/jobs", section="SIM", status="RUNNING", page_size=500)
    assert (page["total"], page["matching"]) == (flow.total, flow.sims)
    assert {job["member"] for job in page["results"]} == set(flow.members)
    assert {job["chunk"] for job in page["results"]} == set(range(1, flow.chunks + 1))
    splits = flow.get(f"runs/{run['runner_id']}/jobs", section="DN", split=flow.splits, page_size=500)
    assert splits["matching"] == flow.sims
    assert flow.command("recover-experiment", 409)["code"] == "already_running"

    # It is stopped, and recovered.
    stopped = flow.stopped()
    assert (stopped["status"], stopped["cancel"]["outcome"]) == ("TERMINATED", "cancelled"), stopped
    assert flow.counts()["FAILED"] == flow.sims
    plan = flow.command("recover-experiment", command_params={"all": True}, dry_run=True)
    assert any(f"{flow.total} jobs would be executed again" in warning for warning in plan["warnings"]), plan
    assert flow.counts()["FAILED"] == flow.sims
    recovered = flow.command("recover-experiment", command_params={"all": True})
    assert recovered["counts"] == {"selected": flow.total, "completed": 0, "waiting": flow.total}
    assert set(flow.counts()) <= {"READY", "WAITING"}

    # It runs again, and one job fails.
    flow.release()
    flow.command("run-experiment")
    failed = flow.ended()
    assert (failed["status"], failed["reason"]) == ("TERMINATED", "failed")
    assert failed["jobs"]["failed_jobs"] == [flow.failing]
    assert flow.failing in failed["explanation"] and MISSING in failed["explanation"]
    done = flow.total - 1 - flow.splits
    assert flow.counts() == {"COMPLETED": done, "FAILED": 1, "WAITING": flow.splits}
    assert {name: failed["progress"][name] for name in ("total", "done", "failed")} == {
        "total": flow.total,
        "done": done,
        "failed": 1,
    }
    (job,) = flow.get(f"runs/{failed['runner_id']}/jobs", status="FAILED")["results"]
    assert job["name"] == flow.failing
    log = flow.get(f"runs/{failed['runner_id']}/jobs/{flow.failing}/log", stream="err")
    assert MISSING in log["text"]

    # Its configuration is corrected, its failed job is repaired, and it completes.
    flow.configure(is_repaired=True)
    again = flow.app.post(f"{RUNNERS}runs/{failed['runner_id']}/run-again", {"first": "failed_to_waiting"})
    assert (again.status, again.body["previous_run"]) == (200, failed["runner_id"]), again.body
    assert again.body["steps"][0]["changed"] == {flow.failing: "WAITING"}
    completed = flow.ended()
    assert (completed["status"], completed["exit_code"]) == ("COMPLETED", 0)
    assert completed["progress"]["done"] == flow.total
    assert flow.counts() == {"COMPLETED": flow.total}
