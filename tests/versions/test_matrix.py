"""Every command of the service on every version of Autosubmit, for real; writes docs/autosubmit-versions.md.

`make test-versions` runs it (with VERSIONS_WRITE=1); the normal suite does not collect it (conftest.py). VERSIONS
selects versions, VERSIONS_ROWS is a pattern that selects rows.

Each row of the table is a function below. It raises if the service's answer is neither true in Autosubmit's own files
nor a clear error. A clear error is a 400 that names the version and the parameter.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from profiles.models import RunnerProfile
from runners.services.machines.ssh.pool import POOL
from tests.support.api import Api
from tests.support.environments import AutosubmitAccount, autosubmit_venv, live_in, write_short
from tests.support.processes import wait_for
from tests.support.servers import SSHServer, use
from tests.versions import table
from tests.versions.outputs import VERSIONS

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(3600),
]
PATIENCE = 240  # seconds for the end of a run, even on a busy machine


WITHOUT_PROFILE = ("get-runner-run-status", "stop-experiment")  # the run itself has its machine


class ClearError(Exception):
    """The version does not support this, and the service has said so."""


class Site:
    """The service in front of one account with one version of Autosubmit."""

    def __init__(self, api: Api, account: AutosubmitAccount) -> None:
        self.api, self.account, self.version = api, account, account.version
        self.expid = ""  # the experiment that most rows use

    def post(self, command: str, **body: Any) -> dict[str, Any]:
        """Return the answer of a successful request. Raise ClearError, or AssertionError for any other answer."""
        status, answer = self.ask(command, **body)
        if status == 400 and self.version in answer["detail"] and answer["errors"]:
            raise ClearError(answer["detail"])
        assert status == 200, answer["detail"]
        return answer

    def ask(self, command: str, **body: Any) -> tuple[int, dict[str, Any]]:
        profile = {} if command in WITHOUT_PROFILE else {"profile_name": "P"}
        answer = self.api.post(command, profile | body, expect=tuple(range(200, 600)))
        return answer.get("status", 200) if answer.get("error") else 200, answer

    def create(self, **params: Any) -> str:
        answer = self.post("create-experiment", command_params={"description": "of the matrix"} | params)
        expid: str = answer["expid"]
        assert (self.account.root / expid / "conf").is_dir()
        assert self.account.description(expid) == "of the matrix"
        return expid

    def set_status(self, status: str, changed: dict[str, str], **filters: Any) -> None:
        """Set a status and check it. `changed`: jobs without their `a000_`, with their true status afterwards."""
        params = {"final_status": status} | filters
        self.post("set-job-status", expid=self.expid, command_params=params)
        found = self.account.job_statuses(self.expid)
        expected = {f"{self.expid}_{name}": value for name, value in changed.items()}
        assert expected.items() <= found.items(), f"{found} after {params}"

    def new_run(self, script: str) -> str:
        """Create an experiment with one job and start it. Return its expid."""
        expid = self.create(dummy=True)
        self.account.make_short(expid, script)
        self.post("create-job-list", expid=expid)
        started = self.post("run-experiment", expid=expid)
        assert started["status"] == "ACTIVE" and started["pid"]
        return expid

    def status(self, expid: str) -> dict[str, Any]:
        return self.post("get-runner-run-status", expid=expid)

    def end_of(self, expid: str) -> dict[str, Any]:
        return wait_for(
            lambda: (found := self.status(expid))["status"] != "ACTIVE" and found, PATIENCE, what="the end", interval=1
        )

    def await_job(self, expid: str, status: str) -> None:
        wait_for(
            lambda: status in self.account.job_statuses(expid).values(), PATIENCE, what=f"a {status} job", interval=1
        )

    def job_processes(self, expid: str) -> list[int]:
        """Return the processes of the experiment's jobs."""
        done = subprocess.run(["pgrep", "-f", f"{expid}_ONE.cmd"], capture_output=True, text=True, check=False)
        return [int(word) for word in done.stdout.split()]


# --- the rows ---------------------------------------------------------------------------------------------------------

Row = Callable[[Site], str | None]  # returns a remark for the table, or None


def check(site: Site) -> None:
    stages = {stage["name"]: stage for stage in site.api.post("/v4/runners/profiles/P/check", {})["stages"]}
    assert stages["autosubmit"]["ok"] and site.version in stages["autosubmit"]["detail"], stages["autosubmit"]
    assert stages["run_directory"]["ok"], stages


def create_plain(site: Site) -> None:
    site.expid = site.create()


def create_dummy(site: Site) -> None:
    site.expid = site.create(dummy=True, hpc="local")


def create_copy(site: Site) -> None:
    site.create(copy=site.expid)


def create_operational(site: Site) -> None:
    assert site.create(operational=True).startswith("o")


def create_testcase(site: Site) -> None:
    assert site.create(testcase=True).startswith("t")


def create_testcase_dummy(site: Site) -> None:
    assert site.create(testcase=True, dummy=True).startswith("t")


def create_evaluation(site: Site) -> None:
    assert site.create(evaluation=True).startswith("e")


def create_minimal(site: Site) -> None:
    expid = site.create(minimal=True, git_repo="https://git.example.org/x.git", git_branch="main", config_path="conf")
    assert (site.account.root / expid / "conf" / "minimal.yml").is_file()


def job_list(site: Site) -> None:
    site.account.make_short(site.expid, "true", ("ONE", "TWO"), chunked=("SIM",))
    site.post("create-job-list", expid=site.expid)
    assert len(site.account.job_statuses(site.expid)) == 4


def job_list_force(site: Site) -> None:
    site.post("create-job-list", expid=site.expid, command_params={"force": True})


def job_list_script_jobs(site: Site) -> str:
    """Jobs with SCRIPT, which 4.0 does not know. (3.14 has other configuration files.)"""
    if site.version.startswith("3."):
        return "not possible: it has no SCRIPT"
    expid = site.create(dummy=True)
    write_short(site.account.root, expid, "true", {"ONE": "once"})
    answer = site.post("create-job-list", expid=expid)
    if site.account.job_statuses(expid):
        return ""
    assert any("has no job" in warning for warning in answer["warnings"]), answer
    return "warning: the list is empty"


def set_names(site: Site) -> None:
    names = [f"{site.expid}_ONE", f"{site.expid}_TWO"]
    site.set_status("SUSPENDED", {"ONE": "SUSPENDED", "TWO": "SUSPENDED"}, job_names_list=names)


def set_status_filter(site: Site) -> None:
    site.set_status("COMPLETED", {"ONE": "COMPLETED", "TWO": "COMPLETED"}, filter_status=["SUSPENDED"])


def set_any(site: Site) -> None:
    chunks = {f"20000101_fc0_{chunk}_SIM": "COMPLETED" for chunk in (1, 2)}
    site.set_status("COMPLETED", {"ONE": "COMPLETED", "TWO": "COMPLETED"} | chunks, filter_status=["ANY"])


def set_type(site: Site) -> None:
    site.set_status("SUSPENDED", {"TWO": "SUSPENDED", "ONE": "COMPLETED"}, filter_type=["TWO"])


def set_chunks(site: Site) -> str:
    without_chunk = f"{site.expid}_TWO"
    before = site.account.job_statuses(site.expid)[without_chunk]
    site.set_status("COMPLETED", {"20000101_fc0_1_SIM": "COMPLETED"}, filter_chunks="[ 20000101 [ fc0 [1] ] ]")
    if site.account.job_statuses(site.expid)[without_chunk] == before:
        return ""
    return "this version also changes jobs that have no chunk"


def set_type_chunk(site: Site) -> None:
    site.set_status("COMPLETED", {"20000101_fc0_2_SIM": "COMPLETED"}, filter_type_chunk="[ 20000101 [ fc0 [2] ] ],SIM")


def set_type_chunk_split(site: Site) -> None:
    which = "[ 20000101 [ fc0 [2] ] ],SIM"
    site.set_status("SUSPENDED", {"20000101_fc0_2_SIM": "SUSPENDED"}, filter_type_chunk_split=which)


def set_two_filters(site: Site) -> None:
    names = [f"{site.expid}_ONE", f"{site.expid}_TWO"]
    site.set_status("COMPLETED", {"ONE": "COMPLETED"}, job_names_list=names, filter_type=["ONE"])


def set_unchanged(site: Site) -> str:
    found = site.account.job_statuses(site.expid)
    name = next(name for name, status in found.items() if status == "COMPLETED")
    params = {"final_status": "COMPLETED", "job_names_list": [name]}
    answer = site.post("set-job-status", expid=site.expid, command_params=params)
    if answer["changed"] == {name: "COMPLETED"}:
        return "this version calls a job changed that had the status already"
    assert answer["changed"] == {} and "No job" in answer["message"], answer
    return ""


def set_unknown_job(site: Site) -> None:
    before = site.account.job_statuses(site.expid)
    name = f"{site.expid}_NONSENSE"
    params = {"final_status": "READY", "job_names_list": [name]}
    status, answer = site.ask("set-job-status", expid=site.expid, command_params=params)
    assert status in (400, 502), answer
    assert "Traceback" not in answer["detail"] and "usage:" not in answer["detail"], answer["detail"]
    assert site.account.job_statuses(site.expid) == before


def unknown_experiment(site: Site) -> None:
    status, answer = site.ask("create-job-list", expid="zzzz")
    assert status in (400, 404, 502), answer
    assert "Traceback" not in answer["detail"], answer["detail"]


def description(site: Site) -> None:
    text = '-x "quoted" $HOME `id` and a second line'
    site.post("update-experiment-description", expid=site.expid, description=text)
    assert site.account.description(site.expid) == text


def run_to_the_end(site: Site) -> None:
    expid = site.new_run("true")
    ended = site.end_of(expid)
    assert (ended["status"], ended["exit_code"], ended["reason"]) == ("COMPLETED", 0, ""), ended
    assert set(site.account.job_statuses(expid).values()) == {"COMPLETED"}


def run_fails(site: Site) -> None:
    ended = site.end_of(site.new_run("exit 3"))
    assert (ended["status"], ended["reason"]) == ("TERMINATED", "failed"), ended


def jobs_and_logs(site: Site) -> str:
    """The jobs of a run while it runs, and after it has failed, against Autosubmit's own job list."""
    expid = site.new_run("echo no space left >&2; sleep 15; exit 3")
    number = site.status(expid)["runner_id"]
    name = f"{expid}_ONE"
    site.await_job(expid, "RUNNING")
    during = site.api.get(f"/v4/runners/runs/{number}/jobs")
    assert (during["total"], during["counts"]) == (1, {"RUNNING": 1}), during
    log = site.api.get(f"/v4/runners/runs/{number}/jobs/{name}/log", expect=(200, 404))
    remark = "" if "no space left" in str(log.get("text")) else "no log of a job before its end"
    ended = site.end_of(expid)
    assert ended["status"] == "TERMINATED", ended
    after = site.api.get(f"/v4/runners/runs/{number}/jobs?status=FAILED")
    assert site.account.job_statuses(expid) == {each["name"]: each["status"] for each in after["results"]}, after
    assert after["results"][0]["section"] == "ONE" and after["results"][0]["submitted"], after
    log = site.api.get(f"/v4/runners/runs/{number}/jobs/{name}/log?tail=60000")
    assert "no space left" in log["text"] and log["ended"], log
    return remark


def stop_plain(site: Site) -> str:
    return _stop(site)


def stop_cancel(site: Site) -> str:
    return _stop(site, cancel_jobs=True)


def stop_force(site: Site) -> str:
    return _stop(site, force=True)


def _stop(site: Site, **options: Any) -> str:
    """Stop a run. Return its steps and what happened to its job, which is a process of this machine."""
    expid = site.new_run("sleep 600")
    site.await_job(expid, "RUNNING")
    answer = site.post("stop-experiment", expid=expid, **options)
    assert "stopped successfully" in answer["message"] or "stopped" in answer["message"], answer
    ended = site.status(expid)
    assert (ended["status"], ended["reason"]) == ("TERMINATED", "stopped"), ended
    jobs = site.job_processes(expid)
    if options.get("cancel_jobs"):
        assert not jobs, f"jobs live on: {jobs}"
    for pid in jobs:
        os.kill(pid, 9)
    steps = [step["action"].removeprefix("signal ") for step in answer["steps"]]
    return f"{', '.join(steps)}; the job {'goes on' if jobs else 'has ended'}"


# The order matters: most rows use the experiment of the second `create-experiment`, and each set-job-status row starts
# from the statuses that the row before left.
ROWS: dict[str, Row] = {
    "connection test": check,
    "create-experiment": create_plain,
    "create-experiment dummy, hpc": create_dummy,
    "create-job-list": job_list,
    "create-job-list force": job_list_force,
    "set-job-status job_names_list": set_names,
    "update-experiment-description": description,
    "run-experiment to COMPLETED": run_to_the_end,
    "run-experiment, a job fails": run_fails,
    "runs/{id}/jobs and a job's log": jobs_and_logs,
    "stop-experiment": stop_plain,
    "stop-experiment cancel_jobs": stop_cancel,
    "stop-experiment force": stop_force,
    "create-experiment copy": create_copy,
    "create-experiment operational": create_operational,
    "create-experiment testcase": create_testcase,
    "create-experiment testcase, dummy": create_testcase_dummy,
    "create-experiment evaluation": create_evaluation,
    "create-experiment minimal, git": create_minimal,
    "create-job-list of SCRIPT jobs": job_list_script_jobs,
    "set-job-status filter_status": set_status_filter,
    "set-job-status filter_status ANY": set_any,
    "set-job-status filter_type": set_type,
    "set-job-status filter_chunks": set_chunks,
    "set-job-status filter_type_chunk": set_type_chunk,
    "set-job-status filter_type_chunk_split": set_type_chunk_split,
    "set-job-status two filters": set_two_filters,
    "set-job-status, nothing to change": set_unchanged,
    "set-job-status, unknown job: error": set_unknown_job,
    "unknown experiment: error": unknown_experiment,
}
# Over SSH: one row of each family.
SSH_ROWS = (
    "connection test",
    "create-experiment dummy, hpc",
    "create-job-list",
    "set-job-status job_names_list",
    "update-experiment-description",
    "run-experiment to COMPLETED",
    "runs/{id}/jobs and a job's log",
    "stop-experiment",
    "stop-experiment cancel_jobs",
)


# --- the matrix -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=os.environ.get("VERSIONS", "").split() or VERSIONS)
def account(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AutosubmitAccount]:
    version: str = request.param
    if not (autosubmit_venv(version) / "bin" / "autosubmit").exists():
        pytest.skip(f"Autosubmit {version} is not installed")
    account = AutosubmitAccount(tmp_path_factory.mktemp("version") / "home", version)
    yield account
    account.kill()
    table.write(list(ROWS))


@pytest.fixture(params=["LOCAL", "SSH"])
def site(
    request: pytest.FixtureRequest,
    account: AutosubmitAccount,
    client: Client,
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[str, Site]]:
    live_in(account, monkeypatch)
    settings.PROTECTION_LEVEL = "NONE"
    settings.THROTTLE_COMMANDS = settings.THROTTLE_READS = ""
    settings.RUNNERS_STATUS_FRESHNESS = 0
    settings.RUNNERS_STOP_TIMEOUT = settings.RUNNERS_TERM_WAIT = 120  # this is about versions, not about a busy machine
    settings.RUNNERS_COMMAND_TIMEOUT = settings.RUNNERS_LAUNCH_TIMEOUT = 300
    profile = RunnerProfile(name="P", runner_type=request.param, module_loader_type="VENV", modules=str(account.venv))
    if request.param == "LOCAL":
        profile.save()
        yield "LOCAL", Site(Api(client), account)
        return
    with SSHServer(tmp_path / "sshd", home=account.home) as server:
        use(server, settings)
        profile.ssh_host, profile.ssh_port, profile.ssh_user = "127.0.0.1", server.port, server.user
        profile.save()
        yield "SSH", Site(Api(client), account)
        POOL.close()


def test_version(site: tuple[str, Site]) -> None:
    where, it = site
    failed = []
    for name in ROWS if where == "LOCAL" else SSH_ROWS:
        if not re.search(os.environ.get("VERSIONS_ROWS", ""), name):
            continue
        try:
            remark = ROWS[name](it) or ""
            cell = remark.partition(":")[0] if remark.startswith(("not possible", "warning")) else "OK"
        except ClearError as error:
            cell, remark = "clear error", str(error)
        except AssertionError as error:
            cell, remark = "**FAILED**", re.sub(r"\s+", " ", str(error))[:300]
            failed.append(f"{name}: {remark}")
        table.note(it.version, name, where, cell, remark)
    assert not failed, "\n".join(failed)
