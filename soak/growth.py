"""Samples of what must not grow: memory, descriptors and threads of each process, connections and tables."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from soak.site import Site

INTERVAL = 5.0  # seconds
WARM_UP = 600.0  # seconds of a process that are not judged: imports, pools and caches fill
SHORTEST = 300.0  # seconds after the warm-up without which nothing is judged
MOST_GROWTH = 0.08  # of the memory, over the time that is judged
MOST_MORE = 8.0  # MB that are allowed in any case
# These tables have a row for each thing that people did; retention removes the rows (docs/operations.md).
OF_PEOPLE = frozenset(
    {
        *("runners_runnerrun", "runners_operation", "runners_auditrecord", "runners_webhookdelivery"),
        *("runners_idempotencyrecord", "runners_experimentdescription", "runners_experiment"),
    }
)
# A database that was restarted has no connections, and after the last fault each thread opens its own. So they grow by
# about a third of the threads without being lost.
MOST_MORE_CONNECTIONS = 20
ROWS_OF_HOUSEKEEPING = 200  # that any other table may have at most more at the end than at the begin


@dataclass(frozen=True)
class Sample:
    when: float
    megabytes: float
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Trend:
    """A straight line through samples, by least squares."""

    first: float  # its value at the begin
    last: float
    seconds: float
    count: int

    @property
    def per_hour(self) -> float:
        return (self.last - self.first) * 3600 / self.seconds if self.seconds else 0.0


def trend(points: list[tuple[float, float]]) -> Trend:
    begin, end = points[0][0], points[-1][0]
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    square = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / square if square else 0.0
    return Trend(mean_y + slope * (begin - mean_x), mean_y + slope * (end - mean_x), end - begin, len(points))


@dataclass
class Samples:
    """`processes`: by (what it is, process id)."""

    processes: dict[tuple[str, int], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    connections: list[tuple[float, float]] = field(default_factory=list)
    threads: list[tuple[float, float]] = field(default_factory=list)  # of all servers and workers, in the same rounds
    tables: list[tuple[float, dict[str, int]]] = field(default_factory=list)


class Sampler(threading.Thread):
    """Takes a sample of everything each INTERVAL until `close`."""

    def __init__(self, site: Site) -> None:
        super().__init__(name="samples", daemon=True)
        self._site, self._closed = site, threading.Event()
        self.samples = Samples()

    def run(self) -> None:
        turn = 0
        while not self._closed.wait(INTERVAL):
            threads = self.take(self._pids())
            with suppress(psycopg.Error):
                self._ask_database(with_tables=turn % 4 == 0)
                self.samples.threads.append((self.samples.connections[-1][0], threads))
            turn += 1

    def take(self, processes: list[tuple[str, int]]) -> int:
        """Take one sample of each process that still exists. Return the number of their threads."""
        threads = 0
        for what, pid in processes:
            with suppress(OSError, KeyError, ValueError):
                taken = sample(pid)
                self.samples.processes[what, pid].append(taken)
                threads += taken.threads
        return threads

    def close(self) -> None:
        self._closed.set()
        self.join()
        with suppress(psycopg.Error):
            self._ask_database(with_tables=True)

    def _pids(self) -> list[tuple[str, int]]:
        found = []
        for node in self._site.nodes.values():
            with suppress(AssertionError):
                pids = node.server_pids
                found += [(f"main process of the server {node.name}", pid) for pid in pids[:1]]
                found += [(f"process of the server {node.name}", pid) for pid in pids[1:]]
            if pid := node.worker_pid:
                found.append((f"worker {node.name}", pid))
        return found

    def _ask_database(self, *, with_tables: bool) -> None:
        now = time.monotonic()
        active = (
            "SELECT count(*) AS number FROM pg_stat_activity WHERE datname = 'soak' AND pid <> pg_backend_pid() AND "
            "backend_type = 'client backend'"
        )
        self.samples.connections.append((now, self._site.query(active)[0]["number"]))
        if with_tables:
            names = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
            tables = [row["tablename"] for row in self._site.query(names)]
            each = " UNION ALL ".join(f"SELECT '{name}' AS name, count(*) AS number FROM \"{name}\"" for name in tables)
            self.samples.tables.append((now, {row["name"]: row["number"] for row in self._site.query(each)}))


def sample(pid: int) -> Sample:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    megabytes = int(lines["VmRSS"].split()[0]) / 1024
    return Sample(time.monotonic(), megabytes, len(os.listdir(f"/proc/{pid}/fd")), int(lines["Threads"]))
