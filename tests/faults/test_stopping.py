"""Stops that meet resistance, other processes, other stops, or a run that has ended.

Promise: a successful stop has ended the run and all processes that belong to it, and no other process.
"""

from __future__ import annotations

import os
import secrets
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.utils import timezone

from profiles.config import RunnerConfig
from profiles.rules import RUNNERS
from runners.exceptions import NotRunning, OutcomeUnknown, RunnerUnreachable, StopNotConfirmed
from runners.models import AuditRecord, RunnerRun, RunReason, RunStatus
from runners.services import probing
from runners.services.lifecycle import identity_of
from runners.services.machines import exchange
from runners.services.machines.local import LocalRunner
from runners.services.machines.probe import Identity, Probe, ProbeTarget
from runners.services.machines.registry import get_runner
from runners.services.stopping import Stop, StopOutcome
from tests.support import faults
from tests.support.environments import AutosubmitAccount, StubAccount
from tests.support.faults import (
    COMMAND,
    LaunchGates,
    add_control,
    in_background,
    profile_of,
    run_processes,
    stored,
    wait_ended,
)
from tests.support.processes import PATIENCE, is_alive, kill_all, processes, wait_for, with_environment
from tests.support.servers import AppServer, SSHServer

pytestmark = pytest.mark.django_db(transaction=True)

EXPID = f"s{secrets.token_hex(2)}"  # random: `autosubmit stop` takes it in any home, also of other test runs
DEAF = "INT TERM"
# Shell lines for a control file: a child process in its own session, such as a wrapper of jobs.
CHILD = "setsid bash -c \"trap '' INT TERM HUP; while :; do sleep 0.2; done\" &\n"


@pytest.fixture
def target(there: RunnerConfig, account: StubAccount, settings: Any) -> RunnerConfig:
    settings.RUNNERS_STOP_TIMEOUT, settings.RUNNERS_TERM_WAIT = 2.0, 1.0
    account.experiment(EXPID)
    return there


def start(
    config: RunnerConfig, account: StubAccount, *, more: str = "", expid: str = EXPID, **control: Any
) -> RunnerRun:
    """Start a long run and wait until its signal handlers are set."""
    add_control(account, f"run.{expid}", more, **{"SLEEP": 600, **control})
    run = faults.start_run(config, expid)
    log = account.home / ".autosubmit-runners" / run.key / "log"
    wait_for(lambda: "Autosubmit is running" in log.read_text(), what="the run's first words")
    return run


def actions(outcome: StopOutcome) -> list[tuple[str, bool]]:
    return [(step["action"], step["ended"]) for step in outcome.steps]


def of_run(run: RunnerRun) -> list[int]:
    """Return all living processes that carry the run's key."""
    return [pid for pid in with_environment("AUTOSUBMIT_RUNNERS_KEY", run.key) if is_alive(pid)]


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Yield a living process of the same account that does not belong to us."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        wait_for(lambda: ticks() > start_time(process.pid) + 1, what="another start time for what comes later")
        yield process
        process.kill()


def start_time(pid: int) -> int:
    """Return the start time in ticks since boot. Processes that start in the same hundredth of a second share it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19])


def ticks() -> float:
    return float(Path("/proc/uptime").read_text().split()[0]) * os.sysconf("SC_CLK_TCK")


def test_a_run_that_ignores_int_and_term_is_killed(target: RunnerConfig, account: StubAccount) -> None:
    run = start(target, account, IGNORE=DEAF)
    outcome = faults.stop_run(EXPID)
    assert actions(outcome) == [
        ("autosubmit stop", False),
        ("signal INT", False),
        ("signal TERM", False),
        ("signal KILL", True),
    ]
    run.refresh_from_db()
    assert (run.status, run.reason, run.exit_code, run.signal) == ("TERMINATED", "stopped", 137, "KILL")
    assert run.stop_steps == outcome.steps
    assert (run.started_by, run.stopped_by) == ("somebody", "somebody else")
    assert not run_processes(account, EXPID)


def test_children_in_other_sessions_die_with_the_kill(
    target: RunnerConfig, account: StubAccount, bystander: subprocess.Popen[bytes]
) -> None:
    run = start(target, account, IGNORE=DEAF, more=CHILD * 3)
    wait_for(lambda: len({os.getsid(pid) for pid in of_run(run)}) >= 4, what="three sessions beside the run's own")
    faults.stop_run(EXPID)
    wait_for(lambda: not of_run(run), what="the end of the children")
    assert bystander.poll() is None


def test_force_kills_at_once_without_autosubmit_stop(target: RunnerConfig, account: StubAccount) -> None:
    run = start(target, account, more=CHILD)
    begin = time.monotonic()
    outcome = faults.stop_run(EXPID, force=True)
    assert time.monotonic() - begin < 10 * PATIENCE
    assert actions(outcome) == [("signal KILL", True)]
    assert (outcome.run.reason, outcome.run.exit_code) == ("stopped", 137)
    assert account.calls("stop") == []
    wait_for(lambda: not of_run(run), what="the end of the children")


JOB = "tmp/LOG_{0}/{0}_ONE.cmd"


def local_job(account: StubAccount, expid: str = EXPID, *, deaf: str = "INT HUP") -> str:
    """Return shell lines that start a job like Autosubmit's local platform: it ignores INT and writes to its folder."""
    script = account.home / "autosubmit" / expid / JOB.format(expid)
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f"trap '' {deaf}; while :; do sleep 0.2; done\n")
    return f"nohup bash {script} >{script}.out.0 2>{script}.err.0 &\n"


@pytest.mark.parametrize("hangs", [False, True], ids=["autosubmit ends it", "signals end it"])
@pytest.mark.parametrize("deaf", ["INT HUP", "INT HUP TERM"])
def test_cancel_jobs_ends_the_local_jobs_whichever_step_ends_the_run(
    target: RunnerConfig, account: StubAccount, hangs: bool, deaf: str
) -> None:
    run = start(target, account, more=local_job(account, deaf=deaf))
    account.control("stop", JOBS=f"{EXPID}_ONE", PLATFORM="local", **({"DELAY": 4} if hangs else {}))
    outcome = faults.stop_run(EXPID, cancel_jobs=True)
    steps = [("autosubmit stop", not hangs)] + [("signal INT", True)] * hangs
    assert actions(outcome) == [*steps, ("autosubmit stop --cancel", True), ("end of the local jobs", True)]
    assert (outcome.run.reason, outcome.run.exit_code) == ("stopped", 88)
    assert not of_run(run)
    assert outcome.cancellation
    assert outcome.cancellation.as_dict() | {"detail": ""} == {
        "requested": True,
        "outcome": "cancelled",
        "counts": {"cancelled": 1, "may_go_on": 0, "not_cancelled": 0},
        "jobs": {f"{EXPID}_ONE": "cancelled"},
        "verified": True,
        "detail": "",
    }
    assert outcome.message == f"Experiment {EXPID} stopped successfully."
    assert any("set-job-status with final_status READY" in warning for warning in outcome.warnings)


def test_without_cancel_jobs_local_jobs_go_on_and_helpers_are_ended(target: RunnerConfig, account: StubAccount) -> None:
    """The helper overwrites its environment, like Autosubmit's log recovery with its title. Its group identifies it."""
    helper = (
        "env -u AUTOSUBMIT_RUNNERS_KEY bash -c \"trap '' INT TERM HUP; while :; do sleep 0.2; done\" log-recovery &\n"
    )
    run = start(target, account, more=local_job(account) + helper + CHILD)
    wait_for(lambda: len(of_group(run)) >= 3, what="the run's processes")
    outcome = faults.stop_run(EXPID)
    assert actions(outcome) == [("autosubmit stop", True), ("end of what was left", True)]
    assert "log-recovery" in outcome.steps[-1]["outcome"]
    left = {*of_run(run), *of_group(run)}
    assert left
    assert all(JOB.format(EXPID) in command_line(pid) or "sleep" in command_line(pid) for pid in left)
    assert any(JOB.format(EXPID) in command_line(pid) for pid in left)
    assert outcome.message == f"Experiment {EXPID} stopped successfully."


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("start_job", ["nohup python3 {script}", "setsid bash {copy}"], ids=["python", "scheduler"])
def test_without_cancel_jobs_a_model_with_an_output_file_of_its_own_goes_on(
    target: RunnerConfig, account: StubAccount, tmp_path: Path, start_job: str, force: bool
) -> None:
    """Only the job above it writes into the folder of the jobs. A scheduler executes a copy of the script."""
    script = account.home / "autosubmit" / EXPID / JOB.format(EXPID)
    script.parent.mkdir(parents=True, exist_ok=True)
    model, copy = tmp_path / "model.out", tmp_path / "slurm_script"
    script.write_text(
        "import subprocess\n"
        f"with open({str(model)!r}, 'w') as file:\n"
        "    subprocess.run(['sleep', '601'], stdout=file, stderr=file)\n"
    )
    copy.write_text(f"sleep 601 >{model} 2>&1\n:\n")
    job = f"{start_job.format(script=script, copy=copy)} >{script}.out.0 2>{script}.err.0 </dev/null &\n"
    run = start(target, account, more=job + CHILD)
    wait_for(lambda: "sleep 601 " in map(command_line, of_run(run)), what="the model")
    faults.stop_run(EXPID, force=force)
    assert len(of_run(run)) == 2
    assert "sleep 601 " in map(command_line, of_run(run))


def test_a_stop_of_a_run_that_was_just_killed_ends_what_the_run_has_left(
    target: RunnerConfig, account: StubAccount
) -> None:
    """Nobody has looked since the kill. The helper can be found by its group, the child by its environment."""
    helper = (
        "env -u AUTOSUBMIT_RUNNERS_KEY bash -c \"trap '' INT TERM HUP; while :; do sleep 0.2; done\" log-recovery &\n"
    )
    run = start(target, account, more=local_job(account) + helper + CHILD)
    wait_for(lambda: len(of_group(run)) >= 3 and len(of_run(run)) >= 3, what="the run's processes")
    assert run.identity
    os.kill(run.identity["pid"], signal.SIGKILL)
    directory = account.home / ".autosubmit-runners" / run.key
    wait_for(lambda: list(directory.glob("ended.*")), what="the supervisor has written the end")
    outcome = faults.stop_run(EXPID)
    assert actions(outcome) == [("look", True), ("end of what was left", True)]
    assert "log-recovery" in outcome.steps[-1]["outcome"]
    assert outcome.run.reason == "killed"
    assert outcome.message == f"Experiment {EXPID} had already ended."
    left = [words for pid in {*of_run(run), *of_group(run)} if (words := command_line(pid))]
    assert left and all(JOB.format(EXPID) in words or "sleep" in words for words in left), left


def test_a_stop_leaves_a_run_alone_whose_end_an_admin_has_declared(
    target: RunnerConfig, account: StubAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The declaration comes after the stop has seen the run alive. The run goes on."""
    run = start(target, account)
    request = Stop._request

    def declared_ended(stop: Stop) -> bool:
        RunnerRun.objects.filter(pk=run.pk).update(status=RunStatus.TERMINATED, reason=RunReason.ABANDONED)
        return request(stop)

    monkeypatch.setattr(Stop, "_request", declared_ended)
    outcome = faults.stop_run(EXPID)
    assert actions(outcome) == [("look", True)]
    assert of_run(run)


@pytest.mark.parametrize("cancel_jobs", [False, True])
def test_a_kill_ends_local_jobs_only_when_they_are_to_be_cancelled(
    target: RunnerConfig, account: StubAccount, cancel_jobs: bool
) -> None:
    run = start(target, account, more=local_job(account) + CHILD, IGNORE=DEAF)
    account.control("stop", JOBS=f"{EXPID}_ONE", PLATFORM="LOCAL")
    outcome = faults.stop_run(EXPID, force=True, cancel_jobs=cancel_jobs)
    assert (outcome.run.reason, outcome.run.exit_code) == ("stopped", 137)
    left = [command_line(pid) for pid in of_run(run)]
    assert any(JOB.format(EXPID) in words for words in left) is not cancel_jobs
    assert not any("setsid" in words or "trap" in words for words in left)
    if cancel_jobs:
        assert any("Autosubmit was ended by KILL" in warning for warning in outcome.warnings)


def of_group(run: RunnerRun) -> list[int]:
    """Return the living members of the process group of the run's command."""
    assert run.identity
    found = []
    for pid, _, _ in processes():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[2]) == run.identity["pid"] and fields[0] not in "ZX":
            found.append(pid)
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_two_simultaneous_stops_both_succeed_and_there_is_one_end(
    make_app: Callable[..., AppServer], account: StubAccount, sshd: SSHServer, runner_type: str
) -> None:
    account.experiment(EXPID)
    account.control("run", EXPID, SLEEP=600, IGNORE=DEAF)
    env = {"RUNNERS_STOP_TIMEOUT": "3", "RUNNERS_TERM_WAIT": "2"}
    app = make_app(account=account, sshd=sshd, env=env)
    app.manage(
        "shell", "-c", "from runners.models import Webhook as W; W.objects.create(name='w', url='http://[::1]:9')"
    )
    profile = profile_of(sshd if runner_type == "SSH" else None)
    assert app.post(COMMAND + "run-experiment", {"expid": EXPID, **profile}).status == 200
    wait_for(lambda: run_processes(account, EXPID), what="the run")
    answers = [in_background(lambda: app.post(COMMAND + "stop-experiment", {"expid": EXPID})) for _ in range(2)]
    wait_for(lambda: len(account.calls("stop")) == 2, what="both in the middle of it")
    bodies = [answer.result(60 * PATIENCE) for answer in answers]
    assert [answer.status for answer in bodies] == [200, 200], bodies
    assert {answer.body["reason"] for answer in bodies} == {"stopped"}
    assert len({(answer.body["finished"], answer.body["modified"], answer.body["exit_code"]) for answer in bodies}) == 1
    assert all(answer.body["steps"][-1]["ended"] for answer in bodies)
    with closing(sqlite3.connect(app.database)) as database:
        ends = database.execute("SELECT event FROM runners_webhookdelivery").fetchall()
        stops = database.execute(
            "SELECT outcome FROM runners_auditrecord WHERE endpoint = 'stop-experiment'"
        ).fetchall()
    assert ends == [("run.terminated",)]  # each receiver is told once
    assert stops == [("ok",), ("ok",)]


def test_a_stop_of_a_run_that_has_just_ended_succeeds(target: RunnerConfig, account: StubAccount) -> None:
    account.control("run", EXPID, EXIT=3)
    run = faults.start_run(target, EXPID)
    # The exit code is stored a moment after the end of the command's processes.
    directory = account.home / ".autosubmit-runners" / run.key
    wait_for(lambda: list(directory.glob("ended.*")), what="an end that nobody has looked at")
    assert stored(run)["status"] == "ACTIVE"
    outcome = faults.stop_run(EXPID)
    assert actions(outcome) == [("look", True)]
    # The run ended by itself: the stop reports that end, and nobody is recorded as its stopper.
    assert (outcome.run.status, outcome.run.reason, outcome.run.exit_code) == ("TERMINATED", "failed", 3)
    assert (outcome.run.stopped_by, outcome.run.stop_requested_at) == ("", None)
    assert account.calls("stop") == []
    with pytest.raises(NotRunning):
        faults.stop_run(EXPID)


def test_a_run_that_is_being_started_is_not_stopped(account: StubAccount, launch_gates: LaunchGates) -> None:
    account.experiment(EXPID)
    account.control("run", EXPID, SLEEP=600)
    launch_gates.before.arm()
    starting = in_background(lambda: faults.start_run(account.config(), EXPID))
    launch_gates.before.wait_held()
    with pytest.raises(NotRunning, match="just being started"):
        faults.stop_run(EXPID)
    launch_gates.before.release()
    assert starting.result(40 * PATIENCE).is_active
    assert stored(RunnerRun.objects.get(expid=EXPID))["stop_requested_at"] is None


def test_the_wait_after_a_kill_has_a_setting_of_its_own(
    account: StubAccount, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waits for a disk survives a KILL. No test can make one, so here the signal is not sent."""

    def unsent(runner: LocalRunner, key: str, identity: Identity, name: str, **options: Any) -> Probe:
        return runner.probe([ProbeTarget(key, identity)], timeout=30 * PATIENCE)[key]

    settings.RUNNERS_TERM_WAIT, settings.RUNNERS_KILL_WAIT = 0.0, 3.0
    account.experiment(EXPID)
    start(account.config(), account)
    monkeypatch.setattr(LocalRunner, "signal", unsent)
    with pytest.raises(StopNotConfirmed) as error:
        faults.stop_run(EXPID, force=True)
    (step,) = error.value.facts["steps"]
    assert step["action"] == "signal KILL"
    assert step["seconds"] >= settings.RUNNERS_KILL_WAIT


def test_a_run_of_the_same_name_in_another_home_survives(
    target: RunnerConfig, account: StubAccount, tmp_path: Path, runner_type: str
) -> None:
    """`autosubmit stop` takes the lowest pid of that name in any home, so it would stop the wrong run."""
    other = StubAccount(tmp_path / "other-home")
    other.experiment(EXPID)
    other.control("run", EXPID, SLEEP=600)
    environment = {"HOME": str(other.home), "PATH": f"{other.home}/bin:{os.defpath}"}
    with subprocess.Popen(
        ["autosubmit", "run", EXPID], env=environment, cwd=other.home, start_new_session=True
    ) as victim:
        try:
            wait_for(lambda: other.calls("run"), what="the other home's run")
            run = start(target, account)
            assert run.pid
            if victim.pid > run.pid:
                pytest.skip("the machine's pids have just begun anew")
            outcome = faults.stop_run(EXPID)
            assert outcome.steps[0]["action"] == "autosubmit stop"
            assert f"skipped: it would stop process {victim.pid}" in outcome.steps[0]["outcome"]
            assert actions(outcome)[1:] == [("signal INT", True)]
            assert (outcome.run.reason, outcome.run.exit_code) == ("stopped", 88)
            assert account.calls("stop") == []
            assert is_alive(victim.pid)
        finally:
            other.kill()


@pytest.mark.parametrize("force", [False, True])
def test_a_foreign_process_that_has_the_pid_now_is_never_signalled(
    target: RunnerConfig, account: StubAccount, bystander: subprocess.Popen[bytes], force: bool
) -> None:
    run = start(target, account)
    assert run.identity
    kill_all([run.identity["supervisor_pid"], *of_run(run)])  # kills the supervisor, too, so no exit code is recorded
    wait_for(lambda: not of_run(run), what="the end of the run")
    # The pids of the run now belong to another process with another start time.
    run.identity |= {"pid": bystander.pid, "supervisor_pid": bystander.pid}
    assert start_time(bystander.pid) not in (run.identity["start"], run.identity["supervisor_start"])
    run.pid = bystander.pid
    run.save(update_fields=["identity", "pid"])
    outcome = faults.stop_run(EXPID, force=force)
    assert actions(outcome) == [("look", True)]
    assert (outcome.run.status, outcome.run.reason) == ("TERMINATED", "lost")
    assert bystander.poll() is None


@pytest.mark.parametrize("name", ["INT", "TERM", "KILL"])
def test_a_process_that_got_the_pid_during_the_stop_is_not_signalled(
    target: RunnerConfig, account: StubAccount, bystander: subprocess.Popen[bytes], name: str
) -> None:
    """Each step probes again: between two steps the run may end and another process may get its pid."""
    run = start(target, account)
    assert run.identity
    kill_all([run.identity["supervisor_pid"], *of_run(run)])
    wait_for(lambda: not of_run(run), what="the end of the run")
    run.identity |= {"pid": bystander.pid, "supervisor_pid": bystander.pid}
    identity = identity_of(run)
    assert identity
    assert get_runner(target).signal(run.key, identity, name, timeout=30).answer == Probe.GONE
    assert bystander.poll() is None


def test_a_stop_of_an_unreachable_machine_changes_nothing_and_works_later(
    make_app: Callable[..., AppServer], account: StubAccount, sshd: SSHServer
) -> None:
    account.experiment(EXPID)
    account.control("run", EXPID, SLEEP=600)
    app = make_app(account=account, sshd=sshd, env={"RUNNERS_CONNECT_TIMEOUT": "3"})
    started = app.post(COMMAND + "run-experiment", {"expid": EXPID, **profile_of(sshd)})
    assert started.status == 200, started.body
    sshd.stop()
    refused = app.post(COMMAND + "stop-experiment", {"expid": EXPID})
    assert (refused.status, refused.body["code"]) == (502, "runner_unreachable")
    status = app.post(COMMAND + "get-runner-run-status", {"expid": EXPID}).body
    assert (status["status"], status["reachable"], status["pid"]) == ("ACTIVE", False, started.body["pid"])
    assert (status["reason"], status["stopped_by"]) == ("", "")
    assert run_processes(account, EXPID) == [started.body["pid"]]
    sshd.start()
    stopped = app.post(COMMAND + "stop-experiment", {"expid": EXPID})
    assert (stopped.status, stopped.body["reason"], stopped.body["exit_code"]) == (200, "stopped", 88), stopped.body
    assert not run_processes(account, EXPID)


def test_a_machine_that_goes_away_during_a_stop_leaves_the_run_as_it_was(
    account: StubAccount, sshd: SSHServer, settings: Any
) -> None:
    settings.RUNNERS_STOP_TIMEOUT, settings.RUNNERS_TERM_WAIT = 20.0, 1.0
    settings.RUNNERS_CONNECT_TIMEOUT = settings.RUNNERS_PROBE_TIMEOUT = 3.0
    account.experiment(EXPID)
    run = start(sshd.config(), account, IGNORE=DEAF)
    answer = in_background(lambda: faults.stop_run(EXPID))
    wait_for(lambda: account.calls("stop"), what="autosubmit stop")
    sshd.stop()
    # RunnerUnreachable would say that nothing was executed, but `autosubmit stop` was.
    with pytest.raises(OutcomeUnknown, match="The stop had begun, but whether .* is not known now") as told:
        answer.result(60 * PATIENCE)
    assert ".." not in told.value.detail
    # The error contains the completed steps, and no step looks as if it were still running.
    assert [step["action"] for step in told.value.facts["steps"]] == ["autosubmit stop", "signal INT"]
    assert "refused" in told.value.facts["steps"][-1]["outcome"]
    assert stored(run)["stop_steps"] == told.value.facts["steps"]
    assert all(step["seconds"] is not None and not step["ended"] for step in told.value.facts["steps"])
    assert stored(run)["status"] == "ACTIVE"
    assert run_processes(account, EXPID) == [run.pid]
    sshd.start()
    settings.RUNNERS_STOP_TIMEOUT = 2.0
    outcome = faults.stop_run(EXPID)
    assert (outcome.run.reason, outcome.run.exit_code) == ("stopped", 137)


def test_a_stop_that_sent_nothing_does_not_explain_the_end(
    account: StubAccount, sshd: SSHServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe finds the run. Then start-up files replace the shell, so the KILL is certainly not sent."""
    monkeypatch.setattr(exchange, "PATIENCE", 1.0)
    account.experiment(EXPID)
    run = start(sshd.config(), account)
    once, rc = account.home / "once", account.home / ".bashrc"
    once.touch()
    rc.write_text(f"/bin/rm {once} 2>/dev/null || exec cat\n")
    try:
        with pytest.raises(RunnerUnreachable, match="Nothing was executed"):
            faults.stop_run(EXPID, force=True)
    finally:
        rc.unlink()
    assert (stored(run)["stop_requested_at"], stored(run)["stopped_by"]) == (None, "")
    assert run_processes(account, EXPID) == [run.pid]


def test_start_up_files_that_block_login_shells_do_not_prevent_a_stop(
    target: RunnerConfig, account: StubAccount, at_login: Callable[[str], None]
) -> None:
    start(target, account)
    at_login("exec cat\n")
    outcome = faults.stop_run(EXPID)
    assert actions(outcome) == [("autosubmit stop", False), ("signal INT", True)]
    assert "skipped" in outcome.steps[0]["outcome"]
    assert account.calls("stop") == []
    assert (outcome.run.reason, outcome.run.exit_code) == ("stopped", 88)


def test_an_end_that_cannot_be_probed_is_unknown(account: StubAccount, sshd: SSHServer, settings: Any) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT = settings.RUNNERS_PROBE_TIMEOUT = settings.RUNNERS_KILL_WAIT = 3.0
    account.experiment(EXPID)
    run = start(sshd.config(), account)
    assert run.identity
    os.kill(run.identity["supervisor_pid"], signal.SIGSTOP)  # it cannot record the end, so the run still counts
    answer = in_background(lambda: faults.stop_run(EXPID, force=True))
    wait_for(lambda: not is_alive(run.identity["pid"]), what="the KILL")
    sshd.stop()
    with pytest.raises(OutcomeUnknown, match="is not known now") as told:
        answer.result(60 * PATIENCE)
    assert [(step["action"], step["ended"]) for step in told.value.facts["steps"]] == [("signal KILL", False)]
    assert stored(run)["status"] == "ACTIVE"
    os.kill(run.identity["supervisor_pid"], signal.SIGCONT)
    sshd.start()
    ended = wait_ended(EXPID)
    assert (ended.reason, ended.exit_code, ended.stopped_by) == ("stopped", 137, "somebody else")


# --- the reason of an end ---------------------------------------------------------------------------------------------


def test_an_old_stop_does_not_explain_a_later_failure(target: RunnerConfig, account: StubAccount) -> None:
    """The stop had no effect, or its server died, and the run went on for days."""
    run = start(target, account, SLEEP=2, EXIT=3)
    RunnerRun.objects.update(stop_requested_at=timezone.now() - timedelta(days=1), stopped_by="alice")
    ended = wait_ended(EXPID)
    assert (ended.pk, ended.reason, ended.exit_code) == (run.pk, "failed", 3)
    assert "reached maximum retrials" in ended.detail


def test_a_stop_after_its_window_is_replaced_by_the_next_one(target: RunnerConfig, account: StubAccount) -> None:
    start(target, account)
    RunnerRun.objects.update(stop_requested_at=timezone.now() - timedelta(days=1), stopped_by="alice")
    outcome = faults.stop_run(EXPID)
    assert (outcome.run.reason, outcome.run.stopped_by) == ("stopped", "somebody else")


def test_a_watcher_that_read_the_row_before_the_stop_calls_the_run_stopped(
    target: RunnerConfig, account: StubAccount
) -> None:
    run = start(target, account)
    RunnerRun.objects.update(stop_requested_at=timezone.now(), stopped_by="alice")
    kill_all(run_processes(account, EXPID))
    assert run.stop_requested_at is None  # this copy of the row does not have it
    wait_for(lambda: probing.probe([run]) and not run.is_active, what="the end")
    assert (run.reason, run.signal, run.stopped_by) == ("stopped", "KILL", "alice")


def test_a_run_that_fails_by_itself_during_a_stop_keeps_its_last_words(
    target: RunnerConfig, account: StubAccount
) -> None:
    start(target, account, SLEEP=2, EXIT=3)
    RunnerRun.objects.update(stop_requested_at=timezone.now(), stopped_by="alice")
    assert "reached maximum retrials" in wait_ended(EXPID).detail


def test_a_late_probe_shows_the_end_that_another_process_stored(target: RunnerConfig, account: StubAccount) -> None:
    run = start(target, account)
    RunnerRun.objects.update(status="TERMINATED", reason="abandoned")
    probing.probe([run])
    assert (run.status, run.reason) == ("TERMINATED", "abandoned")


# --- real Autosubmit --------------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.timeout(300)
@pytest.mark.parametrize("where", list(RUNNERS), ids=str)
def test_a_stop_directly_after_the_start_ends_the_run(
    where: str, autosubmit: AutosubmitAccount, autosubmit_sshd: SSHServer, settings: Any
) -> None:
    """Autosubmit loses an INT that arrives during its imports; then `autosubmit stop` would wait for ever."""
    settings.RUNNERS_STOP_TIMEOUT = 10.0
    expid = autosubmit.short_experiment("sleep 600")
    run = faults.start_run(autosubmit.config() if where == "LOCAL" else autosubmit_sshd.config(), expid)
    outcome = faults.stop_run(expid)
    assert (outcome.run.status, outcome.run.reason) == ("TERMINATED", "stopped"), outcome.steps
    assert outcome.steps[-1]["ended"] is True
    wait_for(lambda: not run_processes(autosubmit, expid), what="the end of all of its processes")
    assert wait_ended(expid).pk == run.pk


@pytest.mark.real
@pytest.mark.timeout(300)
def test_cancel_jobs_ends_the_jobs_on_this_machine(autosubmit: AutosubmitAccount, settings: Any) -> None:
    """Autosubmit says that it has cancelled the jobs, but its signals do not end them."""
    expid = autosubmit.short_experiment("sleep 7659")
    run = faults.start_run(autosubmit.config(), expid)
    job = wait_for(
        lambda: [pid for pid in with_environment("HOME", str(autosubmit.home)) if sleeps(pid)], 60, what="job"
    )
    audit = AuditRecord(endpoint="stop-experiment")
    outcome = faults.stopping.stop_experiment(expid=expid, audit=audit, viewer=AnonymousUser(), cancel_jobs=True)
    assert "--cancel" in audit.argv
    assert outcome.run.reason == "stopped", outcome.steps
    wait_for(lambda: not [pid for pid in job if is_alive(pid)], 10, what="the end of the job")
    wait_for(lambda: not of_run(run), what="the end of all that belongs to the run")


def sleeps(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x007659\0"
    except OSError:
        return False
