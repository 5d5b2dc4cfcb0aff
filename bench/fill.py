"""Insert past runs: `python -m bench.fill COUNT`, in the environment of a server. 100 runs of each experiment."""

from __future__ import annotations

import sys
from datetime import timedelta

import django

RUNS_OF_EACH = 100


def main(count: int) -> None:
    from django.db import transaction
    from django.utils import timezone

    from runners.models import RunnerRun, RunReason, RunStatus

    now = timezone.now()
    config: dict[str, object] = {"runner_type": "LOCAL", "module_loader_type": "NO_MODULE", "modules": [], "ssh": None}
    with transaction.atomic():
        for start in range(0, count, 10_000):
            rows = (
                RunnerRun(
                    expid=expid(number // RUNS_OF_EACH),
                    profile_name="LOCAL",
                    config=config,
                    runner="LOCAL",
                    module_loader="NO_MODULE",
                    status=RunStatus.TERMINATED if number % 3 else RunStatus.COMPLETED,
                    reason=RunReason.FAILED if number % 3 else "",
                    exit_code=1 if number % 3 else 0,
                    pid=number,
                    host="bench",
                    user="bench",
                    started_by="bench",
                    created=now - timedelta(seconds=count - number),
                    modified=now - timedelta(seconds=count - number),
                    finished=now - timedelta(seconds=count - number),
                    confirmed_at=now - timedelta(seconds=count - number),
                )
                for number in range(start, min(start + 10_000, count))
            )
            RunnerRun.objects.bulk_create(rows, batch_size=500)


def expid(number: int) -> str:
    """Return x followed by the number in base 36, e.g. x0a7 and, from 46,656 on, with four digits, e.g. xa7c0."""
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return f"x{digits:0>3}"


if __name__ == "__main__":
    django.setup()
    main(int(sys.argv[1]))
