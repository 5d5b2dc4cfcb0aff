"""Leases of probes: one caller at a time probes a machine, others use its result, and a dead caller's lease ends soon.

Promise: once a run has ended, no later request is rejected as if it still ran, and no later answer shows it as ACTIVE
and reachable.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.utils import timezone

from profiles.config import RunnerConfig
from runners.exceptions import AlreadyRunning
from runners.models import RunnerRun, RunStatus
from runners.services import leases, probing, runs
from tests.support.environments import StubAccount
from tests.support.faults import COMMAND, EXPID, in_background, profile_of, run_processes, start_run
from tests.support.processes import PATIENCE, end, kill_all, wait_for
from tests.support.processes import start as start_server
from tests.support.servers import ROOT, AppServer, SSHServer

OTHER = "b777"


def lease(seconds: float) -> None:
    """Store the lease of a caller that began to probe just now and was killed since."""
    RunnerRun.objects.update(probing_until=timezone.now() + timedelta(seconds=seconds))


def kill_run(account: StubAccount, expid: str = EXPID) -> None:
    kill_all(wait_for(lambda: run_processes(account, expid), what="the process of the run"))


def wait_end_on_machine(account: StubAccount, run: RunnerRun) -> None:
    """Wait until the run has ended on the machine. Its row does not show that yet."""
    folder = account.home / ".autosubmit-runners" / run.key
    wait_for(lambda: list(folder.glob("ended.*")), what="the end on the machine")
    assert RunnerRun.objects.get(pk=run.pk).is_active


@pytest.mark.django_db(transaction=True)
def test_a_rejection_uses_a_new_probe_of_the_machine(there: RunnerConfig, account: StubAccount) -> None:
    """A caller probes before it rejects a request, even if the row is fresh or another caller holds the lease."""
    account.control("run", EXPID, SLEEP=600)
    first = start_run(there)
    with pytest.raises(AlreadyRunning):
        start_run(there)
    kill_run(account)
    wait_end_on_machine(account, first)
    RunnerRun.objects.update(confirmed_at=timezone.now(), probing_until=None)
    second = start_run(there)
    assert second.pk != first.pk
    kill_run(account)
    wait_end_on_machine(account, second)
    lease(leases.LEASE)
    begin = time.monotonic()
    assert start_run(there).pk != second.pk
    assert time.monotonic() - begin < 10 * PATIENCE  # it waited probing.PATIENCE seconds for the other result
    kill_run(account)


@pytest.mark.django_db(transaction=True)
def test_a_status_never_says_that_it_was_confirmed_when_it_was_not(
    there: RunnerConfig, account: StubAccount, settings: Any
) -> None:
    settings.RUNNERS_STATUS_FRESHNESS = 0.2
    account.control("run", EXPID, SLEEP=600)
    run = start_run(there)
    kill_run(account)
    wait_end_on_machine(account, run)
    RunnerRun.objects.update(confirmed_at=timezone.now() - timedelta(seconds=1))
    lease(leases.LEASE)
    begin = time.monotonic()
    found = runs.get_run(expid=EXPID, viewer=AnonymousUser())
    assert found.is_active
    assert not found.reachable  # only in this answer: the row does not say so
    assert "has no answer yet" in found.unreachable_detail
    assert RunnerRun.objects.get(pk=run.pk).reachable
    # The lease of a dead caller ends soon, and the next caller probes.
    wait_for(
        lambda: not runs.get_run(expid=EXPID, viewer=AnonymousUser()).is_active,
        leases.LEASE + 5,
        what="the end",
    )
    assert time.monotonic() - begin < 15 * PATIENCE


@pytest.mark.django_db(transaction=True)
def test_another_callers_answer_is_waited_for(over_ssh: RunnerConfig, account: StubAccount, sshd: SSHServer) -> None:
    account.control("run", EXPID, SLEEP=600)
    run = start_run(over_ssh)
    kill_run(account)
    wait_end_on_machine(account, run)
    RunnerRun.objects.update(confirmed_at=None)

    def status() -> RunnerRun:
        try:
            return runs.get_run(expid=EXPID, viewer=AnonymousUser())
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        found = [each.result(30 * PATIENCE) for each in [pool.submit(status) for _ in range(8)]]
    assert {each.status for each in found} == {RunStatus.TERMINATED}


@pytest.mark.django_db(transaction=True)
def test_a_lease_is_renewed_while_a_slow_machine_is_asked(
    over_ssh: RunnerConfig, account: StubAccount, sshd: SSHServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT = 15  # half of it applies to the open connection: the machine is slow, not silent
    monkeypatch.setattr(leases, "LEASE", 1.0)
    monkeypatch.setattr(leases, "LEASE_RENEWAL", 0.3)
    account.control("run", EXPID, SLEEP=600)
    run = start_run(over_ssh)
    RunnerRun.objects.update(confirmed_at=None)
    with sshd.frozen():
        asking = in_background(lambda: probing.refresh([RunnerRun.objects.get(pk=run.pk)]) or connection.close())
        wait_for(lambda: RunnerRun.objects.get().probing_until, what="the lease")
        first = RunnerRun.objects.get().probing_until
        assert first
        wait_for(lambda: timezone.now() > first + timedelta(seconds=1), what="a moment after its first end")
        row = RunnerRun.objects.get()
        assert row.probing_until and row.probing_until > timezone.now()
        begin = time.monotonic()
        probing.refresh([row])  # no second caller probes
        assert time.monotonic() - begin < 1
    asking.result(40 * PATIENCE)
    row = RunnerRun.objects.get()
    assert (row.is_active, row.reachable, row.probing_until) == (True, True, None)
    kill_run(account)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[[AppServer], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(app: AppServer) -> subprocess.Popen[bytes]:
        argv = [sys.executable, str(ROOT / "manage.py"), "watch_runs", "--interval=0.5"]
        started.append(start_server(argv, log=tmp_path / "watch.log", env=app.environment, cwd=ROOT))
        wait_for(lambda: "Watching" in (tmp_path / "watch.log").read_text(), 60, what="the watch")
        return started[-1]

    yield begin
    for process in started:
        end(process)


def test_a_frozen_machine_does_not_delay_the_watch_of_others(
    make_app: Callable[..., AppServer],
    account: StubAccount,
    sshd: SSHServer,
    watch: Callable[[AppServer], subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    account.experiment(EXPID)
    account.experiment(OTHER)
    account.control("run", SLEEP=600)
    app = make_app(account=account, sshd=sshd)
    for expid, server in ((EXPID, sshd), (OTHER, None)):
        answer = app.post(COMMAND + "run-experiment", {"expid": expid, **profile_of(server)})
        assert answer.status == 200, answer.body
    with sshd.frozen():
        watch(app)
        time_to_hang = time.monotonic() + 2  # long enough for several probes
        wait_for(lambda: time.monotonic() > time_to_hang, what="looks at the machine that hangs")
        kill_run(account, OTHER)
        begin = time.monotonic()
        wait_for(lambda: f"{OTHER}: run" in (tmp_path / "watch.log").read_text(), 8, what="the other one's end")
        assert time.monotonic() - begin < 8 * PATIENCE  # the machine that hangs takes 20 s
    kill_run(account)
