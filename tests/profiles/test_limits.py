"""Limits of open parameters, and their place in YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError

from profiles.config import RunnerConfig
from profiles.exceptions import ForbiddenParameter
from profiles.models import RunnerProfile
from profiles.yaml.format import InvalidConfiguration
from profiles.yaml.importer import export_configuration, import_configuration
from profiles.yaml.reader import parse
from profiles.yaml.writer import dump

pytestmark = pytest.mark.django_db(transaction=True)


# --- Limits -----------------------------------------------------------------------------------------------------------


def open_ssh(**fields: Any) -> RunnerProfile:
    return RunnerProfile(name="OPEN", runner_type="SSH", module_loader_type="NO_MODULE", **fields)


def resolved(profile: RunnerProfile, host: str, user: str = "u") -> RunnerConfig:
    return profile.resolve({"SSH": {"HOST": host, "USER": user}})


@pytest.mark.parametrize("host", ["a.example.com", "A.Example.COM", "login1"])
def test_allowed_hosts_are_accepted(host: str) -> None:
    assert resolved(open_ssh(allowed_hosts="*.example.com\nlogin?"), host).target


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


def test_a_value_fixed_by_the_profile_needs_no_permission() -> None:
    assert resolved(open_ssh(ssh_host="fixed", allowed_hosts="other"), "fixed").target


def test_the_user_of_the_ssh_configuration_is_validated_too(tmp_path: Path, settings: Any) -> None:
    (tmp_path / "config").write_text("Host h\n  User root\n")
    settings.RUNNERS_SSH_CONFIG = str(tmp_path / "config")
    with pytest.raises(ForbiddenParameter):
        open_ssh(allowed_users="project_*").resolve({"SSH": {"HOST": "h"}})


@pytest.mark.parametrize(
    ("field", "text"),
    [("allowed_hosts", "a b"), ("allowed_users", "ä*"), ("venv_roots", "relative"), ("venv_roots", "/a/../b")],
)
def test_limits_that_make_no_sense_are_refused_in_the_admin(field: str, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        open_ssh(**{field: text}).clean()
    assert list(caught.value.message_dict) == [field]


def test_roots_are_kept_in_the_snapshot_of_a_run() -> None:
    config = RunnerConfig("LOCAL", "VENV", ("/a/b",), None, ("/a",))
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


def test_an_import_without_access_rules_keeps_them() -> None:
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
def test_mistakes_in_yaml_are_reported_with_their_path(text: str, path: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        parse(f"RUNNER_CONFIGURATION: {{PROFILES: {{P: {{{text}}}}}}}")
    assert [mistake.path for mistake in caught.value.mistakes] == [f"RUNNER_CONFIGURATION.PROFILES.P.{path}"]
