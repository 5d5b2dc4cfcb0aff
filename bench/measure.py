"""Alternating measurements, so that the load of a shared machine affects both sides equally."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 8
WARM_UP = 3  # first calls, not counted: imports, connections


def alternate(
    calls: dict[str, Callable[[int], float]], count: int, between: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Return the median seconds of each call. Call them in turns, `count` times, with the number of the turn.

    `between` is called after each call and not measured.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(count + WARM_UP):
        for name, call in calls.items():
            seconds[name].append(call(number))
            between()
    return {name: statistics.median(values[WARM_UP:]) for name, values in seconds.items()}


def find_wrk() -> str:
    """Return the load generator. It is a C program: one in Python would use more of the two cores than the servers."""
    wrk = shutil.which("wrk")
    assert wrk, "wrk is missing: tools/install-test-tools bench/debian-packages.txt"
    return wrk


@dataclass(frozen=True)
class Rate:
    """The result of wrk: answers per second, and the 95th percentile of their latencies in seconds."""

    per_second: float
    p95: float


def requests_per_second(
    folder: Path,
    port: int,
    path: str,
    body: str,
    *,
    seconds: int,
    headers: Mapping[str, str],
    connections: int = CONNECTIONS,
) -> Rate:
    """Send one request over and over, on persistent connections. AssertionError if an answer is not 2xx."""
    script = folder / "post.lua"
    lines = [
        f"wrk.headers['{name}']='{value}'" for name, value in {**headers, "Content-Type": "application/json"}.items()
    ]
    last = "function done(_, latency, _) io.write('p95 ', latency:percentile(95), '\\n') end"  # microseconds
    script.write_text("\n".join(["wrk.method='POST'", *lines, f"wrk.body='{body}'", last, ""]))
    argv = [find_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script)]
    argv.append(f"http://127.0.0.1:{port}{path}")
    output = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    assert "Non-2xx" not in output, output
    assert "Socket errors" not in output, output
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    p95 = re.search(r"^p95 ([\d.e+]+)$", output, re.MULTILINE)
    assert rate and p95, output
    return Rate(float(rate[1]), float(p95[1]) / 1e6)


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU seconds of processes and their ended children so far, user and system."""
    total = 0
    for pid in pids:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, words[11:15]))
    return total / os.sysconf("SC_CLK_TCK")
