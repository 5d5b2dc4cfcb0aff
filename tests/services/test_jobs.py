"""The jobs of an experiment, read on the machine from Autosubmit's files: LOCAL and SSH, each format, hostile files."""

from __future__ import annotations

import os
import pickle
import socket
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from profiles.config import RunnerConfig
from runners.exceptions import JobsNotFound, JobsUnreadable, LogNotFound
from runners.models import ExperimentDescription, RunnerRun
from runners.services import jobs
from runners.services.machines import scripts
from runners.services.machines.jobs import JobQuery, parse_counts
from runners.services.machines.runner import Runner
from tests.support import job_lists
from tests.support.environments import StubAccount
from tests.support.job_lists import SUBMITTED, day, job, row

pytestmark = pytest.mark.django_db


def make_run(config: RunnerConfig, expid: str = "a001") -> RunnerRun:
    values = {"expid": expid, "runner": config.runner_type, "module_loader": config.module_loader_type}
    return RunnerRun.objects.create(config=config.as_dict(), **values)


@pytest.fixture
def run(runner: Runner, account: StubAccount) -> RunnerRun:
    return make_run(runner.config)


@pytest.fixture
def local(account: StubAccount) -> RunnerRun:
    return make_run(account.config())


def page(run: RunnerRun, **query: Any) -> list[str]:
    jobs.forget()
    return [each.name for each in jobs.page_of(run, JobQuery(**query)).jobs]


# --- the job list -----------------------------------------------------------------------------------------------------

MIXED = [
    job("a001_INI", "COMPLETED", section="INI", id=7),
    job("a001_20000101_fc0_1_SIM", "RUNNING", date=day("20000101"), member="fc0", chunk=1, id="12"),
    job("a001_20000101_fc1_2_SIM", "FAILED", date=day("20000101"), member="fc1", chunk=2, id=13),
    job("a001_20000101_fc1_2_3_SPL", "WAITING", date=day("20000101"), member="fc1", chunk=2, split=3, section="SPL"),
]


@pytest.mark.parametrize("version", ["4.0.105", "4.1.8", "4.1.12", "4.1.17"])
def test_jobs_of_each_format(run: RunnerRun, account: StubAccount, version: str) -> None:
    job_lists.write(account.home, "a001", MIXED, version=version)
    found = jobs.page_of(run, JobQuery())
    assert found.counts.by_status == {"WAITING": 1, "RUNNING": 1, "COMPLETED": 1, "FAILED": 1}
    assert (found.counts.total, found.counts.done, found.counts.failed, found.counts.left) == (4, 1, 1, 2)
    assert found.counts.failed_jobs == ("a001_20000101_fc1_2_SIM",)
    sim = found.jobs[1]
    assert (sim.section, sim.date, sim.member, sim.chunk, sim.status) == ("SIM", "20000101", "fc0", 1, "RUNNING")
    assert sim.last is not None
    assert sim.last.remote_id == 12
    assert (found.jobs[0].date, found.jobs[0].member, found.jobs[0].chunk, found.jobs[0].split) == (None,) * 4
    assert found.jobs[3].attempts == ()
    if version.startswith("4.1"):
        assert (found.jobs[3].split, sim.platform) == (3, "LOCAL")


def test_filters_orders_and_pages(local: RunnerRun, account: StubAccount) -> None:
    job_lists.write(account.home, "a001", MIXED)
    ini, running, failed, split = (each["_name"] for each in MIXED)
    assert page(local, status=("FAILED", "RUNNING")) == [running, failed]
    assert page(local, section="SPL") == [split]
    assert page(local, member="fc1") == [failed, split]
    assert page(local, date="20000101", chunk=1) == [running]
    assert page(local, split=3) == [split]
    assert page(local, platform="LOCAL", limit=2) == [ini, running]
    assert page(local, platform="MARE") == []
    assert page(local, name="_sim") == [running, failed]
    assert page(local, name=".*") == []
    assert page(local, ordering="-name") == [ini, failed, split, running]
    assert page(local, ordering="chunk", offset=1, limit=2) == [failed, split]
    assert page(local, ordering="-chunk") == [failed, split, running, ini]  # without a value: last
    assert page(local, offset=4) == []
    assert jobs.page_of(local, JobQuery(member="fc1", limit=1)).matching == 2


def test_counts_of_many_runs_in_one_round_trip(runner: Runner, account: StubAccount) -> None:
    job_lists.write(account.home, "a001", MIXED)
    job_lists.write(account.home, "a002", [job("a002_ONE", "SUSPENDED")])
    wanted = [("k1", "a001", ""), ("k2", "a002", ""), ("k3", "a003", "")]
    text = runner.execute(scripts.job_counts(wanted, names=50), timeout=20).text
    found = parse_counts(text, ["k1", "k2", "k3"])
    assert {key: counts.total for key, counts in found.items() if counts} == {"k1": 4, "k2": 1}
    assert found["k1"] is not None
    assert found["k1"].failed_jobs == ("a001_20000101_fc1_2_SIM",)


def test_an_unchanged_job_list_is_not_read_again(runner: Runner, account: StubAccount) -> None:
    job_lists.write(account.home, "a001", MIXED)

    def ask(stamp: str) -> Any:
        text = runner.execute(f"echo a probe\n{scripts.job_counts([('k1', 'a001', stamp)])}", timeout=20).text
        assert text.startswith("a probe\n")
        return parse_counts(text, ["k1"])["k1"]

    first = ask("")
    assert first.failed_jobs == ()  # a probe asks for no names
    assert ask(first.stamp) is None
    job_lists.write(account.home, "a001", MIXED[:2])
    assert ask(first.stamp).total == 2


# --- attempts ---------------------------------------------------------------------------------------------------------


def test_attempts_come_from_the_history(run: RunnerRun, account: StubAccount) -> None:
    name = "a001_SIM"
    job_lists.write(account.home, "a001", [job(name, "COMPLETED", id=105)])
    rows = [row(name, 3, status="FAILED"), row(name, 5), row("a001_OTHER", 1)]
    job_lists.history(account.home, "a001", rows)
    found = jobs.page_of(run, JobQuery())
    assert found.has_history
    first, second = found.jobs[0].attempts
    assert (first.number, first.status, first.remote_id, first.err) == (1, "FAILED", 103, f"{name}.3.err")
    assert (second.number, second.status, second.out) == (2, "COMPLETED", f"{name}.5.out")
    assert second.submitted is not None
    assert second.finished is not None
    assert (second.submitted.timestamp(), second.finished.timestamp()) == (SUBMITTED, SUBMITTED + 70)


def test_the_attempt_under_way_is_in_the_job_list_only(local: RunnerRun, account: StubAccount) -> None:
    """Most versions write into the history after the end of an attempt, and some at the end of the run."""
    name = "a001_SIM"
    values = {
        "submit_time_timestamp": "20261126072735",
        "fail_count": 2,
        "out": f"{name}.2.out",
        "err": f"{name}.2.err",
    }
    job_lists.write(account.home, "a001", [job(name, "RUNNING", id=200, **values)])
    job_lists.history(account.home, "a001", [row(name, 0, status="FAILED")])
    first, missing, last = jobs.page_of(local, JobQuery()).jobs[0].attempts
    assert (first.number, first.status) == (1, "FAILED")
    assert (missing.number, missing.status, missing.out) == (2, None, None)
    assert (last.number, last.status, last.remote_id, last.out) == (3, "RUNNING", 200, f"{name}.2.out")
    assert last.submitted is not None
    assert last.finished is None


def test_two_rows_of_one_submission_are_one_attempt(local: RunnerRun, account: StubAccount) -> None:
    """4.1.8 writes both when it submits a job. The first one is never filled in."""
    name, empty = "a001_SIM", {"start": 0, "finish": 0, "status": "SUBMITTED", "out": "", "err": ""}
    job_lists.write(account.home, "a001", [job(name, "COMPLETED", id=8)])
    rows = [row(name, 0, job_id=7, status="FAILED"), row(name, 1, job_id=8, **empty), row(name, 2, job_id=8)]
    job_lists.history(account.home, "a001", rows)
    first, second = jobs.page_of(local, JobQuery()).jobs[0].attempts
    assert (first.remote_id, second.remote_id, second.status) == (7, 8, "COMPLETED")


def test_reading_the_history_does_not_make_a_writer_fail(local: RunnerRun, account: StubAccount) -> None:
    """Autosubmit opens the history with sqlite3's default timeout, 5 s."""
    names = [f"a001_{number}_SIM" for number in range(300)]
    job_lists.write(account.home, "a001", [job(name, "COMPLETED", id=9) for name in names])
    file = job_lists.history(account.home, "a001", [row(name, job_id=9) for name in names])
    found: list[bool] = []

    def read() -> None:
        for _ in range(5):
            jobs.forget()
            found.append(jobs.page_of(local, JobQuery(limit=300)).has_history)

    reader = threading.Thread(target=read)
    reader.start()
    while reader.is_alive():
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("UPDATE job_data SET finish = finish + 1")
        time.sleep(0.01)
    reader.join()
    assert found == [True] * 5


@pytest.mark.parametrize("kind", ["missing", "text", "directory", "fifo", "other tables", "empty"])
def test_without_a_history_the_jobs_are_still_known(local: RunnerRun, account: StubAccount, kind: str) -> None:
    job_lists.write(account.home, "a001", MIXED)
    file = job_lists.history(account.home, "a001", [])
    file.unlink()
    if kind == "text":
        file.write_text("not a database " * 1000)
    elif kind == "directory":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "empty":
        file.touch()
    elif kind == "other tables":
        sqlite3.connect(file).execute("CREATE TABLE job_data (x)")
    found = jobs.page_of(local, JobQuery())
    assert (found.counts.total, found.has_history) == (4, False)


# --- what cannot be read ----------------------------------------------------------------------------------------------


def test_no_experiment_and_no_job_list(run: RunnerRun, account: StubAccount) -> None:
    with pytest.raises(JobsNotFound, match="no experiment a001"):
        jobs.page_of(run, JobQuery())
    jobs.forget()
    account.experiment("a001")
    with pytest.raises(JobsNotFound, match="a001 has no job list"):
        jobs.page_of(run, JobQuery())


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch $HOME/evil",)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80\x05", b"garbage" * 100, pickle.dumps("text"), pickle.dumps([1, 2]), pickle.dumps({"a": 1})],
    ids=["empty", "cut", "garbage", "text", "numbers", "no jobs"],
)
def test_a_damaged_job_list(local: RunnerRun, account: StubAccount, data: bytes) -> None:
    job_lists.write_bytes(account.home, "a001", data)
    with pytest.raises(JobsUnreadable, match="cannot be read"):
        jobs.page_of(local, JobQuery())


def test_nothing_in_a_job_list_is_executed(local: RunnerRun, account: StubAccount) -> None:
    job_lists.write(account.home, "a001", [job("a001_SIM", "FAILED", evil=_Evil(), date=_Evil())])
    found = jobs.page_of(local, JobQuery())
    assert found.jobs[0].date is None
    assert not (account.home / "evil").exists()


def test_a_job_list_that_is_too_large(local: RunnerRun, account: StubAccount) -> None:
    file = job_lists.write_bytes(account.home, "a001", b"")
    os.truncate(file, 100 * 1024 * 1024)
    with pytest.raises(JobsUnreadable, match="104857600 bytes"):
        jobs.page_of(local, JobQuery())


def test_a_small_job_list_cannot_fill_the_memory(local: RunnerRun, account: StubAccount) -> None:
    bomb = b"\x80\x04" + b"]" + b"(" + b"".join(b"](" + b"]" * 50_000 + b"e" for _ in range(400)) + b"e."
    job_lists.write_bytes(account.home, "a001", bomb)
    with pytest.raises(JobsUnreadable):
        jobs.page_of(local, JobQuery())


def test_a_job_list_that_is_no_file(local: RunnerRun, account: StubAccount) -> None:
    file = job_lists.write_bytes(account.home, "a001", b"")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(JobsUnreadable, match="cannot be read"):
        jobs.page_of(local, JobQuery())


def test_names_with_escapes_and_line_ends(local: RunnerRun, account: StubAccount) -> None:
    name = "a001\x1b[31m\n#jobs - {}\u202e" + "x" * 500
    job_lists.write(account.home, "a001", [job(name, "FAILED", section="\x07S", member={"a": 1}, chunk="9" * 30)])
    found = jobs.page_of(local, JobQuery())
    assert found.jobs[0].name.isprintable()
    assert found.counts.failed_jobs[0].isprintable()
    assert (found.jobs[0].member, found.jobs[0].chunk) == (None, None)


def test_an_experiment_that_was_deleted(local: RunnerRun, account: StubAccount) -> None:
    job_lists.write(account.home, "a001", MIXED)
    local.superseded = True
    with pytest.raises(JobsNotFound, match="deleted"):
        jobs.page_of(local, JobQuery())


# --- where the experiments are ----------------------------------------------------------------------------------------


def test_the_configuration_of_the_run_says_where_the_experiment_is(run: RunnerRun, account: StubAccount) -> None:
    other = account.home / "elsewhere"
    job_lists.write(other, "a001", MIXED[:1])
    job_lists.write(account.home, "a001", MIXED)
    (other / "rc").write_text(f"[local]\npath = {other}/autosubmit\n")
    directory = account.home / ".autosubmit-runners" / run.key
    directory.mkdir(parents=True)
    (directory / "begun").write_text(f"{other}/rc")
    assert jobs.counts_of(run).total == 1


def test_the_environment_of_the_profile_says_where_the_experiment_is(
    runner: Runner, account: StubAccount, at_login: Any
) -> None:
    other = account.home / "elsewhere"
    job_lists.write(other, "a001", MIXED[:1])
    job_lists.write(account.home, "a001", MIXED)
    (other / "rc").write_text(f"[local]\npath = {other}/autosubmit\n")
    at_login(f"export AUTOSUBMIT_CONFIGURATION={other}/rc\n")
    assert jobs.page(runner, "a001", JobQuery()).counts.total == 1
    job_lists.write(other, "a001", MIXED[:2])
    assert jobs.page(runner, "a001", JobQuery(limit=1)).counts.total == 2  # without a login shell: the place is known
    # The experiments move back. What was learned is asked again: at once if nothing is there, else after some time.
    at_login("")
    job_lists.write(account.home, "a002", MIXED[:1])
    assert jobs.page(runner, "a002", JobQuery()).counts.total == 1


def test_where_the_experiments_are_is_asked_again_after_some_time(
    runner: Runner, account: StubAccount, at_login: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = account.home / "elsewhere"
    job_lists.write(other, "a001", MIXED[:1])
    job_lists.write(account.home, "a001", MIXED[:2])
    assert jobs.page(runner, "a001", JobQuery()).counts.total == 2
    (other / "rc").write_text(f"[local]\npath = {other}/autosubmit\n")
    at_login(f"export AUTOSUBMIT_CONFIGURATION={other}/rc\n")
    assert jobs.page(runner, "a001", JobQuery(limit=1)).counts.total == 2
    monkeypatch.setattr(jobs, "LEARNED_FOR", 0.0)
    assert jobs.page(runner, "a001", JobQuery(limit=2)).counts.total == 1


# --- logs of jobs -----------------------------------------------------------------------------------------------------


def test_the_log_of_a_job(run: RunnerRun, account: StubAccount) -> None:
    name = "a001_SIM"
    job_lists.write(account.home, "a001", [job(name, "FAILED", id=101)])
    job_lists.history(account.home, "a001", [row(name, 0, status="FAILED"), row(name, 1, status="FAILED")])
    job_lists.write_log(account.home, "a001", f"{name}.0.err", b"first\n")
    job_lists.write_log(account.home, "a001", f"{name}.1.err", "second \u00e9nd\n".encode())
    read = jobs.log_of(run, name, stream="err", limit=1000)
    assert (read.data.decode(), read.size, read.ended) == ("second \u00e9nd\n", 12, True)
    assert jobs.log_of(run, name, stream="err", attempt=1, limit=1000).data == b"first\n"
    part = jobs.log_of(run, name, stream="err", attempt=1, offset=2, limit=2)
    assert (part.data, part.offset, part.next_offset, part.ended) == (b"rs", 2, 4, False)
    assert jobs.log_of(run, name, stream="err", limit=1000, tail=4).data == b"nd\n"  # within a character
    assert jobs.log_of(run, name, stream="err", offset=50, limit=10).data == b""
    with pytest.raises(LogNotFound, match="does not have this log"):
        jobs.log_of(run, name, stream="out", limit=1000)
    with pytest.raises(LogNotFound, match="2 attempts"):
        jobs.log_of(run, name, stream="err", attempt=3, limit=1000)
    with pytest.raises(LogNotFound, match="no job of this name"):
        jobs.log_of(run, "../x", stream="err", limit=1000)


def test_the_log_of_a_job_that_runs(local: RunnerRun, account: StubAccount) -> None:
    name = "a001_SIM"
    job_lists.write(account.home, "a001", [job(name, "RUNNING", id=5, out=f"{name}.2026.out", err=f"{name}.2026.err")])
    job_lists.write_log(account.home, "a001", f"{name}.cmd.out.0", b"old\n")
    job_lists.write_log(account.home, "a001", f"{name}.cmd.out.1", b"now\n")
    read = jobs.log_of(local, name, stream="out", limit=1000)
    assert (read.data, read.ended) == (b"now\n", False)


@pytest.mark.parametrize("out", ["../../secret", "/etc/passwd", "link", "folder/file", "fifo", "socket", ".", "..", ""])
def test_a_log_is_never_read_outside_of_its_folder(local: RunnerRun, account: StubAccount, out: str) -> None:
    job_lists.write(account.home, "a001", [job("a001_SIM", "COMPLETED", id=5, out=out, err=out)])
    folder = account.home / "autosubmit" / "a001" / "tmp" / "LOG_a001"
    (account.home / "autosubmit" / "a001" / "secret").write_text("secret")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "folder").symlink_to("/etc")
    os.mkfifo(folder / "fifo")
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(folder)  # the name of a socket is short
    server.bind("socket")
    os.chdir(here)
    with server, pytest.raises(LogNotFound):
        jobs.log_of(local, "a001_SIM", stream="out", limit=1000)


def test_a_folder_of_logs_that_is_a_link(local: RunnerRun, account: StubAccount) -> None:
    job_lists.write(account.home, "a001", [job("a001_SIM", "COMPLETED", id=5, out="passwd")])
    folder = account.home / "autosubmit" / "a001" / "tmp" / "LOG_a001"
    folder.rmdir()
    folder.symlink_to("/etc")
    with pytest.raises((LogNotFound, JobsUnreadable)):
        jobs.log_of(local, "a001_SIM", stream="out", limit=1000)


# --- the description --------------------------------------------------------------------------------------------------


def database(account: StubAccount, *rows: tuple[str, str]) -> Path:
    path = account.home / "autosubmit" / "autosubmit.db"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE experiment (id INTEGER PRIMARY KEY, name, type, autosubmit_version, description)"
        )
        connection.executemany("INSERT INTO experiment (name, description) VALUES (?, ?)", rows)
        connection.commit()
    return path


def test_the_description_of_an_experiment_is_read_from_its_database(run: RunnerRun, account: StubAccount) -> None:
    path = database(account, ("a001", "Sea ice\n\x1b[31m <b> é " + "x" * 2000), ("a002", "another"))
    try:
        text = jobs.description_of(run)
        assert text.startswith("Sea ice \ufffd[31m <b> é xxx") and len(text) <= 1000
        assert list(ExperimentDescription.objects.values_list("expid", "description")) == [("a001", text)]
        for content in (b"not a database", b""):
            jobs.forget()
            path.write_bytes(content)
            assert jobs.description_of(run) == ""
        jobs.forget()
        database(account, ("a002", "another"))
        assert jobs.description_of(run) == ""
    finally:
        path.unlink()
