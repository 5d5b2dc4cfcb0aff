"""Execute many commands over shared connections: `python -m bench.commands PORT USER COMMANDS MEGABYTES`.

First short commands, 30 at once. Then commands with 20 MB of output each, 8 at once. Needs a server's environment.
Prints JSON: `good` and `bad`, the number of commands that succeeded and that failed; `seconds` of the short and of the
other commands; `errors`, the codes of the failed ones.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import django

AT_ONCE, LONG_AT_ONCE = 30, 8
MEGABYTES_EACH = 20
TIMEOUT = 120.0  # seconds


def main(port: int, user: str, commands: int, megabytes: int) -> None:
    from django.db import connections

    from profiles.config import RunnerConfig
    from runners.exceptions import RunnerServiceError
    from runners.services.machines.registry import get_runner
    from runners.services.machines.ssh.pool import POOL
    from runners.services.machines.ssh.target import SSHTarget

    target = SSHTarget("127.0.0.1", port, user)
    runner = get_runner(RunnerConfig("SSH", "NO_MODULE", (), target))

    def execute(script: str, end: str) -> str:
        """Return "" if all of the output has arrived, else the error."""
        try:
            result = runner.execute(script, timeout=TIMEOUT)
        except RunnerServiceError as error:
            return error.code
        finally:
            connections.close_all()
        return "" if result.exit_code == 0 and result.stdout.endswith(end.encode()) else "wrong answer"

    def short(number: int) -> str:
        return execute(f"echo {number}", f"{number}\n")

    def long(number: int) -> str:
        return execute(f"head -c {MEGABYTES_EACH}000000 /dev/zero; echo; echo {number}", f"\n{number}\n")

    seconds, outcomes = [], []
    for threads, command, count in ((AT_ONCE, short, commands), (LONG_AT_ONCE, long, megabytes // MEGABYTES_EACH)):
        start = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            outcomes += list(pool.map(command, range(count)))
        seconds.append(time.perf_counter() - start)
    POOL.close()
    errors = Counter(outcome for outcome in outcomes if outcome)
    answer = {"good": outcomes.count(""), "bad": errors.total(), "seconds": seconds, "errors": errors}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    django.setup()
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
