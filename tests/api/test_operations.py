"""Long commands that continue after their request has ended: `Prefer: respond-async` and GET operations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runners.api.operations.serializers import OperationSerializer
from runners.api.problems import Problem
from runners.exceptions import OutcomeUnknown
from runners.models.operation import Operation, OperationStatus
from runners.services import operations
from tests.support.api import create_body
from tests.support.environments import AutosubmitAccount, StubAccount
from tests.support.processes import kill_all, wait_for
from tests.support.servers import PROFILES_YAML, AppServer, SSHServer

COMMAND = "/v4/runners/command/"


@pytest.fixture
def app(module_app: AppServer) -> AppServer:
    return module_app


def look(app: AppServer, place: str) -> dict[str, Any]:
    answer = app.get(place)
    assert answer.status == 200, answer.body
    body: dict[str, Any] = answer.body
    return body


def finished(app: AppServer, place: str) -> dict[str, Any]:
    return wait_for(
        lambda: (body := look(app, place))["status"] not in ("pending", "running") and body, 40, what=f"end of {place}"
    )


@pytest.mark.parametrize("profile", ["HERE", "THERE"])
def test_a_long_create_is_accepted_at_once_and_its_result_is_found(
    app: AppServer, account: StubAccount, profile: str
) -> None:
    account.control("expid", SLEEP=2)
    answer = app.post(COMMAND + "create-experiment", create_body(profile), Prefer="respond-async")
    assert answer.status == 202, answer.body
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert answer.headers["Location"] == f"/v4/runners/operations/{answer.body['operation_id']}"
    assert answer.headers["Retry-After"]
    assert (answer.body["status"], answer.body["kind"], answer.body["expid"]) == ("running", "create-experiment", "")
    assert look(app, answer.headers["Location"])["status"] == "running"

    done = finished(app, answer.headers["Location"])
    assert done["status"] == "succeeded"
    assert done["result"] == {"expid": "a000", "message": "Experiment a000 created successfully.", "warnings": []}
    assert (done["expid"], done["exit_code"], done["error"]) == ("a000", 0, None)
    assert done["finished"] >= done["created"]
    assert len(account.calls("expid")) == 1


def test_an_operation_goes_on_when_the_server_is_killed(app: AppServer, account: StubAccount) -> None:
    account.experiment("a001")
    account.control("setstatus", "a001", SLEEP=3)
    body = {
        "expid": "a001",
        "profile_name": "THERE",
        "command_params": {"job_names_list": ["a001_SIM"], "final_status": "READY"},
    }
    answer = app.post(COMMAND + "set-job-status", body, Prefer="respond-async")
    assert answer.status == 202, answer.body
    app.kill()
    app.start()
    done = finished(app, answer.headers["Location"])
    assert done["status"] == "succeeded", done
    assert done["result"]["message"] == "Job status for experiment a001 set successfully."
    (call,) = account.calls("setstatus")
    assert "--save" in call


def test_a_failed_operation_has_the_error_of_the_command(app: AppServer, account: StubAccount) -> None:
    account.experiment("a001")
    account.control("create", FAIL="The configuration is broken", ECODE=7014, EXIT=102)
    body = {"expid": "a001", "profile_name": "HERE"}
    attended = app.post(COMMAND + "create-job-list", body)
    answer = app.post(COMMAND + "create-job-list", body, Prefer="respond-async")
    assert (attended.status, answer.status) == (502, 202)
    done = finished(app, answer.headers["Location"])
    assert (done["status"], done["exit_code"], done["result"]) == ("failed", 102, None)
    assert done["error"] == attended.body
    assert done["error"]["code"] == "command_failed"


def test_the_answer_is_the_result_when_the_client_waits_long_enough(app: AppServer, account: StubAccount) -> None:
    account.control("expid", SLEEP=1)
    answer = app.post(COMMAND + "create-experiment", create_body(), Prefer="respond-async, wait=20")
    assert (answer.status, answer.body["expid"]) == (200, "a000")
    assert "Preference-Applied" not in answer.headers


def test_a_command_that_cannot_start_is_rejected_at_once(app: AppServer, account: StubAccount, sshd: SSHServer) -> None:
    sshd.stop()
    answer = app.post(COMMAND + "create-experiment", create_body("THERE"), Prefer="respond-async")
    assert (answer.status, answer.body["code"]) == (502, "runner_unreachable")
    assert account.calls("expid") == []


def test_an_unreachable_machine_changes_only_reachable(app: AppServer, account: StubAccount, sshd: SSHServer) -> None:
    account.control("expid", SLEEP=2)
    place = app.post(COMMAND + "create-experiment", create_body("THERE"), Prefer="respond-async").headers["Location"]
    sshd.stop()
    lost = wait_for(lambda: not (body := look(app, place))["reachable"] and body, 30, what="unreachable")
    assert lost["status"] == "running"
    assert lost["unreachable_detail"]
    sshd.start()
    assert finished(app, place)["status"] == "succeeded"


def test_a_killed_command_has_an_unknown_outcome(app: AppServer, account: StubAccount) -> None:
    account.experiment("a001")
    account.control("create", SLEEP=60)
    answer = app.post(COMMAND + "create-job-list", {"expid": "a001", "profile_name": "HERE"}, Prefer="respond-async")
    wait_for(lambda: account.calls("create"), 20, what="the call")
    account.kill()
    done = finished(app, answer.headers["Location"])
    assert done["status"] == "unknown"
    assert done["error"]["code"] == "outcome_unknown"


def test_a_command_is_ended_at_its_deadline(
    make_app: Callable[..., AppServer], app: AppServer, account: StubAccount
) -> None:
    app.stop()
    app.environment["RUNNERS_OPERATION_TIMEOUT"] = "2"
    app.start()
    account.experiment("a001")
    account.control("create", SLEEP=60)
    answer = app.post(COMMAND + "create-job-list", {"expid": "a001", "profile_name": "HERE"}, Prefer="respond-async")
    done = finished(app, answer.headers["Location"])
    assert (done["status"], done["error"]["code"]) == ("failed", "command_timed_out")
    wait_for(lambda: not account.processes(), 10, what="end of the command")


def test_a_command_that_the_machine_kills_has_not_timed_out(app: AppServer, account: StubAccount) -> None:
    """A machine without free memory kills commands.

    `timeout` then ends as it does at the deadline, only much earlier.
    """
    account.experiment("a001")
    account.control("create", SLEEP=60)
    answer = app.post(COMMAND + "create-job-list", {"expid": "a001", "profile_name": "HERE"}, Prefer="respond-async")
    wait_for(lambda: account.calls("create"), 20, what="the call")
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in account.processes()}
    kill_all([pid for pid, words in commands.items() if words[0].endswith(b"bash") and b"create" in words])
    done = finished(app, answer.headers["Location"])
    assert (done["status"], done["exit_code"]) == ("failed", 137), done
    assert done["error"]["code"] == "command_failed"


def test_a_failed_create_is_not_repeated(app: AppServer, account: StubAccount) -> None:
    """There is no retry: a create that lost a race for an id has left a row, and other failures occur again."""
    account.control("expid", FAIL="[Errno 17] File exists", ECODE=7011, EXIT=99)
    answer = app.post(COMMAND + "create-experiment", create_body(), Prefer="respond-async")
    assert finished(app, answer.headers["Location"])["error"]["code"] == "command_failed"
    assert app.post(COMMAND + "create-experiment", create_body()).body["code"] == "command_failed"
    assert len(account.calls("expid")) == 2


def test_operations_and_attended_commands_take_turns_for_ids(app: AppServer, account: StubAccount) -> None:
    account.control("expid", SLEEP=2)
    answer = app.post(COMMAND + "create-experiment", create_body(), Prefer="respond-async")
    wait_for(lambda: account.calls("expid"), 20, what="the first call")
    attended = app.post(COMMAND + "create-experiment", create_body())
    assert (attended.status, attended.body["expid"]) == (200, "a001")
    assert finished(app, answer.headers["Location"])["expid"] == "a000"


def test_watch_runs_settles_operations(app: AppServer, account: StubAccount) -> None:
    answer = app.post(COMMAND + "create-experiment", create_body(), Prefer="respond-async")
    number = answer.body["operation_id"]
    wait_for(lambda: f"operation {number} " in app.manage("watch_runs"), 30, what="the end, seen by watch_runs")


def test_the_log_of_an_operation_can_be_followed(app: AppServer, account: StubAccount) -> None:
    answer = app.post(COMMAND + "create-experiment", create_body(), Prefer="respond-async")
    finished(app, answer.headers["Location"])
    log = app.get(answer.headers["Location"] + "/log")
    assert "Experiment a000 created" in log.body["text"]
    assert log.body["ended"] is True


def test_an_unknown_operation_is_not_found(app: AppServer) -> None:
    answer = app.get("/v4/runners/operations/4711")
    assert (answer.status, answer.body["code"]) == (404, "operation_not_found")


@pytest.mark.django_db
def test_the_members_are_those_of_the_document() -> None:
    operation = Operation.objects.create(
        key="0" * 32, kind="create-experiment", config={}, timeout=1, status=OperationStatus.RUNNING
    )
    assert OperationSerializer(operation).data["status"] == "pending"
    with pytest.raises(OutcomeUnknown) as caught:
        operations.outcome(operation)
    assert caught.value.facts == {"operation_id": operation.pk}
    assert set(caught.value.facts) <= set(Problem().fields)


@pytest.mark.real
@pytest.mark.timeout(240)
@pytest.mark.parametrize("profile", ["HERE", "THERE"])
def test_real_autosubmit_creates_an_experiment_and_its_job_list_in_the_background(
    make_app: Callable[..., AppServer],
    autosubmit: AutosubmitAccount,
    autosubmit_sshd: SSHServer,
    tmp_path: Path,
    profile: str,
) -> None:
    app = make_app(account=autosubmit, sshd=autosubmit_sshd)
    file = tmp_path / "profiles.yml"
    file.write_text(PROFILES_YAML.format(port=autosubmit_sshd.port, user=autosubmit_sshd.user))
    app.manage("import_profiles", str(file))
    body = create_body(profile, dummy=True, hpc="local", description="-in the background 🐈")
    made = finished(app, app.post(COMMAND + "create-experiment", body, Prefer="respond-async").headers["Location"])
    assert made["status"] == "succeeded", made
    expid = made["result"]["expid"]
    assert autosubmit.description(expid) == "-in the background 🐈"

    body = {"expid": expid, "profile_name": profile}
    keyed = app.post(COMMAND + "create-job-list", body, Idempotency_Key="k", Prefer="respond-async")
    listed = finished(app, keyed.headers["Location"])
    assert listed["status"] == "succeeded", listed
    assert set(autosubmit.job_statuses(expid).values()) == {"READY", "WAITING"}

    missing = app.post(COMMAND + "create-job-list", {**body, "expid": "zzzz"}, Idempotency_Key="other")
    assert (missing.status, missing.body["code"]) == (404, "experiment_not_found")
    assert missing.body["error_code"] == 7012  # the experiment does not exist
