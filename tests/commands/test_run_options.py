"""The options of run-experiment: what is accepted, what the machine checks, and what is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from profiles.models import RunnerProfile
from runners.commands.run_experiment import RUN_EXPERIMENT, start_moment
from runners.models import RunnerRun
from tests.support.api import NASTY, Api
from tests.support.environments import StubAccount
from tests.support.job_lists import job, write
from tests.support.processes import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

RUN = {"expid": "a001", "profile_name": "LOCAL_1"}


@pytest.fixture
def api(client: Client, settings: Any, account: StubAccount) -> Api:
    settings.PROTECTION_LEVEL = "NONE"
    settings.THROTTLE_COMMANDS = ""
    RunnerProfile.objects.create(name="LOCAL_1", runner_type="LOCAL", module_loader_type="NO_MODULE")
    account.experiment("a001")
    return Api(client)


def sentence(api: Api, **params: Any) -> str:
    """The error of an option, after a request that has to fail and start nothing."""
    refused = api.post("run-experiment", {**RUN, "command_params": params}, expect=400)
    assert list(refused["errors"])[0].startswith("command_params")
    planned = api.post("run-experiment", {**RUN, "command_params": params, "dry_run": True}, expect=400)
    assert planned["errors"].keys() == refused["errors"].keys()
    assert not RunnerRun.objects.exists()
    return " ".join(text for texts in refused["errors"].values() for text in texts)


def test_all_options_reach_autosubmit_and_are_stored(api: Api, account: StubAccount) -> None:
    account.experiment("a002")
    later = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d} 08:00"
    params = {"start_time": later, "start_after": "a002", "run_only_members": "fc0, fc1", "update_version": True}
    body = api.post("run-experiment", {**RUN, "command_params": params})
    stored = {**params, "start_time": f"{later}:00", "run_only_members": ["fc0", "fc1"]}
    assert (body["command_params"], body["previous_run"]) == (stored, None)
    words = [f"--start_time={later}:00", "--start_after=a002", "--run_only_members=fc0 fc1", "--update_version"]
    wait_for(lambda: account.calls("run") == [["run", "a001", *words]], 20, what="the call")
    run = RunnerRun.objects.get()
    assert RUN_EXPERIMENT.argv("a001", run.command_params)[3:] == words
    kept = {"run_only_members": ["fc0", "fc1"], "update_version": True}
    assert RUN_EXPERIMENT.params_of_restart(run.command_params or {}) == kept


@pytest.mark.parametrize("params", [{}, None, {"start_time": None, "start_after": "", "run_only_members": []}])
def test_a_run_without_options(api: Api, account: StubAccount, params: Any) -> None:
    body = api.post("run-experiment", {**RUN, "command_params": params})
    assert body["command_params"] == {}
    wait_for(lambda: account.calls("run") == [["run", "a001"]], 20, what="the call")


@pytest.mark.parametrize("text", [*NASTY, " ", 7, True, {}, ["$(id)"]], ids=lambda text: repr(text)[:20])
def test_strange_values_start_nothing(api: Api, account: StubAccount, text: Any) -> None:
    assert sentence(api, start_time=text)
    assert sentence(api, start_after=text)
    if isinstance(text, str):
        assert sentence(api, run_only_members=[text])
    assert account.calls() == []


@pytest.mark.parametrize(
    "text", ["tomorrow", "8:00", "25:00:00", "2026-02-30 08:00:00", "2026-11-26T08:00:00Z", "2026-11-26"]
)
def test_a_start_time_that_autosubmit_would_ignore_is_rejected(api: Api, text: str) -> None:
    assert "not accepted" in (words := sentence(api, start_time=text)) or "not a day and a time" in words


def test_a_start_time_that_has_passed_on_the_machine_is_rejected(api: Api) -> None:
    assert "has passed on" in sentence(api, start_time="2020-01-01 00:00:00")
    assert "has passed on" in sentence(api, start_time="00:00:00")
    assert "more than 366 days away" in sentence(api, start_time=f"{datetime.now(UTC).year + 3}-01-01 00:00:00")


def test_a_time_without_a_day_is_today() -> None:
    clock = datetime.fromisoformat("2026-11-26T12:30")
    assert start_moment("08:00:00", clock).isoformat() == "2026-11-26T08:00:00"
    assert start_moment("2027-01-01 08:00:00", clock).isoformat() == "2027-01-01T08:00:00"


def test_the_clock_is_that_of_the_account(api: Api, account: StubAccount) -> None:
    """The run reads the time in the zone that the account's start-up files set."""
    soon = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%d %H:%M:%S}"
    with (account.home / ".bash_profile").open("a") as file:
        file.write("export TZ=XXX-14\n")
    assert "(UTC+1400)" in sentence(api, start_time=soon)


def test_an_experiment_cannot_wait_for_itself(api: Api) -> None:
    assert "cannot wait for itself" in sentence(api, start_after="a001")


def test_an_experiment_to_wait_for_has_to_exist_and_to_have_run(api: Api, account: StubAccount) -> None:
    assert "does not exist" in sentence(api, start_after="a002")
    account.experiment("a002")
    history = account.home / "autosubmit" / "metadata" / "data"
    history.mkdir(parents=True)
    assert "has no history" in sentence(api, start_after="a002")
    (history / "job_data_a002.db").write_bytes(b"SQLite")
    api.post("run-experiment", {**RUN, "command_params": {"start_after": "a002"}, "dry_run": True})


def test_a_member_without_jobs_is_rejected(api: Api, account: StubAccount) -> None:
    write(account.home, "a001", [job("a001_20000101_fc0_SIM", member="fc0"), job("a001_SETUP")])
    assert "no job of a member 'fc1'" in sentence(api, run_only_members="fc0 fc1")
    plan = api.post("run-experiment", {**RUN, "command_params": {"run_only_members": "fc0"}, "dry_run": True})
    assert plan["argv"][-1] == "--run_only_members=fc0"


def test_what_the_machine_cannot_tell_is_no_error(api: Api, account: StubAccount) -> None:
    """Autosubmit's directory is elsewhere, so nothing is known of the other experiment."""
    (account.home / ".autosubmitrc").write_text("[local]\npath = /nowhere\n")
    api.post("run-experiment", {**RUN, "command_params": {"start_after": "a002"}, "dry_run": True})


def test_a_dry_run_of_an_unreachable_machine_warns(api: Api) -> None:
    profile = RunnerProfile.objects.get()
    profile.runner_type, profile.ssh_host, profile.ssh_user = "SSH", "127.0.0.1", "nobody"
    profile.ssh_port = 1
    profile.save()
    plan = api.post("run-experiment", {**RUN, "command_params": {"start_time": "23:59:59"}, "dry_run": True})
    assert plan["argv"] == ["autosubmit", "run", "a001", "--start_time=23:59:59"]
    assert "not checked on the machine" in plan["warnings"][0]
