"""A login alias with two nodes: sshds in PID, mount and UTS namespaces of their own, at two addresses of one name.

Promise: a run is found on the node that took it, whichever node the alias leads to. Nothing is concluded from another
node's silence.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiles.config import RunnerConfig
from runners.exceptions import RunnerUnreachable
from runners.services import lifecycle, log_cache
from runners.services.machines.ssh import nodes
from runners.services.machines.ssh.nodes import Nodes, name_in_domain
from runners.services.machines.ssh.pool import POOL
from runners.services.machines.ssh.target import SSHTarget
from runners_project import bounded
from tests.support.environments import StubAccount
from tests.support.faults import EXPID, add_control, look, sessions, start_run, stop_run, stored
from tests.support.processes import is_alive, wait_for, with_environment
from tests.support.requirements import need
from tests.support.servers import SSHServer

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may put sshd into other namespaces"),
]

NAME = "cluster.hpc.example"
NAMESPACES = ("--uts", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child")


class Cluster:
    """The nodes behind NAME. `order`: the addresses that the name resolves to, the next one first.

    `alternates`: each resolution leads to the next node, as with DNS round robin.
    """

    alternates = False

    def __init__(self, servers: list[SSHServer]) -> None:
        self.servers = servers
        self.order = [server.address for server in servers]
        self.ssh = SSHTarget(NAME, servers[0].port, servers[0].user)

    @property
    def config(self) -> RunnerConfig:
        return replace(self.servers[0].config(), target=self.ssh)

    def lead_to(self, *places: int) -> None:
        """Let the alias lead to these nodes; existing connections of the alias end."""
        self.order = [self.servers[place].address for place in places]
        POOL.discard(self.ssh)

    def resolve(self, host: str, port: int) -> list[Any]:
        if host == NAME:
            if self.alternates:
                self.order = [*self.order[1:], self.order[0]]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.order]
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


@pytest.fixture
def make_cluster(
    account: StubAccount, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Cluster]]:
    account.experiment(EXPID)
    account.control("run", SLEEP=600)
    monkeypatch.setattr(lifecycle, "RETRY_UNREACHABLE", 0.1)
    monkeypatch.setattr("runners.services.machines.ssh.runner.NODES", Nodes())
    servers: list[SSHServer] = []
    networks: list[str] = []

    def make(*homes: Path, with_networks: bool = False) -> Cluster:
        for number, home in enumerate(homes, start=1):
            folder = tmp_path / f"node{number}"
            port = servers[0].port if servers else 0
            address, inside = f"127.0.0.{number + 1}", []
            if with_networks:
                address = add_network(networks)
                inside = ["ip", "netns", "exec", networks[-1]]
            server = SSHServer(folder, home=home, address=address, port=port)
            boot = folder / "boot_id"
            boot.write_text(f"{number * 11111111}-2222-3333-4444-555555555555\n")
            words = f"mount --make-rprivate / && echo login{number} >/proc/sys/kernel/hostname"
            words += f" && mount --bind {boot} /proc/sys/kernel/random/boot_id"
            server.prefix = [*inside, "unshare", *NAMESPACES, "sh", "-c", f'{words} && exec "$@"', "sh"]
            server.start()
            servers.append(server)
        cluster = Cluster(servers)
        keys = [(server.folder / "host_key.pub").read_text() for server in servers]
        known = tmp_path / "known_hosts"
        known.write_text("".join(f"[{NAME}]:{servers[0].port} {key}" for key in keys))
        settings.RUNNERS_KNOWN_HOSTS = str(known)
        settings.RUNNERS_SSH_KEYS = [str(server.client_key) for server in servers]
        settings.RUNNERS_SSH_CONFIG = str(tmp_path / "none")
        monkeypatch.setattr(bounded, "_getaddrinfo", cluster.resolve)
        return cluster

    yield make
    POOL.close()
    for server in servers:
        os.kill(server.process_id, signal.SIGKILL)  # `unshare` ends its child with itself, but not at a TERM
        server.stop()
    for name in networks:
        subprocess.run(["ip", "netns", "delete", name], check=True, timeout=30)


def add_network(networks: list[str]) -> str:
    """Make a network namespace, joined to this one by a pair of virtual interfaces. Return the address in it."""
    name = f"node{secrets.token_hex(4)}"
    subnet = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}"
    outer, inner, place = f"o{name[4:]}", f"i{name[4:]}", 4 * secrets.randbelow(64)
    networks.append(name)
    for words in (
        f"netns add {name}",
        f"link add {outer} type veth peer name {inner} netns {name}",
        f"address add {subnet}.{place + 1}/30 dev {outer}",
        f"link set {outer} up",
        f"-n {name} address add {subnet}.{place + 2}/30 dev {inner}",
        f"-n {name} link set {inner} up",
        f"-n {name} link set lo up",
    ):
        subprocess.run(["ip", *words.split()], check=True, timeout=30)
    return f"{subnet}.{place + 2}"


def test_a_run_is_found_and_stopped_on_its_node_while_the_alias_leads_to_another_one(
    make_cluster: Callable[..., Cluster], account: StubAccount
) -> None:
    cluster = make_cluster(account.home, account.home)
    run = start_run(cluster.config)
    assert run.identity and run.identity["host"] == "login1"
    for first, second in ((1, 0), (0, 1), (1, 0)):
        cluster.lead_to(first, second)
        shown = look()
        assert (shown.status, shown.reachable, shown.unreachable_detail) == ("ACTIVE", True, "")
    outcome = stop_run()
    assert outcome.run.reason == "stopped"
    assert [(step["action"], step["outcome"]) for step in outcome.steps][:1] == [("autosubmit stop", "exit code 0")]
    assert outcome.steps[0]["ended"]


def test_two_nodes_with_networks_of_their_own_behind_a_name_that_alternates(
    make_cluster: Callable[..., Cluster], account: StubAccount
) -> None:
    """Neither node sees the processes or the network of the other one. They share the home."""
    need(shutil.which("ip"), "iproute2")
    cluster = make_cluster(account.home, account.home, with_networks=True)
    run = start_run(cluster.config)
    cluster.alternates = True
    led_to = set()
    for _ in range(6):
        POOL.discard(cluster.ssh)
        shown = look()
        led_to.add(cluster.order[0])
        assert (shown.status, shown.reachable, shown.unreachable_detail) == ("ACTIVE", True, "")
    assert led_to == {server.address for server in cluster.servers}
    POOL.discard(cluster.ssh)
    assert log_cache.read(run, offset=0, limit=100)
    assert stop_run(force=True).run.reason == "stopped"


def test_a_service_that_has_restarted_finds_the_node_by_the_addresses_of_the_alias(
    make_cluster: Callable[..., Cluster], account: StubAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster(account.home, account.home)
    start_run(cluster.config)
    monkeypatch.setattr("runners.services.machines.ssh.runner.NODES", Nodes())
    cluster.lead_to(1, 0)
    assert look().reachable
    assert stop_run(force=True).run.reason == "stopped"


def test_a_stop_of_an_ended_run_ends_what_it_has_left_on_its_node(
    make_cluster: Callable[..., Cluster], account: StubAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each node sees the end in the shared home. Only the node of the run sees what the run has left."""
    cluster = make_cluster(account.home, account.home)
    add_control(account, f"run.{EXPID}", 'setsid bash -c "while :; do sleep 0.2; done" &\n', SLEEP=0.5, EXIT=3)
    run = start_run(cluster.config)
    wait_for(lambda: list((account.home / ".autosubmit-runners" / run.key).glob("ended.*")), what="the end")
    left = with_environment("AUTOSUBMIT_RUNNERS_KEY", run.key)
    assert left
    monkeypatch.setattr("runners.services.machines.ssh.runner.NODES", Nodes())  # as after a restart of the service
    cluster.lead_to(1, 0)
    outcome = stop_run()
    assert [step["action"] for step in outcome.steps] == ["look", "end of what was left"]
    assert outcome.steps[1]["outcome"].startswith("ended: ")
    assert (outcome.run.reason, outcome.warnings) == ("failed", [])
    assert not any(map(is_alive, left))


def test_an_answer_of_another_node_names_both_nodes_and_decides_nothing(
    make_cluster: Callable[..., Cluster], account: StubAccount
) -> None:
    cluster = make_cluster(account.home, account.home)
    run = start_run(cluster.config)
    before = stored(run)
    cluster.servers[0].authorized = False
    POOL.close()
    cluster.lead_to(1)
    shown = look()
    assert (shown.status, shown.reachable) == ("ACTIVE", False)
    assert "another machine answered (login2)" in shown.unreachable_detail
    assert "on login1; that node cannot be asked: " in shown.unreachable_detail
    with pytest.raises(RunnerUnreachable, match=r"login2.* login1"):
        stop_run(force=True)
    assert stored(run) == before
    cluster.servers[0].authorized = True
    wait_for(lambda: look().reachable, what="the node of the run")


def test_the_log_is_read_on_the_node_of_the_run_where_the_nodes_share_no_home(
    make_cluster: Callable[..., Cluster], account: StubAccount, tmp_path: Path
) -> None:
    other = tmp_path / "other-home"
    other.mkdir()
    cluster = make_cluster(account.home, other)
    run = start_run(cluster.config)
    log = account.home / ".autosubmit-runners" / run.key / "log"
    log.write_text("words of the run\n")
    cluster.lead_to(1, 0)
    assert look().reachable
    chunk = log_cache.read(run, offset=0, limit=100)
    assert chunk and chunk.data.startswith(b"words of the run\n")
    assert stop_run(force=True).run.reason == "stopped"


def test_no_further_session_while_the_alias_leads_to_the_node_of_the_run(
    make_cluster: Callable[..., Cluster], account: StubAccount
) -> None:
    cluster = make_cluster(account.home, account.home)
    first, second = cluster.servers
    start_run(cluster.config)
    before = sessions(first)
    for _ in range(3):
        assert look().reachable
    assert (sessions(first) - before, sessions(second)) == (3, 0)
    assert stop_run(force=True).run.reason == "stopped"


@pytest.mark.parametrize(
    ("hostname", "node", "name"),
    [
        ("login.hpc.example.org", "login2", "login2.hpc.example.org"),
        ("login.hpc.example.org", "LOGIN2.hpc.example.org", "login2.hpc.example.org"),
        ("login.hpc.example.org", "login.hpc.example.org", ""),
        ("login.hpc.example.org", "login2.other.example.org", ""),
        ("login.hpc.example.org", "-oProxyCommand=x", ""),
        ("login.hpc.example.org", "", ""),
        ("example.org", "login2", ""),
        ("cluster", "login2", ""),
        ("10.0.0.1", "login2", ""),
    ],
)
def test_a_self_reported_host_name_is_used_only_in_its_own_domain(hostname: str, node: str, name: str) -> None:
    assert name_in_domain(hostname, node) == name


def test_an_alias_with_one_known_node_needs_no_other_connection() -> None:
    known = Nodes()
    alias = SSHTarget("cluster", 22, "me")
    way = nodes.NodeTarget("cluster", 22, "me", "192.0.2.1")
    known.learn(alias, "login1", way)
    assert known.way_to(alias, "login1") is None
    known.learn(alias, "login2", nodes.NodeTarget("cluster", 22, "me", "192.0.2.2"))
    assert known.way_to(alias, "login1") == way
