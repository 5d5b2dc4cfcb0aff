"""`~/.ssh/config`: aliases, and machines that are reachable only through another one. Real sshds, our own client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from profiles.config import RunnerConfig
from runners.exceptions import AuthenticationFailed, HostKeyChanged, HostKeyUnknown, RunnerUnreachable
from runners.services import host_keys
from runners.services.machines.registry import get_runner
from runners.services.machines.ssh.pool import POOL
from runners.services.machines.ssh.target import SSHTarget
from tests.support.environments import StubAccount
from tests.support.processes import wait_for
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db


class Network:
    """Two machines whose addresses are only in the SSH configuration."""

    def __init__(self, jump: SSHServer, inner: SSHServer, folder: Path, settings: Any) -> None:
        self.jump, self.inner = jump, inner
        self.file = folder / "ssh_config"
        self.known_hosts = folder / "known_hosts"
        settings.RUNNERS_SSH_CONFIG = str(self.file)
        settings.RUNNERS_SSH_KEYS = []
        settings.RUNNERS_KNOWN_HOSTS = str(self.known_hosts)
        self.trust(jump, inner)
        self.configure()

    def trust(self, *servers: SSHServer) -> None:
        self.known_hosts.write_text("".join(server.known_hosts.read_text() for server in servers))

    def configure(self, jump: str = "gate", more: str = "") -> None:
        """Write the SSH configuration. Only this file defines `inner.cluster`."""
        self.file.write_text(
            f"Host inner.cluster\n  HostName 127.0.0.1\n  Port {self.inner.port}\n  User {self.inner.user}\n"
            f"  IdentityFile {self.inner.client_key}\n  ProxyJump {jump}\n"
            f"Host gate\n  HostName 127.0.0.1\n  Port {self.jump.port}\n  User {self.jump.user}\n"
            f"  IdentityFile {self.jump.client_key}\n{more}"
        )

    @property
    def target(self) -> SSHTarget:
        return SSHTarget("inner.cluster", self.inner.port, self.inner.user)

    def ask(self, script: str = 'echo "$MACHINE"') -> str:
        POOL.discard(self.target)
        config = RunnerConfig("SSH", "NO_MODULE", (), self.target)
        return get_runner(config).execute(script, timeout=20).text.strip()


@pytest.fixture
def network(
    account: StubAccount, make_sshd: Callable[..., SSHServer], tmp_path: Path, settings: Any
) -> Iterator[Network]:
    jump = make_sshd(account.home, env={"MACHINE": "gate"})
    inner = make_sshd(account.home, env={"MACHINE": "inner"})
    yield Network(jump, inner, tmp_path, settings)


def test_command_goes_through_the_jump_host(network: Network) -> None:
    assert network.ask() == "inner"
    assert (network.jump.connection_count(), network.inner.connection_count()) == (1, 1)


def test_closing_the_pool_leaves_no_connection_anywhere(network: Network) -> None:
    network.ask()
    assert network.jump.open_connections() == 1
    POOL.close()
    wait_for(lambda: not (network.jump.open_connections() or network.inner.open_connections()), 10)


def test_host_key_of_the_jump_host_is_verified(network: Network) -> None:
    network.trust(network.inner)
    with pytest.raises(HostKeyUnknown) as caught:
        network.ask()
    assert caught.value.facts["host"] == f"[127.0.0.1]:{network.jump.port}"
    assert caught.value.facts["fingerprint"] == network.jump.host_key_fingerprint
    assert network.inner.connection_count() == 0


def test_host_key_behind_the_jump_host_is_verified(network: Network) -> None:
    network.trust(network.jump)
    with pytest.raises(HostKeyUnknown) as caught:
        network.ask()
    assert caught.value.facts["host"] == f"[127.0.0.1]:{network.inner.port}"
    assert caught.value.facts["fingerprint"] == network.inner.host_key_fingerprint
    network.trust(network.jump, network.inner)
    network.inner.swap_host_key()
    with pytest.raises(HostKeyChanged):
        network.ask()


def test_scan_goes_through_the_jump_host(network: Network) -> None:
    network.trust(network.jump)
    (key,) = host_keys.scan("inner.cluster")
    assert key.fingerprint == network.inner.host_key_fingerprint
    assert network.jump.connection_count() == 1
    host_keys.approve(key, "ana")
    assert network.ask() == "inner"


def test_scan_does_not_trust_the_jump_host_by_itself(network: Network) -> None:
    network.trust(network.inner)
    with pytest.raises(HostKeyUnknown) as caught:
        host_keys.scan("inner.cluster")
    assert caught.value.facts["fingerprint"] == network.jump.host_key_fingerprint


def test_jump_host_that_is_down_is_named(network: Network) -> None:
    network.jump.stop()
    with pytest.raises(RunnerUnreachable, match="gate"):
        network.ask()


def test_machine_behind_the_jump_host_that_is_down_is_named(network: Network) -> None:
    network.inner.stop()
    with pytest.raises(RunnerUnreachable, match="inner.cluster"):
        network.ask()


def test_jump_host_that_refuses_our_key_is_named(network: Network) -> None:
    network.jump.authorized = False
    with pytest.raises(AuthenticationFailed, match="gate"):
        network.ask()


def test_jump_host_that_forbids_forwarding_is_named(
    network: Network, account: StubAccount, make_sshd: Callable[..., SSHServer], settings: Any, tmp_path: Path
) -> None:
    jump = make_sshd(account.home, options={"AllowTcpForwarding": "no"})
    with pytest.raises(RunnerUnreachable, match=r"jump host \(gate\) forbids forwarding .*AllowTcpForwarding"):
        Network(jump, network.inner, tmp_path, settings).ask()


def test_broken_jump_host_is_noticed_and_the_next_command_works(network: Network) -> None:
    network.ask()
    network.jump.drop_connections()
    config = RunnerConfig("SSH", "NO_MODULE", (), network.target)
    assert get_runner(config).execute('echo "$MACHINE"', timeout=20).text.strip() == "inner"


def test_a_proxyjump_may_have_users_ports_and_several_hops(network: Network) -> None:
    jump = network.jump
    network.configure(jump=f"{jump.user}@127.0.0.1:{jump.port},gate", more=f"Host *\n IdentityFile {jump.client_key}\n")
    assert network.ask() == "inner"
    assert network.jump.connection_count() == 2


def test_first_hop_may_have_a_jump_host_itself(network: Network) -> None:
    network.configure(
        jump="second",
        more=f"Host second\n HostName 127.0.0.1\n Port {network.jump.port}\n User {network.jump.user}\n"
        f" IdentityFile {network.jump.client_key}\n ProxyJump gate\n",
    )
    assert network.ask() == "inner"
    assert network.jump.connection_count() == 2


def test_more_than_four_jump_hosts_are_refused_without_a_connection(network: Network) -> None:
    network.configure(jump=",".join(["gate"] * 5))
    with pytest.raises(RunnerUnreachable, match="more than 4 hosts"):
        network.ask()
    assert network.jump.connection_count() == 0


@pytest.mark.parametrize(("jump", "words"), [("me@", "ProxyJump"), ("inner.cluster", "or a loop")])
def test_a_malformed_proxyjump_is_an_error_with_a_message(network: Network, jump: str, words: str) -> None:
    network.configure(jump=jump)
    with pytest.raises(RunnerUnreachable, match=words):
        network.ask()


def test_alias_without_jump_gives_host_name_port_user_and_key(network: Network) -> None:
    network.configure(jump="none")
    assert network.ask() == "inner"
    assert network.jump.connection_count() == 0


def test_an_unusable_ssh_configuration_leads_to_no_other_machine(network: Network) -> None:
    network.configure(more="Host other\n  Port many\n")
    network.file.write_text(network.file.read_text() + 'Host "unclosed\n')
    with pytest.raises(RunnerUnreachable, match="SSH configuration"):
        network.ask()
