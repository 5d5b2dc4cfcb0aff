"""Where an SSH runner connects."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from profiles.target import Target
from runners.services.machines.ssh.config import DEFAULT_SSH_PORT, lookup

KEY, CERTIFICATE, BOTH = "KEY", "CERTIFICATE", "BOTH"  # how the service logs in


@dataclass(frozen=True, slots=True)
class SSHTarget(Target):
    """Where an SSH runner connects, and how it logs in. `host` may be an alias of `~/.ssh/config`.

    `authentication`: KEY: the service's keys. CERTIFICATE: a certificate for `person`, which the service signs
    (user_authority.py). BOTH: the certificate, then the keys. `person`: for whom certificates are signed; empty with
    KEY. Connections of different people are never shared, because targets are the keys of the pool.
    """

    section: ClassVar[str] = "SSH"
    host: str
    port: int
    user: str
    authentication: str = KEY
    # The snapshot in a row omits it: the row has the person who started it.
    person: str = field(default="", metadata={"is_stored": False})

    @property
    def place(self) -> SSHTarget:
        return replace(self, authentication=KEY, person="")

    @property
    def uses_person(self) -> bool:
        return self.authentication != KEY

    @property
    def lacks_person(self) -> bool:
        return self.authentication == CERTIFICATE and not self.person

    def for_person(self, person: str) -> Self:
        if not self.uses_person:
            return self
        authentication = KEY if self.authentication == BOTH and not person else self.authentication
        return replace(self, authentication=authentication, person=person)

    @property
    def machine(self) -> str:
        return machine_of(self.host)

    def describe(self) -> str:
        port = "" if self.port == DEFAULT_SSH_PORT else f", port {self.port}"
        return f"{self.user}@{self.host}{port}"


def machine_of(host: str) -> str:
    """Return the machine's own name, in lower case. An alias of ~/.ssh/config is replaced by its host name."""
    return lookup(host).hostname.lower().rstrip(".")
