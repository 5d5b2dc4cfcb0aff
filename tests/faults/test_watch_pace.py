"""What machines that are down, silent or slow cost the watch over all others.

Promise: a machine that is down costs one statement for all of its rows and one log line for each change. Silent
machines do not delay the ends of runs on other machines, however many accounts they have. The ends on a slow machine
are read concurrently.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from profiles.config import RunnerConfig
from runners.models import DetachedCommand, RunnerRun
from runners.services import lifecycle, machine_states, probing
from runners.services.machines.ssh.target import SSHTarget
from runners.worker import embedded
from runners.worker.embedded import EmbeddedWorker
from tests.support.contract import launch, wait_over
from tests.support.environments import StubAccount
from tests.support.faults import confirmed_run
from tests.support.processes import PATIENCE, free_port, kill_all, wait_for
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db(transaction=True)

INTERVAL = 0.3  # seconds between two looks
HEALTHY, SILENT = 7, 3  # numbers of machines
LIMIT = 2  # timeout in seconds for a silent machine


class Looking:
    """A worker in a thread, with its output."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.complaints: list[str] = []
        self.ended: list[int] = []
        self._worker = EmbeddedWorker(self)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._go_on)
        self._thread.start()

    def report(self, row: DetachedCommand) -> None:
        self.ended.append(row.pk)

    def say(self, words: str) -> None:
        self.told.append(words)

    def complain(self, words: str) -> None:
        self.complaints.append(words)

    def _go_on(self) -> None:
        embedded.run(self._worker, self._is_over, INTERVAL, lambda: None, self)
        connections.close_all()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()


@contextmanager
def looking() -> Iterator[Looking]:
    found = Looking()
    try:
        yield found
    finally:
        found.close()


def many(sshd: SSHServer, network: int, count: int) -> list[RunnerConfig]:
    """Return one sshd as `count` machines: the service treats each address as one."""
    addresses = [f"127.0.{network}.{number}" for number in range(1, count + 1)]
    line = sshd.known_hosts.read_text()
    sshd.known_hosts.write_text("".join(line.replace("127.0.0.1", address) for address in addresses))
    return [replace(sshd.config(), target=SSHTarget(address, sshd.port, sshd.user)) for address in addresses]


def start(config: RunnerConfig, argv: list[str]) -> RunnerRun:
    key, identity = launch(config, argv)
    run = confirmed_run(config, identity.as_dict(), key)
    run.save()
    return run


def test_silent_machines_do_not_delay_the_ends_on_others(
    account: StubAccount,
    make_sshd: Callable[..., SSHServer],
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everywhere = {"ListenAddress": "0.0.0.0"}
    well, bad = (make_sshd(account.home, options=everywhere) for _ in range(2))
    healthy, silent = many(well, 1, HEALTHY), many(bad, 2, SILENT)
    both = tmp_path / "known_hosts"
    both.write_text(well.known_hosts.read_text() + bad.known_hosts.read_text())
    settings.RUNNERS_KNOWN_HOSTS = str(both)
    settings.RUNNERS_SSH_KEYS = [str(well.client_key), str(bad.client_key)]
    settings.RUNNERS_CONNECT_TIMEOUT = settings.RUNNERS_PROBE_TIMEOUT = LIMIT
    monkeypatch.setattr(lifecycle, "RETRY_UNREACHABLE", 0.1)
    monkeypatch.setattr(embedded, "AT_ONCE", SILENT - 1)  # with one shared queue, the others would wait
    waiting = [start(config, ["sleep", "600"]) for config in silent for _ in range(2)]

    def delays() -> list[float]:
        """Return the seconds from the end of a run on each healthy machine until its row shows the end."""
        found = []
        for run in [start(config, ["sleep", "600"]) for config in healthy]:
            kill_all([run.pid])
            begin = time.monotonic()
            wait_for(lambda run=run: not RunnerRun.objects.get(pk=run.pk).is_active, 30, what="the end in its row")
            found.append(time.monotonic() - begin)
        return sorted(found)

    with looking() as watch:
        without = delays()
        with bad.frozen():
            wait_for(lambda: len(watch.told) == SILENT, 30, what="a line for each silent machine")
            with_silent = delays()
            wait_for(lambda: len(watch.ended) == 2 * HEALTHY, what="the report of all ends")
            asked_again = time.monotonic() + LIMIT + 2 * INTERVAL
            wait_for(lambda: time.monotonic() > asked_again, what="further looks at the silent machines")
            assert len(watch.told) == SILENT, watch.told  # one line for each machine, for any number of looks and runs
        for config in silent:
            assert config.target
            line = next(line for line in watch.told if config.target.host in line)
            assert "is unreachable; its 2 runs stay active: " in line
        wait_for(lambda: len(watch.told) == 2 * SILENT, 30, what="a line for each that is back")
        assert all("is reachable again; 2 runs were confirmed." in line for line in watch.told[SILENT:])
        assert watch.complaints == []
    assert with_silent[len(with_silent) // 2] < LIMIT / 2 * PATIENCE
    assert with_silent[-1] < max(2 * without[-1], LIMIT * PATIENCE)
    kill_all([run.pid for run in waiting])


def test_a_silent_host_with_many_accounts_does_not_delay_the_others(
    sshd: SSHServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT = settings.RUNNERS_PROBE_TIMEOUT = LIMIT
    monkeypatch.setattr(embedded, "AT_ONCE", 8)
    healthy = start(sshd.config(), ["sleep", "600"])
    kill_all([healthy.pid])
    with socket.create_server(("127.0.0.2", 0), backlog=500) as silent:  # the kernel accepts, and nobody answers
        for number in range(60):  # with these names, they are found before the other account
            target = SSHTarget("127.0.0.2", silent.getsockname()[1], f"a{number}")
            assert healthy.identity
            confirmed_run(replace(sshd.config(), target=target), healthy.identity).save()
        begin = time.monotonic()
        with looking():
            wait_for(lambda: not RunnerRun.objects.get(pk=healthy.pk).is_active, 60, what="the end in its row")
            assert time.monotonic() - begin < LIMIT * PATIENCE  # in one queue, it is 7 x LIMIT


@pytest.mark.parametrize("count", [3, 60])
def test_a_machine_that_is_down_costs_one_statement_for_all_of_its_rows(sshd: SSHServer, count: int) -> None:
    config = replace(sshd.config(), target=SSHTarget("127.0.0.1", free_port(), sshd.user))
    identity = {"pid": 1}
    runs = RunnerRun.objects.bulk_create([confirmed_run(config, identity) for _ in range(count)])
    real = launch(sshd.config(), ["sleep", "600"])[1]
    RunnerRun.objects.update(identity=real.as_dict())
    runs = list(RunnerRun.objects.active())
    machine_states.store()  # what other tests have left
    with CaptureQueriesContext(connection) as seen:
        probing.refresh(runs)
    kill_all([real.pid])
    assert {run.reachable for run in runs} == {False}
    assert set(RunnerRun.objects.values_list("reachable", flat=True)) == {False}
    # The state of the machine has a row of its own: an update of its state and one of its error, or a new row.
    of_machine = [query for query in seen.captured_queries if '"runners_machine"' in query["sql"]]
    assert len(of_machine) <= 4
    others = [
        query["sql"]
        for query in seen.captured_queries
        if query not in of_machine and not query["sql"].startswith(("SAVEPOINT", "RELEASE", "BEGIN", "COMMIT"))
    ]
    changes = [sql for sql in others if sql.startswith("UPDATE")]
    assert len(changes) == 2  # one takes the lease, one stores the result
    assert len(others) <= 5


def test_ends_on_a_slow_machine_are_read_side_by_side(account: StubAccount, sshd: SSHServer) -> None:
    count, pause = 16, 0.5
    started = [launch(sshd.config(), ["false"]) for _ in range(count)]
    for key, identity in started:
        wait_over(sshd.config(), key, identity)
    runs = [confirmed_run(sshd.config(), identity.as_dict(), key) for key, identity in started]
    RunnerRun.objects.bulk_create(runs)
    runs = list(RunnerRun.objects.active())
    profile = account.home / ".bashrc"
    profile.write_text(f"sleep {pause}\n")
    try:
        begin = time.monotonic()
        probing.refresh(runs)
        took = time.monotonic() - begin
    finally:
        profile.unlink()
    assert {(run.status, run.exit_code) for run in RunnerRun.objects.all()} == {("TERMINATED", 1)}
    assert took < count * 2 * pause / 2 * PATIENCE  # one after the other, with two probes each, takes 16 s or more
