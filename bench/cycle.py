"""Refresh all active runs as `manage.py watch_runs` does: `python -m bench.cycle COUNT`, in a server's environment.

Prints JSON: `runs`, how many were active; `seconds` of each cycle; `confirmed`, how many the last cycle confirmed.
"""

from __future__ import annotations

import json
import sys
import time

import django


def main(count: int) -> None:
    from django.utils import timezone

    from runners.models import RunnerRun
    from runners.services import probing
    from runners.services.machines.ssh.pool import POOL

    seconds = []
    for _ in range(count):
        before = timezone.now()
        start = time.perf_counter()
        runs = list(RunnerRun.objects.active())
        probing.refresh(runs)
        seconds.append(time.perf_counter() - start)
    confirmed = RunnerRun.objects.active().filter(confirmed_at__gte=before).count()
    POOL.close()
    sys.stdout.write(json.dumps({"runs": len(runs), "seconds": seconds, "confirmed": confirmed}))


if __name__ == "__main__":
    django.setup()
    main(int(sys.argv[1]))
