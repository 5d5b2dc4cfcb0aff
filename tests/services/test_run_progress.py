"""The counts of a run's jobs: they come with its probes, and stay in its row."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db.models import Q

from profiles.config import RunnerConfig
from runners.models import RunnerRun
from runners.services import probing, run_progress
from runners.services.machines.runner import exchange_ended
from runners.services.representations import run_fields
from tests.support.contract import launch
from tests.support.environments import StubAccount
from tests.support.job_lists import job, write, write_bytes
from tests.support.processes import kill_all
from tests.support.rows import saved_run

pytestmark = pytest.mark.django_db(transaction=True)
JOBS = [job("a001_INI", "COMPLETED"), job("a001_SIM", "RUNNING"), job("a001_BAD", "FAILED"), job("a001_END")]


@pytest.fixture(autouse=True)
def _each_probe_counts(settings: Any) -> None:
    settings.RUNNERS_PROGRESS_INTERVAL = 0


@pytest.fixture
def make_running(config_of: Callable[[str], RunnerConfig], account: StubAccount) -> Iterator[Callable[..., RunnerRun]]:
    """make_running(expid) -> the row of a command that runs on the machine."""
    config = config_of("NO_MODULE")
    runs: list[RunnerRun] = []

    def make(expid: str = "a001") -> RunnerRun:
        key, identity = launch(config, ["sleep", "300"])
        runs.append(saved_run(expid, key=key, identity=identity.as_dict(), pid=identity.pid, config=config.as_dict()))
        return runs[-1]

    yield make
    kill_all([run.pid for run in runs if run.pid])


def look(*runs: RunnerRun) -> Any:
    """Probe runs with one exchange. Return what the API tells about the progress of the first one."""
    exchanges: list[object] = []

    def count(**_: object) -> None:
        exchanges.append(1)

    exchange_ended.connect(count, weak=False)
    try:
        probing.probe(runs)
    finally:
        exchange_ended.disconnect(count)
    assert len(exchanges) == 1
    assert not RunnerRun.objects.filter(~Q(status="ACTIVE") | Q(reachable=False)).exists()
    return run_fields(RunnerRun.objects.get(pk=runs[0].pk))["progress"]


def test_a_probe_counts_the_jobs(make_running: Callable[..., RunnerRun], account: StubAccount) -> None:
    run = make_running()
    assert look(run) is None  # there is no job list
    write(account.home, "a001", JOBS)
    assert look(run) == {"total": 4, "done": 1, "failed": 1, "running": 1, "failed_jobs": ["a001_BAD"]}
    write(account.home, "a001", [job("a001_INI", "COMPLETED"), job("a001_SIM", "SKIPPED"), job("a001_END", "QUEUING")])
    assert look(run) == {"total": 3, "done": 2, "failed": 0, "running": 0, "failed_jobs": []}


def test_an_unchanged_job_list_is_not_read_again(
    make_running: Callable[..., RunnerRun], account: StubAccount, django_assert_num_queries: Any
) -> None:
    run = make_running()
    file = write(account.home, "a001", JOBS)
    known = look(run)
    stat = file.stat()
    with file.open("r+b") as stream:  # the same size, time and inode: it would be damaged if somebody read it
        stream.write(b"?" * 10)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with django_assert_num_queries(1):
        probing.probe([run])
    assert look(run) == known


def test_a_damaged_job_list_keeps_the_last_counts(make_running: Callable[..., RunnerRun], account: StubAccount) -> None:
    run = make_running()
    write(account.home, "a001", JOBS)
    known = look(run)
    write_bytes(account.home, "a001", b"garbage")
    assert look(run) == known


def test_counts_are_asked_for_once_in_the_interval(
    make_running: Callable[..., RunnerRun], account: StubAccount, settings: Any
) -> None:
    settings.RUNNERS_PROGRESS_INTERVAL = 300
    run = make_running()
    write(account.home, "a001", JOBS)
    assert look(run)["total"] == 4
    write(account.home, "a001", JOBS[:1])
    assert look(run)["total"] == 4
    run_progress.forget()
    assert look(run)["total"] == 1


def test_many_runs_take_turns(
    make_running: Callable[..., RunnerRun], account: StubAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_progress, "RUNS_AT_ONCE", 2)
    runs = [make_running(f"a00{number}") for number in range(3)]
    for run in runs:
        write(account.home, run.expid, [job(f"{run.expid}_SIM", "RUNNING")])
    look(*runs)
    assert [bool(RunnerRun.objects.get(pk=run.pk).progress) for run in runs] == [True, True, False]
    look(*runs)
    assert all(RunnerRun.objects.get(pk=run.pk).progress for run in runs)


@pytest.mark.parametrize(
    "stored", [[], "x", {"total": 1}, {"total": "4", "done": 1, "failed": 0, "running": 0}, {"stamp": 5}]
)
def test_an_invalid_row_has_no_progress_and_is_mended(
    stored: Any, make_running: Callable[..., RunnerRun], account: StubAccount
) -> None:
    run = make_running()
    run.progress = stored
    run.save()
    assert run_fields(run)["progress"] is None
    write(account.home, "a001", JOBS)
    assert look(run) == {"total": 4, "done": 1, "failed": 1, "running": 1, "failed_jobs": ["a001_BAD"]}
