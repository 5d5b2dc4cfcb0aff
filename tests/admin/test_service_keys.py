"""The page "Service keys": it makes, replaces, retires and publishes pairs, and shows public halves only."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from profiles.models import PublishedSSHKey
from runners.exceptions import InvalidRequest
from runners.models import AuditRecord
from runners.services import key_pairs
from runners.services.key_pairs import SERVICE_KEY, USER_CA
from runners.services.machines.ssh import keys

pytestmark = pytest.mark.django_db
PAGE = "/admin/service-keys/"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.RUNNERS_SSH_KEY_DIR = str(tmp_path / "ssh")
    return tmp_path / "ssh"


def staff(client: Client, *permissions: str) -> Client:
    user = User.objects.create_user("grace", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return client


def send(client: Client, **fields: str) -> str:
    return client.post(PAGE, fields, follow=True).content.decode()


def test_a_key_is_made_published_and_audited(admin_client: Client, folder: Path) -> None:
    shown = send(admin_client, kind="key", action="make", comment="the service of a site")
    row = PublishedSSHKey.objects.get()
    assert row.line.endswith(" the service of a site")
    assert row.line in shown
    record = AuditRecord.objects.get(endpoint="create-ssh-key")
    assert (record.actor, record.outcome, record.address) == ("admin", "ok", "127.0.0.1")
    assert "made the key pair SHA256:" in record.detail
    assert [change["action"] for change in record.changes or []] == ["add"]
    assert (folder / "id_ed25519").stat().st_mode & 0o777 == 0o600


def test_the_private_half_is_never_shown(admin_client: Client, folder: Path) -> None:
    shown = send(admin_client, kind="key", action="make") + send(admin_client, kind="ca", action="make")
    shown += admin_client.get(PAGE).content.decode()
    for name in ("id_ed25519", "user_ca"):
        secret = "".join((folder / name).read_text().splitlines()[2:-1])
        assert not any(secret[i : i + 40] in shown for i in range(0, len(secret) - 40, 20))
    assert "PRIVATE KEY" not in shown


@pytest.mark.parametrize(("kind", "pair"), [("key", SERVICE_KEY), ("ca", USER_CA)])
def test_a_rotation_needs_two_confirmations(admin_client: Client, kind: str, pair: key_pairs.PairKind) -> None:
    send(admin_client, kind=kind, action="make")
    first = pair.current
    assert first
    assert "Confirm it" in send(admin_client, kind=kind, action="replace")
    assert pair.current == first
    assert "SHA256" in send(admin_client, kind=kind, action="replace", sure="on")
    assert (pair.previous and pair.previous.line) == first.line
    assert "is still in use" in send(admin_client, kind=kind, action="replace", sure="on")
    assert "Confirm it" in send(admin_client, kind=kind, action="retire")
    assert f"Retired: {first.fingerprint}" in send(admin_client, kind=kind, action="retire", sure="on")
    assert pair.previous is None
    assert not PublishedSSHKey.objects.filter(line=first.line).exists()


def test_a_second_key_does_not_replace_the_first(admin_client: Client, folder: Path) -> None:
    send(admin_client, kind="key", action="make")
    before = (folder / "id_ed25519").read_bytes()
    assert "There is already a key pair" in send(admin_client, kind="key", action="make")
    assert (folder / "id_ed25519").read_bytes() == before


def test_a_key_that_is_not_published_can_be_published(admin_client: Client) -> None:
    send(admin_client, kind="key", action="make")
    PublishedSSHKey.objects.all().delete()
    assert "is not published" in admin_client.get(PAGE).content.decode()
    assert "Published: SHA256" in send(admin_client, kind="key", action="publish")
    assert PublishedSSHKey.objects.count() == 1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"kind": "other", "action": "make"},
        {"kind": "key", "action": "other"},
        {"kind": "key", "action": "make", "comment": "a\nb"},
    ],
)
def test_bad_input_makes_nothing(admin_client: Client, folder: Path, fields: dict[str, str]) -> None:
    assert 'role="alert"' in send(admin_client, **fields)
    assert not folder.exists() or not list(folder.iterdir())


def test_a_directory_that_cannot_be_used_is_named(admin_client: Client, tmp_path: Path, settings: Any) -> None:
    (tmp_path / "file").write_text("")
    settings.RUNNERS_SSH_KEY_DIR = str(tmp_path / "file" / "ssh")
    assert "RUNNERS_SSH_KEY_DIR names the directory" in send(admin_client, kind="key", action="make")


def test_a_public_file_that_is_not_valid_is_no_server_error(admin_client: Client, folder: Path) -> None:
    send(admin_client, kind="key", action="make")
    (folder / "id_ed25519.pub").write_bytes(b"\xff\xfe nonsense")
    assert "cannot be used" in admin_client.get(PAGE).content.decode()
    (folder / "id_ed25519.pub").write_text("nonsense")
    assert "cannot be used" in admin_client.get(PAGE).content.decode()
    assert admin_client.get("/admin/first-steps/").status_code == 200
    assert admin_client.get("/admin/").status_code == 200


def test_viewers_see_lines_without_buttons(client: Client, admin_client: Client) -> None:
    send(admin_client, kind="key", action="make")
    viewer = staff(client, "view_publishedsshkey")
    shown = viewer.get(PAGE).content.decode()
    assert PublishedSSHKey.objects.get().line in shown
    assert 'name="action"' not in shown
    assert viewer.post(PAGE, {"kind": "ca", "action": "make"}).status_code == 403
    assert USER_CA.current is None


def test_the_permission_allows_to_make_keys_and_nothing_less_does(client: Client) -> None:
    other = staff(client, "add_publishedsshkey", "change_publishedsshkey", "change_runnerprofile")
    assert other.get(PAGE).status_code == 403
    user = User.objects.get(username="grace")
    user.user_permissions.add(Permission.objects.get(codename="manage_service_keys"))
    send(client, kind="ca", action="make")
    assert USER_CA.current is not None
    assert AuditRecord.objects.get(endpoint="create-ssh-ca").actor == "grace"


def test_two_processes_do_not_change_the_keys_at_once(folder: Path) -> None:
    keys.make_key_directory()
    other = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)  # as another process does while it makes a pair
        with pytest.raises(InvalidRequest, match="Another process"):
            key_pairs.make(SERVICE_KEY, actor="ada")
    finally:
        os.close(other)
    assert key_pairs.make(SERVICE_KEY, actor="ada").line
