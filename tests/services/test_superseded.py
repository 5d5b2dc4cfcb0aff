"""If Autosubmit reuses the id of a deleted experiment for a new one, the runs of the deleted one are history."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from django.test import Client

from profiles.models import RunnerProfile
from runners.models import RunnerRun
from tests.support.api import Api
from tests.support.environments import AutosubmitAccount, StubAccount
from tests.support.processes import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

PROFILE = {"profile_name": "LOCAL_1"}
CREATE = {**PROFILE, "command_params": {"description": "x"}}


@pytest.fixture
def api(client: Client, settings: Any, account: StubAccount) -> Api:
    settings.PROTECTION_LEVEL = "NONE"
    settings.THROTTLE_COMMANDS = ""
    settings.RUNNERS_STATUS_FRESHNESS = 0
    RunnerProfile.objects.create(name="LOCAL_1", runner_type="LOCAL", module_loader_type="NO_MODULE")
    return Api(client)


def run(api: Api, expid: str) -> dict[str, Any]:
    api.post("run-experiment", {"expid": expid, **PROFILE})
    return wait_for(
        lambda: (found := api.post("get-runner-run-status", {"expid": expid}))["status"] != "ACTIVE" and found,
        20,
        what="end of the run",
    )


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "one"}], ids=["waited for", "operation"])
def test_the_status_of_a_new_experiment_is_not_the_one_of_a_deleted_experiment(
    api: Api, account: StubAccount, headers: dict[str, str]
) -> None:
    expid = api.post("create-experiment", CREATE)["expid"]
    first = run(api, expid)
    assert (first["status"], first["superseded"]) == ("COMPLETED", False)
    shutil.rmtree(account.home / "autosubmit" / expid)
    api.headers = headers
    assert api.post("create-experiment", CREATE)["expid"] == expid
    api.headers = {}
    missing = api.post("get-runner-run-status", {"expid": expid}, expect=404)
    assert missing["code"] == "run_not_found"
    (kept,) = api.get(f"/v4/runners/runs?expid={expid}")["results"]  # the history remains
    assert (kept["runner_id"], kept["superseded"]) == (first["runner_id"], True)
    second = run(api, expid)
    assert (second["status"], second["superseded"]) == ("COMPLETED", False)
    assert second["runner_id"] != first["runner_id"]


def test_runs_of_another_account_are_left_alone(api: Api, account: StubAccount) -> None:
    expid = api.post("create-experiment", CREATE)["expid"]
    row = RunnerRun.objects.get(pk=run(api, expid)["runner_id"])
    there = {**row.config, "RUNNER_TYPE": "SSH", "SSH": {"HOST": "elsewhere", "PORT": 22, "USER": "b"}}
    RunnerRun.objects.filter(pk=row.pk).update(config=there)
    shutil.rmtree(account.home / "autosubmit" / expid)
    api.post("create-experiment", CREATE)
    assert not RunnerRun.objects.get(pk=row.pk).superseded


@pytest.mark.real
@pytest.mark.timeout(300)
def test_real_autosubmit_reuses_the_id_of_a_deleted_experiment(
    client: Client, settings: Any, autosubmit: AutosubmitAccount
) -> None:
    settings.PROTECTION_LEVEL = "NONE"
    settings.RUNNERS_STATUS_FRESHNESS = 0
    RunnerProfile.objects.create(
        name="LOCAL_1", runner_type="LOCAL", module_loader_type="VENV", modules=str(autosubmit.venv)
    )
    api = Api(client)
    expid = autosubmit.short_experiment()
    api.post("run-experiment", {"expid": expid, **PROFILE})
    ended = wait_for(
        lambda: (found := api.post("get-runner-run-status", {"expid": expid}))["status"] != "ACTIVE" and found,
        60,
        what="end of the run",
    )
    assert ended["status"] == "COMPLETED"
    autosubmit.autosubmit("delete", "-f", expid)
    assert api.post("create-experiment", CREATE)["expid"] == expid
    missing = api.post("get-runner-run-status", {"expid": expid}, expect=404)
    assert missing["code"] == "run_not_found"
