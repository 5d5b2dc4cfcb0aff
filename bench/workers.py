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
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.postgres import Postgres
from tests.support.processes import descendants, end, free_port, kill_all, start
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


def rows(configs: list[Any], count: int) -> tuple[list[Any], list[Any]]:
    """Start a run that will end on each machine, and one that stays; insert `count` rows of the latter per machine.

    Return the rows of the runs that will end, and those that stay.
    """
    from runners.models import RunnerRun
    from tests.support.contract import launch
    from tests.support.faults import confirmed_run

    ending, staying = [], []
    for config in configs:
        for found in (ending, staying):
            key, identity = launch(config, ["sleep", "3600"])
            found.append(confirmed_run(config, identity.as_dict(), key))
            found[-1].save()
    more = [confirmed_run(run.runner_config, run.identity) for run in staying for _ in range(count)]
    for row in more:
        row.name_machine()
    RunnerRun.objects.bulk_create(more, batch_size=500)
    return ending, staying


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
        os.environ.setdefault("SECRET_KEY", "only-for-a-benchmark-signs-nothing-of-value")
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
            if wanted.messages:
                say(f"| {wanted.messages} messages, instant receiver | {messages(wanted.messages, 0):.0f} s |\n")
            if wanted.slow_messages:
                say(
                    f"| {wanted.slow_messages} messages, receiver of 1 s | {messages(wanted.slow_messages, 1):.0f} s |\n"
                )
            down = slow = max(1, wanted.machines // 12)
            configs, silent, servers = machines(folder, wanted.machines, down, slow)
            try:
                real, staying = rows(configs, wanted.runs // wanted.machines)
                for config in silent:
                    _insert_silent(config, staying[0].identity, wanted.runs // wanted.machines)
                time.sleep(2 * INTERVAL)
                half = len(real) // 2
                meter = Meter(
                    workers=[process.pid for process in workers.processes],
                    machines=[server.drop_connections for server in servers],
                    postgres=[postgres.pid],
                )
                line(
                    f"{wanted.runs} runs, {wanted.machines} machines, {down} down, {slow} slow, two workers",
                    delays(real[:half]),
                )
                say(f"cores used: {meter.text()}; load {os.getloadavg()[0]:.1f}\n")
                workers.processes[0].kill()
                line("the same, one worker killed as the first run ends", delays(real[half:]))
                kill_all([pid for run in staying for pid in (run.identity["supervisor_pid"], run.pid)])
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
