"""Certificates of the user CA: one person, one account, some minutes. A real sshd without authorized_keys."""

from __future__ import annotations

import logging
import re
import stat
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from profiles.config import RunnerConfig
from profiles.models import RunnerProfile
from runners.exceptions import AuthenticationFailed
from runners.models import AuditRecord
from runners.services import login_lines
from runners.services.machines.breaker import BREAKER
from runners.services.machines.registry import get_runner
from runners.services.machines.ssh import connect, keys, user_authority
from runners.services.machines.ssh.certificates import Certificate
from runners.services.machines.ssh.pool import POOL, Connection
from runners.services.machines.ssh.target import BOTH, CERTIFICATE, SSHTarget
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE, wait_for
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db


class Site:
    """A machine that trusts the user CA and has an empty authorized_keys."""

    def __init__(self, sshd: SSHServer, folder: Path) -> None:
        self.sshd, self.folder = sshd, folder
        self.krl = folder / "revoked"

    def target(self, person: str = "ana", *, user: str = "", way: str = CERTIFICATE) -> SSHTarget:
        return replace(self.sshd.target, user=user or self.sshd.user, authentication=way, person=person)

    def greet(self, person: str = "ana", *, new: bool = True, way: str = CERTIFICATE) -> str:
        """Run a command as the person, over a new connection, and return its output."""
        if new:
            POOL.close()
        config = RunnerConfig("SSH", "NO_MODULE", (), self.target(person, way=way))
        return get_runner(config).execute("echo hello", timeout=20).text.strip()

    def logins(self) -> list[tuple[str, int]]:
        """Return the key id and the serial of each certificate that sshd has accepted, from its log."""
        found = re.findall(r"^Accepted certificate ID \"(\S+)\" \(serial (\d+)\)", self.sshd.log.read_text(), re.M)
        return [(name, int(serial)) for name, serial in found]


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.RUNNERS_SSH_KEY_DIR = str(tmp_path / "keys")
    return tmp_path / "keys"


def trusted(path: Path) -> None:
    path.write_text("".join(f"{key.line}\n" for key in user_authority.authorities()))


@pytest.fixture
def site(
    make_sshd: Callable[..., SSHServer], account: StubAccount, folder: Path, tmp_path: Path, settings: Any
) -> Site:
    call_command("create_ssh_ca")
    trusted(tmp_path / "ca.pub")
    (tmp_path / "revoked").touch()
    options = {"TrustedUserCAKeys": str(tmp_path / "ca.pub"), "RevokedKeys": str(tmp_path / "revoked")}
    sshd = make_sshd(account.home, options=options)
    sshd.authorized = False
    return Site(sshd, tmp_path)


def test_a_login_without_authorized_keys_is_logged_with_the_name_of_the_person(site: Site) -> None:
    assert site.greet("ana") == "hello"
    assert site.greet("José Núñez <x>\n") == "hello"
    assert [name for name, _ in site.logins()] == [
        "autosubmit-runners:ana",
        "autosubmit-runners:Jos%C3%A9%20N%C3%BA%C3%B1ez%20%3Cx%3E%0A",
    ]
    assert len({serial for _, serial in site.logins()}) == 2
    assert f"Accepted publickey for {site.sshd.user} from 127.0.0.1" in site.sshd.log.read_text()


def test_the_service_key_is_never_offered_to_a_certificate_only_machine(site: Site) -> None:
    site.sshd.authorized = True  # the service's key would be accepted
    with pytest.raises(AuthenticationFailed, match="is not mapped to the person"):
        site.greet("")
    Path(site.folder / "ca.pub").write_text("")
    with pytest.raises(AuthenticationFailed, match="rejected the certificate for ana"):
        site.greet("ana")
    assert "Accepted publickey" not in site.sshd.log.read_text()


def test_both_uses_the_certificate_first_and_then_the_keys(site: Site) -> None:
    assert site.greet("ana", way=BOTH) == "hello"
    assert len(site.logins()) == 1
    Path(site.folder / "ca.pub").write_text("")
    with pytest.raises(
        AuthenticationFailed, match=r"the certificate for ana .* and the service's keys.*authorized_keys"
    ):
        site.greet("ana", way=BOTH)
    site.sshd.authorized = True
    assert site.greet("ana", way=BOTH) == "hello"
    assert len(site.logins()) == 1
    for file in keys.directory().iterdir():
        file.unlink()
    assert site.greet("ana", way=BOTH) == "hello", "a service without CA still has its key"


def sign_otherwise(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    """Let the service sign for another person or account than it logs in for."""
    sign = user_authority.sign
    monkeypatch.setattr(
        user_authority, "sign", lambda person, account: sign(**{"person": person, "account": account} | changes)
    )


def test_a_certificate_is_for_exactly_one_account(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_otherwise(monkeypatch, account="somebody")
    with pytest.raises(AuthenticationFailed, match=f"AuthorizedPrincipalsFile, if it is used, lists {site.sshd.user}"):
        site.greet()
    assert "name is not a listed principal" in site.sshd.log.read_text()


def test_the_line_of_the_account_page_lets_the_service_in(
    make_sshd: Callable[..., SSHServer], account: StubAccount, folder: Path, tmp_path: Path
) -> None:
    """The machine trusts no CA: the account accepts it with a line in its own authorized_keys."""
    profile = {"runner_type": "SSH", "ssh_host": "h.example", "module_loader_type": "NO_MODULE"}
    RunnerProfile.objects.create(name="P", **profile, other_parameters={"SSH.AUTHENTICATION": CERTIFICATE})
    keys.create(keys.USER_CA, comment="ca")
    sshd = make_sshd(account.home)
    sshd.authorized = False
    site = Site(sshd, tmp_path)
    with pytest.raises(AuthenticationFailed):
        site.greet()
    BREAKER.forget()
    (line,) = login_lines.lines_for(User.objects.create_user("ana")).authorities
    sshd._authorized_keys.write_text(f"{line}\n")
    assert site.greet() == "hello"


@pytest.mark.parametrize("listed", [True, False])
def test_authorized_principals_file(
    make_sshd: Callable[..., SSHServer], account: StubAccount, site: Site, tmp_path: Path, listed: bool
) -> None:
    principals = tmp_path / "principals"
    principals.write_text(f"{site.sshd.user if listed else 'somebody'}\n")
    options = {"TrustedUserCAKeys": str(tmp_path / "ca.pub"), "AuthorizedPrincipalsFile": str(principals)}
    sshd = make_sshd(account.home, options=options)
    sshd.authorized = False
    there = Site(sshd, tmp_path)
    if listed:
        assert there.greet() == "hello"
        return
    with pytest.raises(AuthenticationFailed, match="AuthorizedPrincipalsFile"):
        there.greet()


@pytest.mark.parametrize(
    ("shift", "is_good"),
    [(-7200, False), (7200, False), (200, True), (-200, True)],
    ids=["expired", "not valid yet", "our clock is ahead", "our clock is behind"],
)
def test_clocks_and_the_lifetime(site: Site, monkeypatch: pytest.MonkeyPatch, shift: int, is_good: bool) -> None:
    ours = datetime.now(UTC) + timedelta(seconds=shift)
    monkeypatch.setattr(user_authority, "clock", SimpleNamespace(now=lambda: ours))
    if is_good:
        assert site.greet() == "hello"
        return
    with pytest.raises(AuthenticationFailed) as caught:
        site.greet()
    assert caught.value.code == "authentication_failed"
    assert re.search(
        r"the clock is right, because the certificate is valid from 20\S+ \S+ UTC to 20\S+ \S+ UTC", caught.value.detail
    )
    assert re.search("Certificate invalid: (expired|not yet valid)", site.sshd.log.read_text())


def test_the_lifetime_is_the_setting(folder: Path, settings: Any) -> None:
    call_command("create_ssh_ca")
    settings.RUNNERS_SSH_CERTIFICATE_LIFETIME = 77
    (signed,) = user_authority.sign("ana", "acct")
    assert abs(signed.valid_before - time.time() - 77) < 10 * PATIENCE
    assert abs(time.time() - signed.valid_after - 300) < 10 * PATIENCE
    certificate = Certificate.from_blob(signed.key.public_blob.key_blob).certificate
    assert certificate.valid_principals == [b"acct"]
    assert (certificate.critical_options, certificate.extensions) == ({}, {})
    assert (certificate.serial, certificate.key_id) == (signed.serial, b"autosubmit-runners:ana")


def test_each_connection_has_a_key_and_a_serial_of_its_own(folder: Path) -> None:
    call_command("create_ssh_ca")
    signed = [user_authority.sign("ana", "acct")[0] for _ in range(3)]
    assert len({each.serial for each in signed}) == len({each.key.asbytes() for each in signed}) == 3


@pytest.mark.parametrize(("sources", "is_good"), [(["192.0.2.0/24"], False), (["192.0.2.7/32", "127.0.0.0/8"], True)])
def test_source_addresses(site: Site, settings: Any, sources: list[str], is_good: bool) -> None:
    settings.RUNNERS_SSH_CERTIFICATE_SOURCES = sources
    if is_good:
        assert site.greet() == "hello"
        return
    with pytest.raises(AuthenticationFailed, match="RUNNERS_SSH_CERTIFICATE_SOURCES"):
        site.greet()


def test_nothing_but_commands(site: Site) -> None:
    """sshd forbids forwarding of ports, of the agent and of X11, and terminals; the command itself works."""
    clients = connect.connect(site.target(), time.monotonic() + 20 * PATIENCE)
    try:
        transport = clients[-1].get_transport()
        assert transport
        with pytest.raises(paramiko.ChannelException):
            transport.open_channel("direct-tcpip", ("127.0.0.1", site.sshd.port), ("127.0.0.1", 0), timeout=10)
        assert "refused local port forward" in site.sshd.log.read_text()
        with pytest.raises(paramiko.SSHException):
            transport.request_port_forward("127.0.0.1", 0)
        with pytest.raises(paramiko.SSHException):
            transport.open_session(timeout=10).get_pty()
        with pytest.raises(paramiko.SSHException):
            transport.open_session(timeout=10).request_x11()
        channel = transport.open_session(timeout=10)
        channel.exec_command('echo "agent: $SSH_AUTH_SOCK"')
        assert channel.makefile().read() == b"agent: \n"
    finally:
        connect.close(clients)


# --- the pool ---------------------------------------------------------------------------------------------------------


def test_connections_are_per_person_and_account(site: Site) -> None:
    for person in ("ana", "ben", "ana", "ben"):
        assert site.greet(person, new=False) == "hello"
    assert sorted(name for name, _ in site.logins()) == ["autosubmit-runners:ana", "autosubmit-runners:ben"]
    assert POOL.count() == 2


def test_a_rejected_certificate_is_remembered_for_its_person_only(
    site: Site, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.RUNNERS_RETRY_PAUSE = settings.RUNNERS_RETRY_PAUSE_LONGEST = 600
    BREAKER.forget()
    with monkeypatch.context() as patch:
        sign_otherwise(patch, account="somebody")
        with pytest.raises(AuthenticationFailed):
            site.greet("ana")
    with pytest.raises(AuthenticationFailed):
        site.greet("ana")
    assert site.greet("ben") == "hello"
    assert site.sshd.log.read_text().count("name is not a listed principal") == 1
    assert "autosubmit-runners:ana" not in dict(site.logins()), "ana was not to be tried again"
    BREAKER.forget()
    assert site.greet("ana") == "hello"


def test_concurrent_commands_of_people_never_share_a_connection(site: Site) -> None:
    people = [f"person{number}" for number in range(4)] * 4
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda person: site.greet(person, new=False), people)) == ["hello"] * len(people)
    names = [name for name, _ in site.logins()]
    assert set(names) == {f"autosubmit-runners:{person}" for person in people}
    sessions = Counter(
        re.findall(r"Starting session: command for \S+ from 127.0.0.1 port (\d+)", site.sshd.log.read_text())
    )
    assert sum(sessions.values()) == len(people)
    assert len(sessions) == len(names)


def test_a_connection_gets_no_new_commands_after_the_lifetime_of_its_certificate(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.greet(new=False) == "hello"
    opened = time.monotonic() - 301

    def age(connection: Connection) -> None:
        connection.opened = opened

    for target in POOL._targets.values():
        for connection in target.connections:
            age(connection)
    assert site.greet(new=False) == "hello"
    assert len(site.logins()) == 2


# --- jump hosts -------------------------------------------------------------------------------------------------------


def test_a_jump_host_is_reached_with_the_key_and_the_machine_with_the_certificate(
    site: Site, make_sshd: Callable[..., SSHServer], account: StubAccount, tmp_path: Path, settings: Any
) -> None:
    jump = make_sshd(account.home)
    config = tmp_path / "ssh_config"
    config.write_text(
        f"Host inner.cluster\n  HostName 127.0.0.1\n  Port {site.sshd.port}\n  ProxyJump gate\n"
        f"Host gate\n  HostName 127.0.0.1\n  Port {jump.port}\n  User {jump.user}\n  IdentityFile {jump.client_key}\n"
    )
    known = tmp_path / "known_hosts"
    known.write_text(jump.known_hosts.read_text() + site.sshd.known_hosts.read_text())
    settings.RUNNERS_SSH_CONFIG, settings.RUNNERS_KNOWN_HOSTS, settings.RUNNERS_SSH_KEYS = str(config), str(known), []
    target = replace(site.target(), host="inner.cluster")
    config_there = RunnerConfig("SSH", "NO_MODULE", (), target)
    assert get_runner(config_there).execute("echo hello", timeout=20).text.strip() == "hello"
    assert len(site.logins()) == 1
    log = jump.log.read_text()
    assert "Accepted publickey" in log
    assert "Accepted certificate" not in log


# --- the CA -----------------------------------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_ca_is_private_and_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("create_ssh_ca", comment="a site")
    out, err = capsys.readouterr()
    assert re.fullmatch(r"ssh-ed25519 \S+ a site\n", out)
    assert "TrustedUserCAKeys" in err
    assert (mode(folder), mode(folder / "user_ca"), mode(folder / "user_ca.pub")) == (0o700, 0o600, 0o644)
    before = (folder / "user_ca").read_bytes()
    with pytest.raises(CommandError, match="There is already a user CA"):
        call_command("create_ssh_ca")
    assert (folder / "user_ca").read_bytes() == before
    call_command("create_ssh_ca", show=True)
    assert capsys.readouterr().out == out
    record = AuditRecord.objects.filter(endpoint="create-ssh-ca").order_by("pk").first()
    assert record and "made the user CA SHA256:" in record.detail


def test_a_rotation_has_no_gap(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("create_ssh_ca", replace=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2
    assert site.greet() == "hello", "the machine trusts only the old CA"
    with pytest.raises(CommandError, match="still in use"):
        call_command("create_ssh_ca", replace=True)
    trusted(site.folder / "ca.pub")
    assert site.greet() == "hello", "the machine trusts both"
    call_command("create_ssh_ca", retire=True)
    trusted(site.folder / "ca.pub")
    assert site.greet() == "hello", "the machine trusts only the new CA"
    with pytest.raises(CommandError, match="no old CA"):
        call_command("create_ssh_ca", retire=True)


def test_without_a_usable_ca_nothing_is_sent(site: Site) -> None:
    ca = keys.directory() / "user_ca"
    ca.chmod(0o640)
    with pytest.raises(AuthenticationFailed, match=f"chmod 600 {ca}"):
        site.greet()
    ca.chmod(0o600)
    ca.write_text("no key")
    with pytest.raises(AuthenticationFailed, match="not an ed25519 key without a passphrase"):
        site.greet()
    ca.unlink()
    with pytest.raises(AuthenticationFailed, match="manage.py create_ssh_ca"):
        site.greet()
    assert site.sshd.connection_count() == 0


def test_no_private_key_is_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert site.greet() == "hello"
    (line,) = [record.getMessage() for record in caplog.records if "Signed a certificate" in record.getMessage()]
    assert re.search(r"key id autosubmit-runners:ana, serial \d+, valid until 20.* UTC, CA SHA256:", line)
    secret = "".join((keys.directory() / "user_ca").read_text().splitlines()[1:-1])
    assert secret[100:140] not in caplog.text
    assert "PRIVATE KEY" not in caplog.text


# --- key ids ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("person", ["ana", "a" * 150, "é" * 150, 'x" (serial 1) CA', "a~b", "\ud800", "\x00"])
def test_key_ids_are_one_word_of_bounded_length(person: str) -> None:
    name = user_authority.key_id(person)
    assert re.fullmatch(r"autosubmit-runners:[A-Za-z0-9._@+%~-]{1,120}", name)


def test_key_ids_of_different_people_differ() -> None:
    long = "é" * 149
    people = ["ana", "Ana", "ana%20", "ana ", f"{long}a", f"{long}b", "%", "~"]
    assert len({user_authority.key_id(person) for person in people}) == len(people)


# --- revocation -------------------------------------------------------------------------------------------------------


def test_revocation_of_a_person(site: Site) -> None:
    call_command("revoke_ssh_certificates", site.krl, person=["ana"])
    with pytest.raises(AuthenticationFailed, match="RevokedKeys does not revoke it"):
        site.greet("ana")
    assert "revoked" in site.sshd.log.read_text()
    assert site.greet("ben") == "hello"
    call_command("revoke_ssh_certificates", site.krl, person=["ben"])
    for person in ("ana", "ben"):
        with pytest.raises(AuthenticationFailed):
            site.greet(person)
    assert site.greet("cleo") == "hello"
    assert mode(site.krl) == 0o644
    record = AuditRecord.objects.filter(endpoint="revoke-ssh-certificates").earliest("pk")
    assert "autosubmit-runners:ana" in record.detail


def test_revocation_of_one_certificate(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = user_authority.sign("ana", site.sshd.user)
    monkeypatch.setattr(user_authority, "sign", lambda person, account: kept)
    assert site.greet() == "hello"
    (_, serial), *_ = site.logins()
    assert serial == kept[0].serial
    call_command("revoke_ssh_certificates", site.krl, serial=[serial])
    with pytest.raises(AuthenticationFailed):
        site.greet()
    monkeypatch.undo()
    assert site.greet() == "hello", "only this certificate is revoked"


def test_revocation_of_a_ca(site: Site) -> None:
    (old,) = user_authority.authorities()
    call_command("create_ssh_ca", replace=True)
    trusted(site.folder / "ca.pub")
    call_command("revoke_ssh_certificates", site.krl, ca=[old.fingerprint])
    assert site.greet() == "hello"
    new, _ = user_authority.authorities()
    assert f"CA ED25519 {new.fingerprint}" in site.sshd.log.read_text()
    call_command("revoke_ssh_certificates", site.krl, ca=[new.fingerprint])
    with pytest.raises(AuthenticationFailed):
        site.greet()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "Give --serial, --person or --ca"),
        ({"serial": [0]}, "a number from 1 to"),
        ({"serial": [2**63]}, "a number from 1 to"),
        ({"person": [""]}, "the name that the person signs in with"),
        ({"ca": ["SHA256:x"]}, "SHA256:x is not a user CA of this service"),
    ],
)
def test_bad_revocations_are_rejected(folder: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    call_command("create_ssh_ca")
    with pytest.raises(CommandError, match=words):
        call_command("revoke_ssh_certificates", tmp_path / "krl", **options)
    assert not (tmp_path / "krl").exists()


def test_a_list_that_cannot_be_updated_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    call_command("create_ssh_ca")
    krl = tmp_path / "krl"
    krl.write_text("this is no list")
    with pytest.raises(CommandError, match="ssh-keygen failed"):
        call_command("revoke_ssh_certificates", krl, person=["ana"])
    assert krl.read_text() == "this is no list"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(CommandError, match="cannot be written"):
        call_command("revoke_ssh_certificates", tmp_path / "missing" / "krl", person=["ana"])


def test_the_pool_ends_with_the_connections(site: Site) -> None:
    assert site.greet() == "hello"
    POOL.close()
    wait_for(lambda: not site.sshd.open_connections(), 10)
