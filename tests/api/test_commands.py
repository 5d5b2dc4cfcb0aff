"""The commands over HTTP, through the real services, with the stand-in autosubmit on this machine."""

from __future__ import annotations

import fcntl
import json
import pickle
import shutil
from typing import Any

import pytest
from django.test import Client

from profiles.models import RunnerProfile
from runners.commands import create_experiment
from runners.models import AuditRecord, RunnerRun
from runners.services.machines import scripts
from tests.support.api import NASTY, Api
from tests.support.environments import StubAccount
from tests.support.processes import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

PROFILE = {"profile_name": "LOCAL_1", "profile_params": {}}


@pytest.fixture
def api(client: Client, settings: Any, account: StubAccount) -> Api:
    settings.PROTECTION_LEVEL = "NONE"
    settings.THROTTLE_COMMANDS = ""
    RunnerProfile.objects.create(name="LOCAL_1", runner_type="LOCAL", module_loader_type="NO_MODULE")
    account.experiment("a001")
    return Api(client)


def status(api: Api) -> dict[str, Any]:
    return api.post("get-runner-run-status", {"expid": "a001"})


def test_run_answers_at_once_and_the_status_follows_the_run(api: Api, account: StubAccount, settings: Any) -> None:
    settings.RUNNERS_STATUS_FRESHNESS = 0
    account.control("run", SLEEP=1)
    body = api.post("run-experiment", {"expid": "a001", **PROFILE})
    assert body["message"] == "Experiment a001 started successfully."
    assert (body["status"], body["runner"], body["module_loader"]) == ("ACTIVE", "LOCAL", "NO_MODULE")
    assert body["pid"] > 0
    assert status(api)["status"] == "ACTIVE"
    wait_for(lambda: status(api)["status"] != "ACTIVE", 20, what="end of the run")
    body = status(api)
    assert (body["status"], body["exit_code"], body["reason"]) == ("COMPLETED", 0, "")
    record = AuditRecord.objects.get()
    assert (record.endpoint, record.expid, record.outcome) == ("run-experiment", "a001", "ok")
    assert record.argv == ["autosubmit", "run", "a001"]
    assert record.run_id == body["runner_id"]


def test_a_second_run_is_409_with_the_first(api: Api, account: StubAccount) -> None:
    account.control("run", SLEEP=60)
    first = api.post("run-experiment", {"expid": "a001", **PROFILE})
    second = api.post("run-experiment", {"expid": "a001", **PROFILE}, expect=409)
    assert second["code"] == "already_running"
    assert second["run"]["runner_id"] == first["runner_id"]
    assert RunnerRun.objects.count() == 1


def test_stop_answers_when_the_run_has_ended(api: Api, account: StubAccount) -> None:
    account.control("run", SLEEP=60)
    api.post("run-experiment", {"expid": "a001", **PROFILE})
    body = api.post("stop-experiment", {"expid": "a001"})
    assert body["message"] == "Experiment a001 stopped successfully."
    assert (body["status"], body["reason"]) == ("TERMINATED", "stopped")
    assert body["steps"]
    assert set(body["steps"][0]) == {"action", "outcome", "seconds", "ended"}
    assert status(api)["status"] == "TERMINATED"
    assert api.post("stop-experiment", {"expid": "a001"}, expect=409)["code"] == "not_running"


def test_a_stop_of_an_experiment_without_runs_is_404(api: Api) -> None:
    assert api.post("stop-experiment", {"expid": "a001"}, expect=404)["code"] == "run_not_found"


def test_set_job_status_hands_every_filter_on(api: Api, account: StubAccount) -> None:
    params = {
        "final_status": "SUSPENDED",
        "job_names_list": ["a001_ONE", "a001_20000101_fc0_1_SIM"],
        "filter_chunks": "[ 20000101 [ fc0 [1-2] ] ]",
        "filter_status": "ready, FAILED",
        "filter_type": ["ONE", "POST"],
        "filter_type_chunk": None,
        "filter_type_chunk_split": "",
        "check_wrapper": True,
        "update_version": False,
    }
    body = api.post("set-job-status", {"expid": "a001", **PROFILE, "command_params": params})
    assert body == {
        "message": "Job status for experiment a001 set successfully.",
        "warnings": [
            "No job of section POST was selected, so none was changed. Autosubmit 4.1.17 ignores jobs without splits "
            "in a filter by section if other jobs of the experiment have splits. Name the jobs instead."
        ],
        "changed": {"a001_ONE": "COMPLETED"},
        "counts": {"selected": 1, "changed": 1, "unchanged": 0},
        "while_running": None,
    }
    (call,) = account.calls("setstatus")
    assert set(call) >= {
        "--status_final=SUSPENDED",
        "--list=a001_ONE a001_20000101_fc0_1_SIM",
        "--filter_chunks=[ 20000101 [ fc0 [1-2] ] ]",
        "--filter_status=READY FAILED",
        "--filter_type=ONE,POST",
        "--check_wrapper",
    }
    assert "--update_version" not in call
    assert not [word for word in call if word.startswith("--filter_type_chunk")]


def test_create_answers_with_the_new_expid(api: Api, account: StubAccount) -> None:
    """The body is what today's GUI sends: always all ten members, with null for missing values."""
    params = {
        "description": "mine",
        "hpc": "local",
        "git_repo": None,
        "git_branch": None,
        "config_path": "",
        "copy": None,
        "operational": True,
        "testcase": False,
        "minimal": False,
        "use_local_minimal": False,
    }
    body = api.post("create-experiment", {**PROFILE, "command_params": params})
    assert body == {"expid": "o000", "message": "Experiment o000 created successfully.", "warnings": []}
    (call,) = account.calls("expid")
    assert call[1:] == ["--description=mine", "--HPC=local", "--operational"]
    assert AuditRecord.objects.get().expid == "o000"


TEXTS = [text for text in NASTY if "\0" not in text and len(text) <= 32_000] + [
    "-",
    " ",
    'it\'s "q" $HOME `id`',
    "a\nb",
]


@pytest.mark.parametrize("text", [*TEXTS, "'" * 32_000, "🐈" * 32_000], ids=range(len(TEXTS) + 2))
def test_a_description_arrives_as_it_was_typed(api: Api, account: StubAccount, text: str) -> None:
    api.post("create-experiment", {**PROFILE, "command_params": {"description": text}})
    (call,) = account.calls("expid")
    assert call[1] == f"--description={text}"
    api.post("update-experiment-description", {"expid": "a001", **PROFILE, "description": text}, expect=200)
    (call,) = account.calls("updatedescrip")
    assert call[-2:] == ["a001", text]
    assert not list(account.home.rglob("tripwire"))


def test_a_description_counts_as_set_when_autosubmit_has_written_it(api: Api, account: StubAccount) -> None:
    """The line comes before the write.

    With a locked database, the real Autosubmit prints it and ends with 88 and no change.
    """
    account.control("updatedescrip", EXIT=88)
    body = api.post("update-experiment-description", {"expid": "a001", **PROFILE, "description": "x"}, expect=502)
    assert (body["code"], body["exit_code"]) == ("command_failed", 88)


def test_a_create_that_times_out_waiting_for_another_reports_it(
    api: Api, account: StubAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(create_experiment, "LOCK_WAIT", 0.2)
    folder = account.home / ".autosubmit-runners"
    folder.mkdir(exist_ok=True)
    with (folder / scripts.EXPID_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        body = api.post("create-experiment", {**PROFILE, "command_params": {"description": "x"}}, expect=503)
    assert body["code"] == "account_busy"
    assert "Another experiment is being created" in body["detail"]
    assert account.calls("expid") == []


def test_a_create_without_autosubmit_names_the_missing_program(api: Api, account: StubAccount) -> None:
    program = account.home / "bin" / "autosubmit"  # only this account has this link
    program.rename(account.home / "away")
    try:
        body = api.post("create-experiment", {**PROFILE, "command_params": {"description": "x"}}, expect=502)
    finally:
        (account.home / "away").rename(program)
    assert "autosubmit: not found in the login environment" in body["detail"]


def test_an_empty_description_can_be_set(api: Api, account: StubAccount) -> None:
    body = api.post("update-experiment-description", {"expid": "a001", **PROFILE, "description": ""})
    assert body["message"] == "Description for experiment a001 updated successfully."


def test_create_job_list_needs_no_params(api: Api, account: StubAccount) -> None:
    for extra in ({}, {"command_params": {}}, {"command_params": None}):
        body = api.post("create-job-list", {"expid": "a001", **PROFILE, **extra})
        assert body["message"] == "Job list for experiment a001 created successfully."
    assert account.calls("create")[0] == ["create", "-np", "a001"]


REFUSED = """[CRITICAL] Trace:
## Job Validation Message ##
\tSpecified job(s) : [['a001_NONE']] not found in the experiment a001.
[CRITICAL] Error in the supplied input for -fl. [eCode=7011]"""


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "one"}], ids=["waited for", "operation"])
def test_a_value_that_autosubmit_rejects_is_400_with_the_member(
    api: Api, account: StubAccount, headers: dict[str, str]
) -> None:
    account.control("setstatus", PRINT=REFUSED, LAST=1, EXIT=99)
    api.headers = headers
    body = {"expid": "a001", **PROFILE, "command_params": {"final_status": "READY", "job_names_list": ["a001_NONE"]}}
    refused = api.post("set-job-status", body, expect=400)
    assert refused["code"] == "invalid_request"
    assert list(refused["errors"]) == ["command_params.job_names_list"]
    assert "not found in the experiment a001" in refused["errors"]["command_params.job_names_list"][0]
    assert "nothing was changed" in refused["detail"]
    assert refused["exit_code"] == 99


def test_an_experiment_that_autosubmit_does_not_know_is_404(api: Api, account: StubAccount) -> None:
    account.control("create", FAIL="Experiment does not exist", ECODE=7012, EXIT=100)
    assert api.post("create-job-list", {"expid": "a001", **PROFILE}, expect=404)["code"] == "experiment_not_found"


JOBS = {"final_status": "READY", "job_names_list": ["a001_ONE"]}


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "one"}], ids=["waited for", "operation"])
@pytest.mark.parametrize(("command", "params"), [("set-job-status", JOBS), ("create-job-list", {})])
def test_a_cancel_leaves_the_jobs_of_a_running_experiment_alone(
    api: Api, account: StubAccount, headers: dict[str, str], command: str, params: dict[str, Any]
) -> None:
    account.control("run", SLEEP=60)
    run = api.post("run-experiment", {"expid": "a001", **PROFILE})
    api.headers = headers
    refused = api.post(command, {"expid": "a001", **PROFILE, "command_params": params}, expect=409)
    assert refused["code"] == "already_running"
    assert refused["run"]["runner_id"] == run["runner_id"] and f"run {run['runner_id']}" in refused["detail"]
    assert not account.calls("setstatus") and not account.calls("create")  # Autosubmit was not called


def test_a_run_that_has_just_ended_does_not_block_a_new_run(api: Api, account: StubAccount) -> None:
    run = api.post("run-experiment", {"expid": "a001", **PROFILE})
    log = account.home / ".autosubmit-runners" / RunnerRun.objects.get(pk=run["runner_id"]).key
    wait_for(lambda: list(log.glob("ended.*")), 20, what="end of the run")
    assert RunnerRun.objects.get().status == "ACTIVE"  # no request has read the status yet
    api.post("set-job-status", {"expid": "a001", **PROFILE, "command_params": JOBS})


def test_the_lock_of_a_run_that_was_started_by_hand_is_409(api: Api, account: StubAccount) -> None:
    account.control("create", PRINT="[WARNING] Another Autosubmit instance using the experiment", EXIT=1, FAIL="x")
    refused = api.post("create-job-list", {"expid": "a001", **PROFILE}, expect=409)
    assert refused["code"] == "already_running" and "run" not in refused
    assert "started by hand" in refused["detail"]


def test_the_message_says_that_nothing_was_changed(api: Api, account: StubAccount) -> None:
    said = "The selected number of jobs to change is: 0\n[WARNING] No changes were performed.\nJobList saved in 0.1 s."
    account.control("setstatus", PRINT=said, LAST=1, EXIT=0)
    body = api.post("set-job-status", {"expid": "a001", **PROFILE, "command_params": JOBS})
    assert body["message"] == "No job of experiment a001 was changed: the filters do not select any job."
    assert body["counts"] == {"selected": 0, "changed": 0, "unchanged": 0} and body["changed"] == {}


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "one"}], ids=["waited for", "operation"])
def test_counts_of_a_truncated_output_are_marked_as_minimum(
    api: Api, account: StubAccount, settings: Any, headers: dict[str, str]
) -> None:
    settings.RUNNERS_OUTPUT_LIMIT = 8192
    lines = [f"CHANGED: job: a001_{number}_SIM status to: READY" for number in range(1000)]
    said = "\n".join(["The selected number of jobs to change is: 1000", *lines, "JobList saved in 0.1 seconds."])
    account.control("setstatus", PRINT=said, LAST=1, EXIT=0)
    api.headers = headers
    body = api.post("set-job-status", {"expid": "a001", **PROFILE, "command_params": JOBS})
    assert 50 < body["counts"]["changed"] < 1000 and body["counts"]["unchanged"] is None
    assert "more jobs were changed than" in body["warnings"][0]


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "one"}], ids=["waited for", "operation"])
def test_create_job_list_reports_the_progress_that_it_discards(
    api: Api, account: StubAccount, headers: dict[str, str]
) -> None:
    account.control("setstatus", COMPLETED="a001_SIM a001_POST")
    words = "2 COMPLETED jobs become READY or WAITING again"
    plan = api.post("create-job-list", {"expid": "a001", **PROFILE, "dry_run": True})
    assert words in plan["warnings"][0] and "a001_SIM, a001_POST" in plan["warnings"][0]
    assert not account.calls("create")
    api.headers = headers
    (warning,) = api.post("create-job-list", {"expid": "a001", **PROFILE})["warnings"]
    assert words in warning and "final_status COMPLETED restores them" in warning
    assert not [call for call in account.calls("setstatus") if "--save" in call]


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "one"}], ids=["waited for", "operation"])
def test_create_job_list_names_jobs_that_may_still_run(api: Api, account: StubAccount, headers: dict[str, str]) -> None:
    """A stop without cancel_jobs leaves jobs active.

    The new list forgets them, and each would run twice at the same time.
    """
    account.control("setstatus", COMPLETED="a001_ONE", RUNNING="a001_SIM", SUBMITTED="a001_POST a001_LAST")
    named = "3 jobs of an earlier run were left on the platforms, queuing or running, and may still run there: "
    named += "a001_SIM (RUNNING), a001_POST (SUBMITTED), a001_LAST (SUBMITTED). "
    completed, active = api.post("create-job-list", {"expid": "a001", **PROFILE, "dry_run": True})["warnings"]
    assert completed.startswith("1 COMPLETED job becomes") and active.startswith(named)
    assert "Cancel them first: stop-experiment with cancel_jobs." in active
    api.headers = headers
    (_, active) = api.post("create-job-list", {"expid": "a001", **PROFILE})["warnings"]
    assert active.startswith(named) and "stop-experiment does not find them any more" in active
    assert not [call for call in account.calls("setstatus") if "--save" in call]


def test_active_jobs_without_names_are_reported(api: Api, account: StubAccount) -> None:
    """4.1.12 rejects a filter without naming the cause, but says before that it checks the platforms in use."""
    account.control(
        "setstatus",
        PRINT="Checking the connection to all platforms in use",
        FAIL="An Error has occurred while setting some of the workflow jobs, no changes were made",
    )
    (active,) = api.post("create-job-list", {"expid": "a001", **PROFILE})["warnings"]
    assert "Jobs of an earlier run were left" in active and "Autosubmit does not print which" in active


def test_the_progress_check_finds_the_lock_first(api: Api, account: StubAccount) -> None:
    said = "[WARNING] Another Autosubmit instance using the experiment"
    account.control("setstatus", PRINT=said, LAST=1, EXIT=1)
    for extra in ({}, {"dry_run": True}):
        assert (
            api.post("create-job-list", {"expid": "a001", **PROFILE, **extra}, expect=409)["code"] == "already_running"
        )
    assert not account.calls("create")


def test_a_first_job_list_discards_nothing(api: Api, account: StubAccount) -> None:
    account.control(
        "setstatus", FAIL="Autosubmit couldn't load the workflow graph. Please run autosubmit create first."
    )
    assert api.post("create-job-list", {"expid": "a001", **PROFILE})["warnings"] == []


def test_an_unreadable_job_list_is_not_treated_as_a_first_one(api: Api, account: StubAccount) -> None:
    """Autosubmit 4.1.17 prints the same message for a missing list and for a damaged one."""
    words = "Autosubmit couldn't load the workflow graph. Please run autosubmit create first."
    account.control("setstatus", FAIL=words)
    file = account.home / "autosubmit" / "a001" / "pkl" / "job_list_a001.pkl"
    file.parent.mkdir()
    file.write_bytes(b"damaged" * 100)
    (warning,) = api.post("create-job-list", {"expid": "a001", **PROFILE, "dry_run": True})["warnings"]
    assert "Autosubmit cannot read the job list" in warning


def test_a_command_that_fails_is_502_with_its_last_words(api: Api, account: StubAccount) -> None:
    account.control("setstatus", FAIL="No filter given", ECODE=7014, EXIT=102)
    params = {"final_status": "READY", "job_names_list": ["a001_ONE"]}
    body = api.post("set-job-status", {"expid": "a001", **PROFILE, "command_params": params}, expect=502)
    assert (body["code"], body["exit_code"]) == ("command_failed", 102)
    assert "No filter given" in body["detail"]
    assert "No filter given" in body["output"]
    assert "\x1b" not in json.dumps(body)
    assert AuditRecord.objects.get().outcome == "command_failed"


def test_a_command_that_takes_too_long_is_504(api: Api, account: StubAccount, settings: Any) -> None:
    settings.RUNNERS_COMMAND_TIMEOUT = 1
    account.control("create", SLEEP=30)
    assert api.post("create-job-list", {"expid": "a001", **PROFILE}, expect=504)["code"] == "command_timed_out"
    wait_for(lambda: not account.processes(), 10, what="end of the command")


def test_an_option_that_the_version_does_not_have_is_refused_with_its_parameter(api: Api, account: StubAccount) -> None:
    words = "autosubmit: error: unrecognized arguments: --force"
    account.control("create", PRINT_ERR=words, FAIL="nothing", EXIT=1)
    body = {"expid": "a001", **PROFILE, "command_params": {"force": True}}
    refused = api.post("create-job-list", body, expect=400)
    assert refused["code"] == "invalid_request"
    assert refused["detail"] == (
        "Autosubmit 4.1.17.1 does not accept force: unrecognized arguments: --force. Nothing was changed."
    )
    assert refused["errors"].keys() == {"command_params.force"}
    assert [call[-1] for call in account.calls()][-2:] == ["--force", "-v"]


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_job_list_without_jobs_is_a_success_with_a_warning(
    api: Api, account: StubAccount, is_elsewhere: bool
) -> None:
    """Autosubmit 4.0 does not know SCRIPT, makes an empty list and reports it as created."""
    root = account.home / ("data of experiments" if is_elsewhere else "autosubmit")
    configuration = account.home / ".autosubmitrc"
    if is_elsewhere:
        configuration.write_text(f"[database]\npath = /nowhere\n\n[local]\npath = {root}\n\n[globallogs]\npath = /\n")
    job_list = root / "a001" / "pkl" / "job_list_a001.pkl"
    job_list.parent.mkdir(parents=True, exist_ok=True)
    body = {"expid": "a001", **PROFILE}
    try:
        job_list.write_bytes(pickle.dumps([]))
        (warning,) = api.post("create-job-list", body)["warnings"]
        assert warning.startswith("The job list is empty.")
        job_list.write_bytes(pickle.dumps([("a001_ONE", 0, 1, 0, "ONE", None, None, None, "", "", "", "", None)]))
        assert api.post("create-job-list", body)["warnings"] == []
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("words", "status_and_reason"),
    [
        ("Autosubmit will interrupt at the next safe occasion", ("TERMINATED", "stopped")),  # INT, up to 4.1.16
        ("Some jobs have failed and reached maximum retrials", ("TERMINATED", "failed")),  # 3.14
        ("Job a001_ONE is COMPLETED", ("COMPLETED", "")),
    ],
)
def test_the_log_of_a_run_overrides_exit_code_0(
    api: Api, account: StubAccount, settings: Any, words: str, status_and_reason: tuple[str, str]
) -> None:
    settings.RUNNERS_STATUS_FRESHNESS = 0
    account.control("run", PRINT=words, LAST_LINE="")
    api.post("run-experiment", {"expid": "a001", **PROFILE})
    wait_for(lambda: status(api)["status"] != "ACTIVE", 20, what="end of the run")
    ended = status(api)
    assert (ended["status"], ended["reason"]) == status_and_reason
    assert ended["exit_code"] == 0
    # A run that ends normally after these words is complete, because the INT may have come too late.
    account.control("run", PRINT=words)
    api.post("run-experiment", {"expid": "a001", **PROFILE})
    wait_for(lambda: status(api)["status"] != "ACTIVE", 20, what="end of the run")
    assert status(api)["status"] == "COMPLETED"
