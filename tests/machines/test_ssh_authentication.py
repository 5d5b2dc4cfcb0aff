"""Which keys and certificates a server is offered, and from which address, as in OpenSSH's configuration. Real sshd."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runners.exceptions import AuthenticationFailed, RunnerUnreachable
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE, end, is_listening, start, wait_for
from tests.support.servers import SSHServer
from tests.support.ssh import greet, make_key

pytestmark = pytest.mark.django_db


class Site:
    """A server that trusts a certificate authority for users, and our SSH configuration."""

    def __init__(self, sshd: SSHServer, folder: Path, settings: Any) -> None:
        self.sshd, self.folder = sshd, folder
        self.authority = folder / "authority"
        self.config = folder / "config"
        settings.RUNNERS_SSH_CONFIG = str(self.config)
        settings.RUNNERS_SSH_KEYS = []

    def configure(self, *lines: str) -> None:
        self.config.write_text("Host *\n" + "".join(f"  {line}\n" for line in lines))

    def sign(self, key: Path, *options: str, name: str = "") -> Path:
        argv = [
            "ssh-keygen",
            "-q",
            "-s",
            str(self.authority),
            "-I",
            "ana",
            "-n",
            self.sshd.user,
            *options,
            f"{key}.pub",
        ]
        subprocess.run(argv, check=True, capture_output=True, timeout=30 * PATIENCE)
        made = Path(f"{key}-cert.pub")
        return made.rename(self.folder / name) if name else made


@pytest.fixture
def site(make_sshd: Callable[..., SSHServer], account: StubAccount, tmp_path: Path, settings: Any) -> Site:
    authority = make_key(tmp_path / "authority", "ed25519")
    sshd = make_sshd(account.home, options={"TrustedUserCAKeys": f"{authority}.pub", "LogLevel": "VERBOSE"})
    return Site(sshd, tmp_path, settings)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_the_certificate_beside_a_key(site: Site, tmp_path: Path, kind: str) -> None:
    key = make_key(tmp_path / "key", kind)
    site.configure(f"IdentityFile {key}", "IdentitiesOnly yes")
    with pytest.raises(AuthenticationFailed):
        greet(site.sshd)
    site.sign(key)
    assert greet(site.sshd) == "hello"


def test_a_certificate_file_and_its_key_elsewhere(site: Site, tmp_path: Path) -> None:
    key, other = make_key(tmp_path / "key", "ed25519"), make_key(tmp_path / "other", "ed25519")
    of_key, of_other = site.sign(key, name="certificate of key"), site.sign(other, name="certificate of other")
    site.configure("IdentitiesOnly yes", f"IdentityFile {key}", f'CertificateFile "{of_other}"')
    with pytest.raises(AuthenticationFailed):
        greet(site.sshd)
    site.configure("IdentitiesOnly yes", f"IdentityFile {key}", f'CertificateFile "{of_key}"')
    assert greet(site.sshd) == "hello"
    site.configure("IdentitiesOnly yes", f"IdentityFile {key}", f"CertificateFile {tmp_path}/missing")
    with pytest.raises(AuthenticationFailed, match="missing"):
        greet(site.sshd)


def test_an_expired_certificate_does_not_keep_a_good_key_from_being_used(site: Site) -> None:
    key = site.sshd.client_key
    site.sign(key, "-V", "-2h:-1h")
    site.configure(f"IdentityFile {key}")
    assert greet(site.sshd) == "hello"


def test_an_expired_certificate_is_named_where_nothing_else_helps(site: Site, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key", "ed25519")
    site.sign(key, "-V", "-2h:-1h")
    site.configure(f"IdentityFile {key}", "IdentitiesOnly yes")
    with pytest.raises(AuthenticationFailed, match=r"The certificate .*expired at 20\d\d-.* UTC: renew it"):
        greet(site.sshd)
    site.sign(key, "-V", "+1h:+2h")
    with pytest.raises(AuthenticationFailed, match=r"The certificate .*is valid only from 20\d\d-.* UTC: renew it"):
        greet(site.sshd)


def test_only_accepted_algorithms_are_used(site: Site, tmp_path: Path) -> None:
    key = site.sshd.client_key
    site.configure(f"IdentityFile {key}", "PubkeyAcceptedAlgorithms rsa-sha2-512")
    with pytest.raises(AuthenticationFailed):
        greet(site.sshd)
    rsa = make_key(tmp_path / "rsa", "rsa")
    with (site.sshd.folder / "authorized_keys").open("a") as lines:
        lines.write(Path(f"{rsa}.pub").read_text())
    site.configure(f"IdentityFile {rsa}", "PubkeyAcceptedAlgorithms rsa-sha2-256")
    assert greet(site.sshd) == "hello"
    assert "Postponed" not in site.sshd.log.read_text()


# --- ssh-agent --------------------------------------------------------------------------------------------------------


@pytest.fixture
def agent(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the socket of a real ssh-agent that holds the accepted key. SSH_AUTH_SOCK does not name this socket."""
    path = tmp_path / "agent"
    process = start(["ssh-agent", "-D", "-a", str(path)], log=tmp_path / "agent.log")
    wait_for(path.exists, 10, what="the ssh-agent")
    subprocess.run(
        ["ssh-add", "-q", str(site.sshd.client_key)], env={**os.environ, "SSH_AUTH_SOCK": str(path)}, check=True
    )
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    yield path
    end(process)


def test_the_agent_of_the_configuration(site: Site, agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.configure("IdentityFile /nowhere")
    with pytest.raises(AuthenticationFailed):
        greet(site.sshd)
    site.configure("IdentityFile /nowhere", f"IdentityAgent {agent}")
    assert greet(site.sshd) == "hello"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    site.configure("IdentityFile /nowhere", "IdentityAgent none")
    with pytest.raises(AuthenticationFailed):
        greet(site.sshd)


def test_identities_only_uses_those_keys_of_the_agent_that_a_file_names(
    site: Site, agent: Path, tmp_path: Path
) -> None:
    site.configure(f"IdentityAgent {agent}", "IdentitiesOnly yes", "IdentityFile /nowhere")
    with pytest.raises(AuthenticationFailed):
        greet(site.sshd)
    public = tmp_path / "public_only.pub"  # only the agent has the private half
    public.write_text(site.sshd.client_key.with_suffix(".pub").read_text())
    site.configure(f"IdentityAgent {agent}", "IdentitiesOnly yes", f"IdentityFile {tmp_path}/public_only")
    assert greet(site.sshd) == "hello"


def test_the_agents_key_with_a_certificate_of_a_file(site: Site, agent: Path) -> None:
    made = site.sign(site.sshd.client_key, name="of the agent's key")
    site.sshd.authorized = False
    site.configure(f"IdentityAgent {agent}", "IdentityFile /nowhere")
    with pytest.raises(AuthenticationFailed):
        greet(site.sshd)
    site.configure(f"IdentityAgent {agent}", "IdentityFile /nowhere", f'CertificateFile "{made}"')
    assert greet(site.sshd) == "hello"


# --- the network connection -------------------------------------------------------------------------------------------


def test_the_address_to_connect_from(site: Site) -> None:
    site.configure(f"IdentityFile {site.sshd.client_key}", "BindAddress 127.0.0.3")
    assert greet(site.sshd) == "hello"
    assert "from 127.0.0.3 port" in site.sshd.log.read_text()
    site.configure(f"IdentityFile {site.sshd.client_key}", "BindAddress 192.0.2.1")  # not an address of this machine
    with pytest.raises(RunnerUnreachable):
        greet(site.sshd)


def test_the_address_family(site: Site) -> None:
    site.configure(f"IdentityFile {site.sshd.client_key}", "AddressFamily inet")
    assert greet(site.sshd) == "hello"
    site.configure(f"IdentityFile {site.sshd.client_key}", "AddressFamily inet6")
    with pytest.raises(RunnerUnreachable, match="AddressFamily inet6"):
        greet(site.sshd)


def test_the_connect_timeout(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never sends anything
        site.configure(f"HostName 127.0.0.1\n  Port {silent.getsockname()[1]}", "ConnectTimeout 1")
        site.sshd.port = silent.getsockname()[1]
        assert is_listening(site.sshd.port)
        with pytest.raises(RunnerUnreachable, match="no answer within 1 s"):
            greet(site.sshd)
