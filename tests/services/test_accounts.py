"""Which accounts a user may use, what a user sees, and what a deactivated user loses."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from profiles.accounts import person_of
from profiles.exceptions import ForbiddenParameter, InvalidProfile
from profiles.models import AccountMap, RunnerProfile
from profiles.people import Person
from profiles.yaml.format import InvalidConfiguration
from profiles.yaml.importer import export_configuration, import_configuration
from profiles.yaml.reader import parse
from profiles.yaml.writer import dump
from runners.pages.forms import PARAM
from tests.support.api import Api
from tests.support.rows import CREATE, api_of, creation_by, open_profile

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("protected")]

EXAMPLE = """
RUNNER_CONFIGURATION:
  PROFILES:
    THEIRS:
      RUNNER_TYPE: SSH
      MODULE_LOADER_TYPE: LMOD
      MODULES: autosubmit
      SSH: {HOST: autosubmit.example.com, PORT: 22}
"""


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_a_bound_profile_rejects_accounts_of_other_users(client: Client, ana: User, ben: User) -> None:
    open_profile(allowed_users="{username}\n{accounts}")
    AccountMap.objects.create(person="ana", accounts="bsc01\nbsc02")
    mine = api_of(client, ana)
    for account in ("ana", "bsc01", "bsc02"):
        mine.post(CREATE, creation_by(account))
    for account in ("ben", "bsc03", "root", "Ana", "{username}", "{accounts}", "*", "an?", "ana "):
        answer = mine.post(CREATE, creation_by(account), expect=(400, 403) if account != "ana " else 200)
        assert account == "ana " or answer["code"] in ("profile_forbidden", "invalid_profile")
    theirs = api_of(client, ben)
    theirs.post(CREATE, creation_by("ben"))
    for account in ("ana", "bsc01"):
        assert theirs.post(CREATE, creation_by(account), expect=403)["code"] == "profile_forbidden"


def test_the_page_binds_accounts_like_the_api(client: Client, ana: User) -> None:
    open_profile(allowed_users="{username}")
    client.force_login(ana)
    form = {"profile_name": "P", "action": "preview", "description": "x", "expid": "a001"}
    for account, status in (("ana", 200), ("ben", 422)):
        page = client.post(reverse("pages:create-experiment"), {**form, f"{PARAM}SSH.USER": account})
        assert page.status_code == status, page.content.decode()


def test_an_anonymous_user_has_no_account(client: Client, settings: Any) -> None:
    settings.PROTECTION_LEVEL = "NONE"
    open_profile(allowed_users="{username}\n{accounts}")
    answer = Api(client).post(CREATE, creation_by("ana"), expect=403)
    assert "no account is mapped to you" in answer["detail"]


def test_a_user_name_with_pattern_characters_is_not_a_pattern() -> None:
    profile = open_profile(allowed_users="{username}")
    star = Person("*")
    with pytest.raises(ForbiddenParameter):
        profile.resolve({"SSH": {"USER": "ben"}}, star)
    tricky = User(username="b[e]n", is_active=True)
    with pytest.raises(ForbiddenParameter):
        profile.resolve({"SSH": {"USER": "ben"}}, person_of(tricky))
    AccountMap.objects.create(person="eve", accounts="ok")
    assert person_of(AnonymousUser()).accounts() == ()


@pytest.mark.parametrize("pattern", ["{user}", "{}", "{accounts}x", "x{accounts}", "{username", "{{username}}"])
def test_a_misspelt_placeholder_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError):
        RunnerProfile(name="P", allowed_users=pattern).full_clean()
    with pytest.raises(InvalidConfiguration):
        parse(f"RUNNER_CONFIGURATION: {{PROFILES: {{P: {{LIMITS: {{USERS: ['{pattern}']}}}}}}}}")


def test_the_map_of_accounts_is_exported_and_imported_without_a_change() -> None:
    text = 'RUNNER_CONFIGURATION: {ACCOUNTS: {ana: [bsc01, bsc02], "b e n": x}}'
    plan = import_configuration(parse(text))
    assert [str(change) for change in plan.changes] == ["+ ACCOUNTS.ana: bsc01, bsc02", "+ ACCOUNTS.b e n: x"]
    assert not import_configuration(parse(text))
    assert not import_configuration(parse(dump(export_configuration())))
    plan = import_configuration(parse("RUNNER_CONFIGURATION: {ACCOUNTS: {ana: [bsc02]}}"), prune=True)
    assert [change.action for change in plan.changes] == ["change", "remove"]
    assert AccountMap.objects.get().accounts == "bsc02"
    for wrong in ("{ana: ['a b']}", "{ana: 5}", "[ana]", "{'': [x]}", "{ana: ['-x']}"):
        with pytest.raises(InvalidConfiguration):
            parse(f"RUNNER_CONFIGURATION: {{ACCOUNTS: {wrong}}}")


def test_an_account_mapping_is_found_by_a_lookalike_name_and_is_deleted_with_the_user(admin_client: Client) -> None:
    AccountMap.objects.create(person="Ana", accounts="bsc01")
    user = User.objects.create_user("ana")
    assert person_of(user).accounts() == ("bsc01",)
    assert person_of(User.objects.create_user("ben")).accounts() == ()
    form = {"person": "ａna", "accounts": "bsc02"}
    page = admin_client.post(reverse("admin:profiles_accountmap_add"), form).content.decode()
    assert "looks like Ana" in page and AccountMap.objects.count() == 1
    with pytest.raises(InvalidConfiguration, match="looks like"):
        parse("RUNNER_CONFIGURATION: {ACCOUNTS: {ana: x, Ana: y}}")
    user.delete()
    assert not AccountMap.objects.exists()
    assert person_of(User.objects.create_user("ana")).accounts() == ()  # another person who gets the same name


# --- marked profiles --------------------------------------------------------------------------------------------------


def test_an_imported_profile_is_unchanged_and_marked_until_it_is_bound(
    client: Client, ana: User, admin_client: Client, tmp_path: Any
) -> None:
    file = tmp_path / "profiles.yml"
    file.write_text(EXAMPLE)
    said = io.StringIO()
    call_command("import_profiles", str(file), stdout=io.StringIO(), stderr=said)
    assert "Anybody as anybody: THEIRS" in said.getvalue()
    assert "manage.py bind_profile THEIRS" in said.getvalue()
    profile = RunnerProfile.objects.get()
    assert profile.resolve({"SSH": {"USER": "anyone"}}).target
    for path in ("changelist", "change"):
        args = [profile.pk] if path == "change" else []
        page = admin_client.get(reverse(f"admin:profiles_runnerprofile_{path}", args=args)).content.decode()
        assert "anybody as anybody" in page.lower(), path
    looked = admin_client.post(reverse("admin:profiles_runnerprofile_import"), {"text": EXAMPLE}).content.decode()
    assert "Anybody as anybody: THEIRS" in looked
    errors = io.StringIO()
    call_command("check", databases=["default"], stderr=errors)
    assert "profiles.W001" in errors.getvalue()

    call_command("bind_profile", "THEIRS", stdout=(out := io.StringIO()))
    assert out.getvalue() == "THEIRS: SSH.USER may be {username}, {accounts}.\n"
    profile.refresh_from_db()
    assert not profile.warnings
    with pytest.raises(ForbiddenParameter):
        profile.resolve({"SSH": {"USER": "anyone"}}, person_of(ana))
    assert profile.resolve({"SSH": {"USER": "ana"}}, person_of(ana)).target
    page = admin_client.get(reverse("admin:profiles_runnerprofile_changelist")).content.decode()
    assert "anybody as anybody" not in page


@pytest.mark.parametrize(
    ("fields", "marked"),
    [
        ({}, True),
        ({"allowed_users": "*"}, True),
        ({"allowed_users": "project_*\n?*"}, True),
        ({"allowed_users": "[a-z]*"}, True),
        ({"allowed_users": "[!x]?*"}, True),
        ({"allowed_users": "x[a-z]*"}, False),
        ({"allowed_users": "project_*"}, False),
        ({"allowed_users": "{username}"}, False),
        ({"ssh_user": "shared"}, False),
        ({"runner_type": "LOCAL", "ssh_host": "", "ssh_port": None}, False),
        ({"runner_type": ""}, True),
    ],
)
def test_profiles_that_let_any_user_act_as_any_account_are_marked(fields: dict[str, Any], marked: bool) -> None:
    assert bool(open_profile(**fields).warnings) is marked


def test_a_bound_profile_that_lets_a_request_choose_local_is_marked(settings: Any) -> None:
    fields = {"ssh_host": "", "ssh_port": None, "allowed_users": "{username}"}
    assert ["RUNNER_TYPE open" in text for text in open_profile("A", runner_type="", **fields).warnings] == [True]
    assert not open_profile("B", **fields).warnings
    assert not open_profile("C", runner_type="", allowed_users="{username}").warnings  # LOCAL accepts no host
    settings.RUNNERS_ALLOW_LOCAL = False
    assert not RunnerProfile.objects.get(name="A").warnings


def test_a_profile_made_in_the_admin_is_bound_by_default(admin_client: Client) -> None:
    page = admin_client.get(reverse("admin:profiles_runnerprofile_add")).content.decode()
    assert "{username}\n{accounts}</textarea>" in page
    data = {"name": "OPEN", "enabled": "on", "runner_type": "SSH", "ssh_host": "h", "allowed_users": ""}
    page = admin_client.post(reverse("admin:profiles_runnerprofile_add"), data, follow=True).content.decode()
    assert "Anybody as anybody: OPEN" in page


def test_bind_profile_changes_all_or_nothing() -> None:
    open_profile("A")
    open_profile("B", ssh_user="fixed")
    for names in (["A", "C"], ["A", "B"], []):
        with pytest.raises(CommandError):
            call_command("bind_profile", *names)
    assert RunnerProfile.objects.get(name="A").allowed_users == ""
    call_command("bind_profile", all=True, to=["x_{username}"], stdout=io.StringIO())
    assert list(RunnerProfile.objects.values_list("name", "allowed_users")) == [("A", "x_{username}"), ("B", "")]


# --- limits that no profile widens ------------------------------------------------------------------------------------


def test_no_profile_gives_local_commands_where_the_site_has_none(settings: Any) -> None:
    settings.RUNNERS_ALLOW_LOCAL = False
    for fixed in ({"runner_type": "LOCAL"}, {}):
        profile = RunnerProfile(name="P", module_loader_type="NO_MODULE", **fixed)
        with pytest.raises(ForbiddenParameter, match="LOCAL"):
            profile.resolve({} if fixed else {"RUNNER_TYPE": "LOCAL"}, Person(is_admin=True))
    with pytest.raises(InvalidProfile):
        open_profile().resolve({})
