"""Requirements and checks of profiles through the API."""

from __future__ import annotations

from typing import Any

import pytest

from profiles.models import RunnerProfile
from runners.models import AuditRecord
from tests.support.api import Api
from tests.support.environments import StubAccount
from tests.support.servers import SSHServer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("open_to_all")]


def test_requirements_say_what_a_launch_still_needs(api: Api) -> None:
    RunnerProfile.objects.create(name="OPEN", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host="h")
    body = api.get("/v4/runners/profiles/OPEN/requirements")
    by_name = {item["parameter"]: item for item in body["requirements"]}
    assert by_name.keys() == {"SSH.PORT", "SSH.USER"}
    assert by_name["SSH.USER"]["required"] is True
    assert (by_name["SSH.PORT"]["type"], by_name["SSH.PORT"]["maximum"]) == ("integer", 65535)
    assert api.get("/v4/runners/profiles/OPENED/requirements", expect=404)["code"] == "profile_not_found"


def test_requirements_say_what_an_admin_allows(api: Api) -> None:
    limits = {"allowed_hosts": "*.cluster\nlogin", "allowed_users": "project_*", "venv_roots": "/opt/a\n/opt/b"}
    profile = RunnerProfile.objects.create(name="WIDE", runner_type="SSH", **limits)
    path = "/v4/runners/profiles/WIDE/requirements"
    by_name = {item["parameter"]: item for item in api.get(path)["requirements"]}
    assert by_name["SSH.HOST"]["allowed_patterns"] == ["*.cluster", "login"]
    assert by_name["SSH.USER"]["allowed_patterns"] == ["project_*"]
    assert by_name["MODULES"]["allowed_roots"] == ["/opt/a", "/opt/b"]
    assert not {"allowed_patterns", "allowed_roots"} & by_name["SSH.PORT"].keys()
    profile.module_loader_type = "LMOD"  # modules are not paths
    profile.save()
    assert "allowed_roots" not in str(api.get(path))


@pytest.mark.parametrize("name", ["a%00b", "%00", "x" * 5000])
def test_a_name_that_no_profile_can_have_is_not_found(api: Api, name: str) -> None:
    path = f"/v4/runners/profiles/{name}"
    assert api.get(f"{path}/requirements", expect=404)["code"] == "profile_not_found"
    assert api.post(f"{path}/check", {}, expect=404)["code"] == "profile_not_found"
    assert "\0" not in AuditRecord.objects.get().profile_name  # PostgreSQL does not accept NUL


def test_a_name_that_no_database_takes_is_not_looked_up(api: Api, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):  # this query finds the nearest name
        api.get("/v4/runners/profiles/a%00b/requirements", expect=404)


def test_a_profile_is_checked_stage_by_stage(api: Api, account: StubAccount, sshd: SSHServer) -> None:
    target = sshd.target
    RunnerProfile.objects.create(
        name="THERE", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host=target.host, ssh_port=target.port
    )
    body = api.post("/v4/runners/profiles/THERE/check", {"profile_params": {"SSH": {"USER": target.user}}})
    assert body["ok"] is True, body
    assert [stage["name"] for stage in body["stages"]][:4] == ["resolve", "connect", "host_key", "authenticate"]
    assert AuditRecord.objects.get().endpoint == "check-profile"
    sshd.authorized = False
    failed = api.post("/v4/runners/profiles/THERE/check", {"profile_params": {"SSH": {"USER": target.user}}})
    assert failed["ok"] is False
    (stage,) = [stage for stage in failed["stages"] if stage["ok"] is False]
    assert stage["name"] == "authenticate"
    assert stage["remedy"]


def test_a_check_refuses_what_a_command_would_refuse(api: Api) -> None:
    RunnerProfile.objects.create(name="THERE", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host="h")
    path = "/v4/runners/profiles/THERE/check"
    assert api.post(path, {"profile_params": {}}, expect=400)["code"] == "invalid_profile"
    assert api.post(path, {"profile_name": "OTHER"}, expect=400)["code"] == "invalid_request"
    assert api.post("/v4/runners/profiles/X/check", {}, expect=404)["code"] == "profile_not_found"
