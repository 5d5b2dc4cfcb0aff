"""Machines and their maintenance in the API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from profiles.models import RunnerProfile
from runners.models import ApiToken, AuditRecord, Machine, Maintenance, RunnerRun
from tests.support.environments import StubAccount

pytestmark = pytest.mark.django_db
MACHINES = "/v4/runners/machines"
TEXT = "New disks <b>today</b>. Ask ops@site.example"


@pytest.fixture(autouse=True)
def _profile(settings: Any) -> None:
    settings.PROTECTION_LEVEL = "ALL"
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")


def bearer(user: User, scope: str) -> dict[str, str]:
    _, text = ApiToken.issue(user=user, scope=scope, expiry=timedelta(days=1))
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture
def boss() -> User:
    user = User.objects.create_user("boss")
    user.user_permissions.set(Permission.objects.filter(codename__in=("add_maintenance", "delete_maintenance")))
    return user


def announce(client: Client, headers: dict[str, str], machine: str = "localhost", **body: Any) -> Any:
    path = f"{MACHINES}/{machine}/maintenance"
    return client.post(path, {"text": TEXT, **body}, "application/json", headers=headers)


def test_a_maintenance_is_announced_seen_obeyed_and_ended(client: Client, boss: User, account: StubAccount) -> None:
    manage = bearer(boss, "manage")
    answer = announce(client, manage, ends="2099-01-01T00:00:00+01:00")
    assert answer.status_code == 200, answer.content
    announced = answer.json()
    assert (announced["machine"], announced["text"], announced["announced_by"]) == ("localhost", TEXT, "boss")
    assert announced["ends"] == "2098-12-31T23:00:00+00:00"

    ana = bearer(User.objects.create_user("ana"), "run")
    (machine,) = client.get(MACHINES, headers=ana).json()["machines"]
    assert (machine["name"], machine["profiles"], machine["active_runs"]) == ("localhost", ["HERE"], 0)
    assert machine["maintenance"] == [announced]
    body = {"expid": "a000", "profile_name": "HERE"}
    run = "/v4/runners/command/run-experiment"
    refused = client.post(run, body, "application/json", headers=ana)
    assert refused.status_code == 503
    assert refused.json()["code"] == "machine_in_maintenance"
    assert refused.json()["maintenance"] == announced
    assert TEXT in refused.json()["detail"]
    assert 10**9 < int(refused["Retry-After"]) < 10**10
    plan = client.post(run, {**body, "dry_run": True}, "application/json", headers=ana)
    assert "would be refused now" in plan.json()["warnings"][0]
    assert not RunnerRun.objects.exists()

    path = f"{MACHINES}/localhost/maintenance/{announced['id']}"
    assert client.delete(path, headers=ana).status_code == 403
    assert client.delete(path, headers=manage).status_code == 200
    assert client.delete(path, headers=manage).json()["code"] == "maintenance_not_found"
    assert client.post(run, body, "application/json", headers=ana).status_code == 200
    records = AuditRecord.objects.filter(endpoint__endswith="-maintenance").order_by("id")
    assert [(each.endpoint, each.outcome) for each in records] == [
        ("announce-maintenance", "ok"),
        ("end-maintenance", "permission_denied"),
        ("end-maintenance", "ok"),
        ("end-maintenance", "maintenance_not_found"),
    ]


def test_without_protection_everybody_sees_the_machines_of_open_profiles(client: Client, settings: Any) -> None:
    assert client.get(MACHINES).status_code == 401
    settings.PROTECTION_LEVEL = "WRITEONLY"
    (machine,) = client.get(MACHINES).json()["machines"]
    assert (machine["name"], machine["state"]) == ("localhost", "unknown")
    settings.PROTECTION_LEVEL = "NONE"
    assert announce(client, {}).status_code == 403


def test_the_scope_and_the_permission_are_both_required(client: Client, boss: User) -> None:
    assert announce(client, bearer(boss, "run")).json()["code"] == "permission_denied"
    other = announce(client, bearer(User.objects.create_user("ana"), "manage"))
    assert other.status_code == 403
    assert "runners.add_maintenance" in other.json()["detail"]
    assert announce(client, {}).status_code == 401
    assert not Maintenance.objects.exists()


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({"text": ""}, "text"),
        ({"text": 5}, "text"),
        ({"text": "x" * 501}, "text"),
        ({"text": "a\0b"}, "text"),
        ({"starts": "2099-01-01T10:00:00"}, "starts"),
        ({"starts": 1700000000}, "starts"),
        ({"ends": "0001-01-01T00:00:00+14:00"}, "ends"),
        ({"ends": "9999-12-31T23:59:59-14:00"}, "ends"),
        ({"ends": "9999-12-31T23:59:59Z"}, "ends"),
        ({"ends": "9999-12-31T23:59:59-05:00"}, "ends"),
        ({"starts": "0001-01-01T00:00:00Z"}, "starts"),
        ({"starts": "0001-01-01T00:00:00+09:00"}, "starts"),
        ({"ends": ["2099-01-01T10:00:00Z"]}, "ends"),
        ({"starts": "2099-01-02T10:00:00Z", "ends": "2099-01-01T10:00:00Z"}, "ends"),
        ({"starts": "2001-01-01T10:00:00Z", "ends": "2002-01-01T10:00:00Z"}, "ends"),
        ({"host": "other"}, "host"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_invalid_announcements_name_the_member(
    client: Client, boss: User, settings: Any, body: dict[str, Any], member: str, zone: str
) -> None:
    settings.TIME_ZONE = zone
    answer = announce(client, bearer(boss, "manage"), **body)
    assert answer.status_code == 400, answer.content
    assert list(answer.json()["errors"]) == [member]
    assert not Maintenance.objects.exists()


def test_an_unknown_machine_is_not_found(client: Client, boss: User) -> None:
    answer = announce(client, bearer(boss, "manage"), machine="nowhere%20%00x")
    assert answer.status_code == 404
    assert answer.json()["code"] in ("machine_not_found", "not_found")
    assert announce(client, bearer(boss, "manage"), machine="LOCALHOST.").status_code == 200


def test_a_machine_is_forgotten_when_nothing_uses_it(client: Client, boss: User) -> None:
    boss.user_permissions.add(Permission.objects.get(codename="delete_machine"))
    manage = bearer(boss, "manage")
    User.objects.filter(pk=boss.pk).update(is_staff=True)
    assert client.delete(f"{MACHINES}/localhost", headers=manage).json()["code"] == "machine_in_use"
    Machine.objects.create(name="old.example")
    assert client.delete(f"{MACHINES}/old.example", headers=manage).status_code == 200
    assert client.delete(f"{MACHINES}/old.example", headers=manage).json()["code"] == "machine_not_found"


def test_one_machine_has_a_bounded_number_of_announcements(client: Client, boss: User) -> None:
    later = timezone.now() + timedelta(days=1)
    Maintenance.objects.bulk_create(Maintenance(machine="localhost", text="x", starts=later) for _ in range(100))
    answer = announce(client, bearer(boss, "manage"))
    assert answer.status_code == 400
    assert "100 announcements already" in answer.json()["detail"]
