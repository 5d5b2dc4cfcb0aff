"""RevokedHostKeys: plain keys and key revocation lists (KRL). OpenSSH's own client must agree with us."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runners.exceptions import HostKeyChanged
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE
from tests.support.servers import SSHServer
from tests.support.ssh import greet, host_name, make_key, public_half

pytestmark = pytest.mark.django_db


class Machine:
    """A machine whose plain host key and certificate are both trusted, and a file of revoked keys."""

    def __init__(self, sshd: SSHServer, folder: Path) -> None:
        self.sshd = sshd
        self.folder = folder
        self.revoked = folder / "revoked"
        self.host_key = folder / "host_key"
        self.authority = make_key(folder / "authority", "ed25519")
        self.other = make_key(folder / "other", "ed25519")
        shutil.copy(sshd.folder / "host_key.pub", folder / "host_key.pub")
        self.keygen("-s", self.authority, "-h", "-I", "mn5", "-z", 7, "-n", "127.0.0.1", f"{self.host_key}.pub")
        sshd.restart()
        lines = [f"@cert-authority {host_name(sshd)} {' '.join(public_half(self.authority))}"]
        sshd.known_hosts.write_text("\n".join(lines) + "\n")

    def keygen(self, *words: object) -> None:
        subprocess.run(["ssh-keygen", "-q", *map(str, words)], check=True, capture_output=True, timeout=30 * PATIENCE)

    def openssh_connects(self) -> bool:
        options = ["BatchMode=yes", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=none", "LogLevel=ERROR"]
        options += [f'UserKnownHostsFile="{self.sshd.known_hosts}"', f"RevokedHostKeys={self.revoked}"]
        argv = ["ssh", "-F", "none", *(word for option in options for word in ("-o", option))]
        argv += [
            "-i",
            str(self.sshd.client_key),
            "-l",
            self.sshd.user,
            "-p",
            str(self.sshd.port),
            "127.0.0.1",
            "exit 0",
        ]
        return subprocess.run(argv, capture_output=True, timeout=30 * PATIENCE, check=False).returncode == 0


@pytest.fixture
def machine(make_sshd: Callable[..., SSHServer], account: StubAccount, tmp_path: Path, settings: Any) -> Machine:
    options = {"HostCertificate": str(tmp_path / "host_key-cert.pub")}
    found = Machine(make_sshd(account.home, options=options), tmp_path)
    configuration = tmp_path / "ssh_config"
    configuration.write_text(f"Host *\nRevokedHostKeys {found.revoked}\n")
    settings.RUNNERS_SSH_CONFIG = str(configuration)
    return found


def plain(machine: Machine, *keys: Path) -> None:
    text = "# a comment\n\n" + "".join(key.with_suffix(".pub").read_text() for key in keys)
    machine.revoked.write_text(text)


def krl(machine: Machine, *words: object) -> None:
    machine.keygen("-k", "-f", machine.revoked, *words)


def krl_of(machine: Machine, line: str) -> None:
    (machine.folder / "rules").write_text(f"{line}\n")
    krl(machine, "-s", f"{machine.authority}.pub", machine.folder / "rules")


CASES: dict[str, tuple[Callable[[Machine], object], bool]] = {
    "plain: another key": (lambda m: plain(m, m.other), True),
    "plain: the host key": (lambda m: plain(m, m.other, m.host_key), False),
    "plain: the authority": (lambda m: plain(m, m.authority), False),
    "empty": (lambda m: plain(m), True),
    "KRL: another key": (lambda m: krl(m, f"{m.other}.pub"), True),
    "KRL: the host key": (lambda m: krl(m, f"{m.host_key}.pub"), False),
    "KRL: the serial number": (lambda m: krl_of(m, "serial: 7"), False),
    "KRL: another serial number": (lambda m: krl_of(m, "serial: 8"), True),
    "KRL: the key id": (lambda m: krl_of(m, "id: mn5"), False),
    "plain: a damaged line": (lambda m: m.revoked.write_text("ssh-ed25519 AAAAC3NzaC1lZDI\n"), False),
    "plain: no key": (lambda m: m.revoked.write_text("nonsense\n"), False),
    "missing": (lambda m: m.revoked.unlink(missing_ok=True), False),
    "a damaged KRL": (lambda m: m.revoked.write_bytes(b"SSHKRL\n\0" + b"\xff" * 40), False),
    "a directory": (lambda m: m.revoked.mkdir(), False),
}


@pytest.mark.parametrize("case", CASES)
def test_revoked_keys_are_refused_as_by_openssh(machine: Machine, case: str) -> None:
    spoil, is_good = CASES[case]
    spoil(machine)
    assert machine.openssh_connects() is is_good
    before = machine.sshd.connection_count()
    if is_good:
        assert greet(machine.sshd) == "hello"
        return
    with pytest.raises(HostKeyChanged, match=str(machine.revoked)) as error:
        greet(machine.sshd)
    assert "Nothing was sent" in error.value.detail
    assert machine.sshd.connection_count() == before
