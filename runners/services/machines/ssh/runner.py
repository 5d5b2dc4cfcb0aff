"""The runner for another machine, over a pooled SSH connection."""

from __future__ import annotations

from runners.services.machines.exchange import Exchange
from runners.services.machines.runner import Runner
from runners.services.machines.ssh.pool import POOL, exec_on_channel


class SSHRunner(Runner):
    """Another machine, over a pooled SSH connection."""

    name = "SSH"

    @property
    def where(self) -> str:
        assert self.config.ssh
        return f"{self.config.ssh.user}@{self.config.ssh.host}:{self.config.ssh.port}"

    @property
    def target(self) -> tuple[str, ...]:
        return ("SSH", self.where)

    def exchange(self, exchange: Exchange) -> None:
        assert self.config.ssh
        exec_on_channel(POOL, self.config.ssh, exchange)
