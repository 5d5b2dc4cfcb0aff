"""Tools to cause faults: gates that stop a machine at one exact step, and a service that can be killed."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError

from django.contrib.auth.models import AnonymousUser
from django.db import connections
from django.utils import timezone

from profiles.config import RunnerConfig
from runners.commands.base import CommandOutcome
from runners.commands.set_job_status import SET_JOB_STATUS
from runners.models import AuditRecord, RunnerRun, new_run_key
from runners.services import execute, runs, starting, stopping
from tests.support.environments import Account, StubAccount
from tests.support.processes import is_alive, processes, wait_for, with_environment
from tests.support.servers import Answer, AppServer, SSHServer

T = TypeVar("T")
COMMAND = "/v4/runners/command/"
# A random name: `autosubmit stop` stops the run of this name in any home, including other test runs'.
EXPID = f"f{secrets.token_hex(2)}"


class Gate:
    """A breakpoint in a shell text. When armed, it blocks the next shell that executes it, once, until `release`.

    It has no effect while it is not armed. Insert `text` where the fault is to be caused: in a login profile, in a
    program that precedes the real one in PATH, or in a control file of the stand-in autosubmit.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._armed, self._held, fifo = folder / "armed", folder / "held", folder / "fifo"
        os.mkfifo(fifo)
        # Open it for reading and writing, so that neither side waits for the other to open it.
        self._fifo = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        self.text = f"if /bin/mv {self._armed} {self._held} 2>/dev/null; then IFS= read -r _ <{fifo}; fi\n"

    def arm(self) -> Gate:
        self._held.unlink(missing_ok=True)
        self._armed.touch()
        return self

    @property
    def is_held(self) -> bool:
        return self._held.exists()

    def wait_held(self, deadline: float = 40) -> None:
        wait_for(lambda: self.is_held, deadline, what="a shell at the gate")

    def release(self) -> None:
        os.write(self._fifo, b"\n")

    def close(self) -> None:
        """Disarm the gate, and release a shell that still waits."""
        self._armed.unlink(missing_ok=True)
        if self.is_held:
            self.release()
        os.close(self._fifo)


MakeGate = Callable[[], Gate]


def stand_before(folder: Path, name: str, *, when: str, before: str = "", after: str = "") -> None:
    """Create a wrapper of the program `name` in `folder`.

    If the arguments contain `when`, it also executes the shell texts `before` and `after`.
    """
    real = shutil.which(name)
    assert real
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(
        f"#!/bin/bash\ncase $* in *'{when}'*) is_it=1;; *) is_it=;; esac\n"
        f'if [ "$is_it" ]; then :\n{before}fi\n{real} "$@"; code=$?\nif [ "$is_it" ]; then :\n{after}fi\nexit $code\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def in_background(function: Callable[[], T]) -> Future[T]:
    """Call a function in a daemon thread. Unlike a thread of a pool, it does not delay the exit of the process."""
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001  (it is the future's to raise)
            future.set_exception(error)
        finally:
            connections.close_all()

    threading.Thread(target=call, daemon=True).start()
    return future


def run_processes(account: Account, expid: str = EXPID) -> list[int]:
    """Return the living `autosubmit run EXPID` processes of an account, without a shell's own short-lived forks."""
    found = {pid for pid in with_environment("HOME", str(account.home)) if is_alive(pid) and _is_run(pid, expid)}
    parents = {pid: parent for pid, parent, _ in processes()}
    return [pid for pid in found if parents.get(pid) not in found]


def _is_run(pid: int, expid: str) -> bool:
    with suppress(OSError):
        words = [Path(word).name for word in os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")]
        return "autosubmit" in words and "run" in words and expid in words
    return False


def add_control(account: StubAccount, command: str, text: str, **values: str | float) -> None:
    """Call `account.control`, and add shell text that `autosubmit COMMAND` executes at its beginning."""
    account.control(command, **values)
    with (account.home / ".stub-autosubmit" / "control" / command).open("a") as file:
        file.write(text)


class Service:
    """A deployed service for one account, which can be killed and started again; see AppServer."""

    def __init__(self, app: AppServer, account: StubAccount, sshd: SSHServer | None) -> None:
        self.app, self.account, self.sshd = app, account, sshd

    @property
    def profile(self) -> dict[str, Any]:
        """Return the members of a request that name the machine."""
        return profile_of(self.sshd)

    def post(self, command: str, **body: Any) -> Answer:
        return self.app.post(COMMAND + command, {"expid": EXPID, **body})

    def run(self, expid: str = EXPID) -> Answer:
        return self.post("run-experiment", **{"expid": expid, **self.profile})

    def run_in_background(self) -> Future[Answer | None]:
        """Send the request in a thread. The result is None if the service died before it answered."""
        return in_background(lambda: self._unless_killed(self.run))

    def stop_in_background(self) -> Future[Answer | None]:
        return in_background(lambda: self._unless_killed(lambda: self.post("stop-experiment")))

    @staticmethod
    def _unless_killed(request: Callable[[], Answer]) -> Answer | None:
        with suppress(URLError, ConnectionError):
            return request()
        return None

    def status(self, expid: str = EXPID) -> dict[str, Any]:
        answer = self.post("get-runner-run-status", expid=expid)
        assert answer.status == 200, answer.body
        body: dict[str, Any] = answer.body
        return body

    def wait_status(self, condition: Callable[[dict[str, Any]], object], deadline: float = 40) -> dict[str, Any]:
        return wait_for(lambda: (body := self.status()) and condition(body) and body, deadline, what="that status")

    def ended(self) -> dict[str, Any]:
        return self.wait_status(lambda body: body["status"] != "ACTIVE")

    def kill(self) -> None:
        self.app.kill()

    def start(self) -> None:
        self.app.start()

    def rows(self) -> list[dict[str, Any]]:
        """Return the runs in the database, without the service. SQLite only."""
        with closing(sqlite3.connect(self.app.database)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute("SELECT * FROM runners_runnerrun ORDER BY id")]

    def row(self) -> dict[str, Any]:
        (row,) = self.rows()
        return row

    def wait_row(self) -> dict[str, Any]:
        return wait_for(lambda: rows[0] if (rows := self.rows()) else None, what="the row of the run")

    def make_older(self, seconds: float) -> None:
        """Set the start time of all runs to `seconds` ago."""
        with closing(sqlite3.connect(self.app.database)) as database, database:
            created = (timezone.now() - timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S.%f")
            database.execute("UPDATE runners_runnerrun SET created = ?", [created])

    def log(self) -> str:
        """Return the log of the only run, as the service answers it."""
        run_id = self.row()["id"]
        answer = self.app.get(f"/v4/runners/runs/{run_id}/log")
        assert answer.status == 200, answer.body
        return answer.body if isinstance(answer.body, str) else str(answer.body)

    @contextmanager
    def locked_database(self) -> Iterator[None]:
        """Hold an exclusive lock on the database, as another process might. Other writers wait."""
        with closing(sqlite3.connect(self.app.database, isolation_level=None, timeout=30)) as database:
            database.execute("BEGIN EXCLUSIVE")
            yield
            database.execute("ROLLBACK")


def profile_of(sshd: SSHServer | None) -> dict[str, Any]:
    if sshd is None:
        return {"profile_name": "HERE"}
    target = sshd.target
    place = {"HOST": target.host, "PORT": target.port, "USER": target.user}
    return {"profile_name": "THERE", "profile_params": {"SSH": place}}


# --- the use cases in this process ------------------------------------------------------------------------------------


def start_run(config: RunnerConfig, expid: str = EXPID) -> RunnerRun:
    audit = AuditRecord(endpoint="run-experiment", actor="somebody")
    return starting.run_experiment(expid=expid, config=config, profile_name="MAIN", audit=audit)


def stop_run(expid: str = EXPID, **options: bool) -> stopping.StopOutcome:
    audit = AuditRecord(endpoint="stop-experiment", actor="somebody else")
    return stopping.stop_experiment(expid=expid, audit=audit, viewer=AnonymousUser(), **options)


def start_by_hand(account: StubAccount, expid: str = EXPID) -> subprocess.Popen[bytes]:
    """Start `autosubmit run EXPID` as a person does in a terminal of the account."""
    before = len(account.calls("run"))
    environment = {"HOME": str(account.home), "PATH": f"{account.home}/bin:{os.defpath}"}
    process = subprocess.Popen(
        ["autosubmit", "run", expid],
        env=environment,
        cwd=account.home,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    wait_for(lambda: len(account.calls("run")) > before, what="the run by hand")
    return process


def set_status(config: RunnerConfig, expid: str = EXPID) -> CommandOutcome:
    params = {"final_status": "READY", "job_names_list": (f"{expid}_ONE",)}
    audit = AuditRecord(endpoint="set-job-status", actor="somebody")
    return execute.execute(SET_JOB_STATUS, expid=expid, config=config, params=params, audit=audit)


def look(expid: str = EXPID) -> RunnerRun:
    """Return the run as a status request answers it now, with a new probe."""
    RunnerRun.objects.active().filter(expid=expid).update(confirmed_at=None)
    return runs.get_run(expid=expid, viewer=AnonymousUser())


def wait_ended(expid: str = EXPID, deadline: float = 40) -> RunnerRun:
    return wait_for(lambda: None if (run := look(expid)).is_active else run, deadline, what=f"the end of {expid}")


def stored(run: RunnerRun) -> dict[str, Any]:
    """Return the row in the database, without the columns that say how fresh it is."""
    values = RunnerRun.objects.filter(pk=run.pk).values().get()
    for name in ("probing_until", "reachable", "unreachable_detail", "confirmed_at"):
        del values[name]
    return values


def sessions(sshd: SSHServer) -> int:
    """Return the number of commands that sshd has started so far."""
    return sshd.log.read_text(errors="replace").count("Starting session: command")


def assert_database_unavailable(answer: Answer) -> None:
    """Check the single answer of a service without its database."""
    assert (answer.status, answer.body["code"]) == (503, "database_unavailable"), answer
    assert int(answer.headers["Retry-After"]) > 0
    assert "Traceback" not in str(answer.body)


def confirmed_run(config: RunnerConfig, identity: dict[str, Any], key: str = "") -> RunnerRun:
    """Return the row of a run that was confirmed once, long ago."""
    return RunnerRun(
        key=key or new_run_key(),
        expid=f"w{secrets.token_hex(5)}",
        config=config.as_dict(),
        runner=config.runner_type,
        module_loader=config.module_loader_type,
        identity=identity,
        pid=identity["pid"],
    )


PROFILES = """
RUNNER_CONFIGURATION:
  PROFILES:
    HERE: {RUNNER_TYPE: LOCAL, MODULE_LOADER_TYPE: NO_MODULE}
    THERE: {RUNNER_TYPE: SSH, MODULE_LOADER_TYPE: NO_MODULE}
"""


def add_profiles(app: AppServer) -> None:
    file = app.folder / "profiles.yml"
    file.write_text(PROFILES)
    app.manage("import_profiles", str(file))


@dataclass(frozen=True)
class LaunchGates:
    """The two gates of a launch. Put `path` before PATH where launches have to be stopped."""

    before: Gate
    after: Gate
    path: str
