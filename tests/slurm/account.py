"""`SlurmAccount`: an unprivileged account of this machine, with real Autosubmit whose platform is a `Slurm`.

    with SlurmAccount(folder, slurm) as account:
        account.name, account.home, account.venv
        account.login               SSHServer of the account, for the service
        account.platform            SSHServer through which Autosubmit reaches its platform: the head node
        account.configure(expid, jobs, chunks=3)   write an experiment's jobs, after create-experiment
        account.job_statuses(expid) Autosubmit's own job list
        account.run_pids(expid)     living `autosubmit run EXPID` processes of the account
        account.autosubmit(...)     execute a real command without our code

useradd creates the account and userdel removes it, so this needs root.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.slurm.cluster import Slurm
from tests.support.environments import AUTOSUBMIT_VENV, Account, job_statuses
from tests.support.processes import is_alive, kill_all, processes, umask, wait_for
from tests.support.servers import SSHServer

PLATFORM = "CLUSTER"  # the platform's name in Autosubmit
PROJECT = "tests"  # the account that Slurm jobs are charged to
SSH_ALIAS = "cluster-head-node"  # the head node's name in the account's ~/.ssh/config
PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")


class SlurmAccount:
    """See the top of the module."""

    def __init__(self, folder: Path, slurm: Slurm) -> None:
        """Create the account. `folder` has to be new, and every account must be able to enter it."""
        self.folder = folder
        self.slurm = slurm
        self.name = f"slurm-test-{secrets.token_hex(3)}"
        self.home = folder / "home"
        self.root = self.home / "autosubmit"
        self.programs = folder / "autosubmit" / "bin"
        self.platform_bin = folder / "platform-bin"  # an empty folder, first on the platform's PATH

    def __enter__(self) -> SlurmAccount:
        try:
            with umask(0o022):  # the account enters the folders that we create for it
                self._make()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    # --- the account ---

    def _make(self) -> None:
        # With "*" as password no password is accepted. With "!" sshd would call the account locked.
        argv = [
            "useradd",
            "--no-create-home",
            f"--home-dir={self.home}",
            "--shell=/bin/bash",
            "--password=*",
            self.name,
        ]
        wait_for(lambda: _succeeds(argv), 30, what=f"{argv}", interval=0.5)  # another useradd may hold the lock
        self._make_venv()
        files = Account(self.home, programs=self.programs, venv_path=self.programs.parent)
        self.venv = files.venv
        session = {**self.slurm.environment, "PATH": os.defpath}
        self.login = SSHServer(self.folder / "login-sshd", home=self.home, user=self.name, env=session)
        self.platform_bin.mkdir()
        self.platform = SSHServer(
            self.folder / "platform-sshd",
            home=self.home,
            user=self.name,
            env={**session, "PATH": f"{self.platform_bin}:{os.defpath}"},
            options={"Subsystem": "sftp internal-sftp"},  # Autosubmit copies scripts and logs with it
        )
        self._write_ssh_config()
        (self.home / "scratch" / PROJECT / self.name).mkdir(parents=True)  # Autosubmit expects it on the platform
        self._own(self.home)
        self.login.start()
        self.platform.start()
        self.autosubmit("configure")
        self.autosubmit("install")

    def remove(self) -> None:
        """End every process of the account and remove it. Its home is in `folder`, which the caller removes."""
        for server in ("login", "platform"):
            if hasattr(self, server):
                getattr(self, server).stop()
        if self.name not in {entry.pw_name for entry in pwd.getpwall()}:
            return

        def nothing_left() -> bool:
            left = self.processes()
            kill_all(left)
            return not left

        wait_for(nothing_left, 20, what=f"end of the processes of {self.name}")
        wait_for(lambda: _succeeds(["userdel", "--force", self.name]), 30, what="userdel", interval=0.5)

    def processes(self) -> list[int]:
        """Return the living processes of the account."""
        uid = self._entry.pw_uid
        return [pid for pid, _, _ in processes() if _owner(pid) == uid and is_alive(pid)]

    def run_pids(self, expid: str) -> list[int]:
        """Return its living `autosubmit run EXPID`. (Autosubmit's log recovery process changes its command line.)"""
        found = []
        for pid in self.processes():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            except OSError:
                continue
            if words[-2:] == ["run", expid] and any(Path(word).name == "autosubmit" for word in words):
                found.append(pid)
        return found

    @property
    def _entry(self) -> pwd.struct_passwd:
        return pwd.getpwnam(self.name)

    def _own(self, folder: Path) -> None:
        """Give a folder with all its content to the account. For a link, change the link itself and not its target."""
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self._entry.pw_uid, self._entry.pw_gid, follow_symlinks=False)

    def _write_ssh_config(self) -> None:
        folder = self.home / ".ssh"
        folder.mkdir(mode=0o700)
        shutil.copy(self.platform.client_key, folder / "id_platform")
        (folder / "config").write_text(
            f"Host {SSH_ALIAS}\n  HostName 127.0.0.1\n  Port {self.platform.port}\n  User {self.name}\n"
            f"  IdentityFile {folder / 'id_platform'}\n"
        )
        # known_hosts is not needed: Autosubmit's paramiko accepts any host key (AutoAddPolicy).

    # --- Autosubmit ---

    def _make_venv(self) -> None:
        """Create a virtual environment with the packages of .tools/autosubmit, which this account can execute.

        The environment in .tools may use a Python below /root, and a checkout may be there, too.
        """
        packages = next(AUTOSUBMIT_VENV.glob("lib/python3.*/site-packages"))
        version = packages.parent.name.removeprefix("python")
        candidates = [str((AUTOSUBMIT_VENV / "bin" / "python").resolve()), f"/usr/bin/python{version}", *PYTHONS]
        python = next((each for each in candidates if self._can_execute(each, version)), None)
        assert python, f"no Python {version} that {self.name} may execute: tried {candidates}"
        venv = self.programs.parent
        _check([python, "-m", "venv", "--without-pip", "--symlinks", str(venv)])
        target = next(venv.glob("lib/python3.*/site-packages"))
        target.rmdir()
        if _succeeds(["test", "-r", str(packages / "autosubmit" / "__init__.py")], user=self.name):
            target.symlink_to(packages)
        else:
            shutil.copytree(packages, target, symlinks=True)
        program = (AUTOSUBMIT_VENV / "bin" / "autosubmit").read_text().partition("\n")[2]
        (self.programs / "autosubmit").write_text(f"#!{self.programs / 'python'}\n{program}")
        (self.programs / "autosubmit").chmod(0o755)

    def _can_execute(self, python: str, version: str) -> bool:
        test = f"import sys, ssl, sqlite3; sys.exit(sys.version_info[:2] != {tuple(map(int, version.split('.')))})"
        return _succeeds([python, "-c", test], user=self.name)

    def autosubmit(self, *args: str) -> str:
        """Run a real command without our code. Return its output. Raise AssertionError if it fails."""
        return _check(
            [str(self.programs / "autosubmit"), *args], user=self.name, home=self.home, **self.slurm.environment
        )

    def configure(self, expid: str, jobs: Mapping[str, Mapping[str, Any]], *, chunks: int = 1, **platform: Any) -> None:
        """Write an experiment's jobs: `jobs` is the value of JOBS in Autosubmit's configuration. `create` comes next.

        The jobs run on the Slurm platform; `platform` adds to its definition. A job with `RUNNING: chunk` exists
        `chunks` times, e.g. a000_20000101_fc0_1_SIM. Autosubmit checks its jobs every second, and submits all at once.
        """
        conf = self.root / expid / "conf"
        for old in (*conf.glob("jobs_*.yml"), *conf.glob("platforms_*.yml")):
            old.unlink()
        everything = {
            "CONFIG": {"SAFETYSLEEPTIME": 1, "MAXWAITINGJOBS": 1000, "TOTALJOBS": 1000},
            "DEFAULT": {"EXPID": expid, "HPCARCH": PLATFORM},
            "EXPERIMENT": {"NUMCHUNKS": chunks},
            "JOBS": {name: {"WALLCLOCK": "00:10", **job} for name, job in jobs.items()},
            "PLATFORMS": {
                PLATFORM: {
                    "TYPE": "slurm",
                    "HOST": SSH_ALIAS,
                    "USER": self.name,
                    "PROJECT": PROJECT,
                    "QUEUE": "short",
                    "SCRATCH_DIR": str(self.home / "scratch"),
                    "MAX_WALLCLOCK": "00:30",
                    "MAX_WAITING_JOBS": 1000,
                    "TOTAL_JOBS": 1000,
                    **platform,
                }
            },
        }
        file = conf / f"zz_tests_{expid}.yml"  # files are read in alphabetical order, so this one is last and wins
        file.write_text(yaml.safe_dump(everything))
        self._own(conf)

    def job_statuses(self, expid: str) -> dict[str, str]:
        """Return the status of every job in Autosubmit's own job list, e.g. {"a000_ONE": "COMPLETED"}."""
        return job_statuses(self.programs / "python", self.root, expid)


def _owner(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None


def _run(
    argv: list[str], user: str | None, home: Path | None, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{os.defpath}:/usr/sbin:/sbin", "TERM": "dumb", "HOME": str(home or "/"), **env}
    as_user: dict[str, Any] = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=home or "/",
            umask=0o022,
            env=environment,
            **as_user,
        )
    except PermissionError:  # the account may not even enter the program's folder
        return subprocess.CompletedProcess(argv, 126, "", f"{argv[0]}: permission denied")


def _succeeds(argv: list[str], *, user: str | None = None) -> bool:
    return _run(argv, user, None, {}).returncode == 0


def _check(argv: list[str], *, user: str | None = None, home: Path | None = None, **env: str) -> str:
    done = _run(argv, user, home, env)
    assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
