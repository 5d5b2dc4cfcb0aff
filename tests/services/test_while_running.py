"""Change statuses while the experiment runs: what is written, what is refused, and what the answer claims."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.test import Client

from profiles.models import RunnerProfile
from runners.models import RunnerRun
from runners.services import while_running
from tests.support.api import Api
from tests.support.environments import AutosubmitAccount, StubAccount
from tests.support.job_lists import job, write
from tests.support.processes import PATIENCE, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

BODY = {"expid": "a001", "profile_name": "HERE"}


def params(*names: str, status: str = "SUSPENDED", **more: Any) -> dict[str, Any]:
    filters = {"job_names_list": list(names)} if names else {}
    return {"command_params": {"final_status": status, "while_running": True, **filters, **more}}


@pytest.fixture
def api(client: Client, settings: Any, account: StubAccount, monkeypatch: pytest.MonkeyPatch) -> Api:
    settings.PROTECTION_LEVEL = "NONE"
    settings.THROTTLE_COMMANDS = ""
    monkeypatch.setattr(while_running, "PATIENCE", 2.0)
    monkeypatch.setattr(while_running, "PAUSE", 0.1)
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    account.experiment("a001")
    account.control("run", SLEEP=600)
    write(account.home, "a001", [job("a001_ONE", "RUNNING"), job("a001_TWO", section="POST"), job("a001_THREE")])
    (account.home / "autosubmit" / "a001" / "status").mkdir()
    api = Api(client)
    api.post("run-experiment", BODY)
    return api


@contextmanager
def taking(account: StubAccount, take: Callable[[str], None]) -> Iterator[None]:
    """Take the file as a running Autosubmit does: read it, call `take` with its text, and rename it."""
    file = account.home / "autosubmit" / "a001" / "status" / "updated_list_a001.txt"
    end = time.monotonic() + 20 * PATIENCE

    def watch() -> None:
        while time.monotonic() < end:
            if file.exists():
                take(file.read_text())
                file.rename(file.with_name(f"{file.name}_20261126_0800"))
                return
            time.sleep(0.02)

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()


def test_the_answer_says_when_the_job_list_shows_the_change(api: Api, account: StubAccount) -> None:
    texts = []

    def take(text: str) -> None:
        texts.append(text)
        changed = [job("a001_ONE", "RUNNING"), job("a001_TWO", "SUSPENDED"), job("a001_THREE", "SUSPENDED")]
        write(account.home, "a001", changed)

    with taking(account, take):
        body = api.post("set-job-status", {**BODY, **params("a001_TWO", "a001_THREE")})
    assert texts == ["a001_TWO SUSPENDED\na001_THREE SUSPENDED\n"]
    assert body["changed"] == {"a001_TWO": "SUSPENDED", "a001_THREE": "SUSPENDED"}
    assert body["while_running"]["state"] == "applied"
    assert body["while_running"]["applied_at"]
    assert body["message"] == "Job status for experiment a001 set successfully."
    assert account.calls("setstatus") == []


def test_a_change_that_is_not_seen_is_not_claimed(api: Api, account: StubAccount) -> None:
    with taking(account, lambda text: None):
        body = api.post("set-job-status", {**BODY, **params(filter_type="POST")})
    assert body["changed"] == {}
    assert body["while_running"] == {"state": "read", "applied_at": None, "not_applied": ["a001_TWO"]}
    assert "does not show all of it yet" in body["message"]


def test_a_change_that_is_not_taken_waits_and_is_never_replaced(api: Api, account: StubAccount) -> None:
    file = account.home / "autosubmit" / "a001" / "status" / "updated_list_a001.txt"
    body = api.post("set-job-status", {**BODY, **params("a001_TWO")})
    assert body["while_running"]["state"] == "waiting"
    assert file.read_text() == "a001_TWO SUSPENDED\n"
    refused = api.post("set-job-status", {**BODY, **params("a001_THREE")}, expect=502)
    assert "Another change waits" in refused["detail"]
    assert file.read_text() == "a001_TWO SUSPENDED\n"
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    file.rename(file.parents[1] / "pkl" / file.name)  # a change for an older version, or of a person
    assert "Another change waits" in api.post("set-job-status", {**BODY, **params("a001_ONE")}, expect=502)["detail"]


def test_a_run_that_ends_first_leaves_no_change(api: Api, account: StubAccount, monkeypatch: Any) -> None:
    monkeypatch.setattr(while_running, "PATIENCE", 30.0)
    monkeypatch.setattr(while_running, "PROBE_PAUSE", 0.5)
    pid = RunnerRun.objects.get().pid
    assert pid
    threading.Timer(1, os.kill, [pid, signal.SIGKILL]).start()
    body = api.post("set-job-status", {**BODY, **params("a001_TWO")})
    assert body["while_running"]["state"] == "withdrawn"
    assert list((account.home / "autosubmit" / "a001" / "status").iterdir()) == []


def test_a_dry_run_writes_nothing(api: Api, account: StubAccount) -> None:
    planned = api.post("set-job-status", {**BODY, **params("a001_TWO", "a001_ONE"), "dry_run": True})
    assert "the change of 2 jobs would be handed to the running Autosubmit" in planned["warnings"][0]
    assert "a001_ONE" in planned["warnings"][1]  # it runs on its platform
    assert list((account.home / "autosubmit" / "a001" / "status").iterdir()) == []


def test_without_the_member_a_run_still_prevents_it(api: Api) -> None:
    plain = {"command_params": {"final_status": "SUSPENDED", "job_names_list": ["a001_TWO"]}}
    assert api.post("set-job-status", {**BODY, **plain}, expect=409)["code"] == "already_running"


def test_without_a_run_it_is_an_ordinary_change(api: Api, account: StubAccount) -> None:
    api.post("stop-experiment", {"expid": "a001"})
    body = api.post("set-job-status", {**BODY, **params("a001_TWO")})
    assert body["while_running"] is None
    assert account.calls("setstatus")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (params("a001_TWO", status="RUNNING"), "final_status"),
        (params("a001_TWO", status="HELD"), "final_status"),
        (params("a001_NONE"), "job_names_list"),
        (params("a001_TWO", filter_chunks="[ 20000101 [ fc0 [1] ] ]"), "filter_chunks"),
        (params("a001_TWO", update_version=True), "update_version"),
        (params(filter_type="DN [1-2]"), "filter_type"),
    ],
)
def test_what_a_running_autosubmit_cannot_do_is_rejected(
    api: Api, account: StubAccount, given: dict[str, Any], name: str
) -> None:
    refused = api.post("set-job-status", {**BODY, **given}, expect=400)
    assert list(refused["errors"]) == [f"command_params.{name}"]
    assert list((account.home / "autosubmit" / "a001" / "status").iterdir()) == []


@pytest.mark.parametrize("version", ["3.14.1", ""])
def test_a_version_that_is_not_known_to_read_it_is_refused(
    api: Api, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(while_running, "installed_version", lambda runner: version)
    refused = api.post("set-job-status", {**BODY, **params("a001_TWO")}, expect=400)
    assert list(refused["errors"]) == ["command_params.while_running"]


@pytest.mark.real
@pytest.mark.timeout(300)
def test_a_real_autosubmit_applies_it(client: Client, settings: Any, autosubmit: AutosubmitAccount) -> None:
    settings.PROTECTION_LEVEL, settings.THROTTLE_COMMANDS = "NONE", ""
    modules = "\n".join(autosubmit.modules("VENV"))
    RunnerProfile.objects.create(name="REAL", runner_type="LOCAL", module_loader_type="VENV", modules=modules)
    expid = autosubmit.short_experiment("sleep 600", jobs=("ONE", "TWO"))
    api = Api(client)
    body = {"expid": expid, "profile_name": "REAL"}
    api.post("run-experiment", body)
    wait_for(lambda: set(autosubmit.job_statuses(expid).values()) == {"RUNNING"}, 90, what="the jobs", interval=0.5)
    change = {"final_status": "COMPLETED", "job_names_list": [f"{expid}_ONE", f"{expid}_TWO"], "while_running": True}
    answer = api.post("set-job-status", {**body, "command_params": change})
    assert answer["while_running"]["state"] == "applied", answer
    assert set(autosubmit.job_statuses(expid).values()) == {"COMPLETED"}
    assert os.listdir(autosubmit.root / expid / "status") != [f"updated_list_{expid}.txt"]
    autosubmit.kill()
