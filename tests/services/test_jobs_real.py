"""The jobs of a real Autosubmit, while it runs them and afterwards. `make test-versions` does it for older versions."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from profiles.config import RunnerConfig
from runners.models import RunnerRun
from runners.services import jobs
from runners.services.machines.jobs import JobQuery
from tests.support.environments import AutosubmitAccount
from tests.support.processes import wait_for
from tests.support.servers import SSHServer

pytestmark = [pytest.mark.django_db, pytest.mark.real, pytest.mark.timeout(300)]


def make_run(config: RunnerConfig, expid: str) -> RunnerRun:
    values = {"expid": expid, "runner": config.runner_type, "module_loader": config.module_loader_type}
    return RunnerRun.objects.create(config=config.as_dict(), status="COMPLETED", **values)


def test_jobs_during_and_after_a_real_run(
    autosubmit: AutosubmitAccount, autosubmit_sshd: SSHServer, settings: object
) -> None:
    settings.RUNNERS_STATUS_FRESHNESS = 0  # type: ignore[attr-defined]
    go = autosubmit.home / "go"
    script = f"echo to the output; echo no space left >&2; until [ -e {go} ]; do sleep 0.2; done; exit 3"
    expid = autosubmit.short_experiment(script)
    name = f"{expid}_ONE"
    runs = [make_run(autosubmit.config(), expid), make_run(autosubmit_sshd.config(), expid)]
    assert [jobs.counts_of(run).by_status for run in runs] == [{"READY": 1}] * 2
    environment = {"HOME": str(autosubmit.home), "PATH": f"{autosubmit.programs}:{os.defpath}", "TERM": "dumb"}
    argv = [str(autosubmit.programs / "autosubmit"), "run", expid]
    with subprocess.Popen(
        argv, env=environment, cwd=autosubmit.home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(lambda: jobs.counts_of(runs[0]).running == 1, 60, what="a running job")
            for run in runs:
                (job,) = jobs.page_of(run, JobQuery(status=("RUNNING",))).jobs
                assert (job.name, job.section, job.platform, len(job.attempts)) == (name, "ONE", "LOCAL", 1)
                assert job.last is not None
                assert job.last.submitted is not None
                assert job.last.remote_id is not None
                assert job.last.finished is None
                log = jobs.log_of(run, name, stream="out", limit=1000)
                assert (log.data, log.ended) == (b"to the output\n", False)
            go.touch()
            assert process.wait(60) == 1
        finally:
            process.kill()
    assert all(_is_known(run, name) for run in runs)


def _is_known(run: RunnerRun, name: str) -> bool:
    """Check what is known after the run. Autosubmit fetches the logs before it ends."""
    page = jobs.page_of(run, JobQuery())
    assert (page.counts.by_status, page.counts.failed_jobs, page.has_history) == ({"FAILED": 1}, (name,), True)
    last = page.jobs[0].last
    assert last is not None
    assert (last.status, last.finished is not None) == ("FAILED", True)
    read: Callable[..., bytes] = lambda stream: jobs.log_of(run, name, stream=stream, limit=10**5).data  # noqa: E731
    assert b"to the output" in read("out")
    assert b"no space left" in read("err")
    return True
