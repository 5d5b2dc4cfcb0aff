"""Which accounts a user may use, what a user sees, and what a deactivated user loses."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from profiles.exceptions import ForbiddenParameter, InvalidProfile
from profiles.models import AccountMap, DeletedProfile, RunnerProfile
from profiles.people import Person, person_of
from profiles.validators import canonical
from profiles.yaml.format import InvalidConfiguration, dump, parse
from profiles.yaml.importer import export_configuration, import_configuration
from runners.models import ApiToken, AuditRecord, RunnerRun
from runners.models.operation import Operation
from runners.pages.forms import PARAM
from runners.services import access
from tests.support.api import Api

pytestmark = pytest.mark.django_db

EXAMPLE = """
RUNNER_CONFIGURATION:
  PROFILES:
    THEIRS:
      RUNNER_TYPE: SSH
      MODULE_LOADER_TYPE: LMOD
      MODULES: autosubmit
      SSH: {HOST: autosubmit.example.com, PORT: 22}
"""
CREATE = "create-experiment"


def open_profile(name: str = "P", **fields: Any) -> RunnerProfile:
    values = {"runner_type": "SSH", "module_loader_type": "NO_MODULE", "ssh_host": "127.0.0.1", "ssh_port": 1}
    return RunnerProfile.objects.create(name=name, **{**values, **fields})


def api_of(client: Client, user: User) -> Api:
    _, token = ApiToken.objects.create(user=user, expiry=timedelta(days=1), scope="run")
    return Api(client, {"Authorization": f"Bearer {token}"})


def body(user: str) -> dict[str, Any]:
    params = {"description": "by somebody", "git_repo": "https://git.example.org/evil.git"}
    return {
        "profile_name": "P",
        "profile_params": {"SSH": {"USER": user}},
        "command_params": params,
        "dry_run": True,
    }


@pytest.fixture(autouse=True)
def _protected(settings: Any) -> None:
    settings.PROTECTION_LEVEL = "ALL"


@pytest.fixture
def ana() -> User:
    return User.objects.create_user("ana", password="of ana")


@pytest.fixture
def ben() -> User:
    return User.objects.create_user("ben")


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_nobody_acts_as_somebody_elses_account_with_a_bound_profile(client: Client, ana: User, ben: User) -> None:
    open_profile(allowed_users="{username}\n{accounts}")
    AccountMap.objects.create(person="ana", accounts="bsc01\nbsc02")
    mine = api_of(client, ana)
    for account in ("ana", "bsc01", "bsc02"):
        mine.post(CREATE, body(account))
    for account in ("ben", "bsc03", "root", "Ana", "{username}", "{accounts}", "*", "an?", "ana "):
        answer = mine.post(CREATE, body(account), expect=(400, 403) if account != "ana " else 200)
        assert account == "ana " or answer["code"] in ("profile_forbidden", "invalid_profile")
    theirs = api_of(client, ben)
    theirs.post(CREATE, body("ben"))
    for account in ("ana", "bsc01"):
        assert theirs.post(CREATE, body(account), expect=403)["code"] == "profile_forbidden"


def test_the_page_binds_as_the_api_does(client: Client, ana: User) -> None:
    open_profile(allowed_users="{username}")
    client.force_login(ana)
    form = {"profile_name": "P", "action": "preview", "description": "x", "expid": "a001"}
    for account, status in (("ana", 200), ("ben", 422)):
        page = client.post(reverse("pages:create-experiment"), {**form, f"{PARAM}SSH.USER": account})
        assert page.status_code == status, page.content.decode()


def test_who_is_not_signed_in_has_no_account(client: Client, settings: Any) -> None:
    settings.PROTECTION_LEVEL = "NONE"
    open_profile(allowed_users="{username}\n{accounts}")
    answer = Api(client).post(CREATE, body("ana"), expect=403)
    assert "you have no account here" in answer["detail"]


def test_a_name_with_the_signs_of_patterns_is_no_pattern() -> None:
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


def test_a_mapping_is_found_by_a_name_that_looks_the_same_and_goes_with_the_account(admin_client: Client) -> None:
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


def test_an_imported_profile_keeps_its_meaning_and_is_marked_until_it_is_bound(
    client: Client, ana: User, admin_client: Client, tmp_path: Any
) -> None:
    file = tmp_path / "profiles.yml"
    file.write_text(EXAMPLE)
    said = io.StringIO()
    call_command("import_profiles", str(file), stdout=io.StringIO(), stderr=said)
    assert "Anybody as anybody: THEIRS" in said.getvalue()
    assert "manage.py bind_profile THEIRS" in said.getvalue()
    profile = RunnerProfile.objects.get()
    assert profile.resolve({"SSH": {"USER": "anyone"}}).ssh
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
    assert profile.resolve({"SSH": {"USER": "ana"}}, person_of(ana)).ssh
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
def test_what_is_anybody_as_anybody(fields: dict[str, Any], marked: bool) -> None:
    assert bool(open_profile(**fields).warnings) is marked


def test_a_bound_profile_by_which_a_request_can_choose_local_is_marked(settings: Any) -> None:
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


# --- groups -----------------------------------------------------------------------------------------------------------


def test_people_outside_of_the_run_groups_neither_stop_nor_set_statuses(client: Client, ana: User, ben: User) -> None:
    group = Group.objects.create(name="climate")
    ana.groups.add(group)
    profile = open_profile(runner_type="LOCAL", ssh_host="", ssh_port=None)
    profile.run_groups.add(group)
    config = profile.resolve({}).as_dict()
    RunnerRun.objects.create(expid="a001", profile_name="P", config=config, runner="LOCAL", module_loader="NO_MODULE")
    params = {"final_status": "READY", "filter_status": "FAILED"}
    status = {"expid": "a001", "profile_name": "P", "command_params": params}
    outsider, member = api_of(client, ben), api_of(client, ana)
    for command, sent in (("stop-experiment", {"expid": "a001", "force": True}), ("set-job-status", status)):
        sent = {**sent, "dry_run": True}
        assert outsider.post(command, sent, expect=403)["code"] == "profile_forbidden", command
        assert "Nothing was executed" in member.post(command, sent)["message"], command


def test_profiles_are_listed_for_those_who_may_use_them(client: Client, ana: User, ben: User) -> None:
    group = Group.objects.create(name="climate")
    ana.groups.add(group)
    open_profile("OURS").run_groups.add(group)
    open_profile("STOPS").run_groups.add(Group.objects.create(name="others"))
    RunnerProfile.objects.get(name="STOPS").stop_groups.add(group)
    open_profile("OPEN")
    path = "/v4/runners/configuration/profiles"
    assert list(api_of(client, ana).get(path)) == ["OPEN", "OURS", "STOPS"]
    assert list(api_of(client, ben).get(path)) == ["OPEN"]
    assert list(api_of(client, User.objects.create_superuser("root")).get(path)) == ["OPEN", "OURS", "STOPS"]
    answer = api_of(client, ben).post("run-experiment", {"expid": "a001", "profile_name": "OUR"}, expect=404)
    assert "OURS" not in answer["detail"]
    for user, listed in ((ana, ("OPEN", "OURS", "STOPS")), (ben, ("OPEN",))):
        for name in ("OPEN", "OURS", "STOPS"):
            found = 200 if name in listed else 404
            answer = api_of(client, user).get(f"/v4/runners/profiles/{name}/requirements", expect=found)
            assert found == 200 or "127.0.0.1" not in str(answer)


def test_runs_and_logs_of_a_profile_are_seen_by_its_groups(client: Client, ana: User, ben: User) -> None:
    group = Group.objects.create(name="climate")
    ana.groups.add(group)
    open_profile("SECRET").view_groups.add(group)
    config = RunnerProfile(runner_type="LOCAL", module_loader_type="NO_MODULE").resolve({}).as_dict()
    fields = {"config": config, "runner": "LOCAL", "module_loader": "NO_MODULE", "status": "COMPLETED"}
    fields["finished"] = timezone.now()
    open_run = RunnerRun.objects.create(expid="a001", profile_name="P", started_by="x", **fields)
    hidden = RunnerRun.objects.create(expid="a001", profile_name="SECRET", started_by="eva", **fields)
    bens = RunnerRun.objects.create(expid="a002", profile_name="SECRET", started_by="ben", **fields)
    done = {"profile_name": "SECRET", "kind": "create-job-list", "status": "SUCCEEDED", "config": {}, "timeout": 1}
    operation = Operation.objects.create(started_by="eva", **done)
    seen = {
        ana: [bens.pk, hidden.pk, open_run.pk],
        ben: [bens.pk, open_run.pk],
        User.objects.create_superuser("root"): [bens.pk, hidden.pk, open_run.pk],
    }
    for user, numbers in seen.items():
        api = api_of(client, user)
        sees = hidden.pk in numbers
        assert [run["runner_id"] for run in api.get("/v4/runners/runs")["results"]] == numbers
        newest = api.post("get-runner-run-status", {"expid": "a001"})["runner_id"]
        assert newest == (hidden.pk if sees else open_run.pk)
        for path in (f"runs/{hidden.pk}", f"operations/{operation.pk}"):
            api.get(f"/v4/runners/{path}", expect=200 if sees else 404)
        assert api.get(f"/v4/runners/runs/{hidden.pk}/log", expect=404)["code"] == (
            "log_not_found" if sees else "run_not_found"
        )
        browser = Client()
        browser.force_login(user)
        for name in ("run", "run-log", "run-download", "stop", "run-state", "run-details"):
            path = reverse(f"pages:{name}", args=[hidden.pk])
            if not sees:
                assert browser.get(path).status_code == 404, path
        for path in ("/", "/history", "/experiments/a001"):
            page = browser.get(path).content.decode()
            assert (f"/runs/{hidden.pk}" in page) is sees, (path, user)
    RunnerProfile.objects.get(name="SECRET").view_groups.clear()
    assert len(api_of(client, ben).get("/v4/runners/runs")["results"]) == 3


@pytest.mark.parametrize("change", ["deleted", "renamed", "renamed and replaced", "deleted with its group"])
def test_hidden_runs_stay_hidden_when_their_profile_changes(change: str, ana: User, ben: User, client: Client) -> None:
    group = Group.objects.create(name="climate")
    ana.groups.add(group)
    profile = open_profile("SECRET")
    profile.view_groups.add(group)
    fields = {"profile_name": "SECRET", "config": {}, "status": "COMPLETED", "finished": timezone.now()}
    run = RunnerRun.objects.create(expid="a001", started_by="eva", runner="LOCAL", **fields)
    own = RunnerRun.objects.create(expid="a001", started_by="ben", runner="LOCAL", **fields)
    for actor, run_id in (("eva", run.pk), ("root", run.pk), ("ben", own.pk)):
        AuditRecord.objects.create(endpoint=f"by-{actor}", actor=actor, expid="a001", run_id=run_id)
    AuditRecord.objects.create(endpoint="by-eve", actor="eve", expid="a001", profile_name="SECRET")
    if change.startswith("renamed"):
        RunnerProfile.objects.filter(pk=profile.pk).update(name="OTHER")
    else:
        profile.delete()
    if change == "renamed and replaced":
        open_profile("SECRET")
    if change == "deleted with its group":
        group.delete()
    access.forget_view_rules()  # in another process the change is known within VIEW_RULES_AGE
    everything = ([own.pk, run.pk], ["by-eve", "by-ben", "by-root", "by-eva"])
    bens = ([own.pk], ["by-ben"])
    seen = {
        User.objects.create_superuser("root"): everything,
        ana: ([], []) if change == "deleted with its group" else everything,
        ben: bens,
        AnonymousUser(): ([], []),
    }
    for user, (runs, records) in seen.items():
        assert list(access.visible(RunnerRun.objects.all(), user).values_list("pk", flat=True)) == runs, user
        found = access.visible_records(AuditRecord.objects.all(), user)
        assert list(found.values_list("endpoint", flat=True)) == records, user
        assert [each.pk for each in (own, run) if access.may_see(user, each)] == runs, user
        assert access.user_may_stop(user, run) is (
            run.pk in runs and (change.startswith("renamed") or user.username == "root")
        )
    api_of(client, ben).get(f"/v4/runners/runs/{run.pk}", expect=404)
    browser = Client()
    browser.force_login(ben)
    page = browser.get("/experiments/a001").content.decode()
    assert ("by-ben" in page, "by-eva" in page, "by-root" in page, "by-eve" in page) == (True, False, False, False)


@pytest.mark.parametrize("spoilt", [None, 5, "1", {"1": 1}, [None, [1], "1"]])
def test_a_spoilt_rule_of_a_deleted_profile_shows_its_runs_to_nobody(spoilt: Any, ben: User) -> None:
    ben.groups.add(Group.objects.create(name="climate"))
    RunnerRun.objects.create(expid="a001", profile_name="P", profile_id=7, started_by="eva", config={})
    DeletedProfile.objects.create(number=7, name="P", view_groups="")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE profiles_deletedprofile SET view_groups = %s", [json.dumps(spoilt)])
    access.forget_view_rules()
    assert not access.visible(RunnerRun.objects.all(), ben).exists()
    assert access.visible(RunnerRun.objects.all(), User.objects.create_superuser("root")).exists()


def test_runs_that_anybody_saw_are_seen_after_their_profile_was_deleted(ben: User) -> None:
    profile = open_profile("P")
    run = RunnerRun.objects.create(expid="a001", profile_name="P", started_by="eva", config={})
    profile.delete()
    open_profile("P").view_groups.add(Group.objects.create(name="climate"))
    assert access.may_see(ben, run) and access.visible(RunnerRun.objects.all(), ben).exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_upgrade_of_both", [False, True])
def test_an_upgrade_hides_runs_whose_profile_may_have_been_hidden(is_upgrade_of_both: bool, ben: User) -> None:
    executor = MigrationExecutor(connection)
    before = [("runners", "0011_operation_notes"), ("profiles", "0004_view_rules_of_deleted")]
    latest = [key for key in executor.loader.graph.leaf_nodes() if key[0] in ("runners", "profiles")]
    executor.migrate(before)
    try:
        applied = timezone.now() - timedelta(minutes=0 if is_upgrade_of_both else 90)
        MigrationRecorder(connection).migration_qs.filter(name="0003_bind_and_view").update(applied=applied)
        apps = executor.loader.project_state(before).apps
        kept = apps.get_model("profiles", "RunnerProfile").objects.create(name="KEPT").pk
        runs = apps.get_model("runners", "RunnerRun").objects
        for number, name in enumerate(("KEPT", "GONE", "GONE", "OLD", "")):
            runs.create(key=f"{number:032}", expid=f"a00{number}", profile_name=name, config={}, started_by="eva")
        apps.get_model("runners", "AuditRecord").objects.create(endpoint="x", profile_name="GONE")
    finally:
        executor = MigrationExecutor(connection)
        executor.migrate(latest)
    access.forget_view_rules()
    gone = (None, None) if is_upgrade_of_both else (-1, -2)
    rows = RunnerRun.objects.order_by("id")
    assert list(rows.values_list("profile_id", flat=True)) == [kept, gone[0], gone[0], gone[1], None]
    assert AuditRecord.objects.get().profile_id == gone[0]
    assert len(access.visible(rows, ben)) == (5 if is_upgrade_of_both else 2)


def test_an_error_tells_a_run_only_to_those_who_see_it(client: Client, ana: User, ben: User) -> None:
    group = Group.objects.create(name="climate")
    ana.groups.add(group)
    open_profile("SECRET").view_groups.add(group)
    config = RunnerProfile(runner_type="LOCAL", module_loader_type="NO_MODULE").resolve({}).as_dict()
    RunnerRun.objects.create(
        expid="a001",
        profile_name="SECRET",
        started_by="eva",
        config=config,
        status="COMPLETED",
        finished=timezone.now(),
    )
    error = api_of(client, ana).post("stop-experiment", {"expid": "a001"}, expect=409)
    assert (error["code"], error["run"]["started_by"]) == ("not_running", "eva")
    error = api_of(client, ben).post("stop-experiment", {"expid": "a001"}, expect=404)
    assert (error["code"], "run" in error) == ("run_not_found", False)


def test_the_activity_of_an_experiment_tells_nothing_of_a_hidden_run_in_the_way(client: Client, ben: User) -> None:
    open_profile("SECRET").view_groups.add(Group.objects.create(name="climate"))
    open_profile("P", ssh_user="us")
    config = RunnerProfile.objects.get(name="SECRET").resolve({"SSH": {"USER": "eva"}}, person_of(ben)).as_dict()
    fields = {"config": config, "runner": "SSH", "module_loader": "NO_MODULE", "user": "evas-account", "host": "evas"}
    # The run was just confirmed, so it blocks every start.
    RunnerRun.objects.create(
        expid="a001", profile_name="SECRET", started_by="eva", confirmed_at=timezone.now() + timedelta(1), **fields
    )
    browser = Client()
    browser.force_login(ben)
    page = browser.post(reverse("pages:start"), {"profile_name": "P", "expid": "a001", "action": "execute"})
    answer = api_of(client, ben).post("run-experiment", {"expid": "a001", "profile_name": "P"}, expect=409)
    shown = [page.content.decode(), str(answer), browser.get("/experiments/a001").content.decode()]
    assert AuditRecord.objects.filter(outcome="already_running").count() == 2
    for text in (*shown, *AuditRecord.objects.values_list("detail", flat=True)):
        assert "not shown to you" in text
        assert "profile SECRET" not in text and "evas" not in text


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Ana", "ANA", "ａｎａ", "a\u0301na", "ﬁona", "STRASSE"])
def test_a_name_that_looks_like_another_accounts_is_refused(name: str, admin_client: Client) -> None:
    others = {"Ana": "ana", "ANA": "ana", "ａｎａ": "ana", "a\u0301na": "ána", "ﬁona": "fiona", "STRASSE": "straße"}
    User.objects.create_user(others[name])
    assert canonical(name) == canonical(others[name])
    with pytest.raises(ValidationError, match="looks like"):
        User.objects.create(username=name)
    User.objects.filter(username=others[name]).update(first_name="still there")
    user = User.objects.get(username=others[name])
    user.save()  # keeps its own name
    form = {"username": name, "password1": "long enough 123", "password2": "long enough 123", "usable_password": "true"}
    answer = admin_client.post(reverse("admin:auth_user_add"), form)
    assert answer.status_code == 200, "refused in the form"


def test_a_login_of_the_api_by_a_name_that_looks_like_another_is_refused(client: Client, settings: Any) -> None:
    settings.AS_API_JWT_SECRET = "of the test run, signs nothing of value"
    User.objects.create_user("ana")
    for name in ("Ana", "ａna"):
        claims = {"user_id": name, "exp": 4_000_000_000}
        token = jwt.encode(claims, settings.AS_API_JWT_SECRET, algorithm="HS256")
        answer = Api(client, {"Authorization": f"Bearer {token}"}).post("run-experiment", {}, expect=401)
        assert answer["code"] == "invalid_credentials"
    assert User.objects.count() == 1


@pytest.mark.parametrize("name", ["a b", "-x", "x" * 65, "ä", "a;b", "$(id)", "a\nb"])
def test_a_preferred_username_that_is_no_account_is_refused(client: Client, ana: User, name: str) -> None:
    answer = api_of(client, ana).post("/v4/user-settings/preferred-username", {"preferred_username": name}, expect=400)
    assert "preferred_username" in answer["errors"]


# --- deactivated accounts ---------------------------------------------------------------------------------------------


def test_who_is_switched_off_loses_tokens_sessions_and_accounts_and_the_runs_go_on(
    client: Client, ana: User, admin_client: Client, settings: Any
) -> None:
    api = api_of(client, ana)
    settings.AS_API_JWT_SECRET = "of the test run, signs nothing of value"
    login = jwt.encode({"user_id": "ana", "exp": 4_000_000_000}, settings.AS_API_JWT_SECRET, algorithm="HS256")
    by_login = Api(client, {"Authorization": f"Bearer {login}"})
    by_login.post("run-experiment", {}, expect=400)
    AccountMap.objects.create(person="ana", accounts="bsc01")
    fields = {"config": {}, "runner": "LOCAL", "module_loader": "NO_MODULE"}
    run = RunnerRun.objects.create(expid="a001", started_by="ana", profile_name="", **fields)
    browser = Client()
    browser.force_login(ana)
    assert "ana" in browser.get("/").content.decode()
    ana.is_active = False
    ana.save()
    for each in (api, by_login):
        each.post("run-experiment", {}, expect=401)
    assert "Sign in" in browser.get("/").content.decode()
    assert not ApiToken.objects.exists() and not AccountMap.objects.exists()
    run.refresh_from_db()
    assert run.is_active
    assert "a001" in admin_client.get("/").content.decode()
    ana.is_active = True
    ana.save()
    api.post("run-experiment", {}, expect=401)
    assert "Sign in" in browser.get("/").content.decode()


# --- limits that no profile widens ------------------------------------------------------------------------------------


def test_no_profile_gives_local_commands_where_the_site_has_none(settings: Any) -> None:
    settings.RUNNERS_ALLOW_LOCAL = False
    for fixed in ({"runner_type": "LOCAL"}, {}):
        profile = RunnerProfile(name="P", module_loader_type="NO_MODULE", **fixed)
        with pytest.raises(ForbiddenParameter, match="LOCAL"):
            profile.resolve({} if fixed else {"RUNNER_TYPE": "LOCAL"}, Person(is_admin=True))
    with pytest.raises(InvalidProfile):
        open_profile().resolve({})
