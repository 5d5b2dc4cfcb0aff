"""The runner for another machine, over a pooled SSH connection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from django.core.exceptions import ValidationError

from profiles.parameter import Errors, Parameter, Values, parse_choice, parse_integer
from profiles.parameters import HOSTS, USERS
from profiles.validators import MAX_HOST, MAX_USER, shown, validate_host, validate_user
from runners.services.machines.exchange import Exchange
from runners.services.machines.runner import Runner
from runners.services.machines.ssh.config import DEFAULT_SSH_PORT, lookup
from runners.services.machines.ssh.nodes import NODES, NodeTarget, at_address
from runners.services.machines.ssh.pool import POOL, exec_on_channel
from runners.services.machines.ssh.target import BOTH, CERTIFICATE, KEY, SSHTarget, machine_of


def validate_port(value: int) -> None:
    if not 1 <= value <= 65535:
        raise ValidationError(f"{shown(value)} is not a valid port. Give a number from 1 to 65535.")


HOST = Parameter(
    "SSH.HOST",
    "Machine",
    validate=validate_host,
    column="ssh_host",
    description="A host name, an address, or an alias of the SSH config.",
    missing="The profile leaves open which machine to use",
    max_length=MAX_HOST,
    limit=HOSTS,
)
PORT = Parameter(
    "SSH.PORT",
    "SSH port",
    "integer",
    parse=parse_integer("port", 1, 65535),
    validate=validate_port,
    column="ssh_port",
    description="Default 22.",
    is_required=False,
    minimum=1,
    maximum=65535,
)
USER = Parameter(
    "SSH.USER",
    "Account on that machine",
    validate=validate_user,
    column="ssh_user",
    description="The account there.",
    missing="The profile leaves open as which user to connect",
    max_length=MAX_USER,
    limit=USERS,
    alias="SSH.USERNAME",
)
WAYS = (KEY, CERTIFICATE, BOTH)
AUTHENTICATION = Parameter(
    "SSH.AUTHENTICATION",
    "How to log in",
    "choice",
    parse=parse_choice(lambda: list(WAYS)),
    choices=lambda: list(WAYS),
    help="KEY: the service's keys. CERTIFICATE: a certificate of some minutes for the person who asks, who needs a "
    "mapping to the account. BOTH: the certificate for people with a mapping, then the keys. Default KEY",
    is_required=False,
    is_open=False,  # a request must not choose the credentials that it uses
)


def login_of(target: tuple[str, ...], ssh: SSHTarget) -> tuple[str, ...]:
    """Return `Runner.login`. Logins for different people are separate."""
    return (*target, ssh.authentication, ssh.person) if ssh.uses_person else target


class SSHRunner(Runner):
    """Another machine, over a pooled SSH connection. `config.target` may be a NodeTarget: one node behind an alias."""

    name = "SSH"
    label = "SSH: another machine"
    target_class = SSHTarget
    parameters = (HOST, PORT, USER, AUTHENTICATION)

    @classmethod
    def defaults(cls, values: Values, errors: Errors) -> Values:
        """Return the port and the user of `~/.ssh/config`, for a host that is given."""
        found: Values = {PORT.path: DEFAULT_SSH_PORT, AUTHENTICATION.path: KEY}
        host = values.get(HOST.path)
        if host is None or HOST.path in errors:
            return found
        options = lookup(host)
        if options.problem:
            errors[HOST.path] = [f"{options.problem} Ask an admin."]
        if options.port:
            found[PORT.path] = options.port
        if options.user:
            found[USER.path] = options.user
        return found

    @classmethod
    def requires_mapping(cls, values: Values) -> bool:
        return values.get(AUTHENTICATION.path) == CERTIFICATE

    @classmethod
    def account(cls, values: Values) -> tuple[str, str]:
        host = values.get(HOST.path, "")
        user = values.get(USER.path) or cls.defaults(values, {}).get(USER.path, "")
        return user, machine_of(host) if host else ""

    @property
    def ssh(self) -> SSHTarget:
        return cast("SSHTarget", self.config.target)

    @property
    def where(self) -> str:
        node = f" (node {self.ssh.address})" if isinstance(self.ssh, NodeTarget) else ""
        return f"{self.ssh.user}@{self.ssh.host}:{self.ssh.port}{node}"

    @property
    def login(self) -> tuple[str, ...]:
        return login_of(self.target, self.ssh)

    def exchange(self, exchange: Exchange) -> None:
        exec_on_channel(POOL, self.ssh, exchange)

    def at_node(self, node: str) -> Runner:
        way = NODES.way_to(self.ssh, node)
        return SSHRunner(replace(self.config, target=way)) if way else self

    def runners_at(self, node: str, deadline: float) -> Iterator[Runner]:
        for way in NODES.ways_to(self.ssh, node, deadline):
            yield SSHRunner(replace(self.config, target=way))

    def learn_node(self, node: str, address: str) -> None:
        if address and not isinstance(self.ssh, NodeTarget):
            NODES.learn(self.ssh, node, at_address(self.ssh, address))

    def learn_way(self, node: str, way: Runner) -> None:
        NODES.learn(self.ssh, node, cast("SSHTarget", way.config.target))
