"""The endpoints of configuration files: credentials, profiles, toggle, ETag and If-Match, audit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from profiles.models import EndpointToggle, RunnerProfile
from runners.models import ApiToken, AuditRecord
from tests.support.api import NASTY, Api, assert_documented, check
from tests.support.environments import StubAccount
from tests.support.rows import saved_run
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = "/v4/runners/experiments/a001/config"
FILE = f"{ROOT}/file?profile_name=HERE&path=jobs_a001.yml"
RESTORE = FILE.replace("/file?", "/file/restore?")
VERSIONS = FILE.replace("/file?", "/file/versions?")
TEXT = "JOBS:\n  SIM: {FILE: sim.sh}  # a comment\n"


@pytest.fixture
def conf(account: StubAccount) -> Path:
    account.experiment("a001")
    folder = account.home / "autosubmit" / "a001" / "conf"
    (folder / "jobs_a001.yml").write_text(TEXT)
    return folder


@pytest.fixture
def here(conf: Path) -> RunnerProfile:
    EndpointToggle.objects.create(name="EDIT_CONFIGURATION", enabled=True)
    return RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")


Put = Callable[..., Any]


@pytest.fixture
def put(api: Api) -> Put:
    """put(content, etag) sends the new content and returns the body of the answer."""

    def send(content: object, etag: str | None = None, *, expect: int = 200, path: str = FILE, **more: Any) -> Any:
        headers = {"If-Match": etag} if etag is not None else {}
        body = json.dumps({"content": content, **more})
        response = api.client.put(path, body, "application/json", headers={**api.headers, **headers})
        answer = check(response, expect)
        if expect == 200 and not more:
            assert response["ETag"] == answer["etag"]
        return answer

    return send


def test_a_file_is_listed_read_changed_and_restored(api: Api, here: RunnerProfile, conf: Path, put: Put) -> None:
    assert [each["path"] for each in api.get(f"{ROOT}?profile_name=HERE")["files"]] == ["jobs_a001.yml"]
    response = api.client.get(FILE)
    file = check(response, 200)
    assert (file["content"], response["ETag"]) == (TEXT, file["etag"])
    new = TEXT + "  PASSWORD: hunter2\n"
    planned = put(new, file["etag"], dry_run=True)
    assert (planned["version"], planned["is_changed"]) == ("", True)
    assert (conf / "jobs_a001.yml").read_text() == TEXT
    changed = put(new, file["etag"])
    assert (conf / "jobs_a001.yml").read_text() == new
    assert "+  PASSWORD: ***" in changed["difference"]
    (version,) = api.get(VERSIONS)["versions"]
    assert version["version"] == changed["version"]
    assert api.get(f"{FILE}&version={version['version']}")["content"] == TEXT
    headers = {"If-Match": changed["etag"]}
    body = {"version": version["version"]}
    response = api.client.post(RESTORE, json.dumps(body), "application/json", headers=headers)
    assert check(response, 200)["etag"] == file["etag"]
    assert (conf / "jobs_a001.yml").read_text() == TEXT
    written, dry = AuditRecord.objects.filter(endpoint="write-configuration").order_by("-id")
    assert (written.outcome, written.expid, written.profile_name) == ("ok", "a001", "HERE")
    assert "+  PASSWORD: ***" in written.detail
    assert "hunter2" not in str([row.__dict__ for row in AuditRecord.objects.all()])
    assert dry.outcome == "dry_run"
    assert AuditRecord.objects.get(endpoint="restore-configuration").outcome == "ok"


def test_a_change_needs_the_etag_of_what_it_replaces(api: Api, here: RunnerProfile, conf: Path, put: Put) -> None:
    etag = api.get(FILE)["etag"]
    assert put("A: 1\n", expect=428)["code"] == "precondition_required"
    for wrong in ("*", "", "x", f"{etag}, {etag}", etag.strip('"'), f'"{"0" * 63}"'):
        assert "If-Match" in put("A: 1\n", wrong, expect=400)["errors"]
    stale = put("A: 1\n", f'"{"0" * 64}"', expect=412)
    assert (stale["code"], stale["etag"]) == ("precondition_failed", etag)
    assert (conf / "jobs_a001.yml").read_text() == TEXT
    put("A: 1\n", f"W/{etag}")  # as a compressing proxy returns it
    assert put("A: 2\n", etag, expect=412)["code"] == "precondition_failed"


def test_invalid_yaml_is_rejected_with_line_and_column(api: Api, here: RunnerProfile, conf: Path, put: Put) -> None:
    answer = put("A: 1\nB: [1, 2\nC: 3\n", api.get(FILE)["etag"], expect=400)
    assert (answer["line"], answer["column"]) == (3, 2)
    assert answer["errors"]["content"][0].startswith("line 3, column 2: ")
    assert (conf / "jobs_a001.yml").read_text() == TEXT
    assert put("x" * 300_000, api.get(FILE)["etag"], expect=400)["errors"]["content"]
    for content in (None, 5, ["a"]):
        assert "content" in put(content, api.get(FILE)["etag"], expect=400)["errors"]


def test_changing_is_off_until_an_admin_switches_it_on(api: Api, here: RunnerProfile, conf: Path, put: Put) -> None:
    EndpointToggle.objects.all().delete()
    etag = api.get(FILE)["etag"]
    assert put("A: 1\n", etag, expect=403)["code"] == "endpoint_disabled"
    response = api.client.post(RESTORE, "{}", "application/json", headers={"If-Match": etag})
    assert check(response, 403)["code"] == "endpoint_disabled"
    assert (conf / "jobs_a001.yml").read_text() == TEXT
    assert set(AuditRecord.objects.values_list("endpoint", "outcome")) == {
        ("write-configuration", "endpoint_disabled"),
        ("restore-configuration", "endpoint_disabled"),
    }


def test_files_need_the_groups_of_the_profile_and_the_scope_run(
    client: Client, here: RunnerProfile, settings: Any
) -> None:
    settings.PROTECTION_LEVEL = "WRITEONLY"
    assert check(client.get(FILE), 401)
    ana = User.objects.create_user("ana")
    tokens = {
        scope: {"Authorization": f"Bearer {ApiToken.issue(user=ana, expiry=timedelta(days=1), scope=scope)[1]}"}
        for scope in ("read", "run")
    }
    assert check(client.get(FILE, headers=tokens["read"]), 403)["code"] == "permission_denied"
    assert check(client.get(FILE, headers=tokens["run"]), 200)
    here.run_groups.add(Group.objects.create(name="modellers"))
    for path in (f"{ROOT}?profile_name=HERE", FILE, VERSIONS):
        assert check(client.get(path, headers=tokens["run"]), 403)["code"] == "profile_forbidden"
    headers = {**tokens["run"], "If-Match": f'"{"0" * 64}"'}
    answer = check(client.put(FILE, '{"content": ""}', "application/json", headers=headers), 403)
    assert answer["code"] == "profile_forbidden"


@pytest.mark.parametrize("run_is", ["active", "unreachable"])
def test_an_active_run_refuses_a_change(
    api: Api, here: RunnerProfile, conf: Path, put: Put, account: StubAccount, run_is: str
) -> None:
    etag = api.get(FILE)["etag"]
    if run_is == "active":
        account.control("run", "a001", SLEEP=600)
        api.post("run-experiment", {"expid": "a001", "profile_name": "HERE"})
    else:  # its machine cannot tell whether it runs
        config = {**here.resolve({}).as_dict()}
        run = saved_run("a001", config=config, user=here.resolve({}).target.user)
        run.identity = {"host": "another", "boot_id": "b", "pid_namespace": "pid:[1]", "pid": 5, "start": 1}
        run.identity |= {"supervisor_pid": 4, "supervisor_start": 1}
        run.save()
    assert put("A: 1\n", etag, expect=409)["code"] == "already_running"
    assert (conf / "jobs_a001.yml").read_text() == TEXT
    assert api.get(FILE)["content"] == TEXT
    assert put("A: 1\n", etag, dry_run=True)["is_changed"]


@pytest.mark.parametrize(
    "path",
    [*NASTY, "../jobs_a001.yml", "x.txt", "a/b/c/d/e.yml", ".yml", "a..yml/../x.yml"],
    ids=lambda value: hashlib.md5(value.encode()).hexdigest()[:6],
)
def test_hostile_paths_and_versions_are_rejected(api: Api, here: RunnerProfile, path: str) -> None:
    for query in ({"path": path}, {"path": "jobs_a001.yml", "version": path}):
        response = api.client.get(f"{ROOT}/file", {"profile_name": "HERE", **query})
        assert check(response, 400)["code"] == "invalid_request"
    response = api.client.get(f"{ROOT}/file", {"profile_name": path, "path": "jobs_a001.yml"})
    assert check(response, (400, 404))


@pytest.mark.parametrize("expid", ["A001", "..", "a001;id", "a" * 100, "%00", "a001%0a"])
def test_hostile_experiments_are_rejected(api: Api, here: RunnerProfile, expid: str) -> None:
    response = api.client.get(f"/v4/runners/experiments/{expid}/config?profile_name=HERE")
    assert check(response, (400, 404))


def test_open_parameters_are_json_in_the_query(api: Api, conf: Path, sshd: SSHServer) -> None:
    RunnerProfile.objects.create(
        name="OPEN", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host="127.0.0.1", ssh_port=sshd.port
    )
    params = {"SSH": {"USER": sshd.user}}
    query = {"profile_name": "OPEN", "profile_params": json.dumps(params)}
    assert len(check(api.client.get(ROOT, query), 200)["files"]) == 1
    for wrong, word in (
        ("", "not empty"),
        ("x", "not valid JSON"),
        ("[]", "an object"),
        ("[" * 5000, "characters"),
        ("[" * 33 + "]" * 33, "nested too deeply"),
        ('{"SSH": {"USER": "a"}, "SSH": {"USER": "b"}}', "duplicate"),
        ('{"MODULES": NaN}', "NaN"),
        ('{"SSH": {"USER": "\\ud800"}}', "surrogate"),
        ('{"SSH": 5}', "SSH"),
    ):
        response = api.client.get(ROOT, {**query, "profile_params": wrong})
        assert word in response.content.decode(), wrong
        assert check(response, 400)["code"] in ("invalid_request", "invalid_profile")
        assert_documented(response, response.json())
    assert check(api.client.get(ROOT, {"profile_name": "OPEN"}), 400)["code"] == "invalid_profile"
