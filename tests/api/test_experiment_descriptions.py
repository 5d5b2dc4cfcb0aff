"""What commands tell of an experiment's description, and `reason` and `search` of the list of runs."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client

from profiles.models import EndpointToggle, RunnerProfile
from runners.models import ExperimentDescription, RunnerRun
from tests.support.api import Api
from tests.support.environments import StubAccount
from tests.support.processes import wait_for
from tests.support.rows import ended_runs

pytestmark = pytest.mark.django_db(transaction=True)

RUNS = "/v4/runners/runs"
PROFILE = {"profile_name": "LOCAL_1"}
TEXT = "Tides & <b>winds</b>\nof the north"
LINE = "Tides & <b>winds</b> of the north"


@pytest.fixture
def api(client: Client, settings: Any, account: StubAccount) -> Api:
    settings.PROTECTION_LEVEL = "NONE"
    settings.THROTTLE_COMMANDS = ""
    RunnerProfile.objects.create(name="LOCAL_1", runner_type="LOCAL", module_loader_type="NO_MODULE")
    return Api(client)


def found(api: Api, query: str) -> list[str]:
    return [run["expid"] for run in api.get(f"{RUNS}?{query}")["results"]]


def known() -> list[str]:
    return list(ExperimentDescription.objects.values_list("description", flat=True))


def test_commands_store_change_and_remove_the_description(api: Api, account: StubAccount) -> None:
    EndpointToggle.objects.create(name="DELETE_EXPERIMENT", enabled=True)
    created = api.post("create-experiment", {**PROFILE, "command_params": {"description": TEXT}})["expid"]
    assert known() == [LINE]
    account.experiment(created)
    run = api.post("run-experiment", {"expid": created, **PROFILE})["runner_id"]
    wait_for(lambda: api.get(f"{RUNS}/{run}")["status"] != "ACTIVE", 20, what="end of the run")
    assert found(api, f"search={quote('TIDES & <b>')}") == [created]
    body = {"expid": created, **PROFILE, "description": "Ice"}
    api.post("update-experiment-description", body)
    assert known() == ["Ice"]
    assert found(api, "search=tides") == []
    api.post("update-experiment-description", {**body, "description": ""})
    assert known() == []
    api.post("update-experiment-description", body)
    api.post("delete-experiment", {"expid": created, **PROFILE, "confirm_expid": created})
    assert known() == []
    assert RunnerRun.objects.count() == 1


def test_a_command_that_fails_or_is_only_planned_stores_nothing(api: Api, account: StubAccount) -> None:
    account.experiment("a001")
    body = {"expid": "a001", **PROFILE, "description": "Ice"}
    api.post("update-experiment-description", {**body, "dry_run": True})
    account.control("updatedescrip", EXIT=1)
    api.post("update-experiment-description", body, expect=502)
    assert known() == []


def test_a_creation_that_runs_on_without_its_request_stores_the_description(api: Api) -> None:
    later = Api(api.client, {"Prefer": "respond-async"})
    body = {**PROFILE, "command_params": {"description": TEXT}}
    operation = later.post("create-experiment", body, expect=202)["operation_id"]
    wait_for(lambda: api.get(f"/v4/runners/operations/{operation}")["status"] == "succeeded", 20, what="the creation")
    assert known() == [LINE]


def test_runs_are_found_by_reason_and_by_search(api: Api) -> None:
    ended_runs(1, expid="a001", status="TERMINATED", reason="stopped")
    (failed,) = ended_runs(1, expid="b001", status="TERMINATED", reason="failed")
    ended_runs(1, expid="b002")
    assert found(api, "reason=failed") == ["b001"]
    assert found(api, "search=B00") == ["b002", "b001"]
    assert found(api, "search=b00&reason=failed") == ["b001"]
    assert found(api, f"search={failed.pk}") == ["b001"]
    assert found(api, "search=%25") == []
    page = api.get(f"{RUNS}?search=b00&page_size=1")
    assert "search=b00" in page["next"]
    assert [run["expid"] for run in api.get(page["next"])["results"]] == ["b001"]
    for query, member in (("reason=gone", "reason"), ("search=" + "x" * 101, "search"), ("search=a%00", "search")):
        assert member in api.get(f"{RUNS}?{query}", expect=400)["errors"]
