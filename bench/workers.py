"""Measure two workers on PostgreSQL: `python -m bench.workers webhooks|watch|accounts`, in any environment.

`webhooks`: messages to a receiver that answers at once, and to one that takes 1 s. `watch`: runs on machines of which
some are down and some slow; then one worker is killed. `accounts`: each of 300 people has an account of their own, so
there are 300 logins to watch. Prints JSON.

The machines are addresses of two real sshds. Each end that is measured is that of a real process; all other rows have
the identity of one process that stays.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.connections import address
from tests.support.postgres import Postgres
from tests.support.processes import descendants, end, free_port, kill_all, start, wait_for
from tests.support.servers import ROOT, SSHServer

INTERVAL = 10.0  # seconds
SLOW = 2.0  # seconds that a slow machine needs for each login
NAMES = ("well", "slow")  # the two sshds
MOST_ENDS = 60  # real processes whose end is measured


@contextmanager
def receiver(seconds: float) -> Iterator[str]:
    """A receiver of webhooks that answers after `seconds`. Yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(seconds)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


class Workers:
    """Two workers on two nodes."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "workers.log"
        argv = [sys.executable, str(ROOT / "manage.py"), "watch_runs", f"--interval={INTERVAL}"]
        self.processes = [
            start(argv, log=self.log, env={**os.environ, "RUNNERS_NODE": node}, cwd=ROOT) for node in ("one", "two")
        ]

    def close(self) -> None:
        for process in self.processes:
            end(process)


def cpu(pids: list[int]) -> float:
    """Return the seconds of CPU that the processes have used, with their descendants, ended ones included."""
    ticks = 0
    for pid in {each for root in pids for each in (root, *descendants(root))}:
        with suppress(OSError):
            words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
            ticks += sum(map(int, words[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Meter:
    """The CPU that workers, machines and PostgreSQL use, in cores."""

    def __init__(self, **pids: list[int]) -> None:
        self._pids = pids
        self._begin, self._used = time.monotonic(), {name: cpu(each) for name, each in pids.items()}

    def text(self) -> str:
        seconds = time.monotonic() - self._begin
        return ", ".join(f"{name} {(cpu(pids) - self._used[name]) / seconds:.2f}" for name, pids in self._pids.items())


def messages(count: int, seconds: float) -> float:
    """Return the seconds until `count` messages are delivered."""
    from runners.models import Webhook, WebhookDelivery
    from runners_project import clock

    with receiver(seconds) as url:
        hook = Webhook.objects.create(name=f"{seconds} s", url=url)
        payload = {"type": "run.completed", "data": {"expid": "a000"}}
        begin = time.monotonic()
        WebhookDelivery.objects.bulk_create(
            WebhookDelivery(webhook=hook, event="run.completed", payload=payload, next_attempt=clock.now())
            for _ in range(count)
        )
        while WebhookDelivery.objects.filter(webhook=hook, delivered_at=None).exists():
            time.sleep(0.2)
        return time.monotonic() - begin


def pace_of(name: str) -> float:
    """Return the seconds per message between the first and the last delivery to a receiver."""
    from django.db.models import Count, Max, Min

    from runners.models import WebhookDelivery

    rows = WebhookDelivery.objects.filter(webhook__name=name)
    found = rows.aggregate(first=Min("delivered_at"), last=Max("delivered_at"), count=Count("pk"))
    return float((found["last"] - found["first"]).total_seconds() / (found["count"] - 1))


def machines(folder: Path, count: int, down: int, slow: int) -> tuple[list[Any], list[Any], list[SSHServer]]:
    """Return the configurations of the machines that answer, of those that are down, and the servers."""
    from runners.services.machines.ssh.target import SSHTarget

    servers = []
    for name in NAMES:
        home = folder / name
        home.mkdir()
        options = {"ListenAddress": "0.0.0.0", "MaxStartups": "1000"}  # noqa: S104 -- all of 127.0.0.0/8
        servers.append(SSHServer(folder / f"sshd-{name}", home=home, options=options))
        servers[-1].start()
    (folder / "slow" / ".bashrc").write_text(f"sleep {SLOW}\n")
    known = []
    configs = []
    for number in range(count - down):
        server = servers[number < slow]
        host = address(number)
        known.append(server.known_hosts.read_text().splitlines()[0].replace("127.0.0.1", host))
        configs.append(replace(server.config(), target=SSHTarget(host, server.port, server.user)))
    silent = [replace(configs[0], target=SSHTarget("127.0.9.1", free_port(), servers[0].user)) for _ in range(down)]
    (folder / "known_hosts").write_text("\n".join(known) + "\n")
    return configs, silent, servers


def insert_runs(configs: list[Any], silent: list[Any], runs: int) -> tuple[list[Any], Any]:
    """Insert `runs` active runs. Return those that can be ended (at most MOST_ENDS), and the one that stays."""
    from runners.models import RunnerRun
    from tests.support.contract import launch
    from tests.support.faults import confirmed_run

    def start_run(config: Any) -> Any:
        key, identity = launch(config, ["sleep", "3600"])
        return confirmed_run(config, identity.as_dict(), key)

    step = -(-len(configs) // MOST_ENDS)
    ending = [start_run(config) for config in configs[::step]]
    for run in ending:
        run.save()
    staying = start_run(configs[-1])
    everywhere = [*configs, *silent]
    more = [confirmed_run(everywhere[number % len(everywhere)], staying.identity) for number in range(runs)]
    for row in more:
        row.name_machine()
    RunnerRun.objects.bulk_create(more, batch_size=500)
    return ending, staying


def processes_of(runs: list[Any]) -> list[int]:
    return [pid for run in runs for pid in (run.identity["supervisor_pid"], run.pid)]


def wait_until_watched(since: datetime, silent: int) -> float:
    """Return the seconds until each machine that answers has been asked after `since`. `silent`: the others."""
    from runners.models import RunnerRun

    begin = time.monotonic()
    rows = RunnerRun.objects.active().exclude(confirmed_at__gt=since).order_by()
    wait_for(lambda: rows.values("machine").distinct().count() <= silent, 20 * INTERVAL, interval=0.2)
    return time.monotonic() - begin


def delays(ending: list[Any]) -> list[float]:
    """End the runs one after the other within an interval. Return the seconds until each end is stored, sorted."""
    from runners.models import RunnerRun

    ended: dict[int, float] = {}
    found: dict[int, float] = {}

    def collect() -> bool:
        left = [pk for pk in ended if pk not in found]
        for pk in RunnerRun.objects.filter(pk__in=left).exclude(status="ACTIVE").values_list("pk", flat=True):
            found[pk] = time.monotonic() - ended[pk]
        return len(found) == len(ended)

    for run in ending:
        kill_all(processes_of([run]))
        ended[run.pk] = time.monotonic()
        time.sleep(INTERVAL / len(ending))
        collect()
    wait_for(collect, 12 * INTERVAL, interval=0.1, what="all ends")
    return sorted(found.values())


def p95(seconds: list[float]) -> float:
    return seconds[max(0, math.ceil(len(seconds) * 0.95) - 1)]


def webhooks(wanted: Namespace, folder: Path, postgres: Postgres) -> dict[str, float]:
    workers = Workers(folder)
    try:
        instant, slow = messages(wanted.messages, 0), messages(wanted.slow_messages, 1)
        return {"instant": instant, "slow": slow, "slow_pace": pace_of("1 s")}
    finally:
        workers.close()


def watch(wanted: Namespace, folder: Path, postgres: Postgres) -> dict[str, Any]:
    """Measure the delay until an end is known, and how soon the other worker has taken over when one was killed."""
    from runners_project import clock

    bad = 0 if wanted.what == "accounts" else max(1, wanted.machines // 12)
    configs, silent, servers = machines(folder, wanted.machines, bad, bad)
    ending, staying = insert_runs(configs, silent, wanted.runs)
    workers = Workers(folder)
    try:
        wait_until_watched(clock.now(), len(silent))
        meter = Meter(
            workers=[process.pid for process in workers.processes],
            machines=[server.process_id for server in servers],
            postgres=[postgres.pid],
        )
        half = len(ending) // 2
        found = {"down": bad, "slow": bad, "delays": delays(ending[:half]), "cores": meter.text()}
        workers.processes[0].kill()
        with ThreadPoolExecutor(1) as pool:
            takeover = pool.submit(wait_until_watched, clock.now(), len(silent))
            found |= {"delays_after_kill": delays(ending[half:]), "takeover": takeover.result()}
        return found | {"load": os.getloadavg()[0]}
    finally:
        workers.close()
        kill_all(processes_of([staying, *ending]))
        for server in servers:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["webhooks", "watch", "accounts"])
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--slow-messages", type=int, default=2000)
    parser.add_argument("--machines", type=int, default=60)
    parser.add_argument("--runs", type=int, default=10_000)
    wanted = parser.parse_args()
    with Postgres() as postgres, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {
            "DATABASE_URL": postgres.create("bench"),
            "DJANGO_SETTINGS_MODULE": "runners_project.settings",
            "LOG_LEVEL": "WARNING",
            "RUNNERS_KNOWN_HOSTS": str(folder / "known_hosts"),
            "RUNNERS_SSH_KEYS": ",".join(str(folder / f"sshd-{each}" / "client_key") for each in NAMES),
            "RUNNERS_WEBHOOK_PRIVATE_TARGETS": "127.0.0.0/8",
            "SECRET_KEY": "only-for-a-benchmark-signs-nothing-of-value",
        }
        subprocess.run([sys.executable, str(ROOT / "manage.py"), "migrate", "-v0"], check=True)
        import django

        django.setup()
        measure = webhooks if wanted.what == "webhooks" else watch
        sys.stdout.write(json.dumps(measure(wanted, folder, postgres)) + "\n")


if __name__ == "__main__":
    main()
