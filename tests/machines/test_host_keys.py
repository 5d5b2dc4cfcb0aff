"""Host keys, with real sshds: unknown and changed keys are rejected, approved and listed keys are accepted."""

from __future__ import annotations

import base64
import hmac
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from runners.exceptions import HostKeyChanged, HostKeyUnknown, InvalidRequest, RunnerUnreachable
from runners.models import AuditRecord, TrustedHostKey
from runners.services import host_keys
from runners.services.host_keys import ScannedKey
from runners.services.machines.ssh import known_hosts
from runners.services.machines.ssh.config import lookup
from runners.services.machines.ssh.known_hosts import HostKey, known_hosts_name
from runners_project import bounded
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE, free_port
from tests.support.servers import SSHServer
from tests.support.ssh import greet, host_name, make_key, openssh_connects, public_half

pytestmark = pytest.mark.django_db


def host_key(sshd: SSHServer) -> tuple[str, str]:
    return public_half(sshd.folder / "host_key")


def fingerprint(key: Path) -> str:
    """Return the fingerprint as ssh-keygen prints it."""
    argv = ["ssh-keygen", "-lf", str(key)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[1]


def scan_one(sshd: SSHServer) -> ScannedKey:
    (key,) = host_keys.scan("127.0.0.1", sshd.port)
    return key


def test_unknown_key_is_refused_with_the_fingerprint_that_ssh_keygen_shows(sshd: SSHServer) -> None:
    sshd.forget_host_key()
    with pytest.raises(HostKeyUnknown) as caught:
        greet(sshd)
    assert caught.value.facts["fingerprint"] == sshd.host_key_fingerprint
    assert sshd.host_key_fingerprint in caught.value.detail
    assert caught.value.facts["host"] == host_name(sshd)


def test_no_credentials_are_sent_to_an_unknown_host(sshd: SSHServer) -> None:
    sshd.forget_host_key()
    before = sshd.log.read_text()
    with pytest.raises(HostKeyUnknown):
        greet(sshd)
    new = sshd.log.read_text().removeprefix(before)
    assert "publickey" not in new and "userauth" not in new.lower()


def test_approved_key_is_trusted(sshd: SSHServer) -> None:
    sshd.forget_host_key()
    scanned = scan_one(sshd)
    assert (scanned.state, scanned.fingerprint) == ("new", sshd.host_key_fingerprint)
    assert scanned.host == host_name(sshd)
    host_keys.approve(scanned, "ana")
    assert greet(sshd) == "hello"
    assert scan_one(sshd).state == "trusted"


def test_approving_and_forgetting_a_host_key_are_audited(sshd: SSHServer) -> None:
    scanned = scan_one(sshd)
    row = host_keys.approve(scanned, "ana")
    host_keys.forget(row, "ben")
    forgotten, approved = AuditRecord.objects.all()[:2]
    assert (approved.endpoint, approved.actor) == ("approve-host-key", "ana")
    assert (forgotten.endpoint, forgotten.actor) == ("forget-host-key", "ben")
    for record in (approved, forgotten):
        assert scanned.fingerprint in record.detail and host_name(sshd) in record.detail
    assert not TrustedHostKey.objects.exists()


def test_swapped_key_is_refused_until_an_admin_replaces_it(sshd: SSHServer) -> None:
    sshd.forget_host_key()
    first = scan_one(sshd)
    host_keys.approve(first, "ana")
    sshd.swap_host_key()
    for _ in range(2):  # a failed attempt does not store the key
        with pytest.raises(HostKeyChanged) as caught:
            greet(sshd)
    assert caught.value.facts["fingerprint"] == sshd.host_key_fingerprint
    assert caught.value.facts["trusted_fingerprint"] == first.fingerprint
    second = scan_one(sshd)
    assert (second.state, second.trusted_fingerprint) == ("changed", first.fingerprint)
    host_keys.approve(second, "ana")
    assert greet(sshd) == "hello"
    assert TrustedHostKey.objects.count() == 1
    assert f"replaces {first.fingerprint}" in AuditRecord.objects.all()[0].detail


def test_approved_key_replaces_the_one_in_a_file(sshd: SSHServer) -> None:
    old = HostKey.from_base64(host_key(sshd)[1])
    sshd.swap_host_key()  # the file lists the old key
    with pytest.raises(HostKeyChanged):
        greet(sshd)
    host_keys.approve(scan_one(sshd), "ana")
    assert greet(sshd) == "hello"
    assert old not in known_hosts.load(lookup("127.0.0.1"), sshd.port).trusted


def test_approved_keys_are_per_port(
    sshd: SSHServer, account: StubAccount, make_sshd: Callable[..., SSHServer], settings: Any
) -> None:
    host_keys.approve(scan_one(sshd), "ana")
    other = make_sshd(account.home)
    other.forget_host_key()
    with pytest.raises(HostKeyUnknown) as caught:
        greet(other)
    assert caught.value.facts["host"] == host_name(other)


def hashed(host: str) -> str:
    """Return a host field as HashKnownHosts writes it."""
    salt = b"s" * 20
    digest = hmac.digest(salt, host.encode(), "sha1")
    return "|1|" + "|".join(base64.b64encode(part).decode() for part in (salt, digest))


@pytest.mark.parametrize(
    "line",
    [
        "{name} {kind} {key}",
        "{hashed} {kind} {key} with a comment",
        "other.example,{name} {kind} {key}",
        "*:{port} {kind} {key}",
        "[127.0.0.?]:* {kind} {key}",
        "127.0.0.1 {kind} {key}",  # no line names the port, so a line without port applies
        "{hashed22} {kind} {key}",
        "!{name},* {kind} {key}",
    ],
)
def test_lines_of_known_hosts_files_are_honoured(sshd: SSHServer, line: str) -> None:
    kind, key = host_key(sshd)
    names = {
        "name": host_name(sshd),
        "hashed": hashed(host_name(sshd)),
        "hashed22": hashed("127.0.0.1"),
        "port": sshd.port,
    }
    text = line.format(**names, kind=kind, key=key)
    sshd.known_hosts.write_text(f"# a comment\n\nnonsense\n{host_name(sshd)} ssh-ed25519 nonsense\n{text}\n")
    assert openssh_connects(sshd)
    assert greet(sshd) == "hello"


@pytest.mark.parametrize(
    "line",
    [
        "127.0.0.2 {kind} {key}",
        "{hashed22} {kind} {key}",  # of another host
        "!{name},!127.0.0.1,* {kind} {key}",
        "@cert-authority {name} {kind} {key}",
        "#{name} {kind} {key}",
        "{name} ssh-rsa {key}",  # not the type of the key
        "[127.0.0.1]:{port}1 {kind} {key}",
        "x{name} {kind} {key}",
    ],
)
def test_known_hosts_lines_of_other_hosts_trust_nothing(sshd: SSHServer, line: str) -> None:
    kind, key = host_key(sshd)
    text = line.format(name=host_name(sshd), hashed22=hashed("127.0.0.2"), port=sshd.port, kind=kind, key=key)
    sshd.known_hosts.write_text(f"{text}\n")
    assert not openssh_connects(sshd)
    with pytest.raises(HostKeyUnknown):
        greet(sshd)


def test_openssh_writes_a_file_that_is_understood(sshd: SSHServer) -> None:
    argv = ["ssh-keyscan", "-H", "-p", str(sshd.port), "127.0.0.1"]
    scanned = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30 * PATIENCE).stdout
    assert "|1|" in scanned
    sshd.known_hosts.write_text(scanned)
    assert greet(sshd) == "hello"


def test_revoked_key_is_refused_although_it_is_listed_and_approved(sshd: SSHServer) -> None:
    kind, key = host_key(sshd)
    scanned = scan_one(sshd)
    host_keys.approve(scanned, "ana")
    sshd.known_hosts.write_text(f"{host_name(sshd)} {kind} {key}\n@revoked * {kind} {key}\n")
    with pytest.raises(HostKeyChanged, match="@revoked") as caught:
        greet(sshd)
    assert caught.value.facts["fingerprint"] == sshd.host_key_fingerprint
    revoked = scan_one(sshd)
    assert revoked.state == "revoked"
    with pytest.raises(InvalidRequest, match="@revoked"):
        host_keys.approve(revoked, "ana")


def test_several_keys_of_one_type_may_be_listed(sshd: SSHServer, tmp_path: Path) -> None:
    other = public_half(make_key(tmp_path / "other", "ed25519"))
    lines = [f"{host_name(sshd)} {kind} {key}\n" for kind, key in (other, host_key(sshd))]
    sshd.known_hosts.write_text("".join(lines))
    assert greet(sshd) == "hello"


@pytest.mark.parametrize("option", ["UserKnownHostsFile", "GlobalKnownHostsFile"])
def test_the_known_hosts_files_of_the_ssh_configuration_are_read(
    sshd: SSHServer, tmp_path: Path, settings: Any, option: str
) -> None:
    own = tmp_path / "of the account"
    own.write_text(sshd.known_hosts.read_text())
    sshd.forget_host_key()
    settings.RUNNERS_SSH_CONFIG = str(tmp_path / "config")
    (tmp_path / "config").write_text(f'Host *\n  {option} /nowhere "{own}"\n')
    assert greet(sshd) == "hello"


def test_a_host_key_alias_is_the_name_that_is_looked_up(sshd: SSHServer, tmp_path: Path, settings: Any) -> None:
    kind, key = sshd.known_hosts.read_text().split()[1:3]
    settings.RUNNERS_SSH_CONFIG = str(tmp_path / "config")
    (tmp_path / "config").write_text("Host *\n  HostKeyAlias Cluster\n")
    sshd.known_hosts.write_text(f"cluster {kind} {key}\n")
    assert greet(sshd) == "hello"
    sshd.known_hosts.write_text(f"{host_name(sshd)} {kind} {key}\n")
    with pytest.raises(HostKeyUnknown) as caught:
        greet(sshd)
    assert caught.value.facts["host"] == "cluster"


def test_a_known_hosts_line_without_port_is_used_if_no_line_has_the_port(sshd: SSHServer, tmp_path: Path) -> None:
    """As in ssh: "checking without port identifier"."""
    kind, key = sshd.known_hosts.read_text().split()[1:3]
    sshd.known_hosts.write_text(f"127.0.0.1 {kind} {key}\n")
    assert greet(sshd) == "hello"
    other = public_half(make_key(tmp_path / "other", "ed25519"))
    sshd.known_hosts.write_text(f"127.0.0.1 {kind} {key}\n{host_name(sshd)} {' '.join(other)}\n")
    with pytest.raises(HostKeyChanged):
        greet(sshd)


@pytest.mark.parametrize(("kind", "options"), [("rsa", ["-b", "3072"]), ("ecdsa", []), ("ecdsa", ["-b", "521"])])
def test_the_client_requests_the_trusted_kind_of_host_key(
    account: StubAccount, make_sshd: Callable[..., SSHServer], tmp_path: Path, kind: str, options: list[str]
) -> None:
    other = make_key(tmp_path / "other_host_key", kind, *options)
    server = make_sshd(account.home, options={"hostkey": str(other)})  # besides ed25519, which clients prefer
    server.known_hosts.write_text(f"{host_name(server)} {' '.join(public_half(other))}\n")
    assert greet(server) == "hello"


def test_scan_shows_every_kind_of_key(
    account: StubAccount, make_sshd: Callable[..., SSHServer], tmp_path: Path
) -> None:
    rsa, ecdsa = make_key(tmp_path / "rsa", "rsa"), make_key(tmp_path / "ecdsa", "ecdsa")
    server = make_sshd(account.home, options={"hostkey": str(rsa), "HOSTKEY": str(ecdsa)})
    shown = {key.key_type: key.fingerprint for key in host_keys.scan("127.0.0.1", server.port)}
    assert shown == {
        "ssh-ed25519": server.host_key_fingerprint,
        "ecdsa-sha2-nistp256": fingerprint(ecdsa),
        "ssh-rsa": fingerprint(rsa),
    }
    assert "Accepted" not in server.log.read_text()


def test_scan_of_a_machine_that_is_down_says_so() -> None:
    with pytest.raises(RunnerUnreachable, match="connection refused"):
        host_keys.scan("127.0.0.1", free_port())


def test_scan_of_a_frozen_machine_ends_at_the_deadline(sshd: SSHServer, settings: Any) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT = 1
    with sshd.frozen(), pytest.raises(RunnerUnreachable, match="no answer within"):
        host_keys.scan("127.0.0.1", sshd.port)


def test_unreadable_known_hosts_trusts_nothing_because_it_may_revoke(sshd: SSHServer, settings: Any) -> None:
    settings.RUNNERS_KNOWN_HOSTS = str(sshd.folder)  # a directory, because root may read any file
    with pytest.raises(RunnerUnreachable, match="cannot read its known_hosts"):
        greet(sshd)


def test_a_stored_host_key_that_is_invalid_matches_nothing(sshd: SSHServer) -> None:
    TrustedHostKey.objects.create(host=host_name(sshd), key_type="ssh-ed25519", key="no key at all")
    sshd.forget_host_key()
    with pytest.raises(HostKeyUnknown):
        greet(sshd)


@pytest.mark.parametrize("host", ["127.0.0.1", "[127.0.0.1]:PORT"])
def test_each_known_hosts_file_is_read_once_per_login(
    sshd: SSHServer, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At another port than 22 a host is looked up under two names, which may cost two reads of a slow home."""
    kind, key = host_key(sshd)
    sshd.known_hosts.write_text(f"{host.replace('PORT', str(sshd.port))} {kind} {key}\n")
    read: list[str] = []
    whole = bounded.read_file
    monkeypatch.setattr(bounded, "read_file", lambda path: (read.append(str(path)), whole(path))[1])
    known = known_hosts.load(lookup("127.0.0.1"), sshd.port)
    assert [known_key.key_type for known_key in known.trusted] == [kind]
    assert read.count(str(sshd.known_hosts)) == 1


def test_names_are_those_of_known_hosts_files() -> None:
    assert known_hosts_name("Cluster.Example.COM", 22) == "cluster.example.com"
    assert known_hosts_name("cluster.example.com", 2222) == "[cluster.example.com]:2222"


# --- manage.py trust_host ---------------------------------------------------------------------------------------------


def trust(sshd: SSHServer, *options: str) -> None:
    call_command("trust_host", "127.0.0.1", f"--port={sshd.port}", *options)


def test_trust_host_with_the_expected_fingerprint(sshd: SSHServer, capsys: pytest.CaptureFixture[str]) -> None:
    sshd.forget_host_key()
    trust(sshd, f"--fingerprint={sshd.host_key_fingerprint}")
    assert f"Approved: {host_name(sshd)} ssh-ed25519 {sshd.host_key_fingerprint}" in capsys.readouterr().out
    assert greet(sshd) == "hello"


def test_trust_host_refuses_another_fingerprint(sshd: SSHServer, tmp_path: Path) -> None:
    other = fingerprint(make_key(tmp_path / "other", "ed25519"))
    with pytest.raises(CommandError, match="has no key with the fingerprint"):
        trust(sshd, f"--fingerprint={other}")
    assert not TrustedHostKey.objects.exists()


def test_trust_host_approves_nothing_unasked(
    sshd: SSHServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sshd.forget_host_key()
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(CommandError, match="Nothing was approved"):
        trust(sshd)
    assert sshd.host_key_fingerprint in capsys.readouterr().out
    assert not TrustedHostKey.objects.exists()


def test_trust_host_yes_does_not_replace_a_changed_key(sshd: SSHServer) -> None:
    sshd.forget_host_key()
    trust(sshd, "--yes")
    first = TrustedHostKey.objects.get()
    sshd.swap_host_key()
    with pytest.raises(CommandError, match="has changed"):
        trust(sshd, "--yes")
    assert TrustedHostKey.objects.get().key == first.key
    trust(sshd, "--yes", "--replace")
    assert greet(sshd) == "hello"


def test_trust_host_forgets(sshd: SSHServer) -> None:
    sshd.forget_host_key()
    trust(sshd, "--yes")
    trust(sshd, "--forget")
    with pytest.raises(HostKeyUnknown):
        greet(sshd)
