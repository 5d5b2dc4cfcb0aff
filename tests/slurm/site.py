"""`Site`: what a user does with the service, and the resulting state in Autosubmit and Slurm."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tests.slurm.account import PLATFORM, SlurmAccount
from tests.slurm.cluster import Job, Slurm
from tests.support.processes import kill_all, wait_for
from tests.support.servers import AppServer

LOG = logging.getLogger(__name__)
COMMAND = "/v4/runners/command/"
PATIENCE = 120  # seconds; enough on a busy machine


class Site:
    """The service (`app`), the account that it reaches over SSH, and the cluster that runs the account's jobs."""

    def __init__(self, app: AppServer, account: SlurmAccount, slurm: Slurm) -> None:
        self.app, self.account, self.slurm = app, account, slurm
        self._expids: list[str] = []

    def clean(self) -> None:
        """End the runs and Slurm jobs that the test left. pytest shows the logs if the test failed."""
        for expid in self._expids:
            kill_all(self.account.run_pids(expid))
            for log in sorted((self.account.root / expid / "tmp" / "ASLOGS").glob("*_run.log")):
                lines = [line[:300] for line in log.read_text(errors="replace").splitlines()]
                LOG.warning("%s:\n%s", log.name, "\n".join(lines[-60:]))
        self.slurm.cancel_all(self.account.name)

    # --- the service ---

    def post(self, command: str, expect: int = 200, **body: Any) -> dict[str, Any]:
        answer = self.app.post(COMMAND + command, body)
        assert answer.status == expect, (answer.status, answer.body)
        assert isinstance(answer.body, dict)
        return answer.body

    def with_profile(self, command: str, expect: int = 200, **body: Any) -> dict[str, Any]:
        return self.post(command, expect, profile_name="CLUSTER", **body)

    def create(self, jobs: Mapping[str, Mapping[str, Any]], *, chunks: int = 1) -> str:
        """Create an experiment with its job list, through the API except for its configuration. See `configure`."""
        params = {"description": "on a real Slurm", "dummy": True, "hpc": PLATFORM}
        expid: str = self.with_profile("create-experiment", command_params=params)["expid"]
        self._expids.append(expid)
        self.account.configure(expid, jobs, chunks=chunks)
        self.with_profile("create-job-list", expid=expid)
        return expid

    def run(self, expid: str) -> dict[str, Any]:
        return self.with_profile("run-experiment", expid=expid)

    def stop(self, expid: str, expect: int = 200, **options: bool) -> dict[str, Any]:
        return self.post("stop-experiment", expect, expid=expid, **options)

    def status(self, expid: str) -> dict[str, Any]:
        return self.post("get-runner-run-status", expid=expid)

    def ended(self, expid: str) -> dict[str, Any]:
        """Wait until the run is not ACTIVE any more, and return its status."""
        return wait_for(
            lambda: (status := self.status(expid))["status"] != "ACTIVE" and status,
            PATIENCE,
            what=f"the end of {expid}",
            interval=0.5,
        )

    # --- the real state ---

    def jobs(self, expid: str) -> dict[str, Job]:
        """Return the experiment's Slurm jobs that are pending, running or ending: {name without expid: Job}."""
        found = self.slurm.jobs(self.account.name).values()
        return {job.name.removeprefix(f"{expid}_"): job for job in found if job.name.startswith(f"{expid}_")}

    def no_jobs(self, expid: str) -> None:
        """Wait until none of its Slurm jobs is in the queue: Slurm needs a moment to end a cancelled job."""
        wait_for(lambda: not self.jobs(expid), 15, what=f"an empty queue of {expid}")

    def history(self, expid: str) -> dict[str, list[str]]:
        """Return {name without expid: first words of its Slurm jobs' states, oldest first}, from the accounting."""
        return {
            name: [state.split()[0] for state in self.slurm.history(f"{expid}_{name}")] for name in self.job_list(expid)
        }

    def running(self, expid: str, count: int) -> dict[str, Job]:
        """Wait until `count` of its Slurm jobs run and Autosubmit has seen that. Return the jobs."""

        def all_run() -> dict[str, Job] | None:
            jobs = self.jobs(expid)
            return jobs if sum(job.state == "RUNNING" for job in jobs.values()) >= count else None

        jobs = wait_for(all_run, PATIENCE, what=f"{count} Slurm jobs of {expid} that run", interval=0.3)
        assert jobs
        self.list_has(expid, "RUNNING", count)
        return jobs

    def list_has(self, expid: str, status: str, count: int) -> None:
        """Wait until Autosubmit's own job list has `count` jobs of that status."""
        wait_for(
            lambda: list(self.job_list(expid).values()).count(status) >= count,
            PATIENCE,
            what=f"{count} jobs {status} in the job list of {expid}",
            interval=0.5,
        )

    def job_list(self, expid: str) -> dict[str, str]:
        """Return {name without expid: status} from Autosubmit's own job list."""
        statuses = self.account.job_statuses(expid)
        return {name.removeprefix(f"{expid}_"): status for name, status in statuses.items()}
