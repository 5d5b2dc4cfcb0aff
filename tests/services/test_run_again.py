"""Run an experiment again from a run that has ended, with and without a first step."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from profiles.models import EndpointToggle, RunnerProfile
from runners.models import AuditRecord, RunnerRun, RunStatus
from tests.support.api import Api
from tests.support.environments import StubAccount
from tests.support.job_lists import job, write
from tests.support.processes import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

BODY = {"expid": "a001", "profile_name": "HERE"}
FAILED_TO_WAITING = {"first": "failed_to_waiting"}
NO_FAILED_JOB = """[CRITICAL] Error in the supplied input for -fs.
## Status Validation Message ##
 There are no jobs with status FAILED in this experiment. [eCode=7011]"""


@pytest.fixture
def api(client: Client, settings: Any, account: StubAccount) -> Api:
    settings.PROTECTION_LEVEL = "NONE"
    settings.THROTTLE_COMMANDS = ""
    settings.RUNNERS_STATUS_FRESHNESS = 0
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    account.experiment("a001")
    return Api(client)


def ended(api: Api, **params: Any) -> dict[str, Any]:
    started = api.post("run-experiment", {**BODY, "command_params": params})
    wait_for(lambda: state(api, started)["status"] != "ACTIVE", 20, what="the end of the run")
    return state(api, started)


def state(api: Api, run: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/v4/runners/runs/{run['runner_id']}")
    return found


def again(run: dict[str, Any]) -> str:
    return f"/v4/runners/runs/{run['runner_id']}/run-again"


def have_jobs(account: StubAccount, *statuses: str) -> None:
    write(account.home, "a001", [job(f"a001_{number}", status) for number, status in enumerate(statuses)])


def test_a_new_run_has_the_options_of_the_former_one_and_names_it(api: Api, account: StubAccount) -> None:
    before = ended(api, run_only_members="fc0", update_version=True)
    RunnerRun.objects.update(command_params={**before["command_params"], "start_time": "2026-01-01 00:00:00"})
    body = api.post(again(before), {})
    assert (body["previous_run"], body["status"], body["steps"]) == (before["runner_id"], "ACTIVE", [])
    assert body["command_params"] == {"run_only_members": ["fc0"], "update_version": True}
    assert body["message"] == f"Experiment a001 was started again, as run {body['runner_id']}."
    wait_for(lambda: len(account.calls("run")) == 2, 20, what="the call")
    assert account.calls("run")[1] == ["run", "a001", "--run_only_members=fc0", "--update_version"]
    record = AuditRecord.objects.order_by("id").last()
    assert record and (record.endpoint, record.run_id, record.outcome) == ("run-again", body["runner_id"], "ok")
    wait_for(lambda: state(api, body)["status"] != "ACTIVE", 20, what="the end of the run")
    assert api.post(again(body), {"command_params": {}})["command_params"] == {}


def test_a_run_that_has_not_ended_is_not_run_again(api: Api, account: StubAccount) -> None:
    account.control("run", SLEEP=60)
    run = api.post("run-experiment", BODY)
    refused = api.post(again(run), {}, expect=409)
    assert (refused["code"], refused["run"]["runner_id"]) == ("already_running", run["runner_id"])
    assert api.post(again({"runner_id": 4711}), {}, expect=404)["code"] == "run_not_found"
    assert RunnerRun.objects.count() == 1


@pytest.mark.parametrize(
    ("statuses", "remedy"),
    [
        (("COMPLETED", "COMPLETED"), "create a new job list: create-job-list"),
        (("COMPLETED", "FAILED"), "(a001_1), send `first: failed_to_waiting`"),
        (("COMPLETED", "SUSPENDED"), "set them to WAITING: set-job-status"),
        ((), "The job list of a001 is empty"),
    ],
)
def test_nothing_is_started_if_no_job_is_left(
    api: Api, account: StubAccount, statuses: tuple[str, ...], remedy: str
) -> None:
    before = ended(api)
    have_jobs(account, *statuses)
    for body in ({}, {"dry_run": True}):
        refused = api.post(again(before), body, expect=409)
        assert refused["code"] == "nothing_to_run"
        assert remedy in refused["detail"]
        assert refused["counts"]["total"] == len(statuses)
    assert RunnerRun.objects.count() == 1


def test_failed_jobs_that_stay_failed_are_a_warning(api: Api, account: StubAccount) -> None:
    before = ended(api)
    have_jobs(account, "FAILED", "WAITING")
    body = api.post(again(before), {})
    assert "1 job is FAILED (a001_0)" in body["warnings"][0]


def test_an_unknown_job_list_refuses_nothing(api: Api, account: StubAccount) -> None:
    before = ended(api)
    assert not (account.home / "autosubmit" / "a001" / "pkl").exists()
    assert api.post(again(before), {})["status"] == "ACTIVE"


def test_failed_jobs_are_set_to_waiting_first(api: Api, account: StubAccount) -> None:
    before = ended(api)
    have_jobs(account, "COMPLETED", "FAILED")
    planned = api.post(again(before), {**FAILED_TO_WAITING, "dry_run": True})
    assert planned["argv"] == ["autosubmit", "run", "a001"]
    (step,) = planned["steps"]
    assert (step["command"], step["changed"]) == ("set-job-status", {"a001_ONE": "COMPLETED"})
    assert RunnerRun.objects.count() == 1
    body = api.post(again(before), FAILED_TO_WAITING)
    (step,) = body["steps"]
    assert (step["command"], step["counts"]["changed"]) == ("set-job-status", 1)
    wait_for(lambda: len(account.calls("run")) == 2, 20, what="the call")
    preview, change = account.calls("setstatus")
    assert "--save" not in preview
    assert change == ["setstatus", "a001", "--save", "-np", "--status_final=WAITING", "--filter_status=FAILED"]
    records = AuditRecord.objects.order_by("id").values_list("endpoint", "outcome", "run_id")
    # The record of run-again is stored before its first step.
    assert list(records)[-2:] == [("run-again", "ok", body["runner_id"]), ("set-job-status", "ok", None)]


def test_the_first_step_can_be_repeated(api: Api, account: StubAccount) -> None:
    """A retry after the first step succeeded and the run did not start: no job is FAILED any more."""
    before = ended(api)
    account.control("setstatus", PRINT=NO_FAILED_JOB, LAST=1, EXIT=99)
    body = api.post(again(before), FAILED_TO_WAITING)
    assert body["status"] == "ACTIVE"
    assert body["steps"][0]["message"] == "No job is FAILED, so no status was changed."


def test_a_first_step_that_fails_starts_nothing(api: Api, account: StubAccount) -> None:
    before = ended(api)
    account.control("setstatus", FAIL="database is locked", EXIT=99)
    refused = api.post(again(before), FAILED_TO_WAITING, expect=502)
    assert refused["code"] == "command_failed"
    assert "steps" not in refused
    assert RunnerRun.objects.count() == 1


def test_an_error_after_the_first_step_says_what_was_done(api: Api, account: StubAccount) -> None:
    before = ended(api)
    control = account.home / ".stub-autosubmit" / "control" / "setstatus"
    control.parent.mkdir(parents=True, exist_ok=True)
    control.write_text('mv "$HOME/bin/autosubmit" "$HOME/bin/gone"\n')
    try:
        refused = api.post(again(before), FAILED_TO_WAITING, expect=502)
    finally:
        (account.home / "bin" / "gone").rename(account.home / "bin" / "autosubmit")
    words = "the first step succeeded and was not undone: Job status for experiment a001 set successfully."
    assert words in refused["detail"]
    assert refused["steps"][0]["command"] == "set-job-status"
    last = RunnerRun.objects.get(pk__gt=before["runner_id"])
    assert (last.status, last.reason, last.previous_run) == (RunStatus.TERMINATED, "never_started", before["runner_id"])


def test_a_profile_that_leads_elsewhere_is_not_used(api: Api) -> None:
    before = ended(api)
    profile = RunnerProfile.objects.get()
    profile.runner_type, profile.ssh_host, profile.ssh_user = "SSH", "login.example.org", "ana"
    profile.save()
    refused = api.post(again(before), {}, expect=400)
    assert "leads to ana@login.example.org" in refused["errors"]["profile_params.profile_name"][0]
    profile.enabled = False
    profile.save()
    assert api.post(again(before), {}, expect=404)["code"] == "profile_not_found"
    assert RunnerRun.objects.count() == 1


def test_the_permissions_of_the_first_step_are_needed(api: Api) -> None:
    before = ended(api)
    EndpointToggle.objects.create(name="SET_JOB_STATUS", enabled=False)
    assert api.post(again(before), FAILED_TO_WAITING, expect=403)["code"] == "endpoint_disabled"
    EndpointToggle.objects.all().delete()
    group = Group.objects.create(name="operators")
    RunnerProfile.objects.get().status_groups.add(group)
    assert api.post(again(before), FAILED_TO_WAITING, expect=403)["code"] == "profile_forbidden"
    assert api.post(again(before), {})["status"] == "ACTIVE"


def test_a_retry_with_a_key_finds_its_run(api: Api, client: Client, account: StubAccount) -> None:
    before = ended(api)
    User.objects.create_user("ana")
    headers = {"Idempotency-Key": "k1"}
    first = client.post(again(before), {}, "application/json", headers=headers)
    second = client.post(again(before), {}, "application/json", headers=headers)
    assert (first.status_code, second.status_code) == (200, 200)
    assert second.json() == first.json()
    assert second["Idempotent-Replayed"] == "true"
    other = client.post(again(first.json()), {}, "application/json", headers=headers)
    assert other.status_code == 422
    assert RunnerRun.objects.count() == 2


@pytest.mark.parametrize("body", [{"first": "everything"}, {"first": 7}, {"frist": ""}, {"command_params": 7}])
def test_bad_input(api: Api, body: dict[str, Any]) -> None:
    before = ended(api)
    assert api.post(again(before), body, expect=400)["code"] == "invalid_request"
