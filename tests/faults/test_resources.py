"""A service without descriptors, host names that cannot exist, and servers and accounts with arbitrary output.

Promise: each case gets an answer in words. No run is called dead because of it, and every other run is still watched.
"""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from profiles.config import RunnerConfig
from runners.exceptions import RunnerUnreachable
from runners.models import RunnerRun
from runners.services import host_keys, probing
from runners.services.machines.own_account import own_account
from runners.services.machines.registry import get_runner
from runners.services.machines.ssh.pool import POOL
from runners.services.machines.ssh.target import SSHTarget
from tests.support import faults
from tests.support.environments import StubAccount
from tests.support.faults import EXPID, run_processes, start_run, stored
from tests.support.processes import end, free_port, kill_all, wait_for
from tests.support.processes import start as start_server
from tests.support.servers import ROOT, AppServer, SSHServer, listener

pytestmark = pytest.mark.django_db(transaction=True)

TIMEOUT = 30.0


def config_of(target: SSHTarget) -> RunnerConfig:
    return RunnerConfig("SSH", "NO_MODULE", (), target)


# --- descriptors ------------------------------------------------------------------------------------------------------


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Leave this process without free file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_nothing_is_started_and_nothing_is_dead(there: RunnerConfig, account: StubAccount) -> None:
    account.control("run", SLEEP=600)
    run = start_run(there)
    POOL.close()  # a command on an open connection would need no descriptor
    runner, proof = get_runner(there), account.home / "was-executed"
    words = "cannot be reached" if there.target.host else r"Too many open files\. Nothing was started\."
    with no_descriptors():
        with pytest.raises(RunnerUnreachable, match=words):
            runner.execute(f"touch {proof}", timeout=TIMEOUT)
        probing.probe([run])
        shown = (run.status, run.reachable)
    assert shown == ("ACTIVE", False)
    assert not proof.exists()
    probing.probe([run])
    assert run.reachable
    faults.stop_run()


# --- names and servers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["a..b", f"{'a' * 64}.example"])
def test_a_host_name_that_dns_cannot_contain_is_unreachable(host: str, account: StubAccount) -> None:
    """Profiles and requests reject such names; `~/.ssh/config` and older rows may still contain one."""
    account.experiment(EXPID)
    config = config_of(SSHTarget(host, 22, "somebody"))
    with pytest.raises(RunnerUnreachable, match="cannot be resolved"):
        start_run(config)
    run = RunnerRun.objects.get()
    assert (run.status, run.reason) == ("TERMINATED", "never_started")
    with pytest.raises(RunnerUnreachable, match="cannot be resolved"):
        host_keys.scan(host)


def test_a_hostile_greeting_is_reported_as_printable_text() -> None:
    """PostgreSQL rejects texts with a NUL: a run whose machine had sent a NUL could not be ended."""
    with listener(lambda client: client.sendall(b"SSH-1\0\x1b[31mred\x1b[0m-\r\n")) as port:
        config = config_of(SSHTarget("127.0.0.1", port, "somebody"))
        with pytest.raises(RunnerUnreachable) as refused:
            get_runner(config).execute("true", timeout=TIMEOUT)
    assert refused.value.detail.isprintable()
    assert "red" in refused.value.detail


def test_targets_that_were_never_reached_leave_nothing_behind(account: StubAccount, sshd: SSHServer) -> None:
    """If a profile leaves host and user open, requests may name any number of machines and accounts."""
    port = free_port()
    for number in range(20):
        with pytest.raises(RunnerUnreachable):
            get_runner(config_of(SSHTarget("127.0.0.1", port, f"u{number}"))).execute("true", timeout=TIMEOUT)
    get_runner(sshd.config()).execute("true", timeout=TIMEOUT)
    assert list(POOL._targets) == [sshd.target]
    POOL.close()
    assert not POOL._targets


def test_an_account_without_a_passwd_entry_has_the_names_of_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setenv("USER", "of_the_container")
    assert (own_account().pw_name, own_account().pw_dir) == ("of_the_container", os.environ["HOME"])
    monkeypatch.delenv("USER")
    assert own_account().pw_name == "54321"


# --- files of the account's owner in our directories -----------------------------------------------------------------


def test_an_unexpected_file_in_a_run_directory_is_ignored_and_hides_no_other_run(
    there: RunnerConfig, account: StubAccount
) -> None:
    other = account.experiment("a777")
    for expid in (EXPID, other):
        account.control(f"run.{expid}", SLEEP=600)
    spoilt, whole = start_run(there), start_run(there, other)
    directory = account.home / ".autosubmit-runners" / spoilt.key
    (directory / "ended.by.hand").touch()
    probing.probe([spoilt])
    assert spoilt.reachable  # certain, because its process lives
    assert spoilt.identity
    kill_all([spoilt.identity["supervisor_pid"], *run_processes(account)])  # no supervisor: the end is not recorded
    kill_all(run_processes(account, other))
    wait_for(lambda: not run_processes(account, other), what="the end of the other one")
    before = stored(spoilt)
    runs = [spoilt, whole]
    wait_for(lambda: probing.refresh(runs) or not whole.is_active, what="the other one's end in its row")
    assert stored(spoilt) == before
    assert not spoilt.reachable
    assert "has unexpected content" in spoilt.unreachable_detail
    (directory / "ended.by.hand").unlink()
    probing.probe([spoilt])
    assert (spoilt.reachable, spoilt.reason) == (True, "lost")


HOPELESS = """
from runners.models import RunnerRun as R
local = {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": []}
ssh = local | {"RUNNER_TYPE": "SSH", "SSH": {"HOST": "127.0.0.1", "PORT": 1, "USER": "u"}}
R.objects.create(expid="b000", config={}, runner="LOCAL")  # no configuration
R.objects.create(expid="b001", config=ssh, runner="SSH", identity={"host": "x"})  # no identity
"""


def test_unreadable_rows_do_not_hide_the_others(
    make_app: Callable[..., AppServer], account: StubAccount, tmp_path: Path
) -> None:
    """Rows that somebody edited in the table are reported, and do not abort the probes of other rows."""
    account.experiment(EXPID)
    account.control("create", SLEEP=3)
    account.control("run", SLEEP=3)
    app = make_app(account=account)
    app.manage("shell", "-v0", "-c", HOPELESS)
    body = {"expid": EXPID, **faults.profile_of(None)}
    assert app.post(faults.COMMAND + "run-experiment", body).status == 200
    another = body | {"expid": account.experiment("f200e")}  # the running experiment is rejected
    accepted = app.post(faults.COMMAND + "create-job-list", another, Prefer="respond-async")
    assert accepted.status == 202, accepted.body
    log = tmp_path / "watch.log"
    argv = [sys.executable, str(ROOT / "manage.py"), "watch_runs", "--interval", "0.5"]
    watch = start_server(argv, log=log, env=app.environment, cwd=ROOT)
    try:
        wait_for(
            lambda: stored_status(app) == ("COMPLETED", "succeeded"), 40, what="both ends, which the watch has seen"
        )
        assert watch.poll() is None
    finally:
        end(watch)
    assert "The stored configuration of run 1 of b000 (ACTIVE) cannot be read" in log.read_text()
    assert "The stored identity of this row cannot be read" in log.read_text()
    assert "was aborted" not in log.read_text()
    with closing(sqlite3.connect(app.database)) as database, database:
        database.execute("UPDATE runners_runnerrun SET probing_until = NULL")
    once = subprocess.run(argv[:-2], env=app.environment, cwd=ROOT, capture_output=True, check=False)
    assert once.returncode == 1  # a single look reports errors by its exit code
    assert b"Traceback" not in once.stderr


def stored_status(app: AppServer) -> tuple[str, str]:
    with closing(sqlite3.connect(app.database)) as database:
        (run,) = database.execute("SELECT status FROM runners_runnerrun WHERE expid = ?", [EXPID]).fetchone()
        (operation,) = database.execute("SELECT status FROM runners_operation").fetchone()
    return run, operation
