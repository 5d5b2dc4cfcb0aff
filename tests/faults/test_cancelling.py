"""The cancel of an experiment's jobs, with a stop and after the end, for different reports of Autosubmit and platforms.

Promise: no answer calls a job cancelled if it may go on, and the time limit of the stop never cuts a cancel short.
"""

from __future__ import annotations

import secrets
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.config import RunnerConfig
from runners.exceptions import AlreadyRunning, NotRunning, RunnerUnreachable
from runners.models import RunnerRun
from runners.services import stopping
from runners.services.cancelling import Outcome, cancellation_of
from runners.services.machines.local import LocalRunner
from runners.services.machines.runner import CommandResult
from tests.support import faults
from tests.support.environments import AutosubmitAccount, StubAccount
from tests.support.processes import PATIENCE, wait_for
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db(transaction=True)

EXPID = f"c{secrets.token_hex(2)}"
SUCCESS = f"Experiment {EXPID} stopped successfully."


def name_of(value: object) -> str:
    """Return the id of a parameter. EXPID is random, but ids have to be the same in each process of a test run."""
    return str(value).replace(EXPID, "EXPID")


MAY_GO_ON = f"Experiment {EXPID} stopped, but its jobs may go on."


@pytest.fixture
def run(there: RunnerConfig, account: StubAccount, settings: Any) -> RunnerRun:
    """Return an active run, with short time limits for the stop only."""
    settings.RUNNERS_STOP_TIMEOUT, settings.RUNNERS_TERM_WAIT = 2.0, 1.0
    account.experiment(EXPID)
    account.control("run", EXPID, SLEEP=600)
    run = faults.start_run(there, EXPID)
    log = account.home / ".autosubmit-runners" / run.key / "log"
    wait_for(lambda: "Autosubmit is running" in log.read_text(), what="the run's first words")
    return run


def configure(account: StubAccount, kind: str, name: str = "slurmy") -> str:
    """Configure the type of a platform. Return the lines in which Autosubmit names the file."""
    file = account.home / "autosubmit" / EXPID / "conf" / f"platforms_{EXPID}.yml"
    file.write_text(
        f"# Platforms\nPlatforms:\n  other:\n    TYPE: ps\n  {name}:\n    HOST: there\n    type: '{kind}'\n"
    )
    return f"YAML configuration loaded:\n  {file}"


def start_with_answer_to_int(config: RunnerConfig, account: StubAccount, printed: str, code: int) -> RunnerRun:
    """Start a run that prints these lines when it receives INT, and ends with this code."""
    account.experiment(EXPID)
    answer = f"on_int() {{ printf '%s\\n' {shlex.quote(printed)}; exit {code}; }}\ntrap on_int INT\n"
    faults.add_control(account, f"run.{EXPID}", f"{answer}echo ready for signals\nsleep 600 & wait\n")
    run = faults.start_run(config, EXPID)
    log = account.home / ".autosubmit-runners" / run.key / "log"
    wait_for(lambda: "ready for signals" in log.read_text(), what="the run's answer to INT")
    return run


def test_the_cancel_has_a_time_limit_of_its_own(run: RunnerRun, account: StubAccount) -> None:
    words = configure(account, "slurm")
    account.control("stop", JOBS=f"{EXPID}_A {EXPID}_B", PRINT=words, CANCEL_DELAY=4)  # twice RUNNERS_STOP_TIMEOUT
    outcome = faults.stop_run(EXPID, cancel_jobs=True)
    assert outcome.message == SUCCESS
    assert outcome.cancellation
    assert outcome.cancellation.as_dict() == {
        "requested": True,
        "outcome": "cancelled",
        "counts": {"cancelled": 2, "may_go_on": 0, "not_cancelled": 0},
        "jobs": {f"{EXPID}_A": "cancelled", f"{EXPID}_B": "cancelled"},
        "verified": False,
        "detail": "Jobs: 2 cancelled (reported by Autosubmit; not verified on the platform).",
    }
    assert ["--cancel" in words for words in account.calls("stop")] == [False, True]
    run.refresh_from_db()
    assert run.cancel == outcome.cancellation.as_dict()
    assert any("set-job-status with final_status READY" in warning for warning in outcome.warnings)


def test_an_interrupted_cancel_is_not_a_success(run: RunnerRun, account: StubAccount, settings: Any) -> None:
    settings.RUNNERS_CANCEL_TIMEOUT = 2.0
    account.control("stop", JOBS=f"{EXPID}_A", CANCEL_DELAY=60)
    outcome = faults.stop_run(EXPID, cancel_jobs=True)
    assert (outcome.run.status, outcome.run.reason) == ("TERMINATED", "stopped")
    assert outcome.message == MAY_GO_ON
    assert outcome.cancellation
    assert outcome.cancellation.outcome == Outcome.UNKNOWN
    assert "timed out after 2 s" in outcome.cancellation.detail
    assert any("may still run" in warning for warning in outcome.warnings)
    wait_for(lambda: not placeholders(account), what="the end of the placeholder")


@pytest.mark.parametrize(
    ("kind", "platform", "outcome", "message"),
    [
        ("slurm", "SLURMY", "cancelled", SUCCESS),
        ("PBS", "slurmy", "cancelled", SUCCESS),
        ("ps", "SLURMY", "unknown", MAY_GO_ON),
        ("lsf", "SLURMY", "unknown", MAY_GO_ON),  # nothing is known about this type
        ("slurm", "OTHER", "unknown", MAY_GO_ON),  # OTHER is a ps platform beside it
        ("slurm", "ELSEWHERE", "unknown", MAY_GO_ON),  # not in the configuration
    ],
    ids=name_of,
)
def test_the_outcome_of_a_cancel_depends_on_the_type_of_the_platform(
    run: RunnerRun, account: StubAccount, kind: str, platform: str, outcome: str, message: str
) -> None:
    account.control("stop", JOBS=f"{EXPID}_A", PLATFORM=platform, PRINT=configure(account, kind))
    answer = faults.stop_run(EXPID, cancel_jobs=True)
    assert answer.cancellation
    assert (answer.cancellation.outcome, answer.message) == (outcome, message)
    assert (f"{EXPID}_A may still run" in " ".join(answer.warnings)) is (outcome == "unknown")


@pytest.mark.parametrize(
    "words",
    [
        "[WARNING] Failed to cancel jobs 101, 102 on platform SLURMY: SSH transport issue",
        f"[WARNING] Skipping cancellation of job [{EXPID}_A] with invalid ID: None",
        "[WARNING] Command scancel 101,102 in there warning: scancel: error: Invalid job id 101",
    ],
    ids=name_of,
)
def test_jobs_that_autosubmit_could_not_cancel_are_named(run: RunnerRun, account: StubAccount, words: str) -> None:
    account.control("stop", JOBS=f"{EXPID}_A", PRINT=configure(account, "slurm"), CANCEL_PRINT=words)
    outcome = faults.stop_run(EXPID, cancel_jobs=True)
    assert outcome.message == MAY_GO_ON
    assert outcome.cancellation
    assert outcome.cancellation.as_dict()["jobs"] == {f"{EXPID}_A": "not_cancelled"}
    assert outcome.cancellation.outcome == Outcome.NOT_CANCELLED
    assert f"Job {EXPID}_A was not cancelled" in outcome.warnings[0]


def test_a_failed_cancel_reports_the_reason(run: RunnerRun, account: StubAccount) -> None:
    faults.add_control(
        account, "stop", '[[ " ${options[*]} " != *" --cancel "* ]] || FAIL="Corrupted job_list" ECODE=7040 EXIT=128\n'
    )
    outcome = faults.stop_run(EXPID, cancel_jobs=True)
    assert outcome.message == MAY_GO_ON
    assert outcome.cancellation
    assert outcome.cancellation.outcome == Outcome.NOT_CANCELLED
    assert "Corrupted job_list" in outcome.cancellation.detail
    assert any("The experiment's jobs may still run" in warning for warning in outcome.warnings)


def test_a_version_without_a_cancel_is_named(run: RunnerRun, account: StubAccount) -> None:
    """4.0 and 3.14 have no `stop`: the service ends the run with signals."""
    words = "autosubmit: error: argument command: invalid choice: 'stop' (choose from 'run', 'expid')"
    faults.add_control(account, "stop", f"echo {shlex.quote(words)} >&2; exit 2\n")
    outcome = faults.stop_run(EXPID, cancel_jobs=True)
    assert (outcome.run.reason, outcome.message) == ("stopped", MAY_GO_ON)
    assert outcome.cancellation
    assert outcome.cancellation.outcome == Outcome.NOT_CANCELLED
    assert "Autosubmit 4.1.17.1 on " in outcome.cancellation.detail
    assert "cannot cancel jobs" in outcome.cancellation.detail


@pytest.mark.parametrize(
    ("frame", "message"), [("submit_ready_jobs", MAY_GO_ON), ("sleep_a_while", SUCCESS)], ids=name_of
)
def test_jobs_that_were_being_submitted_may_go_on(
    there: RunnerConfig, account: StubAccount, frame: str, message: str
) -> None:
    """Autosubmit then does not know these jobs, but the platform still accepts them."""
    traceback = (
        "[CRITICAL] Traceback (most recent call last):",
        f'  File "/x/autosubmit/autosubmit.py", line 908, in {frame}',
        "KeyboardInterrupt",
    )
    start_with_answer_to_int(there, account, "\n".join(traceback), 88)
    outcome = faults.stop_run(EXPID, cancel_jobs=True)
    assert outcome.run.exit_code == 88, outcome.steps
    assert outcome.message == message
    assert ("while it submitted jobs" in " ".join(outcome.warnings)) is (message == MAY_GO_ON)


# --- after the end ----------------------------------------------------------------------------------------------------


def test_jobs_can_be_cancelled_after_the_end(run: RunnerRun, account: StubAccount) -> None:
    faults.stop_run(EXPID)
    with pytest.raises(NotRunning, match="send cancel_jobs"):
        faults.stop_run(EXPID)
    account.control("stop", JOBS=f"{EXPID}_A", PRINT=configure(account, "slurm"))
    before = RunnerRun.objects.values("status", "reason", "exit_code", "stopped_by").get()
    outcome = faults.stop_run(EXPID, cancel_jobs=True)
    assert outcome.message == f"Experiment {EXPID} is not running; its jobs were cancelled."
    assert outcome.cancellation
    assert outcome.cancellation.outcome == Outcome.CANCELLED
    assert [step["action"] for step in outcome.steps] == ["autosubmit stop --cancel"]
    assert RunnerRun.objects.values("status", "reason", "exit_code", "stopped_by").get() == before
    assert not placeholders(account)
    account.control("stop")
    again = faults.stop_run(EXPID, cancel_jobs=True)
    assert again.message == f"Experiment {EXPID} is not running and has no job to cancel."


@pytest.mark.parametrize("ends", ["before", "during"])
def test_jobs_of_a_run_whose_identity_was_spoilt_are_cancelled_with_a_warning(
    run: RunnerRun, account: StubAccount, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """The run has ended before the stop, or ends after the stop has seen it running."""

    def end_and_spoil() -> None:
        account.kill()
        wait_for(lambda: not faults.look(EXPID).is_active, what="the end of the run")
        RunnerRun.objects.update(identity={"pid": 1})

    real = stopping.Stop._request

    def request(stop: stopping.Stop) -> bool:
        if ends == "during":
            end_and_spoil()
        return real(stop)

    monkeypatch.setattr(stopping.Stop, "_request", request)
    if ends == "before":
        end_and_spoil()
    account.control("stop", JOBS=f"{EXPID}_A", PRINT=configure(account, "slurm"))
    outcome = faults.stop_run(EXPID, cancel_jobs=True)
    assert outcome.cancellation
    assert outcome.cancellation.outcome == Outcome.CANCELLED
    assert sum("stored identity of the run cannot be read" in each for each in outcome.warnings) == 1


def test_an_env_without_the_option_for_signals_does_not_prevent_a_cancel(
    run: RunnerRun, account: StubAccount, at_login: Callable[[str], None], tmp_path: Path
) -> None:
    """Red Hat 8 has coreutils 8.30; the option is new in 8.31."""
    program(tmp_path / "env", f'case $1 in --default*) exit 125 ;; esac; exec {shutil.which("env")} "$@"')
    at_login(f"PATH={tmp_path}:$PATH\n")
    account.control("stop", JOBS=f"{EXPID}_A", PRINT=configure(account, "slurm"))
    outcome = faults.stop_run(EXPID, cancel_jobs=True)
    assert outcome.message == SUCCESS
    assert outcome.cancellation
    assert outcome.cancellation.jobs == {f"{EXPID}_A": "cancelled"}
    assert not placeholders(account)


def test_without_a_placeholder_nothing_is_cancelled(
    run: RunnerRun, account: StubAccount, at_login: Callable[[str], None], tmp_path: Path
) -> None:
    faults.stop_run(EXPID)
    program(tmp_path / "bash", f'case $* in *placeholder*) exit 1 ;; esac; exec {shutil.which("bash")} "$@"')
    at_login(f"PATH={tmp_path}:$PATH\n")
    outcome = faults.stop_run(EXPID, cancel_jobs=True)
    assert outcome.cancellation
    assert outcome.cancellation.outcome == Outcome.NOT_CANCELLED
    assert "the process that stands for the run during the cancel did not start" in outcome.cancellation.detail
    assert len(account.calls("stop")) == 1  # the call of the first stop


def program(file: Path, text: str) -> None:
    """Create a program for the PATH, in bash."""
    file.write_text(f"#!/bin/bash\n{text}\n")
    file.chmod(0o755)


def test_two_simultaneous_cancels_report_correctly_and_no_run_starts_meanwhile(
    run: RunnerRun, there: RunnerConfig, account: StubAccount
) -> None:
    faults.stop_run(EXPID)
    account.control("stop", JOBS=f"{EXPID}_A", PRINT=configure(account, "slurm"), CANCEL_DELAY=3)
    first = faults.in_background(lambda: faults.stop_run(EXPID, cancel_jobs=True))
    wait_for(lambda: len(account.calls("stop")) == 2, what="the first cancel")
    second = faults.in_background(lambda: faults.stop_run(EXPID, cancel_jobs=True))
    with pytest.raises(AlreadyRunning, match="A stop of experiment"):
        faults.start_run(there, EXPID)
    messages = {answer.result(60 * PATIENCE).message for answer in (first, second)}
    assert messages == {f"Experiment {EXPID} is not running; its jobs were cancelled."}
    assert faults.start_run(there, EXPID).is_active


def test_a_run_that_was_started_by_hand_is_not_touched_by_a_cancel(run: RunnerRun, account: StubAccount) -> None:
    faults.stop_run(EXPID)
    account.control("stop", JOBS=f"{EXPID}_A")
    by_hand = faults.start_by_hand(account, EXPID)
    try:
        outcome = faults.stop_run(EXPID, cancel_jobs=True)
        assert outcome.message == f"Experiment {EXPID} is not running, but its jobs may go on."
        assert f"process {by_hand.pid} " in outcome.cancellation.detail  # type: ignore[union-attr]
        assert by_hand.poll() is None
        assert len(account.calls("stop")) == 1  # the call of the first stop
    finally:
        by_hand.kill()
        by_hand.wait()


def test_an_unreachable_machine_cancels_nothing_and_the_cancel_can_be_repeated(
    account: StubAccount, sshd: SSHServer, settings: Any
) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT = settings.RUNNERS_PROBE_TIMEOUT = 3.0
    account.experiment(EXPID)
    faults.start_run(sshd.config(), EXPID)
    faults.wait_ended(EXPID)
    sshd.stop()
    with pytest.raises(RunnerUnreachable):
        faults.stop_run(EXPID, cancel_jobs=True)
    sshd.start()
    assert (
        faults.stop_run(EXPID, cancel_jobs=True).message
        == f"Experiment {EXPID} is not running and has no job to cancel."
    )


def placeholders(account: StubAccount) -> list[int]:
    return faults.run_processes(account, EXPID)


@given(
    st.lists(
        st.one_of(
            st.text(max_size=60),
            st.builds("Cancelling jobs {} on platform {}".format, st.text(max_size=9), st.text(max_size=9)),
            st.builds("Changing status of job {} to FAILED".format, st.text(max_size=300)),
            st.builds("[WARNING] Failed to cancel jobs {}".format, st.text(max_size=3000)),
        ),
        max_size=30,
    )
)
@settings(max_examples=200, deadline=None)
def test_whatever_a_cancel_prints_is_told_bounded_and_printable(lines: list[str]) -> None:
    for code in (0, 1):
        result = CommandResult(code, "\n".join(lines).encode(errors="replace"), b"", 1.0)
        answer = cancellation_of(EXPID, Deaf(RunnerConfig("LOCAL", "NO_MODULE", ())), result)
        told = [answer.detail, *answer.warnings, *answer.as_dict()["jobs"]]
        assert all(each.replace("\n", "").replace("\t", "").isprintable() and len(each) < 6000 for each in told)
        assert not answer.is_complete or not code


class Deaf(LocalRunner):
    """A machine that does not answer any more."""

    def execute(self, script: str, **options: Any) -> CommandResult:
        raise RunnerUnreachable("gone")


# --- an end during a stop ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "code", "status"),
    [
        ("Run successful", 0, "COMPLETED"),
        ("Autosubmit will interrupt at the next safe occasion", 0, "TERMINATED"),  # <= 4.1.16
        ("", 0, "TERMINATED"),
        ("Run successful", 88, "COMPLETED"),  # interrupted during its clean-up
        ("not Run successful", 0, "TERMINATED"),
    ],
)
def test_an_end_during_a_stop_is_judged_by_the_log(
    there: RunnerConfig, account: StubAccount, printed: str, code: int, status: str
) -> None:
    start_with_answer_to_int(there, account, printed, code)
    outcome = faults.stop_run(EXPID)
    run = outcome.run
    assert (run.status, run.exit_code) == (status, code), outcome.steps
    assert run.reason == ("" if status == "COMPLETED" else "stopped")
    completed = f"Experiment {EXPID} had already completed."
    assert outcome.message == (completed if status == "COMPLETED" else SUCCESS)


# --- real Autosubmit --------------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.timeout(300)
def test_real_jobs_are_cancelled_after_the_end(autosubmit: AutosubmitAccount) -> None:
    expid = autosubmit.short_experiment("sleep 7660")
    job = f"{expid}_ONE"
    faults.start_run(autosubmit.config(), expid)
    wait_for(lambda: autosubmit.job_statuses(expid)[job] == "RUNNING", 60, what="the job", interval=1)
    stopped = faults.stop_run(expid)
    assert stopped.message == f"Experiment {expid} stopped successfully."
    assert autosubmit.job_statuses(expid)[job] == "RUNNING"
    assert sleepers()
    outcome = faults.stop_run(expid, cancel_jobs=True)
    assert outcome.message == f"Experiment {expid} is not running; its jobs were cancelled.", outcome
    assert outcome.cancellation
    assert outcome.cancellation.verified
    assert autosubmit.job_statuses(expid)[job] == "FAILED"
    assert not sleepers()


def sleepers() -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if file.read_bytes() == b"sleep\0" + b"7660\0":
                found.append(file.parent.name)
        except OSError:
            continue
    return found
