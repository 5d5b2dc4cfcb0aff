"""What a command over SSH costs without this service: a bare client that keeps its connection."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import paramiko

from tests.support.servers import SSHServer

READY = b"ready\n"
SHELL = "echo ready"  # sshd, and the account's shell
LOGIN_SHELL = "bash -lc 'echo ready'"  # and the profiles of a login shell, as each command of this service uses it


class BareClient:
    def __init__(self, client: paramiko.SSHClient) -> None:
        self._client = client

    def seconds(self, command: str) -> float:
        """Return the time from the opening of a channel to the first output of a command."""
        start = time.perf_counter()
        _, output, _ = self._client.exec_command(command, timeout=60)
        assert output.read(len(READY)) == READY
        seconds = time.perf_counter() - start
        output.channel.recv_exit_status()
        return seconds


@contextmanager
def bare_client(sshd: SSHServer) -> Iterator[BareClient]:
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(sshd.known_hosts))
        client.connect(
            "127.0.0.1",
            sshd.port,
            sshd.user,
            key_filename=str(sshd.client_key),
            look_for_keys=False,
            allow_agent=False,
            timeout=60,
        )
        yield BareClient(client)
