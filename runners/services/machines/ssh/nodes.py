"""The nodes behind a login alias: one name, several machines, usually with one shared home.

A run lives on the node that started it, and only that node can see its processes. A launch and a probe return the name
of the node that answered, and the connection has its address. So this process learns the address of each node.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from runners.services.machines.ssh import connect, known_hosts
from runners.services.machines.ssh.config import SSHHostOptions
from runners.services.machines.ssh.target import SSHTarget
from runners_project import bounded

MOST_ALIASES = 10_000  # requests may name any number of hosts; the oldest are forgotten first
MOST_NODES = 64  # of one alias
MOST_WAYS = 8  # addresses of an alias that are tried


@dataclass(frozen=True, slots=True)
class NodeTarget(SSHTarget):
    """One node behind the alias `host`. The connection goes to `address`; options and host keys are the alias's."""

    address: str = ""


def at_address(alias: SSHTarget, address: str) -> NodeTarget:
    """Return the target of a node that is reached as its alias is: with the same port, account and authentication."""
    return NodeTarget(alias.host, alias.port, alias.user, alias.authentication, alias.person, address)


class Nodes:
    """The nodes behind each alias, by name, and the way to each of them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._aliases: OrderedDict[SSHTarget, dict[str, SSHTarget]] = OrderedDict()

    def learn(self, alias: SSHTarget, node: str, way: SSHTarget) -> None:
        """Store that the node of this name has answered at `way`."""
        if self._aliases.get(alias, {}).get(node) == way:  # without the lock: this is called for each probe
            return
        with self._lock:
            ways = {**self._aliases.pop(alias, {}), node: way}
            self._aliases[alias] = dict(list(ways.items())[-MOST_NODES:])
            while len(self._aliases) > MOST_ALIASES:
                self._aliases.popitem(last=False)

    def way_to(self, alias: SSHTarget, node: str) -> SSHTarget | None:
        """Return the way to a node; None if it is not known, or if the alias has only one node: then it is the way."""
        ways = self._aliases.get(alias, {})
        return ways.get(node) if len(ways) > 1 else None

    def ways_to(self, alias: SSHTarget, node: str, deadline: float) -> Iterator[SSHTarget]:
        """Yield targets that may lead to a node, the likely ones first. `node`: its own name; empty: not known.

        These are the address at which it answered before, a new connection to each address of the alias, and its name
        in the alias's domain, if host keys of that name are trusted. The name comes from the machine, so no other name
        is used. Behind a jump host only the name helps: the addresses are those that the jump host sees.
        """
        known = self._aliases.get(alias, {}).get(node)
        if known:
            yield known
        options = connect.options_of(alias)
        if options.problem:
            return
        if not options.proxy_jump:
            for way in _addresses(alias, options, deadline):
                if way != known:
                    yield way
        if name := name_in_domain(options.hostname, node):
            named = SSHTarget(name, alias.port, alias.user, alias.authentication, alias.person)
            keys = known_hosts.load(connect.options_of(named), named.port)
            if named != known and (keys.trusted or keys.authorities):
                yield named


def _addresses(alias: SSHTarget, options: SSHHostOptions, deadline: float) -> list[NodeTarget]:
    with suppress(OSError):
        found = bounded.resolve(options.hostname, alias.port, deadline)
        wanted = connect.FAMILIES.get(options.address_family)
        addresses = [str(address[0]) for family, address in found if wanted in (None, family)]
        return [at_address(alias, address) for address in addresses[:MOST_WAYS]]
    return []


def name_in_domain(hostname: str, node: str) -> str:
    """Return the full name of a node in the domain of `hostname`; empty if it has none there.

    `login.hpc.example.org` and `login2` give `login2.hpc.example.org`. A domain of one label is too wide.
    """
    with suppress(ValueError):
        ipaddress.ip_address(hostname)
        return ""
    domain = hostname.lower().partition(".")[2]
    name = node.lower() if "." in node else f"{node.lower()}.{domain}"
    is_inside = "." in domain and name.endswith(f".{domain}") and name[0].isalnum()
    return name if is_inside and name != hostname.lower() else ""


NODES = Nodes()
