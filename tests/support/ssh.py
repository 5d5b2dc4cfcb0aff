"""SSH keys and connections for tests, made with OpenSSH's own programs where possible."""

from __future__ import annotations

import subprocess
from pathlib import Path

from runners.services.machines.registry import get_runner
from runners.services.machines.ssh.pool import POOL
from tests.support.processes import PATIENCE
from tests.support.servers import SSHServer


def greet(sshd: SSHServer) -> str:
    """Run a command over a new connection and return its output."""
    POOL.discard(sshd.target)
    return get_runner(sshd.config()).execute("echo hello", timeout=20).text.strip()


def host_name(sshd: SSHServer) -> str:
    return f"[127.0.0.1]:{sshd.port}"


def openssh_connects(sshd: SSHServer, host: str = "127.0.0.1") -> bool:
    """Return True if OpenSSH's own client trusts the server with the same known_hosts file."""
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=none", "LogLevel=ERROR"]
    options.append(f'UserKnownHostsFile="{sshd.known_hosts}"')
    argv = ["ssh", "-F", "none", *(word for option in options for word in ("-o", option))]
    argv += ["-i", str(sshd.client_key), "-l", sshd.user, "-p", str(sshd.port), host, "exit 0"]
    return subprocess.run(argv, capture_output=True, timeout=30 * PATIENCE, check=False).returncode == 0


def public_half(key: Path) -> tuple[str, str]:
    kind, text = key.with_suffix(".pub").read_text().split()[:2]
    return kind, text


def make_key(path: Path, kind: str, *options: str) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *options, "-N", "", "-f", str(path)], check=True)
    return path
