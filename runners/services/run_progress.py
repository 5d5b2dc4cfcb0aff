"""The progress of running runs: how many of their jobs are done. The counts come with the probes, without a round trip.

A probe asks for the jobs of at most RUNS_AT_ONCE runs, and for each run once per RUNNERS_PROGRESS_INTERVAL in this
process. The stamp of the last counts is sent along, so a job list that has not changed is not read again.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.conf import settings

from runners.models import DetachedCommand, RunnerRun
from runners.services.machines.jobs import JobCounts, parse_counts
from runners.services.machines.probe import ProbeTarget

RUNS_AT_ONCE = 50
KEPT = 10_000  # runs whose last count this process remembers

_lock = threading.Lock()
_asked: OrderedDict[str, float] = OrderedDict()  # by key of the run: time.monotonic


def with_jobs(targets: Sequence[ProbeTarget], runs: Sequence[DetachedCommand]) -> list[ProbeTarget]:
    """Return the targets of runs, with the question for the jobs of those that have not been counted for longest."""
    now = time.monotonic()
    with _lock:
        due = [
            (_asked.get(run.key, -1e9), index)
            for index, run in enumerate(runs)
            if isinstance(run, RunnerRun)
            and run.identity
            and not run.superseded
            and now - _asked.get(run.key, -1e9) >= settings.RUNNERS_PROGRESS_INTERVAL
        ]
        chosen = {index for _, index in sorted(due)[:RUNS_AT_ONCE]}
        for index in chosen:
            _asked.pop(runs[index].key, None)
            _asked[runs[index].key] = now
        while len(_asked) > KEPT:
            _asked.popitem(last=False)
    return [
        replace(target, expid=run.expid, stamp=_stamp(run)) if index in chosen else target
        for index, (target, run) in enumerate(zip(targets, runs, strict=True))
    ]


def changes(run: DetachedCommand, line: str) -> dict[str, Any]:
    """Return the columns that the counts of a probe change (`Probe.jobs`); empty if there is nothing new."""
    counts = parse_counts(line, {run.key}).get(run.key) if line and isinstance(run, RunnerRun) else None
    return {"progress": as_stored(counts)} if counts else {}


def as_stored(counts: JobCounts) -> dict[str, Any]:
    """Return the format of RunnerRun.progress."""
    return {
        "total": counts.total,
        "done": counts.done,
        "failed": counts.failed,
        "running": counts.running,
        "failed_jobs": list(counts.failed_jobs),
        "stamp": counts.stamp,
    }


def forget() -> None:
    """Let the next probe count all jobs, for tests."""
    with _lock:
        _asked.clear()


def _stamp(run: DetachedCommand) -> str:
    stored = run.progress if isinstance(run, RunnerRun) and isinstance(run.progress, dict) else {}
    stamp = stored.get("stamp", "")
    return stamp if isinstance(stamp, str) and len(stamp) < 100 else ""
