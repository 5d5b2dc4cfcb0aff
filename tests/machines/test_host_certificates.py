"""Host certificates (`@cert-authority`): a real sshd presents them, and OpenSSH's own client must agree with us."""

from __future__ import annotations

import shutil
import subprocess
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from runners.exceptions import HostKeyChanged, HostKeyUnknown
from runners.services.machines.ssh.certificates import BadCertificate, Certificate
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE
from tests.support.servers import SSHServer
from tests.support.ssh import greet, host_name, make_key, openssh_connects, public_half

pytestmark = pytest.mark.django_db


@dataclass
class Site:
    """A machine whose host key is signed by an authority."""

    sshd: SSHServer
    authority: Path
    folder: Path

    @property
    def host_key(self) -> Path:
        return self.folder / "host_key"

    def sign(self, *options: str, authority: Path | None = None) -> None:
        argv = ["ssh-keygen", "-q", "-s", str(authority or self.authority), "-I", "a machine", *options]
        subprocess.run([*argv, f"{self.host_key}.pub"], check=True, capture_output=True, timeout=30 * PATIENCE)
        self.sshd.restart()

    def know(self, *lines: str) -> None:
        kind, key = public_half(self.authority)
        host_kind, host_key = public_half(self.host_key)
        names = {"name": host_name(self.sshd), "ca": f"{kind} {key}", "key": f"{host_kind} {host_key}"}
        self.sshd.known_hosts.write_text("".join(f"{line.format(**names)}\n" for line in lines))


@pytest.fixture(params=["ed25519", "ecdsa", "rsa"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make_site(make_sshd: Callable[..., SSHServer], account: StubAccount, folder: Path, kind: str = "ed25519") -> Site:
    options = {"HostCertificate": str(folder / "host_key-cert.pub")}
    if kind != "ed25519":  # the server's own key is ed25519
        options["hostkey"] = str(make_key(folder / "host_key", kind))
    sshd = make_sshd(account.home, options=options)
    if kind == "ed25519":
        shutil.copy(sshd.folder / "host_key.pub", folder / "host_key.pub")
    return Site(sshd, make_key(folder / "authority", kind), folder)


@pytest.fixture
def site(make_sshd: Callable[..., SSHServer], account: StubAccount, tmp_path: Path) -> Site:
    return make_site(make_sshd, account, tmp_path)


def test_a_certificate_of_each_kind(
    make_sshd: Callable[..., SSHServer], account: StubAccount, tmp_path: Path, kind: str
) -> None:
    site = make_site(make_sshd, account, tmp_path, kind)
    site.sign("-h", "-n", "127.0.0.1")
    site.know("@cert-authority {name} {ca}")
    assert openssh_connects(site.sshd)
    assert greet(site.sshd) == "hello"


GOOD = "@cert-authority {name} {ca}"


@pytest.mark.parametrize(
    ("options", "lines", "is_good"),
    [
        (("-h", "-n", "127.0.0.1"), [GOOD], True),
        (("-h", "-n", "other,127.0.0.1"), [GOOD], True),
        (("-h", "-n", "other,127.0.*"), [GOOD], False),  # wildcards are not allowed there
        (("-h", "-n", "127.0.0.1"), ["@cert-authority 127.0.0.1 {ca}"], True),
        (("-h",), [GOOD], True),
        (("-h", "-n", "127.0.0.1"), ["@cert-authority *.example,other {ca}"], False),
        (("-h", "-n", "127.0.0.1"), ["{name} {ca}"], False),  # the line does not mark the key as an authority
        (("-h", "-n", "127.0.0.2,x127.0.0.1"), [GOOD], False),
        (("-n", "127.0.0.1"), [GOOD], False),  # a certificate for users
        (("-h", "-n", "127.0.0.1", "-V", "-2h:-1h"), [GOOD], False),
        (("-h", "-n", "127.0.0.1", "-V", "+1h:+2h"), [GOOD], False),
        (("-h", "-n", "127.0.0.1", "-V", "-1h:+1h"), [GOOD], True),
        (("-h", "-n", "127.0.0.1", "-O", "critical:x@example.org=y"), [GOOD], False),
        (("-h", "-n", "127.0.0.1"), [GOOD, "@revoked * {ca}"], False),
        (("-h", "-n", "127.0.0.1"), [GOOD, "@revoked * {key}"], False),
        (("-h", "-n", "127.0.0.1"), ["{name} {key}"], True),  # the plain key is trusted
    ],
)
def test_host_keys_are_accepted_as_by_openssh(
    site: Site, options: tuple[str, ...], lines: list[str], is_good: bool
) -> None:
    site.sign(*options)
    site.know(*lines)
    assert openssh_connects(site.sshd) is is_good
    if is_good:
        assert greet(site.sshd) == "hello"
    else:
        with pytest.raises((HostKeyChanged, HostKeyUnknown)) as caught:
            greet(site.sshd)
        assert site.sshd.connection_count() == 0, "a key was sent to a machine that is not trusted"
        assert caught.value.facts["fingerprint"].startswith("SHA256:")


def test_an_expired_certificate_is_named(site: Site) -> None:
    site.sign("-h", "-n", "127.0.0.1", "-V", "-2h:-1h")
    site.know(GOOD)
    with pytest.raises(HostKeyChanged, match="expired at 20"):
        greet(site.sshd)


def test_a_certificate_of_another_authority_is_rejected(site: Site, tmp_path: Path) -> None:
    site.sign("-h", "-n", "127.0.0.1", authority=make_key(tmp_path / "other", "ed25519"))
    site.know(GOOD)
    with pytest.raises(HostKeyUnknown):
        greet(site.sshd)


def test_bytes_that_are_no_certificate(site: Site) -> None:
    site.sign("-h", "-n", "127.0.0.1")
    blob = site.host_key.with_name("host_key-cert.pub").read_bytes().split()[1]
    good = b64decode(blob)
    Certificate.from_blob(good).check_host("127.0.0.1")
    for changed in (b"", good[:-1], good[:40], good + b"x", b"\x00\x00\x00\x04abcd", b"\xff" * 100, good * 2):
        with pytest.raises(BadCertificate):
            Certificate.from_blob(changed)
    for place in range(4, len(good)):
        spoilt = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
        with pytest.raises(BadCertificate):
            Certificate.from_blob(spoilt).check_host("127.0.0.1")
