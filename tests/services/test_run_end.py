"""What is stored when a run has ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from profiles.config import RunnerConfig
from runners.commands import run_log
from runners.models import RunnerRun
from runners.services import outbox, probing
from runners.services.machines.runner import exchange_ended
from runners.services.representations import run_fields
from tests.support.environments import StubAccount
from tests.support.job_lists import job, write, write_log
from tests.support.processes import wait_for
from tests.support.runs import end_of, start

pytestmark = pytest.mark.django_db


def test_a_run_that_was_interrupted_has_no_error_text(
    account: StubAccount, config_of: Callable[[str], RunnerConfig]
) -> None:
    run = start(account, config_of("NO_MODULE"), PRINT="[ERROR] no space left", SLEEP=600)
    log = account.home / ".autosubmit-runners" / run.key / "log"
    wait_for(lambda: "Autosubmit is running" in log.read_text(), what="the signal handlers of the run")
    assert run.pid
    os.kill(run.pid, signal.SIGINT)
    end_of(run)
    assert (run.status, run.reason, run.detail) == ("TERMINATED", "stopped", "")


def end_with(
    account: StubAccount, config: RunnerConfig, jobs: list[dict[str, Any]], log: str = "", **control: str | float
) -> RunnerRun:
    """Execute a run that prints `log` and leaves this job list. Return its row after its end."""
    write(account.home, "a001", jobs)
    return end_of(start(account, config, PRINT=log, **control))


FAILED_RUN = "\n".join(
    [
        "Job: a001_BAD submitted with job_id: 12 and run date: now",
        "Job a001_BAD changed from RUNNING to FAILED",
        "3 of 4 jobs remaining (25:00)",
        "No more jobs to run.",
    ]
)


def test_the_explanation_has_the_last_error_lines_of_failed_jobs_and_what_the_rest_waits_for(
    account: StubAccount, config_of: Callable[[str], RunnerConfig], settings: Any
) -> None:
    bad = job("a001_BAD", "FAILED", id=12, err="a001_BAD.err", out="a001_BAD.out")
    silent = job("a001_SILENT", "FAILED", id=13, err="a001_SILENT.err", out="a001_SILENT.out")
    lines = "\n".join(f"line {number}" for number in range(400))
    write_log(account.home, "a001", "a001_BAD.err", f"{lines}\n\x1b[31mno such\tfile\x1b[0m \u202e\x00\n\n".encode())
    write_log(account.home, "a001", "a001_BAD.out", b"not this one")
    write_log(account.home, "a001", "a001_SILENT.err", b" \n")
    write_log(account.home, "a001", "a001_SILENT.out", b"a line of the output\n")
    jobs = [job("a001_INI", "COMPLETED"), bad, silent, job("a001_END"), job("a001_POST")]
    run = end_with(account, config_of("NO_MODULE"), jobs, FAILED_RUN, EXIT=1)
    assert (run.status, run.reason) == ("TERMINATED", "failed")
    first, *rest = run.detail.split("\n")
    assert first == "1 of 4 jobs failed: a001_BAD (1 attempt). 2 of 4 jobs were not run."
    assert "Some jobs have failed and reached maximum retrials" in run.detail
    assert rest[-8:] == [
        "The rest: 2 WAITING for failed jobs.",
        "The last lines of a001_BAD:",
        *(f"  line {number}" for number in range(395, 400)),
        "  no such file \ufffd\ufffd",
    ]
    assert "SILENT" not in run.detail  # the log of this run does not say that it failed now
    assert run.progress and run_fields(run)["progress"] == {
        **{"total": 5, "done": 1, "failed": 2, "running": 0},
        "failed_jobs": ["a001_BAD", "a001_SILENT"],
    }
    told = outbox.message_fields(run)
    assert told["progress"] == run_fields(run)["progress"]
    assert told["explanation"] == "1 of 4 jobs failed: a001_BAD. 2 of 4 jobs were not run."  # no text of a log


def test_jobs_that_failed_before_are_named_from_the_job_list(
    account: StubAccount, config_of: Callable[[str], RunnerConfig]
) -> None:
    write_log(account.home, "a001", "a001_OLD.err", b" \n")
    write_log(account.home, "a001", "a001_OLD.out", b"a line of the output\n")
    jobs = [
        job("a001_OLD", "FAILED", id=13, err="a001_OLD.err", out="a001_OLD.out"),
        job("a001_S", "SUSPENDED"),
        job("a001_E"),
    ]
    run = end_with(account, config_of("NO_MODULE"), jobs, EXIT=1)
    assert run.detail.split("\n")[-4:] == [
        "1 of 3 jobs failed: a001_OLD.",
        "The rest: 1 WAITING, 1 SUSPENDED.",
        "The last lines of a001_OLD:",
        "  a line of the output",
    ]


def test_many_failures_with_huge_hostile_logs_make_a_short_explanation(
    account: StubAccount, config_of: Callable[[str], RunnerConfig]
) -> None:
    names = [f"a001_{number:03}" for number in range(100)]
    for name in names:
        words = b"https://me:secret" + b"x" * 1990 + b"@host \xff\x1b[2J\r" + "é€🐈\u202e".encode() * 500
        write_log(account.home, "a001", f"{name}.err", words)
    os.symlink("/etc/passwd", account.home / "autosubmit" / "a001" / "tmp" / "LOG_a001" / "link.err")
    os.mkfifo(account.home / "autosubmit" / "a001" / "tmp" / "LOG_a001" / "fifo.err")
    jobs = [job(name, "FAILED", id=1, err=f"{name}.err") for name in names]
    jobs[0]["_local_logs"], jobs[1]["_local_logs"] = ("", "link.err"), ("", "fifo.err")
    run = end_with(account, config_of("NO_MODULE"), jobs, EXIT=1)
    assert "100 of 100 jobs failed: a001_000, " in run.detail
    assert "and 90 more" in run.detail
    assert len(run.detail) <= 4000
    assert "root:" not in run.detail and "secret" not in run.detail
    assert all(char.isprintable() or char == "\n" for char in run.detail)


def test_a_job_list_that_was_written_long_after_the_end_tells_nothing(
    account: StubAccount, config_of: Callable[[str], RunnerConfig]
) -> None:
    file = write(account.home, "a001", [job("a001_BAD", "FAILED", id=1)])
    later = time.time() + 1000
    os.utime(file, (later, later))
    run = end_of(start(account, config_of("NO_MODULE"), EXIT=1))
    assert "a001_BAD" not in run.detail


def test_a_stop_has_no_failed_jobs_in_its_explanation(
    account: StubAccount, config_of: Callable[[str], RunnerConfig]
) -> None:
    write(account.home, "a001", [job("a001_BAD", "FAILED", id=1)])
    run = start(account, config_of("NO_MODULE"), SLEEP=600)
    log = account.home / ".autosubmit-runners" / run.key / "log"
    wait_for(lambda: "Autosubmit is running" in log.read_text(), what="the signal handlers of the run")
    assert run.pid
    os.kill(run.pid, signal.SIGINT)
    end_of(run)
    assert (run.reason, run.detail) == ("stopped", "")
    assert run_fields(run)["progress"] == {
        **{"total": 1, "done": 0, "failed": 1, "running": 0},
        "failed_jobs": ["a001_BAD"],
    }


def test_the_end_of_a_run_takes_one_exchange_besides_the_probe(
    account: StubAccount, config_of: Callable[[str], RunnerConfig]
) -> None:
    write(account.home, "a001", [job("a001_BAD", "FAILED", id=1)])
    run = start(account, config_of("NO_MODULE"), PRINT=FAILED_RUN, EXIT=1)
    folder = account.home / ".autosubmit-runners" / run.key
    wait_for(lambda: list(folder.glob("ended.*")), what="the end of the command")
    exchanges: list[object] = []

    def count(**_: object) -> None:
        exchanges.append(1)

    exchange_ended.connect(count, weak=False)
    try:
        probing.probe([run])
    finally:
        exchange_ended.disconnect(count)
    assert run.status == "TERMINATED" and "a001_BAD" in run.detail
    assert len(exchanges) == 2


def test_what_the_rest_of_the_jobs_waits_for_is_told_only_if_it_is_certain() -> None:
    tell = run_log.rest_sentence
    assert tell({"COMPLETED": 3, "FAILED": 1, "SKIPPED": 1}, is_over=True) == ""
    assert tell({"FAILED": 1, "WAITING": 2}, is_over=True) == "The rest: 2 WAITING for failed jobs."
    assert tell({"FAILED": 1, "WAITING": 2}, is_over=False) == "The rest: 2 WAITING."
    assert tell({"WAITING": 2}, is_over=True) == "The rest: 2 WAITING."
    assert tell({"FAILED": 1, "WAITING": 2, "RUNNING": 1}, is_over=True) == "The rest: 2 WAITING, 1 RUNNING."
    assert tell({"SUSPENDED": 1, "FAILED": 1, "WAITING": 2}, is_over=True) == (
        "The rest: 1 SUSPENDED, 2 WAITING for failed or suspended jobs."
    )


def test_the_trace_of_a_shell_job_is_left_out_of_its_last_lines() -> None:
    """The end of an error log of Autosubmit 4.1.17.1."""
    trace = (
        "as_exit_handler\n+ as_exit_handler\n+ local last_cmd_code=2\n++ date +%s\n+ sync\n+ trap - EXIT\n+ exit 2\n"
    )
    text = "ls /none\n+ ls /none\nls: cannot access '/none': No such file or directory\n"
    assert run_log.error_lines("a_J", text + trace) == (
        "The last lines of a_J:\n  ls /none\n  ls: cannot access '/none': No such file or directory"
    )
    assert run_log.error_lines("a_J", "+ exit 3\n") == "The last lines of a_J:\n  + exit 3"
    assert run_log.error_lines("a_J", " \n\n") == ""
