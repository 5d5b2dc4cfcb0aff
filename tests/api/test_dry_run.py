"""Requests with dry_run show the command and do nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from profiles.models import RunnerProfile
from runners.models import AuditRecord, RunnerRun
from runners.services import lifecycle, probing
from runners.services.machines.probe import Identity
from tests.support.api import Api
from tests.support.environments import StubAccount
from tests.support.runs import start

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("open_to_all")]


CREATE = {"command_params": {"description": "of the tests"}}
SET = {"expid": "a001", "command_params": {"job_names_list": ["a001_SIM"], "final_status": "READY"}}


@pytest.mark.parametrize(
    ("command", "body", "argv"),
    [
        ("run-experiment", {"expid": "a001"}, ["autosubmit", "run", "a001"]),
        ("set-job-status", SET, ["autosubmit", "setstatus", "a001"]),
        ("create-experiment", CREATE, ["flock"]),
        ("create-job-list", {"expid": "a001"}, ["autosubmit", "create"]),
        ("update-experiment-description", {"expid": "a001", "description": "x"}, ["autosubmit", "updatedescrip"]),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k", "Prefer": "respond-async"}], ids=["plain", "keyed"])
def test_a_dry_run_shows_the_command_and_does_nothing(
    client: Client, account: StubAccount, command: str, body: dict[str, Any], argv: list[str], headers: dict[str, str]
) -> None:
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    account.experiment("a001")
    api = Api(client, headers)
    plan = api.post(command, {"profile_name": "HERE", **body, "dry_run": True})
    assert plan["argv"][: len(argv)] == argv
    assert plan["profile"] == {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": []}
    assert argv[-1] in plan["script"]
    assert plan["detached"] is (command == "run-experiment")
    asked = [call for call in account.calls() if call[0] != "setstatus" or "--save" in call]
    assert asked == []  # create-job-list only asks Autosubmit which jobs are COMPLETED, without saving
    assert not RunnerRun.objects.exists()
    record = AuditRecord.objects.get()
    assert (record.outcome, record.run_id) == ("dry_run", None)


def test_a_dry_run_of_a_stop_shows_it_and_stops_nothing(api: Api, account: StubAccount) -> None:
    run = start(account, account.config(), SLEEP=30)
    plan = api.post("stop-experiment", {"expid": "a001", "cancel_jobs": True, "dry_run": True})
    assert plan["argv"] == ["autosubmit", "stop", "--cancel", "a001"]
    probing.probe([run])
    assert run.is_active
    assert isinstance(lifecycle.identity_of(run), Identity)
    assert api.post("stop-experiment", {"expid": "a002", "dry_run": True}, expect=404)["code"] == "run_not_found"


def test_a_dry_run_is_rejected_like_the_command(api: Api, tmp_path: Path) -> None:
    body = {"expid": "a001", "profile_name": "NONE", "dry_run": True}
    assert api.post("run-experiment", body, expect=404)["code"] == "profile_not_found"
    assert api.post("run-experiment", body | {"dry_run": "yes"}, expect=400)["code"] == "invalid_request"
