"""What a user may do with a profile, and which values open parameters accept: through HTTP, with LOCAL and SSH."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User
from django.db.models import ProtectedError
from django.test import Client

from profiles.models import RunnerProfile
from runners.models import AuditRecord, RunnerRun
from runners.services.access import Action, user_may, user_may_stop
from tests.support.api import Api
from tests.support.environments import StubAccount
from tests.support.rows import World, run_with

pytestmark = pytest.mark.django_db(transaction=True)

READY = {"job_names_list": ["a001_ONE"], "final_status": "READY"}


def test_everybody_may_use_a_profile_that_names_no_groups(world: World, account: StubAccount) -> None:
    account.control("run", SLEEP=60)
    run_with(world.ben)
    world.ana.post("stop-experiment", {"expid": "a001"})


def test_only_the_run_groups_may_run(world: World) -> None:
    world.restrict("run")
    body = run_with(world.ben, expect=403)
    assert body["code"] == "profile_forbidden"
    assert "P" in body["detail"]
    assert not RunnerRun.objects.exists()
    record = AuditRecord.objects.get()
    assert (record.actor, record.outcome, record.profile_name) == ("ben", "profile_forbidden", "P")
    run_with(world.ana)


@pytest.mark.parametrize(
    ("command", "body"),
    [
        ("create-experiment", {"command_params": {"description": "a text"}}),
        ("create-job-list", {"expid": "a001", "command_params": {}}),
        ("update-experiment-description", {"expid": "a001", "description": "a text"}),
    ],
)
def test_other_commands_of_a_profile_need_the_permission_to_run(
    world: World, account: StubAccount, command: str, body: dict[str, Any]
) -> None:
    world.restrict("run")
    world.ben.post(command, {"profile_name": "P", **body}, expect=403)
    assert account.calls() == []
    world.ana.post(command, {"profile_name": "P", **body})


def test_only_the_stop_groups_may_stop(world: World, account: StubAccount) -> None:
    world.restrict("stop")
    account.control("run", SLEEP=60)
    run_with(world.ben)
    body = world.ben.post("stop-experiment", {"expid": "a001"}, expect=403)
    assert body["code"] == "profile_forbidden"
    assert RunnerRun.objects.get().is_active
    assert RunnerRun.objects.get().stop_requested_at is None
    assert account.calls("stop") == []
    assert world.ana.post("stop-experiment", {"expid": "a001"})["stopped_by"] == "ana"


def test_only_the_set_status_groups_may_set_statuses(world: World) -> None:
    world.restrict("status")
    body = {"expid": "a001", "profile_name": "P", "command_params": READY}
    assert world.ben.post("set-job-status", body, expect=403)["code"] == "profile_forbidden"
    world.ana.post("set-job-status", body)
    world.profile.run_groups.set([Group.objects.create(name="others")])
    world.ana.post("set-job-status", body)
    run_with(world.ana, expect=403)


def test_superusers_always_may(world: World, account: StubAccount) -> None:
    world.restrict("run", "stop", "status")
    account.control("run", SLEEP=60)
    run_with(world.root)
    world.root.post("stop-experiment", {"expid": "a001"})


def test_permission_is_checked_before_the_parameters(world: World) -> None:
    world.restrict("run")
    assert run_with(world.ben, expect=403, profile_params={"SSH": {"HOST": "x"}})["code"] == "profile_forbidden"


def test_anonymous_people_are_in_no_group(world: World, settings: Any, client: Client) -> None:
    settings.PROTECTION_LEVEL = "NONE"
    run_with(Api(client))
    world.restrict("run")
    run_with(Api(client), expect=403)


def test_inactive_users_may_do_nothing_that_is_restricted(world: World) -> None:
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
    run_with(world.ben)
    RunnerProfile.objects.update(enabled=False)
    world.ben.post("stop-experiment", {"expid": "a001"}, expect=403)
    world.ana.post("stop-experiment", {"expid": "a001"})


def test_runs_of_a_deleted_profile_are_stopped_by_their_starters_only(world: World) -> None:
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


def test_the_admin_explains_why_a_group_cannot_be_deleted(world: World, client: Client) -> None:
    world.restrict("run")
    User.objects.create_superuser("boss", password="x")
    client.login(username="boss", password="x")
    page = client.get(f"/admin/auth/group/{world.operators.pk}/delete/")
    assert page.status_code == 200
    assert b"profile P" in page.content
    client.post(f"/admin/auth/group/{world.operators.pk}/delete/", {"post": "yes"})
    assert Group.objects.filter(name="operators").exists()


def test_refusal_over_http_names_the_parameter(world: World) -> None:
    RunnerProfile.objects.create(
        name="OPEN", runner_type="SSH", module_loader_type="NO_MODULE", allowed_hosts="*.example.com"
    )
    body = run_with(world.ben, expect=403, profile_name="OPEN", profile_params={"SSH": {"HOST": "evil", "USER": "u"}})
    assert body["code"] == "profile_forbidden"
    assert list(body["errors"]) == ["profile_params.SSH.HOST"]
    assert "*.example.com" in body["detail"]
    assert AuditRecord.objects.get().outcome == "profile_forbidden"
