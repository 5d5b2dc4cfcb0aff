"""Bad input: a 400 that names the member and the remedy. Nothing starts, and only the audit record is written."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from profiles.models import RunnerProfile
from runners.commands.set_job_status import STATUSES
from runners.models import AuditRecord, RunnerRun
from tests.support.api import NASTY, Api
from tests.support.environments import StubAccount

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def profile() -> RunnerProfile:
    return RunnerProfile.objects.create(name="LOCAL_1", runner_type="LOCAL", module_loader_type="NO_MODULE")


COMMANDS: dict[str, dict[str, Any]] = {
    "run-experiment": {"expid": "a001", "profile_name": "LOCAL_1"},
    "stop-experiment": {"expid": "a001"},
    "get-runner-run-status": {"expid": "a001"},
    "set-job-status": {
        "expid": "a001",
        "profile_name": "LOCAL_1",
        "command_params": {"final_status": "READY", "job_names_list": ["a001_SIM"]},
    },
    "create-experiment": {"profile_name": "LOCAL_1", "command_params": {"description": "d"}},
    "create-job-list": {"expid": "a001", "profile_name": "LOCAL_1", "command_params": {}},
    "update-experiment-description": {"expid": "a001", "profile_name": "LOCAL_1", "description": "d"},
}


def refused(api: Api, command: str, body: Any, field: str) -> str:
    """Return the messages about `field` in a 400 response."""
    answer = api.post(command, body, expect=400)
    assert answer["code"] in {"invalid_request", "invalid_profile"}
    assert field in answer["errors"], answer["errors"]
    assert not RunnerRun.objects.exists()
    return " ".join(answer["errors"][field])


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_member_is_refused_with_the_nearest_known_one(api: Api, command: str) -> None:
    body = {**COMMANDS[command], "expidd" if "expid" in COMMANDS[command] else "profile_nam": "a001"}
    text = refused(api, command, body, "expidd" if "expid" in COMMANDS[command] else "profile_nam")
    assert "Did you mean 'expid'" in text or "Did you mean 'profile_name'" in text


@pytest.mark.parametrize("command", [name for name in COMMANDS if "command_params" in COMMANDS[name]])
def test_an_unknown_command_param_is_refused_with_its_path(api: Api, command: str) -> None:
    body = {**COMMANDS[command], "command_params": {**COMMANDS[command]["command_params"], "update_versoin": True}}
    text = refused(api, command, body, "command_params.update_versoin")
    assert "Did you mean 'update_version'?" in text or "Known here: description" in text


@pytest.mark.parametrize("command", ["update-experiment-description"])
def test_a_command_that_takes_no_command_params_refuses_them_by_name(api: Api, command: str) -> None:
    body = {**COMMANDS[command], "command_params": {"final_status": "READY"}}
    assert "This command has no parameters" in refused(api, command, body, "command_params.final_status")
    for value in ("", [], "x", 0, False):
        assert "This command has no parameters" in refused(
            api, command, body | {"command_params": value}, "command_params"
        )
    many = {f"member{number}": None for number in range(1000)}
    assert len(api.post(command, body | {"command_params": many}, expect=400)["errors"]) == 10


@pytest.mark.parametrize("command", ["run-experiment", "update-experiment-description"])
@pytest.mark.parametrize("empty", [None, {}])
def test_clients_of_the_autosubmit_api_may_send_empty_command_params(api: Api, command: str, empty: Any) -> None:
    plan = api.post(command, {**COMMANDS[command], "command_params": empty, "profile_params": None, "dry_run": True})
    assert "a001" in plan["argv"]


def test_job_names_may_be_null_beside_a_filter(api: Api) -> None:
    params: dict[str, Any] = {"final_status": "READY", "job_names_list": None, "filter_status": "FAILED"}
    body = {**COMMANDS["set-job-status"], "command_params": params, "dry_run": True}
    assert "--list" not in str(api.post("set-job-status", body)["argv"])
    assert "Select jobs" in refused(
        api,
        "set-job-status",
        body | {"command_params": params | {"filter_status": None}},
        "command_params.job_names_list",
    )


@pytest.mark.parametrize("command", [name for name in COMMANDS if "expid" in COMMANDS[name]])
@pytest.mark.parametrize(
    "expid",
    [
        "",
        "a",
        "a00",
        "A001",
        "1000",
        "a001 ",
        " a001",
        "a001\n",
        "a001;id",
        "../a001",
        "a-01",
        "ä001",
        "a" * 17,
        *NASTY,
    ],
)
def test_a_malformed_expid_is_refused(api: Api, command: str, expid: str) -> None:
    assert refused(api, command, {**COMMANDS[command], "expid": expid}, "expid")


@pytest.mark.parametrize("expid", [None, 1, 1.5, True, [], {}, ["a001"]])
def test_an_expid_of_another_type_is_refused(api: Api, expid: object) -> None:
    assert "text" in refused(api, "run-experiment", {**COMMANDS["run-experiment"], "expid": expid}, "expid")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_required_member_is_asked_for_by_name(api: Api, command: str) -> None:
    answer = api.post(command, {}, expect=400)
    required = set(COMMANDS[command]) - ({"command_params"} if command == "create-job-list" else set())
    assert set(answer["errors"]) == required
    assert all(name in answer["detail"] for name in list(required)[:1])


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_of_autosubmit_is_passed_on(api: Api, account: StubAccount, status: str) -> None:
    """The installed version decides which of these statuses it can set."""
    account.experiment("a001")
    body = {**COMMANDS["set-job-status"], "command_params": {"final_status": status, "job_names_list": ["a001_SIM"]}}
    api.post("set-job-status", body)
    assert f"--status_final={status}" in account.calls("setstatus")[0]


def test_a_status_that_the_installed_version_refuses_is_400_with_its_list(api: Api, account: StubAccount) -> None:
    said = "error: argument -t/--status_final: invalid choice: 'FAILED' (choose from 'READY', 'COMPLETED')"
    account.experiment("a001")
    account.control("setstatus", PRINT_ERR=said, LAST=1, EXIT=1)
    body = {**COMMANDS["set-job-status"], "command_params": {"final_status": "FAILED", "job_names_list": ["a001_SIM"]}}
    text = refused(api, "set-job-status", body, "command_params.final_status")
    assert "choose from 'READY', 'COMPLETED'" in text


# What is sent, and the option that Autosubmit receives.
TAKEN = [
    ("set-job-status", {"filter_type": "DN [1-2]"}, "--filter_type=DN [1-2]"),
    ("set-job-status", {"filter_type": "DN [1 2],SIM"}, "--filter_type=DN [1 2],SIM"),
    ("set-job-status", {"filter_type": "\n DN[ 1-2 ]\n SIM , POST"}, "--filter_type=DN [ 1-2 ],SIM,POST"),
    ("set-job-status", {"filter_type": ["DN [Any]", "SIM"]}, "--filter_type=DN [Any],SIM"),
    ("set-job-status", {"filter_type": "DN SIM"}, "--filter_type=DN,SIM"),
    ("set-job-status", {"filter_type": "RÉGRID,SIM:OCE"}, "--filter_type=RÉGRID,SIM:OCE"),
    ("set-job-status", {"job_names_list": ["a001_RÉGRID", "a001_SIM:OCE"]}, "--list=a001_RÉGRID a001_SIM:OCE"),
    (
        "set-job-status",
        {"filter_chunks": "  [ 20000101\n  [ fc0 [1-2] ] ]\n"},
        "--filter_chunks=[ 20000101 [ fc0 [1-2] ] ]",
    ),
    (
        "set-job-status",
        {"filter_type_chunk": "[ 2000 [ fc0 [1] ] ],RÉGRID"},
        "--filter_type_chunk=[ 2000 [ fc0 [1] ] ],RÉGRID",
    ),
    ("create-experiment", {"config_path": "conf/a.yml"}, "--git_as_conf=conf/a.yml"),
    (
        "create-experiment",
        {"config_path": "conf/a.yml, %PROJDIR%/conf/b.yml"},
        "--git_as_conf=conf/a.yml,%PROJDIR%/conf/b.yml",
    ),
]


@pytest.mark.parametrize(("command", "params", "option"), TAKEN)
def test_parameters_that_autosubmit_accepts_are_passed_on(
    api: Api, account: StubAccount, command: str, params: dict[str, Any], option: str
) -> None:
    account.experiment("a001")
    more = {"final_status": "READY"} if command == "set-job-status" else {"description": "x"}
    api.post(command, {**COMMANDS[command], "command_params": {**more, **params}})
    assert option in account.calls("setstatus" if command == "set-job-status" else "expid")[0]


def test_a_second_path_is_rejected_with_the_path_that_autosubmit_reads(api: Api) -> None:
    body = {
        **COMMANDS["create-experiment"],
        "command_params": {"description": "x", "config_path": "conf/a.yml,conf/b.yml"},
    }
    assert "'%PROJDIR%/conf/b.yml'" in refused(api, "create-experiment", body, "command_params.config_path")


@pytest.mark.parametrize("status", [None, "ready", "", 1, "NOPE", *NASTY])
def test_another_final_status_is_refused(api: Api, status: object) -> None:
    body = {**COMMANDS["set-job-status"], "command_params": {"final_status": status, "job_names_list": ["a001_SIM"]}}
    assert "READY" in refused(api, "set-job-status", body, "command_params.final_status")


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"job_names_list": []},
        {"filter_chunks": ""},
        {"filter_chunks": None, "filter_type": "", "filter_status": []},
        {"check_wrapper": True},
    ],
)
def test_set_job_status_needs_to_know_which_jobs(api: Api, params: dict[str, Any]) -> None:
    body = {**COMMANDS["set-job-status"], "command_params": {"final_status": "READY", **params}}
    assert "at least one filter" in refused(api, "set-job-status", body, "command_params.job_names_list")


@pytest.mark.parametrize(
    ("member", "value", "path"),
    [
        ("job_names_list", "a001_SIM", "job_names_list"),
        ("job_names_list", ["a001_SIM", 1], "job_names_list.1"),
        ("job_names_list", ["a002_SIM"], "job_names_list"),
        ("job_names_list", ["SIM"], "job_names_list.0"),
        ("job_names_list", ["a001_SIM", "a001_$(id)"], "job_names_list.1"),
        ("job_names_list", ["a001_" + "X" * 300], "job_names_list.0"),
        ("job_names_list", [f"a001_{number:0200}" for number in range(600)], "job_names_list"),
        ("job_names_list", ["a001_SIM"] * 20_000, "job_names_list"),
        ("filter_chunks", "[ 20000101 [ fc0 [1-2] ]", "filter_chunks"),
        ("filter_chunks", "] 20000101 [", "filter_chunks"),
        ("filter_chunks", "-fl [1]", "filter_chunks"),
        ("filter_chunks", "$(id)", "filter_chunks"),
        ("filter_type", "SIM;id", "filter_type"),
        ("filter_type", ["--help"], "filter_type"),
        ("filter_type", 5, "filter_type"),
        ("filter_type", "SIM [1", "filter_type"),
        ("filter_type", "[1] SIM", "filter_type"),
        ("filter_type", "SIM [$(id)]", "filter_type"),
        ("filter_type", "[" * 10_000, "filter_type"),
        ("filter_type", "SIM " * 2_500 + "[", "filter_type"),
        ("filter_status", "READY SLEEPY", "filter_status"),
        ("filter_status", {"READY": True}, "filter_status"),
        ("check_wrapper", "true", "check_wrapper"),
        ("check_wrapper", None, "check_wrapper"),
        ("update_version", 1, "update_version"),
    ],
)
def test_a_malformed_filter_is_refused(api: Api, member: str, value: object, path: str) -> None:
    params = {"final_status": "READY", "job_names_list": ["a001_SIM"], member: value}
    assert refused(
        api, "set-job-status", {**COMMANDS["set-job-status"], "command_params": params}, f"command_params.{path}"
    )


def test_only_one_chunk_filter_is_accepted(api: Api) -> None:
    params = {"final_status": "READY", "filter_chunks": "[1]", "filter_type_chunk": "[1],SIM"}
    body = {**COMMANDS["set-job-status"], "command_params": params}
    assert "only one of" in refused(api, "set-job-status", body, "command_params.filter_type_chunk")


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"description": None}, "description"),
        ({"description": ""}, "description"),
        ({"description": 5}, "description"),
        ({"description": "x" * 32_001}, "description"),
        ({"description": "a\0b"}, "description"),
        ({"operational": True, "testcase": True}, "testcase"),
        ({"testcase": True, "evaluation": True}, "evaluation"),
        ({"minimal": True, "dummy": True}, "dummy"),
        ({"copy": "a000", "dummy": True}, "dummy"),
        ({"minimal": True, "use_local_minimal": True, "git_repo": "https://example.org/x.git"}, "git_repo"),
        ({"copy": "A000"}, "copy"),
        ({"copy": "../a000"}, "copy"),
        ({"hpc": "mare nostrum"}, "hpc"),
        ({"hpc": "-H"}, "hpc"),
        ({"git_repo": "--upload-pack=id"}, "git_repo"),
        ({"git_repo": "ext::sh -c id"}, "git_repo"),
        ({"git_repo": "https://example.org/x.git;id"}, "git_repo"),
        ({"git_branch": "-b"}, "git_branch"),
        ({"git_branch": "main`id`"}, "git_branch"),
        ({"config_path": "conf $(id)"}, "config_path"),
        ({"minimal": "yes"}, "minimal"),
        ({"operational": 1}, "operational"),
    ],
)
def test_malformed_create_params_are_refused(api: Api, params: dict[str, Any], path: str) -> None:
    body = {**COMMANDS["create-experiment"], "command_params": {"description": "d", **params}}
    assert refused(api, "create-experiment", body, f"command_params.{path}")


NAMES = ["hpc", "git_repo", "git_branch", "config_path", "copy"]
PATHS = {"git_repo", "config_path"}  # members where ../ is not a valid name, but may be a path


@pytest.mark.parametrize(
    ("member", "nasty"),
    [(member, nasty) for nasty in NASTY for member in NAMES if not (nasty.startswith("../") and member in PATHS)],
)
def test_hostile_texts_are_refused_where_a_name_is_due(api: Api, member: str, nasty: str) -> None:
    body = {**COMMANDS["create-experiment"], "command_params": {"description": "d", member: nasty}}
    assert refused(api, "create-experiment", body, f"command_params.{member}")


@pytest.mark.parametrize(
    "repository",
    [
        *("https://me:s3cr3t@example.org/x.git", "https://s3cr3t@example.org/x.git", "HTTP://me:s3cr3t@example.org/x"),
        *("ssh://git:s3cr3t@example.org/x.git", "https://me:s3cr3t@example.org/x.git; id"),
    ],
)
def test_credentials_in_a_repository_are_refused_and_repeated_nowhere(api: Api, repository: str) -> None:
    body = {**COMMANDS["create-experiment"], "command_params": {"description": "d", "git_repo": repository}}
    said = refused(api, "create-experiment", body, "command_params.git_repo")
    assert "credential helper" in said
    assert "s3cr3t" not in str(AuditRecord.objects.values().get()) + said


@pytest.mark.parametrize(
    "repository",
    ["git@example.org:x/y.git", "ssh://git@example.org:2222/x.git", "https://example.org/@x/y.git", "/a/b"],
)
def test_addresses_of_repositories_without_credentials_are_accepted(api: Api, repository: str) -> None:
    params = {"description": "d", "git_repo": repository}
    api.post("create-experiment", {**COMMANDS["create-experiment"], "command_params": params, "dry_run": True})


@pytest.mark.parametrize("params", ["x", 5, [], [{}], True])
@pytest.mark.parametrize("command", ["set-job-status", "create-experiment", "create-job-list"])
def test_command_params_that_are_no_object_are_refused(api: Api, command: str, params: object) -> None:
    assert "object" in refused(api, command, {**COMMANDS[command], "command_params": params}, "command_params")


@pytest.mark.parametrize("name", ["LOCAL_2", "local_1", "nobody knows"])
def test_an_unknown_profile_is_404(api: Api, name: str) -> None:
    answer = api.post("run-experiment", {"expid": "a001", "profile_name": name}, expect=404)
    assert answer["code"] == "profile_not_found"
    assert name in answer["detail"]


def test_an_unknown_profile_is_answered_with_the_nearest_one(api: Api) -> None:
    answer = api.post("run-experiment", {"expid": "a001", "profile_name": "LOCAL-1"}, expect=404)
    assert "Did you mean 'LOCAL_1'?" in answer["detail"]


def test_a_disabled_profile_is_not_found(api: Api, profile: RunnerProfile) -> None:
    RunnerProfile.objects.update(enabled=False)
    answer = api.post("run-experiment", {"expid": "a001", "profile_name": "LOCAL_1"}, expect=404)
    assert "LOCAL_1'?" not in answer["detail"]


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"RUNNER_TYPE": "SSH"}, "profile_params.RUNNER_TYPE"),
        ({"MODULE": "x"}, "profile_params.MODULE"),
        ({"MODULES": "autosubmit"}, "profile_params.MODULES"),
        ({"SSH": "host"}, "profile_params.SSH"),
        ([], "profile_params"),
        ("x", "profile_params"),
    ],
)
def test_profile_params_that_do_not_fit_are_refused(api: Api, params: object, path: str) -> None:
    body = {"expid": "a001", "profile_name": "LOCAL_1", "profile_params": params}
    answer = api.post("run-experiment", body, expect=400)
    assert answer["code"] == "invalid_profile"
    assert path in answer["errors"], answer


def test_an_open_parameter_that_is_missing_is_named(api: Api) -> None:
    RunnerProfile.objects.create(name="OPEN", runner_type="SSH", module_loader_type="NO_MODULE")
    answer = api.post("run-experiment", {"expid": "a001", "profile_name": "OPEN", "profile_params": {}}, expect=400)
    assert "profile_params.SSH.HOST" in answer["errors"]


@pytest.mark.parametrize("nasty", NASTY)
def test_hostile_profile_params_are_refused(api: Api, nasty: str) -> None:
    RunnerProfile.objects.create(name="OPEN")
    for params in (
        {"RUNNER_TYPE": nasty},
        {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "LMOD", "MODULES": nasty.replace("\n", ";")},
        {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "VENV", "MODULES": nasty},
        {"RUNNER_TYPE": "SSH", "MODULE_LOADER_TYPE": "NO_MODULE", "SSH": {"HOST": nasty, "USER": "me"}},
        {"RUNNER_TYPE": "SSH", "MODULE_LOADER_TYPE": "NO_MODULE", "SSH": {"HOST": "h", "USER": nasty}},
        {nasty: 1},
    ):
        body = {"expid": "a001", "profile_name": "OPEN", "profile_params": params}
        assert api.post("run-experiment", body, expect=400)["code"] == "invalid_profile"


@pytest.mark.parametrize("nasty", NASTY)
def test_hostile_member_and_profile_names_are_echoed_harmlessly(api: Api, nasty: str) -> None:
    api.post("run-experiment", {"expid": "a001", "profile_name": "LOCAL_1", nasty: nasty}, expect=400)
    answer = api.post("run-experiment", {"expid": "a001", "profile_name": nasty}, expect=(400, 404))
    assert len(answer["detail"]) < 500
    assert "\x1b" not in answer["detail"]
    assert AuditRecord.objects.count() == 2


def test_many_unknown_members_cost_little(api: Api) -> None:
    body = {f"member{number:06}": 1 for number in range(50_000)}
    answer = api.post("run-experiment", body, expect=400)
    assert len(answer["errors"]) < 20


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "expid"),
        (b"{", "not valid JSON"),
        (b"expid=a001", "not valid JSON"),
        (b"[]", "JSON object"),
        (b'"a001"', "JSON object"),
        (b"null", "JSON object"),
        (b'{"expid": NaN}', "not valid JSON"),
        (b'{"expid": "a001", "expid": "a002"}', "duplicate member"),
        (b'{"expid": "\xff"}', "not valid JSON"),
        (b'{"expid": "\\ud800"}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b"[" * 200_000, "JSON"),
        (b'{"a":' * 100_000, "JSON"),
        (b'{"expid": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b'{"expid": ' + b"[" * 32 + b"]" * 32 + b"}", "nested too deeply"),
        (b'{"a":' * 32 + b"{}" + b"}" * 32, "nested too deeply"),
        (b'{"expid": ' + b"[" * 32 + b'"]}"', "not valid JSON"),
    ],
)
def test_a_body_that_is_not_a_json_object_is_400(api: Api, body: bytes, word: str) -> None:
    answer = api.raw("run-experiment", body, expect=400)
    assert word in answer["detail"]


@pytest.mark.parametrize("value", [b"[" * 31 + b"1" + b"]" * 31, b'"' + b"[{" * 1000 + b'"'])
def test_a_nested_value_is_refused_by_its_field(api: Api, value: bytes) -> None:
    answer = api.raw("get-runner-run-status", b'{"expid": ' + value + b"}", expect=400)
    assert "expid" in answer["errors"]


# What the field of the value does with it: `str`, `quoted`, `json.dumps`.
NESTED = {
    "command/run-experiment": (
        '{"expid": "a001", "profile_name": "LOCAL_1", "restart": {"on": [%s]}}',
        '{"expid": "a001", "profile_name": "LOCAL_1", "profile_params": {"MODULES": %s}}',
    ),
    "command/set-job-status": (
        '{"expid": "a001", "profile_name": "LOCAL_1", "command_params": {"final_status": %s}}',
        '{"expid": "a001", "profile_name": "LOCAL_1", "command_params": {"filter_status": %s}}',
    ),
    "login/start": ('{"host": "h", "scope": %s}',),
}


@pytest.mark.parametrize(("path", "body"), [(path, body) for path, bodies in NESTED.items() for body in bodies])
def test_no_depth_of_nesting_is_an_error_of_the_service(api: Api, settings: Any, path: str, body: str) -> None:
    """A depth near the limit of recursion passed the parser, and was too much for the code behind it."""
    settings.THROTTLE_COMMANDS = ""
    api.client.raise_request_exception = False
    for depth in (33, *range(600, 1000, 2)):
        for begin, end in (("[", "]"), ('{"a":', "}")):
            sent = body % (begin * depth + "1" + end * depth)
            headers = {**api.headers, "Idempotency-Key": f"{depth}{end}"}
            answer = api.client.post(f"/v4/runners/{path}", sent.encode(), "application/json", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json"), depth


def test_a_body_that_is_too_large_is_413(api: Api, settings: Any) -> None:
    settings.API_MAX_BODY = 1000
    answer = api.raw("run-experiment", b'{"expid": "' + b"a" * 2000 + b'"}', expect=413)
    assert answer["code"] == "too_large"


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x", "", "application/jsonp", "json"],
)
def test_another_content_type_is_415_with_the_remedy(api: Api, content_type: str) -> None:
    answer = api.raw("run-experiment", b'{"expid": "a001"}', content_type=content_type, expect=415)
    assert "Content-Type: application/json" in answer["detail"]


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "*/*", "nonsense", "application/json; indent=4"])
def test_any_accept_header_gets_json(api: Api, client: Client, accept: str) -> None:
    response = client.post(
        api.path("get-runner-run-status"), b'{"expid": "a001"}', "application/json", headers={"Accept": accept}
    )
    assert response.status_code == 404
    assert response.json()["code"] == "run_not_found"
