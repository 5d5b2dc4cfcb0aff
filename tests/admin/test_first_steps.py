"""The first steps of an admin: each has a link, and a tick when the real state says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from profiles.models import RunnerProfile
from runners.models import AuditRecord, TrustedHostKey
from runners.services import first_steps, key_pairs
from runners.services.key_pairs import SERVICE_KEY

pytestmark = pytest.mark.django_db
PAGE = "/admin/first-steps/"
HOST_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIEfJ3oZp6FqE0sZkzqFq2eQ3vQ1m2m1m2m1m2m1m2m1m"


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service without keys, SSH configuration and known hosts."""
    (tmp_path / "config").write_text("")
    settings.RUNNERS_SSH_KEY_DIR = str(tmp_path / "ssh")
    settings.RUNNERS_SSH_CONFIG = str(tmp_path / "config")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def done() -> dict[str, bool]:
    return {step.name: step.is_done for step in first_steps.steps()}


def test_each_step_is_done_when_its_state_says_so() -> None:
    assert done() == dict.fromkeys(("key", "host", "profile", "check", "people"), False)
    key_pairs.make(SERVICE_KEY, actor="root")
    assert done()["key"]
    TrustedHostKey.objects.create(host="login1", key_type="ssh-ed25519", key=HOST_KEY, approved_by="root")
    assert done()["host"]
    profile = RunnerProfile.objects.create(
        name="CLUSTER", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host="login1", ssh_user="ada"
    )
    assert done() == {"key": True, "host": True, "profile": True, "check": False, "people": False}
    AuditRecord.objects.create(endpoint="check-profile", profile_name="CLUSTER", outcome="ok", detail="failed: reach")
    assert not done()["check"]
    AuditRecord.objects.create(endpoint="check-profile", profile_name="CLUSTER", outcome="ok", detail="")
    assert done()["check"]
    AuditRecord.objects.create(endpoint="check-profile", profile_name="CLUSTER", outcome="machine_busy", detail="busy")
    assert not done()["check"], "the last test counts"
    User.objects.create_user("ada")
    assert done()["people"]
    TrustedHostKey.objects.all().delete()
    assert not done()["host"]
    profile.enabled = False
    profile.save()
    assert not done()["profile"]


def test_a_service_of_local_profiles_needs_no_key_and_no_host() -> None:
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    found = done()
    assert (found["key"], found["host"], found["profile"]) == (True, True, True)


def test_every_link_leads_to_a_page(admin_client: Client) -> None:
    RunnerProfile.objects.create(
        name="CLUSTER", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host="login1", enabled=False
    )
    assert all(step.pages for step in first_steps.steps())
    RunnerProfile.objects.update(enabled=True)
    steps = first_steps.steps()
    urls = {page.url for step in steps for page in step.pages} | {
        need.page.url for step in steps for need in step.needs if need.page
    }
    assert len(urls) >= 10
    for url in urls:
        assert admin_client.get(url).status_code == 200, url


def test_the_first_page_shows_them_until_they_are_dismissed(admin_client: Client) -> None:
    assert 'id="first-steps"' in admin_client.get("/admin/").content.decode()
    shown = admin_client.post(PAGE, follow=True).content.decode()
    assert 'id="first-steps"' not in shown
    assert f'href="{PAGE}"' in shown, "the menu leads to them"
    assert "0 of 5 steps" in admin_client.get(PAGE).content.decode()
    assert 'id="first-steps"' in admin_client.post(PAGE, {"show": ""}, follow=True).content.decode()


def test_the_first_page_does_not_show_them_when_all_are_done(admin_client: Client) -> None:
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    AuditRecord.objects.create(endpoint="check-profile", profile_name="HERE", outcome="ok")
    User.objects.create_user("ada")
    assert 'id="first-steps"' not in admin_client.get("/admin/").content.decode()
    assert "Everything is done" in admin_client.get(PAGE).content.decode()


def test_only_people_who_may_change_profiles_see_them(client: Client) -> None:
    user = User.objects.create_user("grace", is_staff=True)
    client.force_login(user)
    assert client.get(PAGE).status_code == 403
    assert 'id="first-steps"' not in client.get("/admin/").content.decode()
    user.user_permissions.add(Permission.objects.get(codename="change_runnerprofile"))
    assert client.get(PAGE).status_code == 200
