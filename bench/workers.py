"""Measure the workers on PostgreSQL: `python -m bench.workers [--messages N] [--machines N] [--runs N]`.

Two workers share webhooks to an instant receiver and to a slow one (1 s), and the watch of machines of which some are
down and some slow. Then one worker is killed. Prints a table for docs/benchmarks.md. The machines are addresses of real
sshds; one run of each is a real process, whose end is measured, the other rows share its identity.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.postgres import Postgres
from tests.support.processes import end, free_port, kill_all, start
from tests.support.servers import ROOT, SSHServer

INTERVAL = 10.0  # seconds
SLOW = 2.0  # seconds that a slow machine needs for each login
say = sys.stdout.write


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


def messages(count: int, seconds: float) -> float:
    """Return the seconds until `count` messages are delivered."""
    from django.utils import timezone

    from runners.models import Webhook, WebhookDelivery

    with receiver(seconds) as url:
        hook = Webhook.objects.create(name=f"{seconds} s", url=url)
        payload = {"type": "run.completed", "data": {"expid": "a000"}}
        begin = time.monotonic()
        WebhookDelivery.objects.bulk_create(
            WebhookDelivery(webhook=hook, event="run.completed", payload=payload, next_attempt=timezone.now())
            for _ in range(count)
        )
        while WebhookDelivery.objects.filter(webhook=hook, delivered_at=None).exists():
            time.sleep(0.2)
        return time.monotonic() - begin


def machines(folder: Path, count: int, down: int, slow: int) -> tuple[list[Any], list[Any], list[SSHServer]]:
    """Return the configurations of the machines that answer, of those that are down, and the servers."""
    from runners.services.machines.ssh.target import SSHTarget

    servers = []
    for name in ("well", "slow"):
        home = folder / name
        home.mkdir()
        servers.append(SSHServer(folder / f"sshd-{name}", home=home, options={"ListenAddress": "0.0.0.0"}))  # noqa: S104 -- all of 127.0.0.0/8
        servers[-1].start()
    (folder / "slow" / ".bashrc").write_text(f"sleep {SLOW}\n")
    known = []
    configs = []
    for number in range(count - down):
        server = servers[number < slow]
        address = f"127.0.{1 + (number < slow)}.{number + 1}"
        known.append(server.known_hosts.read_text().splitlines()[0].replace("127.0.0.1", address))
        configs.append(replace(server.config(), target=SSHTarget(address, server.port, server.user)))
    silent = [replace(configs[0], target=SSHTarget("127.0.3.1", free_port(), servers[0].user)) for _ in range(down)]
    (folder / "known_hosts").write_text("\n".join(known) + "\n")
    return configs, silent, servers


def rows(configs: list[Any], count: int) -> list[Any]:
    """Start one run on each machine, and insert `count` more rows per machine. Return the rows of the real runs."""
    from runners.models import RunnerRun
    from tests.support.contract import launch
    from tests.support.faults import confirmed_run

    real = []
    for config in configs:
        key, identity = launch(config, ["sleep", "3600"])
        run = confirmed_run(config, identity.as_dict(), key)
        run.save()
        real.append(run)
    holder = real[0].identity
    more = [
        confirmed_run(config, run.identity) for config, run in zip(configs, real, strict=True) for _ in range(count)
    ]
    for row in more:
        row.name_machine()
    assert holder
    RunnerRun.objects.bulk_create(more, batch_size=500)
    return real


def delays(real: list[Any]) -> list[float]:
    """Kill the real runs one after the other within an interval. Return the seconds until each end is stored."""
    from runners.models import RunnerRun

    killed: dict[int, float] = {}
    found: dict[int, float] = {}
    for run in real:
        kill_all([run.identity["supervisor_pid"], run.pid])
        killed[run.pk] = time.monotonic()
        time.sleep(INTERVAL / len(real))
        _collect(RunnerRun, killed, found)
    give_up = time.monotonic() + 12 * INTERVAL
    while len(found) < len(killed) and time.monotonic() < give_up:
        time.sleep(0.1)
        _collect(RunnerRun, killed, found)
    return sorted(found.values())


def _collect(model: Any, killed: dict[int, float], found: dict[int, float]) -> None:
    left = [pk for pk in killed if pk not in found]
    for pk in model.objects.filter(pk__in=left).exclude(status="ACTIVE").values_list("pk", flat=True):
        found[pk] = time.monotonic() - killed[pk]


def line(name: str, seconds: list[float]) -> None:
    p95 = seconds[max(0, int(len(seconds) * 0.95) - 1)]
    say(f"| {name} | {statistics.median(seconds):.1f} / {p95:.1f} / {seconds[-1]:.1f} s ({len(seconds)} ends) |\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--slow-messages", type=int, default=2000)
    parser.add_argument("--machines", type=int, default=60)
    parser.add_argument("--runs", type=int, default=10_000)
    wanted = parser.parse_args()
    with Postgres() as postgres, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["DATABASE_URL"] = postgres.create("bench")
        os.environ["RUNNERS_WEBHOOK_PRIVATE_TARGETS"] = "127.0.0.0/8"
        os.environ["LOG_LEVEL"] = "WARNING"
        os.environ["RUNNERS_KNOWN_HOSTS"] = str(folder / "known_hosts")
        os.environ["RUNNERS_SSH_KEYS"] = ",".join(
            str(folder / f"sshd-{each}" / "client_key") for each in ("well", "slow")
        )
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "runners_project.settings")
        subprocess.run([sys.executable, str(ROOT / "manage.py"), "migrate", "-v0"], check=True)
        import django

        django.setup()
        workers = Workers(folder)
        try:
            say(f"| {wanted.messages} messages, instant receiver | {messages(wanted.messages, 0):.0f} s |\n")
            say(f"| {wanted.slow_messages} messages, receiver of 1 s | {messages(wanted.slow_messages, 1):.0f} s |\n")
            down = slow = max(1, wanted.machines // 12)
            configs, silent, servers = machines(folder, wanted.machines, down, slow)
            try:
                real = rows(configs, wanted.runs // wanted.machines)
                for config in silent:
                    _insert_silent(config, real[0].identity, wanted.runs // wanted.machines)
                time.sleep(2 * INTERVAL)
                half = len(real) // 2
                line(
                    f"{wanted.runs} runs, {wanted.machines} machines, {down} down, {slow} slow, two workers",
                    delays(real[:half]),
                )
                workers.processes[0].kill()
                line("the same, one worker killed as the first run ends", delays(real[half:]))
            finally:
                for server in servers:
                    server.stop()
        finally:
            workers.close()


def _insert_silent(config: Any, identity: dict[str, Any], count: int) -> None:
    from runners.models import RunnerRun
    from tests.support.faults import confirmed_run

    more = [confirmed_run(config, identity) for _ in range(count)]
    for row in more:
        row.name_machine()
    RunnerRun.objects.bulk_create(more)


if __name__ == "__main__":
    main()
