"""Which runs, logs and profiles a user sees."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIRequestFactory

from profiles.accounts import person_of
from profiles.models import DeletedProfile, RunnerProfile
from runners.api.exception_handler import handle
from runners.exceptions import AlreadyRunning
from runners.models import ApiToken, AuditRecord, RunnerRun
from runners.models.operation import Operation, OperationStatus
from runners.services import access, operations
from runners.services.active_runs import in_use
from runners.web.problems import error_context
from tests.support.api import Api
from tests.support.examples import OPERATIONS
from tests.support.rows import CONFIG, api_of, open_profile, saved_run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("protected")]


def test_users_outside_of_the_run_groups_neither_stop_nor_set_statuses(client: Client, ana: User, ben: User) -> None:
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
        assert "nothing was executed" in member.post(command, sent)["message"], command


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
def test_an_invalid_view_rule_of_a_deleted_profile_hides_its_runs(spoilt: Any, ben: User) -> None:
    ben.groups.add(Group.objects.create(name="climate"))
    RunnerRun.objects.create(expid="a001", profile_name="P", profile_id=7, started_by="eva", config={})
    DeletedProfile.objects.create(number=7, name="P", view_groups="")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE profiles_deletedprofile SET view_groups = %s", [json.dumps(spoilt)])
    access.forget_view_rules()
    assert not access.visible(RunnerRun.objects.all(), ben).exists()
    assert access.visible(RunnerRun.objects.all(), User.objects.create_superuser("root")).exists()


def test_public_runs_stay_visible_after_their_profile_was_deleted(ben: User) -> None:
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


def test_an_error_describes_a_run_only_to_users_who_may_view_it(client: Client, ana: User, ben: User) -> None:
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


def test_a_conflict_does_not_reveal_a_hidden_run(client: Client, ben: User) -> None:
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
        assert "you may not see" in text
        assert "profile SECRET" not in text and "evas" not in text


@pytest.mark.parametrize("is_enabled", [True, False])
@pytest.mark.parametrize("command", ["get-runner-run-status", "stop-experiment"])
def test_the_fixed_values_of_a_profile_are_told_to_nobody_who_may_not_use_it(
    command: str, is_enabled: bool, client: Client, ana: User, ben: User
) -> None:
    group = Group.objects.create(name="climate")
    ana.groups.add(group)
    profile = open_profile("SECRET", ssh_host="secret.example.org", ssh_user="topsecret", enabled=is_enabled)
    profile.run_groups.add(group)
    open_profile("OPEN")
    params = {"RUNNER_TYPE": "LOCAL", "MODULES": "x", "SSH": {"HOST": "x", "USER": "y"}}
    for sent in ({}, {"profile_params": params}):
        body = {"expid": "a001", "profile_name": "SECRET", **sent}
        refused = api_of(client, ben).post(command, body, expect=404)
        assert refused["code"] == "profile_not_found"
        unknown = api_of(client, ben).post(command, {**body, "profile_name": "SECRED"}, expect=404)
        assert refused["detail"] == unknown["detail"].replace("SECRED", "SECRET"), "the two cannot be told apart"
    answer = api_of(client, ana).post(command, body, expect=400 if is_enabled else 404)
    assert ("secret.example.org" in answer["detail"]) is is_enabled


def test_a_disabled_profile_finds_the_runs_that_a_person_sees(client: Client, ana: User, ben: User) -> None:
    profile = open_profile("OFF", ssh_host="", ssh_port=None, runner_type="LOCAL", enabled=False)
    profile.run_groups.add(Group.objects.create(name="climate"))
    profile.view_groups.add(Group.objects.create(name="others"))
    fields = {"config": profile.resolve({}).as_dict(), "runner": "LOCAL", "module_loader": "NO_MODULE"}
    run = RunnerRun.objects.create(expid="a001", profile_name="OFF", started_by="ana", **fields)
    RunnerRun.objects.filter(pk=run.pk).update(status="COMPLETED", finished=timezone.now())
    body = {"expid": "a001", "profile_name": "OFF"}
    for params in ({}, {"SSH": {}}):
        sent = {**body, "profile_params": params}
        assert api_of(client, ana).post("get-runner-run-status", sent)["runner_id"] == run.pk
        assert api_of(client, ana).post("stop-experiment", sent, expect=409)["code"] == "not_running"
        assert api_of(client, ben).post("get-runner-run-status", sent, expect=404)["code"] == "profile_not_found"
    of_none = api_of(client, ana).post("get-runner-run-status", {**body, "expid": "a002"}, expect=404)
    assert of_none["code"] == "profile_not_found"


def test_commands_with_the_number_of_a_hidden_run_answer_as_if_it_did_not_exist(client: Client, ben: User) -> None:
    profile = open_profile("SECRET")
    profile.view_groups.add(Group.objects.create(name="climate"))
    fields = {"config": profile.resolve({"SSH": {"USER": "x"}}).as_dict(), "runner": "SSH"}
    run = RunnerRun.objects.create(expid="zz99", profile_name="SECRET", started_by="eva", **fields)
    _, token = ApiToken.issue(user=ben, expiry=timedelta(days=1), scope="manage")
    api = Api(client, {"Authorization": f"Bearer {token}"})
    bodies = {"abandon": {"reason": "it is gone"}}
    commands = [path for method, path in OPERATIONS.values() if method == "POST" and "/runs/{id}/" in path]
    assert len(commands) >= 3
    for path in commands:
        body = bodies.get(path.rpartition("/")[2], {})
        hidden, unknown = (api.post(path.replace("{id}", str(number)), body, expect=404) for number in (run.pk, 987654))
        assert hidden["detail"] == unknown["detail"].replace("987654", str(run.pk)), path
    records = AuditRecord.objects.filter(actor="ben")
    assert records.count() == 2 * len(commands)
    assert not records.exclude(run_id=None, expid="", profile_name="").exists(), "the person may read own records"


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_failed_operation_tells_of_a_hidden_run_only_to_those_who_see_it(
    is_deleted: bool, client: Client, ana: User, ben: User
) -> None:
    group = Group.objects.create(name="climate")
    ana.groups.add(group)
    secret = open_profile("SECRET")
    secret.view_groups.add(group)
    run = saved_run("zz99", profile_name="SECRET", started_by="eva", host="secrethost", user="secretuser")
    operation = Operation.objects.create(
        key="k" * 32, kind="create-job-list", expid="zz99", config=CONFIG, timeout=60, started_by="ben"
    )
    error = AlreadyRunning(in_use(run), run=run)
    operations.finish_operation(operation, status=OperationStatus.FAILED, error=error)
    number = run.pk
    if is_deleted:
        run.delete()
    for user, sees in ((ana, not is_deleted), (ben, False)):
        found = api_of(client, user).get(f"/v4/runners/operations/{operation.pk}")["error"]
        with pytest.raises(AlreadyRunning) as caught:  # what a waiting request raises
            operations.outcome(Operation.objects.get(pk=operation.pk))
        request = APIRequestFactory().get("/")
        request.user = user
        answer = handle(caught.value, {"request": request})
        assert answer is not None
        page = error_context(caught.value, user)
        assert found["code"] == answer.data["code"] == page["code"] == "already_running"
        for told in (found, answer.data, page):
            assert all((word in told["detail"]) is sees for word in ("SECRET", "secretuser", "secrethost"))
            assert told.get("run_id") == (number if sees else None)
        assert bool(answer.data.get("run")) is bool(page["run"]) is sees
