"""Rows that somebody edited in the table: no page and no request about them is a server error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from runners.models import RunnerRun
from runners.models.operation import Operation, OperationStatus
from runners.models.webhook import Webhook
from tests.support.environments import StubAccount

pytestmark = pytest.mark.django_db(transaction=True)

LOCAL: dict[str, Any] = {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": []}
SSH = LOCAL | {"RUNNER_TYPE": "SSH"}
IDENTITY = {"host": "h", "boot_id": "b", "pid_namespace": "pid:[1]", "pid": 1, "start": 1}
SPOILT = {
    "an empty configuration": ({}, None),
    "a list": ([], None),
    "a text": ("x", {"host": "x"}),
    "modules that are no list": (LOCAL | {"MODULES": 5}, None),
    "SSH without a machine": (SSH, None),
    "SSH that is a text": (SSH | {"SSH": "x"}, None),
    "half an identity": (LOCAL, {"host": "x"}),
    "an identity that is a list": (LOCAL, [1]),
    "pid 1": (LOCAL, IDENTITY | {"supervisor_pid": 1, "supervisor_start": 1}),
}
PAGES = ["/", "/history", "/experiments/a000", "/admin/runners/runnerrun/", "/v4/runners/runs"]
OF_RUN = ["", "/state", "/details", "/log", "/log/download", "/stop"]


@pytest.mark.parametrize("name", SPOILT)
def test_an_invalid_run_row_is_not_a_server_error(
    client: Client, settings: Any, account: StubAccount, name: str
) -> None:
    settings.PROTECTION_LEVEL = "NONE"
    client.raise_request_exception = False
    config, identity = SPOILT[name]
    run = RunnerRun.objects.create(
        expid="a000", config=config, identity=identity, runner="LOCAL", module_loader="NO_MODULE"
    )
    client.force_login(User.objects.create_superuser("ada"))

    def post(path: str, **body: Any) -> tuple[int, str]:
        answer = client.post(f"/v4/runners/{path}", json.dumps(body), content_type="application/json")
        return answer.status_code, answer.json().get("code", "")

    assert post("command/get-runner-run-status", expid="a000")[0] == 200
    status, code = post("command/stop-experiment", expid="a000", force=True)
    assert (status, code) == (502, "runner_unreachable")
    assert post("command/stop-experiment", expid="a000", dry_run=True)[0] in (200, 502)
    admin = f"/admin/runners/runnerrun/{run.pk}/change/"
    paths = [*PAGES, admin, *(f"/runs/{run.pk}{rest}" for rest in OF_RUN), f"/v4/runners/runs/{run.pk}"]
    seen = {path: client.get(path).status_code for path in paths}
    assert not [path for path, status in seen.items() if status == 500], seen
    assert client.post(f"/runs/{run.pk}/refresh").status_code == 204
    assert post(f"runs/{run.pk}/abandon", reason="nobody can ask its machine")[0] == 200
    assert post("command/stop-experiment", expid="a000", cancel_jobs=True)[0] == (200 if config == LOCAL else 502)


SPOILT_OPERATIONS: dict[str, dict[str, Any]] = {
    "an unknown code": {"error": {"code": "nonsense", "detail": "x", "facts": {}}},
    "an error that is a text": {"error": "x"},
    "an error without facts": {"error": {"code": "command_failed", "detail": "x"}},
    "facts named as arguments": {"error": {"code": "command_failed", "detail": "x", "facts": {"detail": 1, "self": 2}}},
    "facts with a text as a run": {"error": {"code": "already_running", "detail": "x", "facts": {"run_id": "x"}}},
    "facts with a huge run": {"error": {"code": "already_running", "detail": "x", "facts": {"run_id": 2**80}}},
    "errors that are a text": {"error": {"code": "invalid_request", "detail": "x", "facts": {"errors": "x"}}},
    "a result that is a list": {"result": []},
    "a result of half a change": {"result": {"warnings": [], "changes": {"jobs": {}}}},
    "warnings that are numbers": {"result": {"warnings": [1], "changes": None}},
}


@pytest.mark.parametrize("name", SPOILT_OPERATIONS)
def test_an_invalid_operation_row_is_not_a_server_error(
    client: Client, settings: Any, account: StubAccount, name: str
) -> None:
    settings.PROTECTION_LEVEL = "NONE"
    client.raise_request_exception = False
    stored = SPOILT_OPERATIONS[name]
    status = OperationStatus.FAILED if "error" in stored else OperationStatus.SUCCEEDED
    operation = Operation.objects.create(
        kind="set-job-status", expid="a000", config=LOCAL, timeout=10, status=status, **stored
    )
    answer = client.get(f"/v4/runners/operations/{operation.pk}")
    assert answer.status_code == 200, answer.content
    told = answer.json()["error"] or answer.json()["result"]
    assert "error" in stored and name.startswith(("facts", "errors")) or "cannot be read" in json.dumps(told)


@pytest.mark.parametrize("spoilt", [5, "run.completed", {"run.completed": 1}, True, None])
@pytest.mark.parametrize("column", ["events", "profile_names"])
def test_an_invalid_webhook_row_gets_no_messages(column: str, spoilt: Any) -> None:
    hook = Webhook(name="x", url="http://h", **{column: spoilt})
    assert not hook.wants("run.completed", "run.completed")
