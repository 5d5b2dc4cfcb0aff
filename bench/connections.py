"""Keep many SSH connections open: `python -m bench.connections PORT USER COUNT SECONDS`, in a server's environment.

Open one connection to each of 127.0.1.1, 127.0.1.2, ..., stay idle for SECONDS, then run a command on each. Prints
JSON: `megabytes` of the connections; `idle` and `probed`, the processor seconds of the two phases; `seconds` of the
commands.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import django

TIMEOUT = 30.0  # seconds


def address(number: int) -> str:
    """Return a different loopback address for each `number` from 0 on."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


def main(port: int, user: str, count: int, seconds: float) -> None:
    from profiles.config import RunnerConfig
    from runners.services.machines.registry import get_runner
    from runners.services.machines.ssh.pool import POOL
    from runners.services.machines.ssh.target import SSHTarget

    targets = [SSHTarget(address(number), port, user) for number in range(count)]
    runners = [get_runner(RunnerConfig("SSH", "NO_MODULE", (), target)) for target in targets]

    def command_on_each() -> None:
        for runner in runners:
            runner.execute("true", timeout=TIMEOUT)

    before = _megabytes()
    command_on_each()
    megabytes = _megabytes() - before
    start = _processor_seconds()
    time.sleep(seconds)
    idle = _processor_seconds() - start
    start, begin = _processor_seconds(), time.perf_counter()
    command_on_each()
    answer = {"megabytes": megabytes, "idle": idle, "probed": _processor_seconds() - start}
    sys.stdout.write(json.dumps({**answer, "seconds": time.perf_counter() - begin}))
    POOL.close()


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000


if __name__ == "__main__":
    django.setup()
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
