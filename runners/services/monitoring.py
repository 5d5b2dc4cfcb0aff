"""The state of the service for Prometheus: what the database knows. `runners_project/metrics.py` has the counters."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.db import DatabaseError, InterfaceError
from django.db.models import Count, Min, QuerySet
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from runners.models import Mail, Operation, RunnerRun
from runners.services import health, outbox
from runners_project import __version__, clock

SHARED_FOR = 5.0  # seconds for which a process caches the state
PREFIX = "autosubmit_runners"


class StateCollector(Collector):
    """Collects gauges from the database. Without a database, only `autosubmit_runners_ready` (0) is left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made = 0.0
        self._metrics: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            if not self._metrics or time.monotonic() - self._made >= SHARED_FOR:
                self._metrics = _look()
                self._made = time.monotonic()
            return self._metrics

    def forget(self) -> None:
        """Drop the cached state (for tests)."""
        with self._lock:
            self._metrics = []


def _look() -> list[Metric]:
    report = health.report()
    metrics: list[Metric] = [
        InfoMetricFamily(PREFIX, "The version of the service.", value={"version": __version__}),
        GaugeMetricFamily(f"{PREFIX}_ready", "1 if /readyz answers 200.", value=int(report.is_ready)),
    ]
    if report.is_ready:
        if report.watch_age is not None:
            metrics.append(
                GaugeMetricFamily(
                    f"{PREFIX}_watch_age_seconds", "Time since the last sign of a watch.", value=report.watch_age
                )
            )
        try:
            metrics += _rows()
        except (DatabaseError, InterfaceError):  # the database was lost after the report
            metrics[1] = GaugeMetricFamily(f"{PREFIX}_ready", "1 if /readyz answers 200.", value=0)
    return metrics


def _rows() -> list[Metric]:
    """Return the gauges of the tables. Raises DatabaseError, InterfaceError."""
    runs = GaugeMetricFamily(
        f"{PREFIX}_active_runs",
        "Active runs: confirmed, or unconfirmed because the machine cannot tell.",
        labels=["state"],
    )
    machines = GaugeMetricFamily(
        f"{PREFIX}_machines", "Machines with active runs: answering, or not.", labels=["state"]
    )
    counts = {True: 0, False: 0}
    is_answering: dict[tuple[str, str], bool] = {}
    found = RunnerRun.objects.active().values("runner", "host", "reachable").annotate(number=Count("id")).order_by()
    for row in found:
        counts[row["reachable"]] += row["number"]
        machine = (row["runner"], row["host"])
        is_answering[machine] = is_answering.get(machine, False) or row["reachable"]
    runs.add_metric(["confirmed"], counts[True])
    runs.add_metric(["unconfirmed"], counts[False])
    machines.add_metric(["answering"], sum(is_answering.values()))
    machines.add_metric(["silent"], len(is_answering) - sum(is_answering.values()))
    tasks = GaugeMetricFamily(
        f"{PREFIX}_tasks", "Tasks of the workers: running, waiting, or overdue by more than a minute.", labels=["state"]
    )
    for state, number in health.task_counts().items():
        tasks.add_metric([state], number)
    webhooks, webhooks_age = _backlog(outbox.due())
    mails, mails_age = _backlog(Mail.objects.filter(next_attempt__lte=clock.now()))
    return [
        runs,
        machines,
        tasks,
        GaugeMetricFamily(
            f"{PREFIX}_active_operations", "Long commands that may still run.", value=Operation.objects.active().count()
        ),
        GaugeMetricFamily(f"{PREFIX}_webhooks_due", "Webhook messages that wait to be sent.", value=webhooks),
        GaugeMetricFamily(
            f"{PREFIX}_webhooks_oldest_due_seconds", "For how long the oldest has been due.", value=webhooks_age
        ),
        GaugeMetricFamily(f"{PREFIX}_mails_due", "Mails that wait to be sent.", value=mails),
        GaugeMetricFamily(
            f"{PREFIX}_mails_oldest_due_seconds", "For how long the oldest has been due.", value=mails_age
        ),
    ]


def _backlog(due: QuerySet[Any]) -> tuple[int, float]:
    """Return the number of due messages, and for how many seconds the oldest has been due."""
    found = due.aggregate(number=Count("id"), oldest=Min("next_attempt"))
    age = (clock.now() - found["oldest"]).total_seconds() if found["oldest"] else 0.0
    return found["number"], age


STATE = StateCollector()


def exposition() -> bytes:
    """Return all metrics in the text format of Prometheus: those of all processes, and the state of the database.

    Without PROMETHEUS_MULTIPROC_DIR (development), the counters are those of this process alone.
    """
    state = CollectorRegistry()
    state.register(STATE)
    counters = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        _forget_ended_processes(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
        counters = CollectorRegistry()
        MultiProcessCollector(counters)
    return generate_latest(counters) + generate_latest(state)


def _forget_ended_processes(folder: Path) -> None:
    """Remove the gauges of processes that have ended. Their counters stay, because they count what has happened."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            file.unlink(missing_ok=True)
