"""The service's own key pair: a command creates it, the service uses it, and its rotation has no gap."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from profiles.models import PublishedSSHKey
from runners.exceptions import AuthenticationFailed
from runners.models import AuditRecord
from runners.services.machines.registry import get_runner
from runners.services.machines.ssh import keys
from runners.services.machines.ssh.pool import POOL
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.RUNNERS_SSH_KEY_DIR = str(tmp_path / "keys" / "ssh")
    return tmp_path / "keys" / "ssh"


@pytest.fixture
def keyless_sshd(sshd: SSHServer, settings: Any) -> Iterator[SSHServer]:
    """Return an sshd for a service that has only its own key. The sshd does not know that key yet."""
    settings.RUNNERS_SSH_KEYS = []
    authorize(sshd)
    yield sshd


def authorize(sshd: SSHServer, *lines: str) -> None:
    (sshd.folder / "authorized_keys").write_text("".join(f"{line}\n" for line in lines))


def greet(sshd: SSHServer) -> str:
    POOL.discard(sshd.target)
    return get_runner(sshd.config()).execute("echo hello", timeout=20).text.strip()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_key_made_by_the_command_logs_in(
    folder: Path, keyless_sshd: SSHServer, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("create_ssh_key")
    line = capsys.readouterr().out.strip()
    with pytest.raises(AuthenticationFailed):
        greet(keyless_sshd)
    authorize(keyless_sshd, line)
    assert greet(keyless_sshd) == "hello"


def test_private_half_is_for_the_service_alone(folder: Path) -> None:
    old = os.umask(0)
    try:
        call_command("create_ssh_key")
    finally:
        os.umask(old)
    assert mode(folder / "id_ed25519") == 0o600
    assert mode(folder) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["id_ed25519", "id_ed25519.pub"]


def test_openssh_understands_the_pair(folder: Path) -> None:
    call_command("create_ssh_key", "--comment=runners of the tests")
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(folder / "id_ed25519")], capture_output=True, text=True, check=True
    ).stdout
    published = PublishedSSHKey.objects.get().line
    assert published.split()[:2] == derived.split()[:2]
    assert published.endswith(" runners of the tests")
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(folder / "id_ed25519.pub")], capture_output=True, text=True, check=True
    ).stdout
    key = keys.current()
    assert key and key.fingerprint in shown


def test_private_half_is_in_no_output_record_or_row(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    call_command("create_ssh_key")
    secret = "".join((folder / "id_ed25519").read_text().splitlines()[2:-1])
    record = AuditRecord.objects.get()
    said = "".join(capfd.readouterr()) + record.detail + str(record.argv) + PublishedSSHKey.objects.get().line
    assert (record.endpoint, record.outcome) == ("create-ssh-key", "ok")
    assert not any(secret[i : i + 40] in said for i in range(0, len(secret) - 40, 20))
    assert "PRIVATE" not in said


def test_existing_pair_is_never_overwritten(folder: Path) -> None:
    call_command("create_ssh_key")
    before = (folder / "id_ed25519").read_bytes()
    with pytest.raises(CommandError, match="already"):
        call_command("create_ssh_key")
    assert (folder / "id_ed25519").read_bytes() == before
    assert PublishedSSHKey.objects.count() == 1


def test_rotation_has_no_gap(folder: Path, keyless_sshd: SSHServer) -> None:
    call_command("create_ssh_key")
    (old,) = PublishedSSHKey.objects.values_list("line", flat=True)
    authorize(keyless_sshd, old)
    call_command("create_ssh_key", "--replace")
    new = PublishedSSHKey.objects.exclude(line=old).get().line
    assert greet(keyless_sshd) == "hello"  # the old key still works on a server that knows only the old key
    authorize(keyless_sshd, new)
    assert greet(keyless_sshd) == "hello"
    with pytest.raises(CommandError, match="--retire first"):
        call_command("create_ssh_key", "--replace")
    call_command("create_ssh_key", "--retire")
    assert list(PublishedSSHKey.objects.values_list("line", flat=True)) == [new]
    assert sorted(path.name for path in folder.iterdir()) == ["id_ed25519", "id_ed25519.pub"]
    assert greet(keyless_sshd) == "hello"
    authorize(keyless_sshd, old)
    with pytest.raises(AuthenticationFailed):
        greet(keyless_sshd)


def test_pair_can_be_published_again(folder: Path) -> None:
    call_command("create_ssh_key")
    line = PublishedSSHKey.objects.get().line
    PublishedSSHKey.objects.all().delete()
    call_command("create_ssh_key", "--publish")
    assert PublishedSSHKey.objects.get().line == line


def test_a_directory_that_cannot_be_created_is_reported(tmp_path: Path, settings: Any) -> None:
    (tmp_path / "file").write_text("")
    settings.RUNNERS_SSH_KEY_DIR = str(tmp_path / "file" / "ssh")
    with pytest.raises(CommandError, match="cannot be used"):
        call_command("create_ssh_key")
    assert not PublishedSSHKey.objects.exists()


def test_service_without_any_key_says_which_command_makes_one(folder: Path, keyless_sshd: SSHServer) -> None:
    with pytest.raises(AuthenticationFailed, match="create_ssh_key"):
        greet(keyless_sshd)
