"""Create, run and stop experiments over HTTP without stand-ins: gunicorn, real sshd, real Lmod, real Autosubmit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.environments import AutosubmitAccount
from tests.support.processes import wait_for
from tests.support.servers import Answer, AppServer, SSHServer
from tests.support.workflow import ENDPOINTS, Workflow, live_through

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

COMMAND = "/v4/runners/command/"


class Client:
    """A user with a profile who calls a real server."""

    def __init__(self, app: AppServer, account: AutosubmitAccount) -> None:
        self.app, self.account = app, account

    def post(self, command: str, expect: int = 200, **body: Any) -> dict[str, Any]:
        answer: Answer = self.app.post(COMMAND + command, body)
        assert answer.status == expect, answer.body
        assert isinstance(answer.body, dict)
        return answer.body

    def with_profile(self, command: str, expect: int = 200, **body: Any) -> dict[str, Any]:
        return self.post(command, expect, profile_name="MAIN", **body)

    def create(self, script: str, **params: Any) -> str:
        """Create an experiment through the API whose only job is `script`. Return its expid."""
        params = {"description": "end to end", "dummy": True, "hpc": "local"} | params
        expid: str = self.with_profile("create-experiment", command_params=params)["expid"]
        self.account.make_short(expid, script)
        self.with_profile("create-job-list", expid=expid)
        return expid

    def status(self, expid: str) -> dict[str, Any]:
        return self.post("get-runner-run-status", expid=expid)

    def ended(self, expid: str) -> dict[str, Any]:
        """Return the status of the run once it is no longer ACTIVE."""
        return wait_for(
            lambda: (status := self.status(expid))["status"] != "ACTIVE" and status, 120, what=f"the end of {expid}"
        )

    def job_is(self, expid: str, status: str) -> None:
        wait_for(lambda: self.account.job_statuses(expid)[f"{expid}_ONE"] == status, 60, what=f"{expid}_ONE {status}")


@pytest.fixture(params=["LOCAL+VENV", "SSH+LMOD"])
def client(
    request: pytest.FixtureRequest,
    autosubmit: AutosubmitAccount,
    autosubmit_sshd: SSHServer,
    make_app: Callable[..., AppServer],
    tmp_path: Path,
) -> Client:
    """A server with one profile, `MAIN`."""
    runner, loader = request.param.split("+")
    modules = autosubmit.modules(loader)
    profile: dict[str, Any] = {"RUNNER_TYPE": runner, "MODULE_LOADER_TYPE": loader, "MODULES": list(modules)}
    if runner == "SSH":
        target = autosubmit_sshd.target
        profile["SSH"] = {"HOST": target.host, "PORT": target.port, "USER": target.user}
    config = tmp_path / "profiles.yml"
    found = {"PROFILES": {"MAIN": profile}, "ENDPOINTS": ENDPOINTS}
    config.write_text(yaml.safe_dump({"RUNNER_CONFIGURATION": found}))
    app = make_app(account=autosubmit, sshd=autosubmit_sshd)
    app.manage("import_profiles", str(config))
    return Client(app, autosubmit)


def test_an_experiment_is_created_run_and_completed(client: Client) -> None:
    expid = client.create("true", description='it\'s a "first" one: $(id) `id` -x\nand a second line')
    assert client.account.description(expid) == 'it\'s a "first" one: $(id) `id` -x\nand a second line'
    started = client.with_profile("run-experiment", expid=expid)
    assert started["message"] == f"Experiment {expid} started successfully."
    assert started["status"] == "ACTIVE" and started["pid"]
    assert client.with_profile("run-experiment", 409, expid=expid)["code"] == "already_running"
    ended = client.ended(expid)
    assert (ended["status"], ended["exit_code"], ended["reason"]) == ("COMPLETED", 0, "")
    assert ended["runner_id"] == started["runner_id"]
    assert client.account.job_statuses(expid) == {f"{expid}_ONE": "COMPLETED"}


def test_a_workflow_is_watched_stopped_recovered_reconfigured_repaired_and_completed(client: Client) -> None:
    params = {"description": "a workflow", "dummy": True, "hpc": "local"}
    expid: str = client.with_profile("create-experiment", command_params=params)["expid"]
    client.account.make_short(expid, "true")
    flow = Workflow(
        client.app,
        profile="MAIN",
        expid=expid,
        file=f"jobs_{expid}.yml",
        gate=client.account.home / f"gate-{expid}",
        statuses=client.account.job_statuses,
        members=2,
        chunks=2,
        splits=2,
        seconds=120,
    )
    live_through(flow)


def test_a_stopped_run_is_terminated_and_says_by_what(client: Client) -> None:
    expid = client.create("sleep 300")
    client.with_profile("run-experiment", expid=expid)
    client.job_is(expid, "RUNNING")
    stopped = client.post("stop-experiment", expid=expid)
    assert stopped["message"] == f"Experiment {expid} stopped successfully."
    assert [step["action"] for step in stopped["steps"]] == ["autosubmit stop"]
    assert stopped["steps"][0]["ended"] is True
    # The first status after the stop's response already shows it: the GUI's stop button depends on that.
    status = client.status(expid)
    assert (status["status"], status["reason"], status["exit_code"]) == ("TERMINATED", "stopped", 88)
    assert client.post("stop-experiment", 409, expid=expid)["code"] == "not_running"


def test_a_run_whose_job_fails_is_terminated_with_its_exit_code(client: Client) -> None:
    expid = client.create("echo 'the restart file is missing' >&2; exit 3")
    client.with_profile("run-experiment", expid=expid)
    ended = client.ended(expid)
    assert (ended["status"], ended["reason"], ended["exit_code"]) == ("TERMINATED", "failed", 1)
    assert ended["explanation"].startswith(f"1 of 1 job failed: {expid}_ONE (1 attempt).")
    assert "maximum retrials" in ended["explanation"]
    assert f"The last lines of {expid}_ONE:\n" in ended["explanation"]
    assert "the restart file is missing" in ended["explanation"]
    assert ended["progress"] == {
        **{"total": 1, "done": 0, "failed": 1, "running": 0},
        "failed_jobs": [f"{expid}_ONE"],
    }
    assert ended["jobs"] == {"total": 1, "failed": 1, "not_run": 0, "failed_jobs": [f"{expid}_ONE"]}


def test_a_job_status_that_was_set_is_in_autosubmits_own_job_list(client: Client) -> None:
    expid = client.create("true")
    answer = client.with_profile(
        "set-job-status",
        expid=expid,
        command_params={"final_status": "SUSPENDED", "job_names_list": [f"{expid}_ONE"]},
    )
    assert answer["message"] == f"Job status for experiment {expid} set successfully."
    assert answer["changed"] == {f"{expid}_ONE": "SUSPENDED"}
    assert answer["counts"] == {"selected": 1, "changed": 1, "unchanged": 0}
    assert client.account.job_statuses(expid) == {f"{expid}_ONE": "SUSPENDED"}
    refused = client.with_profile(
        "set-job-status",
        400,
        expid=expid,
        command_params={"final_status": "READY", "job_names_list": [f"{expid}_NONE"]},
    )
    assert refused["code"] == "invalid_request" and refused["exit_code"] == 99
    assert f"{expid}_NONE" in refused["errors"]["command_params.job_names_list"][0]
    assert client.account.job_statuses(expid) == {f"{expid}_ONE": "SUSPENDED"}


@pytest.mark.parametrize("client", ["LOCAL+VENV"], indirect=True)  # the runner type makes no difference here
def test_unfinished_jobs_and_discarded_progress_are_reported(client: Client) -> None:
    """A run with two jobs, one of them SUSPENDED, ends with exit code 0.

    A new job list discards the other job's progress.
    """
    expid = client.create("true")
    client.account.make_short(expid, "true", jobs=("ONE", "TWO"))
    client.with_profile("create-job-list", expid=expid)
    suspend = {"final_status": "SUSPENDED", "filter_type": "TWO"}
    assert client.with_profile("set-job-status", expid=expid, command_params=suspend)["counts"]["changed"] == 1
    again = client.with_profile("set-job-status", expid=expid, command_params=suspend)
    assert again["message"].startswith(f"No job of experiment {expid} was changed")
    client.with_profile("run-experiment", expid=expid)
    assert client.with_profile("set-job-status", 409, expid=expid, command_params=suspend)["code"] == "already_running"
    ended = client.ended(expid)
    assert (ended["status"], ended["explanation"]) == (
        "COMPLETED",
        "1 of 2 jobs was not run.\nThe rest: 1 SUSPENDED.",
    )
    assert ended["jobs"] == {"total": 2, "failed": 0, "not_run": 1, "failed_jobs": []}
    plan = client.with_profile("create-job-list", expid=expid, dry_run=True)
    assert (
        plan["warnings"][0].startswith("1 COMPLETED job becomes READY or WAITING")
        and f"{expid}_ONE" in plan["warnings"][0]
    )
    assert client.account.job_statuses(expid)[f"{expid}_ONE"] == "COMPLETED"
    assert client.with_profile("create-job-list", expid=expid)["warnings"] == plan["warnings"]
    assert client.account.job_statuses(expid)[f"{expid}_ONE"] == "READY"


@pytest.mark.parametrize("client", ["LOCAL+VENV"], indirect=True)
def test_jobs_that_a_stop_has_left_are_named_before_a_new_job_list(client: Client) -> None:
    """A stop without cancel_jobs leaves the job RUNNING. The new list forgets it."""
    expid = client.create("sleep 600")
    client.with_profile("run-experiment", expid=expid)
    client.job_is(expid, "RUNNING")
    client.post("stop-experiment", expid=expid)
    name = f"{expid}_ONE (RUNNING)"
    (before,) = client.with_profile("create-job-list", expid=expid, dry_run=True)["warnings"]
    assert name in before and "stop-experiment with cancel_jobs" in before
    client.job_is(expid, "RUNNING")  # the dry run has changed nothing
    (after,) = client.with_profile("create-job-list", expid=expid)["warnings"]
    assert name in after and "does not find them any more" in after
    client.job_is(expid, "READY")
    stopped = client.post("stop-experiment", expid=expid, cancel_jobs=True)
    assert stopped["cancel"]["outcome"] == "nothing_to_cancel", stopped


def test_a_description_is_updated_as_it_was_typed(client: Client) -> None:
    expid = client.create("true")
    text = '-x "quoted" $HOME `id` é\nsecond line'
    answer = client.with_profile("update-experiment-description", expid=expid, description=text)
    assert answer["message"] == f"Description for experiment {expid} updated successfully."
    assert client.account.description(expid) == text


def test_the_error_of_autosubmit_reaches_the_client(client: Client) -> None:
    failed = client.with_profile("create-job-list", 404, expid="zzzz")
    assert failed["code"] == "experiment_not_found"
    assert "does not exist" in failed["output"] or "zzzz" in failed["output"]
    assert "\x1b" not in failed["output"]
