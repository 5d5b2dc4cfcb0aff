"""What a user may do with a profile, and which values open parameters accept: through HTTP, with LOCAL and SSH."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.exceptions import ValidationError
from django.db.models import ProtectedError
from django.test import Client

from profiles.config import ModuleLoaderType, RunnerConfig, RunnerType
from profiles.exceptions import ForbiddenParameter
from profiles.models import RunnerProfile
from profiles.yaml.format import InvalidConfiguration, dump, parse
from profiles.yaml.importer import export_configuration, import_configuration
from runners.models import AuditRecord, RunnerRun
from runners.models.token import ApiToken, TokenScope
from runners.services.access import Action, user_may, user_may_stop
from tests.support.api import Api
from tests.support.environments import StubAccount

pytestmark = pytest.mark.django_db(transaction=True)

READY = {"job_names_list": ["a001_ONE"], "final_status": "READY"}


@dataclass
class World:
    """Ana is an operator, Ben is not. Both have tokens that may run commands."""

    profile: RunnerProfile
    operators: Group
    ana: Api
    ben: Api
    root: Api

    def restrict(self, *actions: str) -> None:
        for action in actions:
            getattr(self.profile, f"{action}_groups").set([self.operators])


@pytest.fixture
def world(client: Client, settings: Any, account: StubAccount) -> World:
    settings.PROTECTION_LEVEL = "ALL"
    settings.THROTTLE_COMMANDS = ""
    account.experiment("a001")
    profile = RunnerProfile.objects.create(name="P", runner_type="LOCAL", module_loader_type="NO_MODULE")
    operators = Group.objects.create(name="operators")

    def api(name: str, **fields: Any) -> Api:
        user = User.objects.create_user(name, **fields)
        _, token = ApiToken.objects.create(user=user, expiry=None, scope=TokenScope.RUN, name="tests")
        return Api(client, {"Authorization": f"Bearer {token}"})

    world = World(profile, operators, api("ana"), api("ben"), api("root", is_superuser=True))
    User.objects.get(username="ana").groups.add(operators)
    return world


def run(api: Api, expect: int = 200, **more: Any) -> dict[str, Any]:
    return api.post("run-experiment", {"expid": "a001", "profile_name": "P", **more}, expect=expect)


def test_everybody_may_use_a_profile_that_names_no_groups(world: World, account: StubAccount) -> None:
    account.control("run", SLEEP=60)
    run(world.ben)
    world.ana.post("stop-experiment", {"expid": "a001"})


def test_run_is_for_its_groups(world: World) -> None:
    world.restrict("run")
    body = run(world.ben, expect=403)
    assert body["code"] == "profile_forbidden"
    assert "P" in body["detail"]
    assert not RunnerRun.objects.exists()
    record = AuditRecord.objects.get()
    assert (record.actor, record.outcome, record.profile_name) == ("ben", "profile_forbidden", "P")
    run(world.ana)


@pytest.mark.parametrize(
    ("command", "body"),
    [
        ("create-experiment", {"command_params": {"description": "a text"}}),
        ("create-job-list", {"expid": "a001", "command_params": {}}),
        ("update-experiment-description", {"expid": "a001", "description": "a text"}),
    ],
)
def test_what_else_uses_a_profile_is_for_those_who_may_run(
    world: World, account: StubAccount, command: str, body: dict[str, Any]
) -> None:
    world.restrict("run")
    world.ben.post(command, {"profile_name": "P", **body}, expect=403)
    assert account.calls() == []
    world.ana.post(command, {"profile_name": "P", **body})


def test_stop_is_for_its_groups_whoever_started_the_run(world: World, account: StubAccount) -> None:
    world.restrict("stop")
    account.control("run", SLEEP=60)
    run(world.ben)
    body = world.ben.post("stop-experiment", {"expid": "a001"}, expect=403)
    assert body["code"] == "profile_forbidden"
    assert RunnerRun.objects.get().is_active
    assert RunnerRun.objects.get().stop_requested_at is None
    assert account.calls("stop") == []
    assert world.ana.post("stop-experiment", {"expid": "a001"})["stopped_by"] == "ana"


def test_set_status_is_for_its_groups_and_needs_no_right_to_run(world: World) -> None:
    world.restrict("status")
    body = {"expid": "a001", "profile_name": "P", "command_params": READY}
    assert world.ben.post("set-job-status", body, expect=403)["code"] == "profile_forbidden"
    world.ana.post("set-job-status", body)
    world.profile.run_groups.set([Group.objects.create(name="others")])
    world.ana.post("set-job-status", body)
    run(world.ana, expect=403)


def test_superusers_always_may(world: World, account: StubAccount) -> None:
    world.restrict("run", "stop", "status")
    account.control("run", SLEEP=60)
    run(world.root)
    world.root.post("stop-experiment", {"expid": "a001"})


def test_refusal_comes_before_words_about_the_parameters(world: World) -> None:
    world.restrict("run")
    assert run(world.ben, expect=403, profile_params={"SSH": {"HOST": "x"}})["code"] == "profile_forbidden"


def test_anonymous_people_are_in_no_group(world: World, settings: Any, client: Client) -> None:
    settings.PROTECTION_LEVEL = "NONE"
    run(Api(client))
    world.restrict("run")
    run(Api(client), expect=403)


def test_inactive_people_may_nothing_that_is_restricted(world: World) -> None:
    world.restrict("run")
    for name in ("ana", "root"):
        user = User.objects.get(username=name)
        assert user_may(user, world.profile, Action.RUN)
        user.is_active = False
        assert not user_may(user, world.profile, Action.RUN)
    assert not user_may(AnonymousUser(), world.profile, Action.RUN)


def test_runs_of_a_disabled_profile_follow_its_groups(world: World, account: StubAccount) -> None:
    world.restrict("stop")
    account.control("run", SLEEP=60)
    run(world.ben)
    RunnerProfile.objects.update(enabled=False)
    world.ben.post("stop-experiment", {"expid": "a001"}, expect=403)
    world.ana.post("stop-experiment", {"expid": "a001"})


def test_runs_of_a_deleted_profile_are_for_who_started_them(world: World) -> None:
    run_of_ben = RunnerRun(profile_name="gone", started_by="ben")
    people = {name: User.objects.get(username=name) for name in ("ana", "ben", "root")}
    assert {name: user_may_stop(user, run_of_ben) for name, user in people.items()} == {
        "ana": False,
        "ben": True,
        "root": True,
    }


def test_last_group_of_an_action_cannot_be_deleted(world: World) -> None:
    world.restrict("stop")
    with pytest.raises(ProtectedError, match="P"):
        world.operators.delete()
    with pytest.raises(ProtectedError):
        Group.objects.all().delete()
    assert world.profile.stop_groups.exists()
    world.profile.stop_groups.add(Group.objects.create(name="others"))
    world.operators.delete()


def test_admin_says_why_a_group_cannot_be_deleted(world: World, client: Client) -> None:
    world.restrict("run")
    User.objects.create_superuser("boss", password="x")
    client.login(username="boss", password="x")
    page = client.get(f"/admin/auth/group/{world.operators.pk}/delete/")
    assert page.status_code == 200
    assert b"profile P" in page.content
    client.post(f"/admin/auth/group/{world.operators.pk}/delete/", {"post": "yes"})
    assert Group.objects.filter(name="operators").exists()


# --- Limits -----------------------------------------------------------------------------------------------------------


def open_ssh(**fields: Any) -> RunnerProfile:
    return RunnerProfile(name="OPEN", runner_type="SSH", module_loader_type="NO_MODULE", **fields)


def resolved(profile: RunnerProfile, host: str, user: str = "u") -> RunnerConfig:
    return profile.resolve({"SSH": {"HOST": host, "USER": user}})


@pytest.mark.parametrize("host", ["a.example.com", "A.Example.COM", "login1"])
def test_allowed_hosts_are_accepted(host: str) -> None:
    assert resolved(open_ssh(allowed_hosts="*.example.com\nlogin?"), host).ssh


@pytest.mark.parametrize("host", ["example.com", "a.example.com.evil.org", "10.0.0.1", "login12", "xlogin1"])
def test_other_hosts_are_refused_with_what_is_allowed(host: str) -> None:
    with pytest.raises(ForbiddenParameter) as caught:
        resolved(open_ssh(allowed_hosts="*.example.com\nlogin?"), host)
    (sentence,) = caught.value.errors["SSH.HOST"]
    assert host in sentence and "*.example.com, login?" in sentence
    assert caught.value.code == "profile_forbidden"


def test_users_are_matched_with_their_case() -> None:
    profile = open_ssh(allowed_users="project_*")
    assert resolved(profile, "h", "project_1")
    for user in ("root", "PROJECT_1", "my_project_1"):
        with pytest.raises(ForbiddenParameter):
            resolved(profile, "h", user)


def test_what_the_profile_fixes_needs_no_leave() -> None:
    assert resolved(open_ssh(ssh_host="fixed", allowed_hosts="other"), "fixed").ssh


def test_user_from_the_ssh_configuration_is_judged_too(tmp_path: Path, settings: Any) -> None:
    (tmp_path / "config").write_text("Host h\n  User root\n")
    settings.RUNNERS_SSH_CONFIG = str(tmp_path / "config")
    with pytest.raises(ForbiddenParameter):
        open_ssh(allowed_users="project_*").resolve({"SSH": {"HOST": "h"}})


def test_refusal_over_http_names_the_parameter(world: World) -> None:
    RunnerProfile.objects.create(
        name="OPEN", runner_type="SSH", module_loader_type="NO_MODULE", allowed_hosts="*.example.com"
    )
    body = run(world.ben, expect=403, profile_name="OPEN", profile_params={"SSH": {"HOST": "evil", "USER": "u"}})
    assert body["code"] == "profile_forbidden"
    assert list(body["errors"]) == ["profile_params.SSH.HOST"]
    assert "*.example.com" in body["detail"]
    assert AuditRecord.objects.get().outcome == "profile_forbidden"


@pytest.mark.parametrize(
    ("field", "text"),
    [("allowed_hosts", "a b"), ("allowed_users", "ä*"), ("venv_roots", "relative"), ("venv_roots", "/a/../b")],
)
def test_limits_that_make_no_sense_are_refused_in_the_admin(field: str, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        open_ssh(**{field: text}).clean()
    assert list(caught.value.message_dict) == [field]


# --- Directories of environments, on the machine itself ---------------------------------------------------------------


@pytest.fixture
def places(account: StubAccount, tmp_path: Path) -> Path:
    """Create `allowed/good`, `elsewhere/bad`, `allowed-too/bad`, and links: `allowed/link` to bad, `way` to allowed."""
    for name in ("allowed/good", "elsewhere/bad", "allowed-too/bad"):
        shutil.copytree(account.venv, tmp_path / name, symlinks=True)
        activate = tmp_path / name / "bin" / "activate"
        activate.write_text(f"touch {tmp_path}/activated-{Path(name).name}\n" + activate.read_text())
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "elsewhere" / "bad")
    (tmp_path / "way").symlink_to(tmp_path / "allowed")
    return tmp_path


@pytest.fixture
def venv_run(
    world: World, places: Path, runner_type: RunnerType, request: pytest.FixtureRequest
) -> Callable[..., dict[str, Any]]:
    """Run with a profile of each runner type that leaves MODULES open and allows only the root `allowed`."""
    fields: dict[str, Any] = {"venv_roots": str(places / "allowed")}
    if runner_type is RunnerType.SSH:
        sshd = request.getfixturevalue("sshd")
        fields |= {"ssh_host": "127.0.0.1", "ssh_port": sshd.port, "ssh_user": sshd.user}
    RunnerProfile.objects.create(name="V", runner_type=runner_type, module_loader_type="VENV", **fields)

    def ask(path: str, command: str = "run-experiment", expect: int = 200, **more: Any) -> dict[str, Any]:
        body = {"expid": "a001", "profile_name": "V", "profile_params": {"MODULES": str(places / path)}, **more}
        return world.ben.post(command, body, expect=expect)

    return ask


@pytest.mark.parametrize("path", ["allowed/good", "way/good"])
def test_environment_within_the_roots_is_used(venv_run: Callable[..., dict[str, Any]], places: Path, path: str) -> None:
    assert venv_run(path)["status"] == "ACTIVE"
    assert (places / "activated-good").exists()
    assert RunnerRun.objects.get().runner_config.venv_roots == (str(places / "allowed"),)


@pytest.mark.parametrize(
    "path", ["elsewhere/bad", "allowed/link", "allowed-too/bad", "elsewhere/none", "allowed/link/x"]
)
def test_environment_elsewhere_is_refused_by_its_real_path(
    venv_run: Callable[..., dict[str, Any]], places: Path, account: StubAccount, path: str
) -> None:
    body = venv_run(path, expect=403)
    assert body["code"] == "profile_forbidden"
    (sentence,) = body["errors"]["profile_params.MODULES"]
    assert str(places / path) in sentence and str(places / "allowed") in sentence
    body = venv_run(path, "set-job-status", expect=403, command_params=READY)
    assert body["code"] == "profile_forbidden"
    assert not (places / "activated-bad").exists()
    assert account.calls() == []
    assert {record.outcome for record in AuditRecord.objects.all()} == {"profile_forbidden"}


def test_missing_environment_within_the_roots_is_said_to_be_missing(venv_run: Callable[..., dict[str, Any]]) -> None:
    body = venv_run("allowed/none", expect=502)
    assert body["code"] == "command_failed"
    assert "no virtual environment at" in body["detail"]


def test_roots_that_are_links_mean_where_they_lead(world: World, places: Path) -> None:
    profile = RunnerProfile(name="V", runner_type="LOCAL", module_loader_type="VENV", venv_roots=str(places / "way"))
    profile.save()
    for path in ("allowed/good", "way/good"):
        run(world.ben, profile_name="V", profile_params={"MODULES": str(places / path)})
        RunnerRun.objects.all().delete()


def test_no_profile_widens_the_roots_of_the_site(
    world: World, places: Path, account: StubAccount, settings: Any, runner_type: RunnerType, request: Any
) -> None:
    """RUNNERS_VENV_ROOTS also limits the modules that a profile fixes and the roots that a profile allows."""
    settings.RUNNERS_VENV_ROOTS = [str(places / "allowed")]
    fields: dict[str, Any] = {"runner_type": runner_type, "module_loader_type": "VENV"}
    if runner_type is RunnerType.SSH:
        sshd = request.getfixturevalue("sshd")
        fields |= {"ssh_host": "127.0.0.1", "ssh_port": sshd.port, "ssh_user": sshd.user}
    paths = ("elsewhere/bad", "allowed/link")
    cases = [(path, fixed) for path in paths for fixed in ({"modules": str(places / path)}, {"venv_roots": "/"})]
    for number, (path, fixed) in enumerate(cases):
        RunnerProfile.objects.create(name=f"V{number}", **fields, **fixed)
        params = {} if "modules" in fixed else {"MODULES": str(places / path)}
        status = {"profile_name": f"V{number}", "profile_params": params, "command_params": READY, "expid": "a001"}
        refused = world.root.post("set-job-status", status, expect=403)
        assert refused["code"] == "profile_forbidden" and str(places / "allowed") in refused["detail"], path
        run(world.root, expect=403, profile_name=f"V{number}", profile_params=params)
    assert not (places / "activated-bad").exists()
    assert account.calls() == []
    profile = RunnerProfile.objects.create(name="GOOD", **fields, modules=str(places / "allowed/good"))
    run(world.root, profile_name=profile.name)
    assert (places / "activated-good").exists()


def test_conda_environment_by_path_is_bound_like_a_virtual_one(world: World, account: StubAccount) -> None:
    root = account.conda_environment.parent
    other = account.home / "elsewhere"
    if not other.exists():
        shutil.copytree(root / "autosubmit", other, symlinks=True)
    RunnerProfile.objects.create(name="C", runner_type="LOCAL", module_loader_type="CONDA", venv_roots=str(root))

    def update(modules: str, expect: int = 200) -> dict[str, Any]:
        body = {"expid": "a001", "profile_name": "C", "profile_params": {"MODULES": modules}, "description": "x"}
        return world.ben.post("update-experiment-description", body, expect=expect)

    update("autosubmit")
    update(str(root / "autosubmit"))
    assert update(str(other), expect=403)["code"] == "profile_forbidden"


def test_environment_that_the_profile_fixes_may_be_anywhere(places: Path) -> None:
    profile = RunnerProfile(
        name="F",
        runner_type="LOCAL",
        module_loader_type="VENV",
        modules=str(places / "elsewhere" / "bad"),
        venv_roots=str(places / "allowed"),
    )
    assert profile.resolve({}).venv_roots == ()


def test_roots_are_kept_in_the_snapshot_of_a_run() -> None:
    config = RunnerConfig(RunnerType.LOCAL, ModuleLoaderType.VENV, ("/a/b",), None, ("/a",))
    assert RunnerConfig.from_dict(config.as_dict()) == config


# --- YAML -------------------------------------------------------------------------------------------------------------

TEXT = """
RUNNER_CONFIGURATION:
  PROFILES:
    P:
      RUNNER_TYPE: SSH
      ACCESS: {RUN_GROUPS: [operators, night shift], STOP_GROUPS: operators}
      LIMITS: {HOSTS: ["*.example.com"], USERS: ["project_*"], VENV_ROOTS: [/opt/envs]}
"""


def test_export_imports_to_no_change() -> None:
    import_configuration(parse(TEXT))
    profile = RunnerProfile.objects.get()
    assert set(profile.run_groups.values_list("name", flat=True)) == {"operators", "night shift"}
    assert (profile.allowed_hosts, profile.venv_roots) == ("*.example.com", "/opt/envs")
    text = dump(export_configuration())
    assert "ACCESS" in text and "STATUS_GROUPS" not in text
    assert not import_configuration(parse(text))
    assert not import_configuration(parse(TEXT))


def test_import_that_does_not_speak_of_access_leaves_it() -> None:
    import_configuration(parse(TEXT))
    import_configuration(parse("RUNNER_CONFIGURATION: {PROFILES: {P: {RUNNER_TYPE: LOCAL}}}"))
    profile = RunnerProfile.objects.get()
    assert profile.runner_type == "LOCAL"
    assert profile.run_groups.count() == 2
    assert profile.allowed_users == "project_*"


def test_import_can_take_access_and_limits_away() -> None:
    import_configuration(parse(TEXT))
    text = "RUNNER_CONFIGURATION: {PROFILES: {P: {RUNNER_TYPE: SSH, ACCESS: {RUN_GROUPS: [operators]}, LIMITS: {}}}}"
    plan = import_configuration(parse(text))
    changed = {change.path for change in plan.changes}
    assert changed == {
        "PROFILES.P.ACCESS.RUN_GROUPS",
        "PROFILES.P.ACCESS.STOP_GROUPS",
        "PROFILES.P.LIMITS.HOSTS",
        "PROFILES.P.LIMITS.USERS",
        "PROFILES.P.LIMITS.VENV_ROOTS",
    }
    profile = RunnerProfile.objects.get()
    assert list(profile.run_groups.values_list("name", flat=True)) == ["operators"]
    assert profile.limits.hosts == ()


def test_dry_run_makes_no_groups() -> None:
    assert import_configuration(parse(TEXT), dry_run=True)
    assert not Group.objects.exists()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("ACCESS: {RUN: [a]}", "ACCESS.RUN"),
        ("ACCESS: {RUN_GROUPS: 5}", "ACCESS.RUN_GROUPS"),
        ("ACCESS: [a]", "ACCESS"),
        ("LIMITS: {VENV_ROOTS: [envs]}", "LIMITS.VENV_ROOTS"),
        ("LIMITS: {HOSTS: [a, 5]}", "LIMITS.HOSTS"),
    ],
)
def test_mistakes_in_yaml_are_told_by_path(text: str, path: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        parse(f"RUNNER_CONFIGURATION: {{PROFILES: {{P: {{{text}}}}}}}")
    assert [mistake.path for mistake in caught.value.mistakes] == [f"RUNNER_CONFIGURATION.PROFILES.P.{path}"]
