"""The stand-in for Autosubmit behaves like the real one; the accounts and servers of the tests work as documented."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from profiles.rules import MODULE_LOADERS
from tests.support.environments import Account, AutosubmitAccount, StubAccount, loader_id
from tests.support.processes import PATIENCE, wait_for
from tests.support.servers import AppServer, SSHServer

ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def run(account: Account, *args: str) -> tuple[int, str]:
    """Return exit code and raw output of a command that is executed without this service."""
    done = subprocess.run(
        [str(account.programs / "autosubmit"), *args],
        env={"HOME": str(account.home), "PATH": os.defpath, "TERM": "dumb"},
        cwd=account.home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


def start(account: Account, expid: str) -> subprocess.Popen[bytes]:
    log = account.home / "run.log"
    with log.open("wb") as stream:
        return subprocess.Popen(
            [str(account.programs / "autosubmit"), "run", expid],
            env={"HOME": str(account.home), "PATH": os.defpath, "TERM": "dumb"},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )


def test_the_stand_in_stops_no_run_of_another_test_run(account: StubAccount) -> None:
    """The real one stops it. Several processes run tests at the same time, and the tests use the same ids."""
    with tempfile.TemporaryDirectory() as elsewhere:
        stranger = StubAccount(Path(elsewhere) / "account" / "home")
        for each in (account, stranger):
            each.control("run", each.experiment("a001"), SLEEP=60)
        process = start(stranger, "a001")
        try:
            wait_for(lambda: stranger.calls("run"), what="the run of the other test run")
            assert run(account, "stop", "-y", "a001")[1].strip() == "Expid a001 was not running"
            assert process.poll() is None
            assert run(stranger, "stop", "-y", "a001")[0] == 0
            assert process.wait(20 * PATIENCE) == 88
        finally:
            stranger.kill()
            process.wait()


@pytest.mark.real
def test_the_stand_in_prints_the_same_as_autosubmit(account: StubAccount, autosubmit: AutosubmitAccount) -> None:
    real_id = autosubmit.short_experiment()
    stub_id = account.experiment("a001")
    commands: list[tuple[list[str], str]] = [
        (["expid", "--description=x"], r"\x1b\[32mExperiment \w{4} created\x1b\[0m\x1b\[39m\n"),
        (["create", "-np", "{}"], r"\x1b\[32m\nJob list created successfully\x1b\[0m\x1b\[39m\n"),
        (
            ["setstatus", "{}", "-fl", "{}_ONE", "-t", "COMPLETED", "-s"],
            r"CHANGED: job: \w+_ONE status to: COMPLETED\n",
        ),
        (["setstatus", "{}", "-fl", "{}_ONE", "-t", "READY", "-s"], r"JobList saved in [0-9.]+ seconds"),
        (["updatedescrip", "--", "{}", "-words"], r"Setting \w{4} description to '-words'\n"),
        (["stop", "-y", "{}"], r"Expid \w{4} was not running\n"),
        (["run", "{}"], r"\x1b\[32mRun successful\x1b\[0m\x1b\[39m\n"),
        (["-v"], r"^4\.1\.17\.1\n$"),
    ]
    for words, line in commands:
        for subject, expid in ((autosubmit, real_id), (account, stub_id)):
            code, output = run(subject, *(word.format(expid) for word in words))
            assert (code, bool(re.search(line, output))) == (0, True), f"{subject}: {words}\n{output}"
    for subject in (autosubmit, account):
        code, output = run(subject, "create", "-np", "zzzz")
        assert (code, "[eCode=7012]" in output) == (100, True), output


@pytest.mark.real
@pytest.mark.parametrize("kind", ["real", "stand-in"])
def test_the_stand_in_and_autosubmit_end_alike_when_they_are_stopped(kind: str, request: pytest.FixtureRequest) -> None:
    subject: Account
    if kind == "real":
        subject = real = request.getfixturevalue("autosubmit")
        expid = real.short_experiment("sleep 60")
    else:
        subject = stub = request.getfixturevalue("account")
        expid = stub.experiment("a001")
        stub.control("run", SLEEP=60)
    process = start(subject, expid)
    log = subject.home / "run.log"
    wait_for(lambda: "Autosubmit is running with" in log.read_text(), what="start")
    code, _ = run(subject, "stop", "-y", expid)
    assert code == 0
    assert process.wait(20 * PATIENCE) == 88
    assert "KeyboardInterrupt" in log.read_text()


def test_a_stand_in_that_ignores_signals(account: StubAccount) -> None:
    account.experiment("a001")
    account.control("run", "a001", SLEEP=60, IGNORE="INT TERM", PRINT="ready")
    process = start(account, "a001")
    wait_for(lambda: "ready" in (account.home / "run.log").read_text(), what="start")
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.kill()
    assert process.wait(5) == -signal.SIGKILL


@pytest.mark.real
def test_what_real_autosubmit_keeps(autosubmit: AutosubmitAccount) -> None:
    expid = autosubmit.short_experiment(jobs=("ONE", "TWO"))
    assert autosubmit.job_statuses(expid).keys() == {f"{expid}_ONE", f"{expid}_TWO"}
    assert autosubmit.description(expid) == "of the tests"
    other = autosubmit.short_experiment("exit 3")
    assert expid != other
    assert run(autosubmit, "run", other)[0] == 1
    assert autosubmit.job_statuses(other) == {f"{other}_ONE": "FAILED"}


@pytest.mark.real
@pytest.mark.parametrize("loader", list(MODULE_LOADERS), ids=loader_id)
def test_every_loader_finds_the_real_autosubmit(
    loader: str, autosubmit: AutosubmitAccount, autosubmit_sshd: SSHServer
) -> None:
    lines = {
        "NO_MODULE": ":",
        "VENV": f". {autosubmit.venv}/bin/activate",
        "LMOD": "module load autosubmit",
        "CONDA": 'eval "$(~/miniforge3/bin/conda shell.posix hook)"; conda activate autosubmit',
    }
    done = autosubmit_sshd.ssh(f"bash -lc '{lines[loader]} && autosubmit -v'")
    assert (done.returncode, done.stdout.decode()) == (0, "4.1.17.1\n"), done.stderr.decode()


def test_the_server_answers_and_keeps_its_data(make_app: Callable[..., AppServer], account: StubAccount) -> None:
    app = make_app(account=account)
    assert app.get("/openapi.json").status == 200
    assert len(app.worker_pids) == 2
    app.manage("create_token", "somebody", "--create-user")
    app.restart()
    assert app.get("/v4/runners/configuration/endpoints").status == 200
    assert "'somebody'" not in app.log_text()


def test_an_sshd_can_be_cut_off(sshd: SSHServer) -> None:
    assert sshd.ssh("echo $HOME").stdout.decode().strip() == str(sshd.home)
    sshd.authorized = False
    assert sshd.ssh("true").returncode == 255
    sshd.authorized = True
    sshd.swap_host_key()
    assert sshd.ssh("true").returncode == 255
    sshd.trust_host_key()
    assert sshd.ssh("true").returncode == 0


def test_nothing_is_left_in_the_developers_home(account: StubAccount) -> None:
    assert Path.home() == account.home
