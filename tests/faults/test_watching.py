"""Watching hundreds of runs, and many clients that poll one run.

Promise: each look costs one round trip per machine, for any number of runs. A look survives any failure of the
database. Any number of simultaneous clients cost one probe of a run. An admin can end a run whose machine does not
answer any more.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from profiles.config import RunnerConfig
from runners.exceptions import NotRunning, StillReachable
from runners.models import RunnerRun
from runners.services import lifecycle, probing, runs
from runners.services.machines.probe import Probe
from runners.services.machines.registry import get_runner
from tests.support import faults
from tests.support.contract import launch
from tests.support.environments import StubAccount
from tests.support.faults import (
    COMMAND,
    EXPID,
    add_control,
    confirmed_run,
    in_background,
    profile_of,
    run_processes,
    sessions,
    stand_before,
    stored,
)
from tests.support.postgres import Postgres
from tests.support.processes import PATIENCE, end, is_alive, kill_all, wait_for
from tests.support.processes import start as start_server
from tests.support.servers import ROOT, AppServer, SSHServer

LAUNCHED, CHEAP = 10, 210  # runs of one machine: complete runs, and rows of living processes
POLLERS = 40


class Sleepers:
    """Living processes to fill rows with: one `sleep` each, children of one shell."""

    def __init__(self, count: int) -> None:
        text = f"for i in {{1..{count}}}; do sleep 600 & echo $!; done; echo; wait"
        self.shell = subprocess.Popen(["bash", "-c", text], stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.shell.stdout
        self.pids = [int(line) for line in iter(self.shell.stdout.readline, "\n")]

    def close(self) -> None:
        kill_all([*self.pids, self.shell.pid])
        with self.shell:
            pass


@pytest.fixture
def sleepers() -> Iterator[Sleepers]:
    found = Sleepers(CHEAP)
    yield found
    found.close()


def start_time(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19])


def fill(config: RunnerConfig, sleepers: Sleepers) -> list[RunnerRun]:
    """Create LAUNCHED + CHEAP living runs on one machine."""
    real = [launch(config, ["sleep", "600"]) for _ in range(LAUNCHED)]
    rows = [confirmed_run(config, identity.as_dict(), key) for key, identity in real]
    place = real[0][1].as_dict() | {"supervisor_pid": 1, "supervisor_start": 0}
    for pid in sleepers.pids:
        rows.append(confirmed_run(config, place | {"pid": pid, "start": start_time(pid)}))
    return RunnerRun.objects.bulk_create(rows)


@pytest.mark.django_db(transaction=True)
def test_hundreds_of_runs_cost_one_round_trip_per_machine(
    account: StubAccount,
    make_sshd: Callable[..., SSHServer],
    sleepers: Sleepers,
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Watch two machines over SSH and this machine."""
    looks = tmp_path / "looks"  # counts LOCAL round trips: each LOCAL command goes through `timeout`
    stand_before(tmp_path / "bin", "timeout", when="--norc", before=f"echo >>{looks}\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    machines = [make_sshd(account.home), make_sshd(account.home)]
    both = tmp_path / "known_hosts"
    both.write_text("".join(machine.known_hosts.read_text() for machine in machines))
    settings.RUNNERS_KNOWN_HOSTS = str(both)
    settings.RUNNERS_SSH_KEYS = [str(machine.client_key) for machine in machines]
    configs = [account.config(), *(machine.config() for machine in machines)]
    runs = [run for config in configs for run in fill(config, sleepers)]
    assert RunnerRun.objects.active().count() == 3 * (LAUNCHED + CHEAP)

    def trips() -> list[int]:
        return [looks.read_text().count("\n") if looks.exists() else 0, *(sessions(machine) for machine in machines)]

    before = trips()
    begin = timezone.now()
    call_command("watch_runs")
    assert [after - earlier for earlier, after in zip(before, trips(), strict=True)] == [1, 1, 1]
    confirmed = RunnerRun.objects.active().filter(confirmed_at__gte=begin, reachable=True)
    assert confirmed.count() == len(runs)  # every run was really probed

    # The next look finds the runs that ended, and no others.
    dead = sleepers.pids[::21]
    kill_all(dead)
    wait_for(lambda: not any(is_alive(pid) for pid in dead), what="their end")
    call_command("watch_runs")
    ended = RunnerRun.objects.exclude(status="ACTIVE")
    assert sorted(ended.values_list("pid", flat=True)) == sorted(dead * 3)
    assert set(ended.values_list("reason", flat=True)) == {"lost"}
    assert capsys.readouterr().out.count("TERMINATED (lost") == len(dead) * 3

    # A lost machine makes only its own runs stale.
    machines[0].stop()
    begin = timezone.now()
    call_command("watch_runs")
    away = RunnerRun.objects.active().filter(reachable=False)
    assert {run.runner_config for run in away} == {configs[1]}
    assert away.count() == RunnerRun.objects.active().count() // 3
    assert RunnerRun.objects.active().filter(confirmed_at__gte=begin).count() == 2 * away.count()


@pytest.fixture
def watcher() -> Iterator[Callable[[AppServer], subprocess.Popen[bytes]]]:
    """Yield a function that starts `manage.py watch_runs` beside the server."""
    running: list[subprocess.Popen[bytes]] = []

    def watch(app: AppServer) -> subprocess.Popen[bytes]:
        argv = [sys.executable, str(ROOT / "manage.py"), "watch_runs", "--interval=0.5"]
        running.append(start_server(argv, log=app.folder / "watch.log", env=app.environment, cwd=ROOT))
        return running[-1]

    yield watch
    for process in running:
        end(process)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_watch_survives_the_loss_of_the_database(
    kind: str,
    request: pytest.FixtureRequest,
    account: StubAccount,
    make_app: Any,
    make_gate: faults.MakeGate,
    watcher: Callable[[AppServer], subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    account.experiment(EXPID)
    gate = make_gate().arm()
    add_control(account, f"run.{EXPID}", gate.text, EXIT=7)
    postgres: Postgres | None = None
    url = f"sqlite:///{tmp_path / 'app-0' / 'db.sqlite3'}?timeout=1"
    if kind == "postgresql":
        postgres = request.getfixturevalue("postgres")
        url = postgres.create(f"watch_{secrets.token_hex(4)}", template="template_of_tests")
    app: AppServer = make_app(account=account, env={"DATABASE_URL": url})

    def stored_end() -> str:
        query = "SELECT reason, exit_code FROM runners_runnerrun"
        if postgres:
            return str(postgres.sql(query, url.rpartition("/")[2]))
        with closing(sqlite3.connect(app.database)) as database:
            return "|".join(map(str, database.execute(query).fetchone()))

    assert app.post(COMMAND + "run-experiment", {"expid": EXPID, **profile_of(None)}).status == 200
    gate.wait_held()
    process = watcher(app)
    log = app.folder / "watch.log"
    wait_for(lambda: "Watching" in log.read_text(), what="the watch")
    blocker = None if postgres else sqlite3.connect(app.database, isolation_level=None, timeout=30)
    if postgres:
        postgres.stop()
    elif blocker:
        blocker.execute("BEGIN EXCLUSIVE")
    # Two complaints: the watch continued after the first one.
    wait_for(lambda: log.read_text().count("The database is unavailable") >= 2, 60, what="its complaint")
    gate.release()
    wait_for(lambda: not run_processes(account), what="the end of the run")
    if postgres:
        postgres.start()
    elif blocker:
        with closing(blocker):
            blocker.execute("ROLLBACK")
    # A look that loses the database after it took a lease keeps it until the lease ends (`leases.LEASE`).
    wait_for(lambda: stored_end() == "failed|7", 40, what="the end in the database, which only the watch looks for")
    assert process.poll() is None
    assert "Traceback" not in log.read_text()


def test_many_simultaneous_pollers_cost_one_probe(
    make_app: Callable[..., AppServer], account: StubAccount, sshd: SSHServer
) -> None:
    """Poll several server processes, which share only the database."""
    account.experiment(EXPID)
    account.control("run", EXPID, SLEEP=600)
    app = make_app(
        account=account,
        sshd=sshd,
        env={"RUNNERS_STATUS_FRESHNESS": "300", "RUNNERS_STATUS_WAIT": "30"},
        workers=4,
        threads=16,
    )
    started = app.post(COMMAND + "run-experiment", {"expid": EXPID, **profile_of(sshd)})
    assert started.status == 200, started.body

    def poll() -> list[dict[str, Any]]:
        with ThreadPoolExecutor(POLLERS) as pool:
            asked = [pool.submit(app.post, COMMAND + "get-runner-run-status", {"expid": EXPID}) for _ in range(POLLERS)]
            answers = [each.result(60 * PATIENCE) for each in asked]
        assert {answer.status for answer in answers} == {200}
        assert {answer.body["pid"] for answer in answers} == {started.body["pid"]}
        return [answer.body for answer in answers]

    before = sessions(sshd)
    poll()
    assert sessions(sshd) == before  # the launch itself confirmed the state
    for _ in range(3):
        with closing(sqlite3.connect(app.database, timeout=20)) as database, database:
            database.execute("UPDATE runners_runnerrun SET confirmed_at = '2020-01-01 00:00:00'")
        before = sessions(sshd)
        poll()
        assert sessions(sshd) == before + 1

    # If the machine hangs, only one client waits; the others get the last known state.
    with closing(sqlite3.connect(app.database, timeout=20)) as database, database:
        database.execute("UPDATE runners_runnerrun SET confirmed_at = '2020-01-01 00:00:00'")
    with sshd.frozen():
        waiting = in_background(poll)
        body = {"expid": EXPID}
        wait_for(lambda: leased(app), what="one who asks")
        assert app.post(COMMAND + "get-runner-run-status", body).body["status"] == "ACTIVE"
        assert not waiting.done()
    assert {body["status"] for body in waiting.result(60 * PATIENCE)} == {"ACTIVE"}


def leased(app: AppServer) -> bool:
    with closing(sqlite3.connect(app.database)) as database:
        return database.execute("SELECT probing_until FROM runners_runnerrun").fetchone()[0] is not None


@pytest.mark.django_db(transaction=True)
def test_an_admin_ends_a_run_only_while_its_machine_cannot_be_asked(
    over_ssh: RunnerConfig, account: StubAccount, sshd: SSHServer
) -> None:
    account.control("run", EXPID, SLEEP=600)
    run = faults.start_run(over_ssh)
    with pytest.raises(StillReachable):
        runs.abandon(run, note="I do not like it")
    assert stored(run)["status"] == "ACTIVE"
    sshd.stop()
    confirmed = RunnerRun.objects.get().confirmed_at
    assert runs.abandon(run, note="The machine was taken out of service.")
    assert stored(run) | {"finished": None, "modified": None} == stored(run) | {
        "status": "TERMINATED",
        "reason": "abandoned",
        "detail": "The machine was taken out of service.",
        "exit_code": None,
        "finished": None,
        "modified": None,
    }
    # The row does not claim that the machine confirmed the end.
    run = RunnerRun.objects.get()
    assert (run.confirmed_at, run.reachable) == (confirmed, False)
    assert run.finished is not None
    with pytest.raises(NotRunning):
        runs.abandon(run, note="once more")
    # The machine comes back and its answers change nothing. The process was never touched.
    sshd.start()
    before = stored(run)
    probing.refresh([run])
    lifecycle.apply(run, get_runner(over_ssh), Probe(Probe.ENDED, exit_code=0))
    assert stored(run) == before
    assert run_processes(account) == [run.pid]


@pytest.mark.django_db(transaction=True)
def test_a_run_that_ended_before_it_was_abandoned_keeps_its_own_end(
    over_ssh: RunnerConfig, account: StubAccount, sshd: SSHServer
) -> None:
    account.control("run", EXPID, EXIT=3)
    run = faults.start_run(over_ssh)
    wait_for(lambda: not run_processes(account), what="an end that nobody has looked at")
    wait_for(lambda: list((account.home / ".autosubmit-runners" / run.key).glob("ended.*")), what="its exit code")
    with pytest.raises(NotRunning):
        runs.abandon(run, note="too late")
    assert (stored(run)["reason"], stored(run)["exit_code"]) == ("failed", 3)
