"""Where an SSH runner connects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from profiles.target import Target
from runners.services.machines.ssh.config import DEFAULT_SSH_PORT, lookup


@dataclass(frozen=True, slots=True)
class SSHTarget(Target):
    """Where an SSH runner connects. `host` may be an alias of `~/.ssh/config`."""

    section: ClassVar[str] = "SSH"
    host: str
    port: int
    user: str

    @property
    def machine(self) -> str:
        return machine_of(self.host)

    def describe(self) -> str:
        port = "" if self.port == DEFAULT_SSH_PORT else f", port {self.port}"
        return f"{self.user}@{self.host}{port}"


def machine_of(host: str) -> str:
    """Return the machine's own name, in lower case. An alias of ~/.ssh/config is replaced by its host name."""
    return lookup(host).hostname.lower().rstrip(".")
