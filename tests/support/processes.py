"""Small helpers of the tests: free ports, waiting, and processes that end with the test run."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
# All deadlines of the tests are multiplied by it, because a busy machine is slower, as with parallel tests.
PATIENCE = float(os.environ.get("TEST_PATIENCE") or (2 if "PYTEST_XDIST_WORKER" in os.environ else 1))
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def wait_for(condition: Callable[[], T], deadline: float = 20, *, what: str = "", interval: float = 0.05) -> T:
    """Poll until `condition()` is true and return its value. AssertionError after `deadline` times PATIENCE seconds."""
    deadline *= PATIENCE
    end = time.monotonic() + deadline
    while True:
        if value := condition():
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline:g} s: {what or condition}; last value: {value!r}")
        time.sleep(interval)


def _ports() -> Iterator[int]:
    """Yield ports below the kernel's range for clients, from a random one on: other test runs use other ports."""
    first_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    lowest = max(1024, first_of_clients - 20_000)
    number = random.randrange(lowest, first_of_clients)
    while True:
        yield number
        number = number + 1 if number + 1 < first_of_clients else lowest


_PORTS = _ports()


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now. The next call returns another one."""
    for port in _PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port")


def is_listening(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((address, port)) == 0


def die_with_parent() -> None:
    """Let the kernel end the process when the test run dies, even by SIGKILL. For `preexec_fn`."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def start(
    argv: list[str],
    *,
    log: Path,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    umask: int = -1,
) -> subprocess.Popen[bytes]:
    """Start a server in its own session. Both streams are appended to `log`. `umask` -1: that of this process."""
    with log.open("ab") as stream:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            umask=umask,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Set the umask of this process for the block. (The service's settings, which the tests import, set 077.)"""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def end(process: subprocess.Popen[bytes], *, patience: float = 10) -> None:
    """Send TERM, then KILL to the whole process group. Return when the process has ended."""
    for number in (signal.SIGCONT, signal.SIGTERM):
        with suppress(ProcessLookupError):
            process.send_signal(number)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(patience)


def processes() -> Iterator[tuple[int, int, str]]:
    """Yield (pid, parent's pid, name) of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                head, _, tail = (entry / "stat").read_text(errors="replace").rpartition(") ")
                yield int(entry.name), int(tail.split()[1]), head.partition(" (")[2]


def descendants(pid: int) -> dict[int, str]:
    """Return all descendants of `pid`: {pid: name}."""
    everyone = list(processes())
    found: dict[int, str] = {}
    level = {pid}
    while level:
        found |= {child: name for child, parent, name in everyone if parent in level}
        level = {child for child, parent, _ in everyone if parent in level}
    return found


def with_environment(name: str, value: str) -> list[int]:
    """Return the processes whose initial environment had `name=value`."""
    item = f"{name}={value}".encode()
    found = []
    for pid, _, _ in processes():
        with suppress(OSError):
            if item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def cmdline(pid: int) -> bytes:
    """Return the arguments of a process, each followed by a NUL; empty if the process has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_alive(pid: int) -> bool:
    """Return True if the process exists and is not a zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2][0] not in "ZX"
    return False


def proc_status(pid: int) -> dict[str, Any]:
    """Return /proc/PID/status as a dict of strings."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def kill_all(pids: list[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
