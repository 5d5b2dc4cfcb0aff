"""How things are measured: alternately, so that both sides meet the same minute of a shared machine."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

CONNECTIONS = 8
WARM_UP = 3  # calls before those that count: imports, connections


def alternate(
    calls: dict[str, Callable[[int], float]], count: int, between: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Median seconds of each call, called `count` times in turns with its number; `between` is not measured."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(count + WARM_UP):
        for name, call in calls.items():
            seconds[name].append(call(number))
            between()
    return {name: statistics.median(values[WARM_UP:]) for name, values in seconds.items()}


def find_wrk() -> str:
    """The load generator. A C program: one in Python would take more of the two cores than the servers do."""
    wrk = shutil.which("wrk")
    assert wrk, "wrk is missing: tools/install-test-tools bench/debian-packages.txt"
    return wrk


def requests_per_second(folder: Path, port: int, path: str, body: str, *, seconds: int) -> float:
    """What a server answers over CONNECTIONS kept connections. AssertionError if an answer is no 2xx."""
    script = folder / "post.lua"
    script.write_text(f"wrk.method='POST'\nwrk.headers['Content-Type']='application/json'\nwrk.body='{body}'\n")
    argv = [
        find_wrk(),
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{seconds}s",
        "--timeout",
        "20s",
        "-s",
        str(script),
        f"http://127.0.0.1:{port}{path}",
    ]
    output = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    assert "Non-2xx" not in output, output
    assert "Socket errors" not in output, output
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert found, output
    return float(found[1])
