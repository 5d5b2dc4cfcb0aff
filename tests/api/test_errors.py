"""Errors: one body for every error, with the right status and without internal data; paths; the audit."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import InterfaceError, OperationalError, connection
from django.test import Client

from profiles.exceptions import InvalidProfile
from profiles.models import EndpointToggle, RunnerProfile
from profiles.toggles import EDIT_CONFIGURATION, commands_of, toggles
from runners import exceptions as ours
from runners.api import exception_handler
from runners.api.exception_handler import MAX_ERRORS
from runners.api.runs.serializers import RunSerializer
from runners.commands.registry import COMMANDS
from runners.models import AuditRecord, RunnerRun
from runners.services.representations import run_fields
from runners.web import problems
from tests.support.api import PREFIX, Api, check
from tests.support.paths import ROOT

pytestmark = pytest.mark.django_db

LOCAL = {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": []}

# The codes are stable. Changing this table breaks clients.
PROMISED = {
    "bad_request": 400,
    "invalid_request": 400,
    "invalid_json": 400,
    "invalid_profile": 400,
    "not_authenticated": 401,
    "invalid_credentials": 401,
    "permission_denied": 403,
    "endpoint_disabled": 403,
    "profile_forbidden": 403,
    "not_found": 404,
    "profile_not_found": 404,
    "experiment_not_found": 404,
    "run_not_found": 404,
    "log_not_found": 404,
    "operation_not_found": 404,
    "machine_not_found": 404,
    "maintenance_not_found": 404,
    "script_not_found": 404,
    "jobs_not_found": 404,
    "file_not_found": 404,
    "method_not_allowed": 405,
    "already_running": 409,
    "foreign_run": 409,
    "not_running": 409,
    "nothing_to_run": 409,
    "machine_in_use": 409,
    "still_reachable": 409,
    "stopped_during_launch": 409,
    "ambiguous": 409,
    "idempotency_in_progress": 409,
    "length_required": 411,
    "too_large": 413,
    "unsupported_media_type": 415,
    "idempotency_key_reused": 422,
    "file_rejected": 422,
    "precondition_failed": 412,
    "precondition_required": 428,
    "throttled": 429,
    "internal_error": 500,
    "runner_unreachable": 502,
    "host_key_unknown": 502,
    "host_key_changed": 502,
    "authentication_failed": 502,
    "outcome_unknown": 502,
    "command_failed": 502,
    "jobs_unreadable": 502,
    "run_directory_unusable": 502,
    "database_unavailable": 503,
    "machine_busy": 503,
    "machine_in_maintenance": 503,
    "account_busy": 503,
    "too_many_commands": 503,
    "command_timed_out": 504,
    "stop_not_confirmed": 504,
}


def past_run(**values: Any) -> RunnerRun:
    fields: dict[str, Any] = {
        "expid": "a001",
        "config": LOCAL,
        "runner": "LOCAL",
        "module_loader": "NO_MODULE",
        "status": "COMPLETED",
        "exit_code": 0,
    }
    return RunnerRun.objects.create(**fields | values)


def test_the_codes_are_the_promised_ones() -> None:
    assert {code: kind.status for code, kind in problems.PROBLEM_TYPES_BY_CODE.items()} == PROMISED


def test_a_rejected_request_is_not_logged_as_a_warning(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """The GUI polls the status of experiments that were never run: a warning for each would hide all others."""
    api.post("get-runner-run-status", {"expid": "a001"}, expect=404)
    api.post("run-experiment", {}, expect=400)
    assert [record for record in caplog.records if record.name == "django.request"] == []


def test_an_error_lists_a_bounded_number_of_members(api: Api) -> None:
    params = {"final_status": "READY", "job_names_list": [{}] * 1000}
    request = {"expid": "a001", "profile_name": "P", "command_params": params}
    body = api.post("set-job-status", request, expect=400)
    assert len(body["errors"]) == MAX_ERRORS
    unknown = api.post("run-experiment", {f"member{number}": 1 for number in range(1000)}, expect=400)
    assert len(unknown["errors"]) <= MAX_ERRORS


def subclasses(cls: type) -> list[type]:
    return [cls, *(inner for child in cls.__subclasses__() for inner in subclasses(child))]


def test_every_error_of_the_services_has_its_status() -> None:
    for cls in subclasses(ours.RunnerServiceError)[1:]:
        kinds = [problems.PROBLEM_TYPES[base] for base in cls.__mro__ if base in problems.PROBLEM_TYPES]
        assert kinds and kinds[0].code == cls.code, cls  # type: ignore[attr-defined]
    assert problems.PROBLEM_TYPES[InvalidProfile].code == InvalidProfile.code


def test_facts_never_replace_the_members_of_the_body() -> None:
    error = ours.CommandFailed("It failed.", exit_code=3, output="no", status=1, code="x")
    response = exception_handler.handle(error, {})
    assert response is not None
    assert response.data["status"] == 502
    assert response.data["code"] == "command_failed"
    assert (response.data["exit_code"], response.data["output"]) == (3, "no")


@pytest.mark.parametrize("cls", [ours.AlreadyRunning, ours.NotRunning])
def test_an_error_about_a_run_carries_the_run(cls: type[ours.AlreadyRunning]) -> None:
    run = past_run()
    response = exception_handler.handle(cls("No.", run=run), {"request": SimpleNamespace(user=AnonymousUser())})
    assert response is not None
    assert response.status_code == 409
    assert response.data["run"] == run_fields(run)


def test_the_run_has_exactly_the_documented_members() -> None:
    assert list(run_fields(past_run())) == list(RunSerializer().fields)


def test_times_are_whole_seconds_with_offset(api: Api) -> None:
    past_run()
    body = api.post("get-runner-run-status", {"expid": "a001"})
    assert len(body["created"]) == len("2026-01-20T09:30:00+00:00")
    assert body["created"].endswith("+00:00")
    assert body["finished"] is None


def test_a_status_is_that_of_the_last_run(api: Api) -> None:
    past_run(status="TERMINATED", exit_code=1, reason="failed")
    last = past_run(modules="a\nb")
    past_run(expid="a002")
    body = api.post("get-runner-run-status", {"expid": "a001"})
    assert body["runner_id"] == last.pk
    assert body["modules"] == "a\nb"
    assert not AuditRecord.objects.exists()


def test_never_run_is_404(api: Api) -> None:
    body = api.post("get-runner-run-status", {"expid": "a001"}, expect=404)
    assert body["code"] == "run_not_found"
    assert "a001" in body["detail"]


# --- Toggles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toggle", "commands"),
    [(name, commands_of(name)) for name in toggles() if name != EDIT_CONFIGURATION.name],
)
def test_a_toggle_that_is_off_is_403_with_the_endpoints_own_name(api: Api, toggle: str, commands: list[str]) -> None:
    EndpointToggle.objects.update_or_create(name=toggle, defaults={"enabled": False})
    for command in commands:
        body = api.post(command, {"expid": "a001"}, expect=403)
        assert body["code"] == "endpoint_disabled"
        assert body["detail"] == f"The {command} endpoint is currently disabled."
        record = AuditRecord.objects.filter(endpoint=command).get()
        assert (record.outcome, record.expid, record.detail) == ("endpoint_disabled", "a001", body["detail"])
    for other in COMMANDS.values():
        if other.name not in commands:
            api.post(other.name, {}, expect=400 if other.toggle.is_enabled else 403)


def test_status_can_be_read_while_running_is_switched_off(api: Api) -> None:
    EndpointToggle.objects.update_or_create(name="RUNNER_RUN", defaults={"enabled": False})
    past_run()
    api.post("get-runner-run-status", {"expid": "a001"})


# --- Paths and methods ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v4/runners/command/get-runner-run-status",
        "/v4/runners/command/get-runner-run-status/",
        "//v4/runners/command/get-runner-run-status",
        "/v4//runners///command/get-runner-run-status//",
    ],
)
def test_slashes_do_not_matter(api: Api, path: str) -> None:
    past_run()
    response = api.client.post("/", b'{"expid": "a001"}', "application/json", PATH_INFO=path)
    assert check(response, 200)["expid"] == "a001"


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
@pytest.mark.parametrize("command", ["run-experiment", "get-runner-run-status"])
def test_another_method_is_405_and_leaves_no_record(api: Api, client: Client, method: str, command: str) -> None:
    response = getattr(client, method)(PREFIX + command)
    body = check(response, 405)
    assert body["code"] == "method_not_allowed"
    assert "POST" in response["Allow"]
    assert not AuditRecord.objects.exists()


@pytest.mark.parametrize("path", ["/v4", "/v4/", "/v4/nothing", "/v4/runners/command/nothing", "/api/x", "/v4/x?y=%00"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_an_unknown_path_is_a_404_of_the_same_body(api: Api, client: Client, method: str, path: str) -> None:
    assert check(getattr(client, method)(path), 404)["code"] == "not_found"


def test_an_unknown_page_is_html(client: Client) -> None:
    response = client.get("/nothing")
    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")


@pytest.mark.filterwarnings("ignore")
def test_an_unknown_host_is_400_of_the_same_body(client: Client) -> None:
    response = client.post(PREFIX + "run-experiment", b"{}", "application/json", headers={"Host": "evil.example"})
    # CommonMiddleware rejects it before any view is called.
    assert check(response, 400)["code"] == "bad_request"
    assert b"evil" not in response.content


# --- Bugs and broken databases ----------------------------------------------------------------------------------------


def test_a_bug_is_a_500_without_internals(
    api: Api, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # No request can cause a bug, so this is the only test that injects a fault.
    def bug(**_: Any) -> None:
        raise ZeroDivisionError("secret internals")

    monkeypatch.setattr("runners.services.stopping.stop_experiment", bug)
    client.raise_request_exception = False
    monkeypatch.setattr(logging.getLogger("django"), "propagate", True)
    body = api.post("stop-experiment", {"expid": "a001"}, expect=500)
    assert body["code"] == "internal_error"
    assert "secret" not in str(body)
    assert "ZeroDivisionError" in caplog.text
    assert AuditRecord.objects.get().outcome == "error"


@pytest.mark.parametrize("error", [OperationalError("database is locked"), InterfaceError("connection already closed")])
def test_a_database_that_does_not_answer_is_503(error: Exception) -> None:
    response = exception_handler.handle(error, {})
    assert response is not None
    assert response.status_code == 503
    assert response.data["code"] == "database_unavailable"
    assert response["Retry-After"] == "5"
    assert "locked" not in response.data["detail"]


def test_the_answer_of_a_command_survives_an_audit_that_cannot_be_saved(api: Api) -> None:
    with connection.cursor() as cursor:  # a real failure: the table rejects new rows, as with a full disk or a lock
        cursor.execute(
            "CREATE TRIGGER full BEFORE INSERT ON runners_auditrecord BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            if connection.vendor == "sqlite"
            else "SELECT 1"
        )
    if connection.vendor != "sqlite":
        pytest.skip("caused by a trigger of SQLite")
    body = api.post("stop-experiment", {"expid": "a001"}, expect=(404, 503))
    assert body["code"] == "run_not_found"


# --- Pages and documents ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/docs", "/docs?script=", "/docs/errors", "/openapi.json", "/openapi.yaml"])
def test_the_pages_are_open_to_everybody(client: Client, path: str) -> None:
    assert client.get(path).status_code == 200


def test_every_code_is_explained_where_its_type_leads(client: Client) -> None:
    page = client.get("/docs/errors").content.decode()
    assert all(f'id="{code}"' in page for code in PROMISED)


def test_the_docs_have_no_inline_script_and_need_no_other_host(client: Client) -> None:
    page = client.get("/docs").content.decode()
    assert "<script>" not in page
    assert "https://" not in page
    assert "http://" not in page


def test_the_committed_openapi_document_is_the_served_one(client: Client) -> None:
    committed = ROOT / "openapi.yaml"
    served = client.get("/openapi.yaml").content.decode()
    assert served == committed.read_text(), "write it again with `make schema`, and look at the difference"


def test_the_profile_of_a_refused_command_is_recorded(api: Api) -> None:
    RunnerProfile.objects.create(name="LOCAL_1", runner_type="LOCAL", module_loader_type="NO_MODULE")
    api.post("run-experiment", {"expid": "A001", "profile_name": "LOCAL_1"}, expect=400)
    record = AuditRecord.objects.get()
    assert (record.expid, record.profile_name, record.outcome) == ("A001", "LOCAL_1", "invalid_request")
    assert "expid" in record.detail
    assert record.duration_ms >= 0
