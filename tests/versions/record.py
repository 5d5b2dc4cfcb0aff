"""Install versions of Autosubmit and record what each prints: python -m tests.versions.record [VERSION...]

The service is not used, except for the functions that build its command lines. A version takes about two minutes.
`make test-versions` calls this module.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runners.commands.run_experiment import RUN_EXPERIMENT
from runners.commands.set_job_status import SET_JOB_STATUS
from runners.commands.stop_experiment import STOP_EXPERIMENT, STOP_STDIN
from runners.commands.update_description import UPDATE_DESCRIPTION
from tests.support.commands import create as create_list
from tests.support.commands import expid_command, setstatus
from tests.support.environments import ROOT, AutosubmitAccount, write_short
from tests.support.processes import PATIENCE, wait_for
from tests.versions.outputs import VERSIONS, Output, write

DEADLINE = 120  # seconds for one command
LONGEST = 6000  # characters to keep of one stream: its beginning and its end
NO_PYTHON = 3  # exit code of tools/autosubmit-venv


class Recorder:
    """Executes commands in an account of one version and keeps their outputs."""

    def __init__(self, account: AutosubmitAccount) -> None:
        self.account = account
        self.outputs: dict[str, Output] = {}
        (path,) = account.programs.parent.resolve().parents[0:1]
        self.folders = {str(account.home): "/home/scientist", str(account.programs.parent): "/opt/autosubmit"}
        self.folders |= {str(path / account.programs.parent.name): "/opt/autosubmit"}
        self.begin = ""  # common beginning of this account's expids, which differ in the last character

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.account.home),
            "PATH": f"{self.account.programs}:{os.defpath}",
            "TERM": "dumb",
            "PYTHONWARNINGS": "ignore",
        }

    def __call__(self, name: str, argv: list[str], *, stdin: bytes = b"") -> int:
        """Execute a command. Return its exit code, or 124, the exit code of `timeout`, if it exceeded its deadline."""
        done = subprocess.run(
            ["timeout", f"--kill-after={DEADLINE}", str(DEADLINE), *argv],
            env=self.environment(),
            cwd=self.account.home,
            input=stdin,
            capture_output=True,
            check=False,
        )
        stdout, stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        command = shlex.join(argv[argv.index("autosubmit") :])  # drops the `flock` in front of expid
        self.keep(name, done.returncode, command, stdout, stderr)
        return done.returncode

    def keep(self, name: str, exit_code: int, command: str, stdout: str, stderr: str) -> None:
        self.outputs[name] = Output(exit_code, self.clean(command), self.clean(stdout), self.clean(stderr))
        write(self.account.version, self.outputs)
        print(self.account.version, name, exit_code, flush=True)

    def clean(self, text: str) -> str:
        """Remove this machine's names and the times, and make the expids the same each time."""
        for path, other in self.folders.items():
            text = text.replace(path, other)
        if self.begin:
            text = re.sub(rf"\b{self.begin}(?=[0-9a-z]\b|[0-9a-z]_)", "a00", text)
        text = text.replace(os.uname().nodename, "machine")
        text = re.sub(r"\b\d{4}-\d\d-\d\d[ T_]\d\d:\d\d:\d\d([.,]\d+)?", "2026-01-01 00:00:00,000", text)
        text = re.sub(r"\b2\d{7}_\d{6}(?=_)", "20260101_000000", text)
        if len(text) > LONGEST:
            text = text[: LONGEST // 3] + "\n[...]\n" + text[-LONGEST * 2 // 3 :]
        return text

    @contextmanager
    def running(self, expid: str, name: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """Run `autosubmit run` during the block, and keep its output under `name`."""
        log = self.account.home / f"{expid}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                RUN_EXPERIMENT.argv(expid),
                env=self.environment(),
                cwd=self.account.home,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                wait_for(lambda: "RUNNING" in self.account.job_statuses(expid).values(), 60, what="a job", interval=0.5)
                yield process
                code = process.wait(60 * PATIENCE)
                if name:
                    self.keep(name, code, f"autosubmit run {expid}", log.read_text(errors="replace"), "")
            finally:
                process.kill()
                process.wait()


def record(account: AutosubmitAccount) -> None:
    run = Recorder(account)
    first = account.short_experiment("sleep 5", job_list=False)
    run.begin = first[:-1]
    run("version", ["autosubmit", "-v"])
    _experiments(run, first)
    account.make_short(first, "true", ("ONE", "TWO"), chunked=("SIM",))
    run("setstatus-before-create", _set(first, job_names_list=(f"{first}_ONE",)))
    run("run-before-create", RUN_EXPERIMENT.argv(first))
    run("create", create_list(first))
    run("create-force", create_list(first, force=True))
    run("create-check-wrapper", create_list(first, check_wrapper=True))
    run("create-unknown-experiment", create_list("zzzz"))
    run("updatedescrip", UPDATE_DESCRIPTION.argv(first, {"description": "another one"}))
    run("updatedescrip-unknown-experiment", UPDATE_DESCRIPTION.argv("zzzz", {"description": "another one"}))
    if account.version.startswith("4.0"):  # 4.0 knows FILE only
        run("create-script-jobs", create_list(_script_jobs(account)))
    run("stop-not-running", STOP_EXPERIMENT.argv(first), stdin=STOP_STDIN)
    run("stop-unknown-experiment", STOP_EXPERIMENT.argv("zzzz"), stdin=STOP_STDIN)
    run("run-unknown-experiment", RUN_EXPERIMENT.argv("zzzz"))
    _statuses(run, first)
    _other_version(run, first)
    _runs(run)


def _script_jobs(account: AutosubmitAccount) -> str:
    expid = account.short_experiment(job_list=False)
    write_short(account.root, expid, "true", {"ONE": "once"})
    return expid


def _experiments(run: Recorder, first: str) -> None:
    def create(name: str, **params: Any) -> None:
        params = {"description": "x", "hpc": "local"} | params
        run(name, expid_command(**params))

    create("expid")
    create("expid-dummy", dummy=True)
    create("expid-no-hpc", hpc=None)
    create("expid-copy", copy=first)
    create("expid-copy-unknown", copy="zzzz")
    create("expid-minimal", minimal=True)
    create("expid-testcase-dummy", testcase=True, dummy=True)
    create("expid-evaluation", evaluation=True)
    create("expid-operational", operational=True)
    create("expid-git", git_repo="https://git.example.org/x.git", git_branch="main", config_path="conf")


def _set(expid: str, status: str = "COMPLETED", **params: Any) -> list[str]:
    return setstatus(expid, status, **params)


def _statuses(run: Recorder, expid: str) -> None:
    one, two = f"{expid}_ONE", f"{expid}_TWO"
    run(
        "setstatus-preview", SET_JOB_STATUS.preview_argv(expid, {"final_status": "SUSPENDED", "job_names_list": (one,)})
    )
    run("setstatus", _set(expid, "SUSPENDED", job_names_list=(one, two)))
    run("setstatus-unchanged", _set(expid, "SUSPENDED", job_names_list=(one,)))
    run("setstatus-filter-status", _set(expid, "READY", filter_status=("SUSPENDED",)))
    run("setstatus-filter-status-any", _set(expid, "WAITING", filter_status=("ANY",)))
    run("setstatus-filter-status-absent", _set(expid, filter_status=("FAILED",)))
    run("setstatus-filter-status-wrong", _set(expid, filter_status=("NONSENSE",)))
    run("setstatus-filter-type", _set(expid, filter_type=("TWO",)))
    run("setstatus-filter-type-any", _set(expid, filter_type=("Any",)))
    run("setstatus-filter-type-unknown", _set(expid, filter_type=("NONSENSE",)))
    run("setstatus-filter-chunks", _set(expid, "READY", filter_chunks="[ 20000101 [ fc0 [1] ] ]"))
    run("setstatus-filter-chunks-none", _set(expid, "READY", filter_chunks="[ 20000101 [ fc0 [7] ] ]"))
    run("setstatus-filter-chunks-wrong", _set(expid, "READY", filter_chunks="[ 20000101 [ fc0"))
    run("setstatus-filter-type-chunk", _set(expid, "SUSPENDED", filter_type_chunk="[ 20000101 [ fc0 [1] ] ],SIM"))
    split = "[ 20000101 [ fc0 [1] ] ],SIM"
    run("setstatus-filter-type-chunk-split", _set(expid, "READY", filter_type_chunk_split=split))
    run("setstatus-two-filters", _set(expid, "SUSPENDED", job_names_list=(one,), filter_type=("ONE",)))
    run("setstatus-unknown-job", _set(expid, "READY", job_names_list=(one, f"{expid}_NONSENSE")))
    run("setstatus-wrong-status", _set(expid, "NONSENSE", job_names_list=(one,)))
    for status in ("FAILED", "RUNNING", "HELD", "SKIPPED"):
        run(f"setstatus-{status.lower()}", _set(expid, status, job_names_list=(one,)))
    run("setstatus-unknown-experiment", _set("zzzz", job_names_list=("zzzz_ONE",)))


def _other_version(run: Recorder, expid: str) -> None:
    """The experiment claims that another version created it."""
    (file,) = (run.account.root / expid / "conf").glob(f"autosubmit_{expid}.*")
    text = file.read_text()
    file.write_text(re.sub(r"^( *AUTOSUBMIT_VERSION *[:=]).*$", r"\1 4.1.1", text, flags=re.MULTILINE))
    run("create-other-version", create_list(expid))
    run("setstatus-other-version", _set(expid, job_names_list=(f"{expid}_ONE",)))
    run("run-other-version", RUN_EXPERIMENT.argv(expid))
    run("create-update-version", create_list(expid, update_version=True))


def _runs(run: Recorder) -> None:
    account = run.account
    run("run", RUN_EXPERIMENT.argv(account.short_experiment("true")))
    run("run-failing", RUN_EXPERIMENT.argv(account.short_experiment("exit 3", jobs=("ONE", "TWO"))))
    # Not for ever: an unfinished job must not delay the next parts.
    expid = account.short_experiment("sleep 100", jobs=("ONE", "TWO"))
    with run.running(expid, "run-stopped"):
        run("run-locked", RUN_EXPERIMENT.argv(expid))
        run("create-locked", create_list(expid))
        run("setstatus-locked", _set(expid, "READY", job_names_list=(f"{expid}_ONE",)))
        time.sleep(1)
        if run("stop", STOP_EXPERIMENT.argv(expid), stdin=STOP_STDIN) != 0:
            wait_for(lambda: _interrupt(account, expid), 30, what="end of the run", interval=1)
    for name, options in {"stop-cancel": {"cancel_jobs": True}, "stop-force": {"force": True}}.items():
        if run.outputs["stop"].exit_code == 0:
            expid = account.short_experiment("sleep 100", jobs=("ONE", "TWO"))
            with run.running(expid, f"run-{name}"):
                run(name, STOP_EXPERIMENT.argv(expid, **options), stdin=STOP_STDIN)


def _interrupt(account: AutosubmitAccount, expid: str) -> bool:
    """Send INT to the run, as the service does if there is no `stop`."""
    return subprocess.run(["pkill", "-INT", "-f", f"autosubmit run {expid}"], check=False).returncode == 1


def main(versions: list[str]) -> None:
    for version in versions or VERSIONS:
        if subprocess.run([ROOT / "tools" / "autosubmit-venv", version], check=False).returncode == NO_PYTHON:
            continue
        with tempfile.TemporaryDirectory() as folder:
            account = AutosubmitAccount(Path(folder) / "home", version)
            try:
                record(account)
            finally:
                account.kill()


if __name__ == "__main__":
    main(sys.argv[1:])
