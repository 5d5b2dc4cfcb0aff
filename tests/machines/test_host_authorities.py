"""Authorities of host certificates that an admin has approved, in the admin and with `manage.py trust_host`."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from runners.exceptions import HostKeyChanged, HostKeyUnknown, InvalidRequest
from runners.models import AuditRecord, TrustedHostKey
from runners.services import host_keys
from runners.services.machines.ssh.pool import POOL
from tests.support.environments import StubAccount
from tests.support.servers import SSHServer
from tests.support.ssh import greet, host_name, make_key, public_half

pytestmark = pytest.mark.django_db
PATTERN = "[127.0.*]:*"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return make_key(tmp_path / "authority", "ed25519", "-C", "the site's host CA")


@pytest.fixture
def sshd(make_sshd: Callable[..., SSHServer], account: StubAccount, tmp_path: Path, authority: Path) -> SSHServer:
    """A machine that no file trusts, with a certificate of the authority."""
    server = make_sshd(account.home, options={"HostCertificate": str(tmp_path / "host_key-cert.pub")})
    (tmp_path / "host_key.pub").write_bytes((server.folder / "host_key.pub").read_bytes())
    argv = [
        "ssh-keygen",
        "-q",
        "-s",
        str(authority),
        "-h",
        "-I",
        "mn5",
        "-n",
        "127.0.0.1",
        str(tmp_path / "host_key.pub"),
    ]
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
    server.restart()
    server.forget_host_key()
    return server


def run(*words: str, **options: Any) -> str:
    said = io.StringIO()
    call_command("trust_host", *words, stdout=said, **options)
    return said.getvalue()


def test_a_certificate_of_an_approved_authority_is_trusted_until_it_is_forgotten(
    sshd: SSHServer, authority: Path
) -> None:
    with pytest.raises(HostKeyUnknown):
        greet(sshd)
    said = run(PATTERN, "--authority", f"{authority}.pub", "--yes")
    assert "Approved: [127.0.*]:* ssh-ed25519 SHA256:" in said
    assert greet(sshd) == "hello"
    record = AuditRecord.objects.get(endpoint="approve-host-authority")
    assert record.outcome == AuditRecord.OK and PATTERN in record.detail and "(trust_host)" in record.actor
    assert TrustedHostKey.objects.get().line == f"@cert-authority {PATTERN} {' '.join(public_half(authority))}"
    assert run(PATTERN, "--authority", f"{authority}.pub", "--yes") == said
    assert TrustedHostKey.objects.count() == 1
    assert "Removed" in run(PATTERN, "--forget")
    assert AuditRecord.objects.filter(endpoint="forget-host-authority").exists()
    POOL.discard(sshd.target)
    with pytest.raises(HostKeyUnknown):
        greet(sshd)


@pytest.mark.parametrize("hosts", ["*.example.org", "[127.0.*]:1", "!127.0.0.1,![127.0.*]:*,mn5"])
def test_an_authority_holds_only_for_its_hosts(sshd: SSHServer, authority: Path, hosts: str) -> None:
    run(hosts, "--authority", f"{authority}.pub", "--yes")
    with pytest.raises(HostKeyUnknown):
        greet(sshd)


def test_the_approved_key_is_no_host_key_and_a_revoked_one_stays_revoked(sshd: SSHServer, authority: Path) -> None:
    """An authority with the host key itself must not make the plain key trusted."""
    run(PATTERN, "--authority", str(sshd.folder / "host_key.pub"), "--yes")
    with pytest.raises(HostKeyUnknown):
        greet(sshd)
    run(PATTERN, "--authority", f"{authority}.pub", "--yes")
    assert greet(sshd) == "hello"
    sshd.known_hosts.write_text(f"@revoked * {' '.join(public_half(authority))}\n")
    with pytest.raises(HostKeyChanged, match="marks @revoked"):
        greet(sshd)


def test_an_approved_authority_stands_beside_approved_host_keys(sshd: SSHServer, authority: Path) -> None:
    run(host_name(sshd), "--authority", f"{authority}.pub", "--yes")
    run("127.0.0.1", "--port", str(sshd.port), "--yes")
    assert TrustedHostKey.objects.filter(is_authority=False).exists()
    TrustedHostKey.objects.filter(is_authority=True).delete()
    assert greet(sshd) == "hello"


@pytest.mark.parametrize(
    ("hosts", "text", "words"),
    [
        ("*", None, "fits every host"),
        ("*.*", None, "fits every host"),
        ("", None, "Give 1 to"),
        ("a b", None, "not a valid pattern"),
        ("!a", None, "only exclude"),
        ("a\n@cert-authority *", None, "not a valid pattern"),
        (f"{'a' * 300}", None, "Give 1 to"),
        ("a", "ssh-ed25519 AAAA", "not a valid public key"),
        ("a", "ssh-ed25519", "not a public key"),
        ("a", "ssh-dss AAAAB3NzaC1kc3MAAAAB", "not a public key of a type"),
        ("a", "-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
        ("a", "ssh-ed25519-cert-v01@openssh.com AAAA", "not a public key of a type"),
    ],
)
def test_what_is_no_authority_is_rejected_with_a_remedy(
    admin_client: Client, authority: Path, hosts: str, text: str | None, words: str
) -> None:
    text = text or Path(f"{authority}.pub").read_text()
    with pytest.raises(InvalidRequest, match=words) as error:
        host_keys.hosts_of_authority(hosts)
        host_keys.authority_of(text)
    assert "such as" in error.value.detail
    page = admin_client.post(reverse("admin:runners_trustedhostkey_authority"), {"hosts": hosts, "key": text})
    assert page.status_code == 200 and not TrustedHostKey.objects.exists()


def test_the_command_compares_the_fingerprint_and_asks_nobody_without_a_terminal(
    authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = host_keys.authority_of(Path(f"{authority}.pub").read_text())
    monkeypatch.setattr("sys.stdin", io.StringIO(Path(f"{authority}.pub").read_text()))
    for words in (["--fingerprint", "SHA256:other"], [], ["--port", "22", "--yes"]):
        with pytest.raises(CommandError):
            run("*.example.org", "--authority", f"{authority}.pub", *words)
    with pytest.raises(CommandError, match="cannot be read"):
        run("*.example.org", "--authority", str(tmp_path / "none"), "--yes")
    assert not TrustedHostKey.objects.exists()
    run("*.Example.org", "--authority", "-", "--fingerprint", key.fingerprint)
    assert TrustedHostKey.objects.get().host == "*.example.org"


def test_the_admin_shows_the_fingerprint_first_and_audits_the_approval(
    admin_client: Client, client: Client, authority: Path
) -> None:
    address = reverse("admin:runners_trustedhostkey_authority")
    assert client.get(address).status_code == 302
    key = host_keys.authority_of(Path(f"{authority}.pub").read_text())
    form = {"hosts": "*.example.org", "key": Path(f"{authority}.pub").read_text()}
    page = admin_client.post(address, form).content.decode()
    assert key.fingerprint in page and not TrustedHostKey.objects.exists()
    admin_client.post(address, {**form, "approve": "SHA256:another"})
    assert not TrustedHostKey.objects.exists()
    assert admin_client.post(address, {**form, "approve": key.fingerprint}).status_code == 302
    row = TrustedHostKey.objects.get()
    assert (row.host, row.key, row.is_authority, row.approved_by) == ("*.example.org", key.base64, True, "admin")
    assert AuditRecord.objects.get(endpoint="approve-host-authority").actor == "admin"
    listed = admin_client.get(reverse("admin:runners_trustedhostkey_changelist")).content.decode()
    assert "*.example.org" in listed and "Approve a certificate authority" in listed
