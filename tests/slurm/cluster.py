"""`Slurm`: Debian's Slurm with one node on 127.0.0.1, with accounting, for one test session.

    with Slurm(folder) as slurm:
        slurm.environment           what a session needs to reach it (SLURM_CONF)
        slurm.jobs(user="alice")    its jobs now: {"1": Job(id="1", name="a000_SIM", state="RUNNING")}
        slurm.history("a000_SIM")   the states of all jobs that had this name, in the accounting database (`sacct`)
        slurm.cancel_all("alice")   cancels every job of a user and waits until there is none

Five daemons run: munged, mariadbd, slurmdbd, slurmctld and slurmd. `sacct`, which Autosubmit asks for the state of each
job, needs slurmdbd, which needs MySQL or MariaDB. All sockets, keys, databases and logs are in `folder`, all ports are
free ones of 127.0.0.1, and the daemons end with the test process. Needs root: slurmd starts jobs as their users.

No cgroups (containers often have none): process tracking is `proctrack/linuxproc`. The CPUs are faked, so that many
short jobs run at once. Source of the options: man pages slurm.conf(5), slurmdbd.conf(5), munged(8) of Slurm 22.05.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.support.processes import end, free_port, is_listening, start, umask, wait_for

SBIN = "/usr/sbin:/sbin"  # often not on the PATH of a user, but contains all daemons
PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "squeue", "sacct")
CPUS = 64


def find_slurm() -> bool:
    """Return True if every program is installed (tools/slurm-packages.txt lists the packages)."""
    return all(_find(name) for name in PROGRAMS)


def _find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")


@dataclass(frozen=True)
class Job:
    """A line of squeue. `state` is Slurm's word, e.g. RUNNING, PENDING, COMPLETING."""

    id: str
    name: str
    state: str


class Slurm:
    """See the top of the module."""

    def __init__(self, folder: Path) -> None:
        """Create the cluster. Every account can enter the new, short `folder`: a socket's path has 107 characters."""
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = {name: free_port() for name in ("mariadbd", "slurmdbd", "slurmctld", "slurmd")}
        self._password = secrets.token_urlsafe(12)
        self._conf = folder / "slurm.conf"
        self._munge_socket = folder / "munge" / "socket"

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self._conf)}

    def __enter__(self) -> Slurm:
        try:
            with umask(0o022):  # accounts read the configuration and enter the folders
                self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- daemons ---

    def _start(self) -> None:
        for name in ("munge", "logs", "ctld", "spool", "dbd"):
            self._folder(name)
        self._start_munged()
        self._start_mariadbd()
        self._write_configuration()
        self._daemon("slurmdbd", "-D")
        self._wait_listening("slurmdbd")
        self.call("sacctmgr", "--immediate", "add", "cluster", "tests")
        self._daemon("slurmctld", "-D", "-i")
        self._wait_listening("slurmctld")
        self.start_node()
        wait_for(self._node_is_idle, 60, what=f"a Slurm node that is idle; logs are in {self.folder / 'logs'}")

    def stop(self) -> None:
        """End all daemons; a daemon ends before those that it needs."""
        for name in ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged"):
            if daemon := self._daemons.pop(name, None):
                end(daemon)

    def start_node(self) -> None:
        self._daemon("slurmd", "-D", "-N", "node1")

    def _folder(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(mode=0o755)
        return path

    def _start_munged(self) -> None:
        folder = self.folder / "munge"
        key = folder / "key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        paths = {
            "key-file": key,
            "socket": self._munge_socket,
            "pid-file": folder / "pid",
            "seed-file": folder / "seed",
        }
        options = [f"--{name}={path}" for name, path in paths.items()]
        self._daemon("munged", "--foreground", *options, f"--log-file={self.folder / 'logs' / 'munged.own.log'}")
        wait_for(lambda: self._is_up("munged") and self._munge_socket.exists(), 20, what="munged")

    def _start_mariadbd(self) -> None:
        """Start a database server with two accounts: slurmdbd's, and root's on the private socket."""
        data = self._folder("mysql")
        shutil.chown(data, "mysql")  # mariadbd refuses to run as root and switches to this account
        install = [str(_find("mariadb-install-db")), "--no-defaults", "--user=mysql", f"--datadir={data}"]
        install += ["--skip-test-db", "--auth-root-authentication-method=normal"]
        log = self.folder / "logs" / "mariadb-install-db.log"
        with log.open("wb") as stream:
            done = subprocess.run(
                install, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, check=False, timeout=120
            )
        assert done.returncode == 0, log.read_text(errors="replace")
        statements = self.folder / "mysql" / "first.sql"
        statements.write_text(
            f"CREATE USER slurm@localhost IDENTIFIED BY '{self._password}';\n"
            "GRANT ALL ON slurm_acct_db.* TO slurm@localhost;\n"
        )
        statements.chmod(0o600)
        shutil.chown(statements, "mysql")
        self._daemon(
            "mariadbd",
            "--no-defaults",
            "--user=mysql",
            f"--datadir={data}",
            f"--socket={data / 'socket'}",
            f"--pid-file={data / 'pid'}",
            f"--init-file={statements}",
            "--bind-address=127.0.0.1",
            f"--port={self._ports['mariadbd']}",
            # No data outlives the session: no need to wait for the disk, and little memory is enough.
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=16M",
            "--performance-schema=OFF",
        )
        self._wait_listening("mariadbd")

    def _write_configuration(self) -> None:
        logs = self.folder / "logs"
        host = socket.gethostname().partition(".")[0]
        munge = f"AuthType=auth/munge\nAuthInfo=socket={self._munge_socket}\n"
        dbd = self.folder / "slurmdbd.conf"
        dbd.touch(0o600)
        dbd.write_text(
            f"{munge}DbdHost=localhost\nDbdAddr=127.0.0.1\nDbdPort={self._ports['slurmdbd']}\nSlurmUser=root\n"
            f"LogFile={logs / 'slurmdbd.own.log'}\nPidFile={self.folder / 'dbd' / 'pid'}\n"
            f"StorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\nStoragePort={self._ports['mariadbd']}\n"
            f"StorageUser=slurm\nStoragePass={self._password}\nStorageLoc=slurm_acct_db\n"
        )
        self._conf.write_text(
            f"""\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
{munge}SlurmctldPort={self._ports["slurmctld"]}
SlurmdPort={self._ports["slurmd"]}
StateSaveLocation={self.folder / "ctld"}
SlurmdSpoolDir={self.folder / "spool"}
SlurmctldPidFile={self.folder / "ctld.pid"}
SlurmdPidFile={self.folder / "slurmd.pid"}
SlurmctldLogFile={logs / "slurmctld.own.log"}
SlurmdLogFile={logs / "slurmd.own.log"}
# Without cgroups.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
# More CPUs than there are, and no jobs that wait for a scheduler's turn.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
KillWait=2
ReturnToService=2
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self._ports["slurmdbd"]}
AccountingStoragePass={self._munge_socket}
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={self._ports["slurmd"]} CPUs={CPUS} State=UNKNOWN
PartitionName=short Nodes=node1 Default=YES MaxTime=60 State=UP
"""
        )

    def _daemon(self, name: str, *args: str) -> None:
        log = self.folder / "logs" / f"{name}.log"
        self._daemons[name] = start([str(_find(name)), *args], log=log, env=self._environment(), umask=0o022)

    def _environment(self) -> dict[str, str]:
        passed: Mapping[str, str] = {name: os.environ[name] for name in ("LANG", "TZ") if name in os.environ}
        return {"PATH": f"{os.defpath}:{SBIN}", "HOME": str(self.folder), **passed, **self.environment}

    def _is_up(self, name: str) -> bool:
        """Return True if the daemon is up. Raise AssertionError with its last log lines if it has ended."""
        if self._daemons[name].poll() is not None:
            texts = [path.read_text(errors="replace")[-2000:] for path in (self.folder / "logs").glob(f"{name}.*")]
            raise AssertionError(f"{name} ended with {self._daemons[name].returncode}: {' '.join(texts)}")
        return True

    def _wait_listening(self, name: str) -> None:
        wait_for(lambda: self._is_up(name) and is_listening(self._ports[name]), 60, what=name)

    def _node_is_idle(self) -> bool:
        self._is_up("slurmd")
        return self.call("sinfo", "--noheader", "--format=%t").strip() == "idle"

    # --- jobs and accounting ---

    def call(self, program: str, *args: str) -> str:
        """Run a Slurm command as root, e.g. `call("scontrol", "show", "job", "1")`. Return its output."""
        done = subprocess.run(
            [str(_find(program)), *args],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{program} {args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def jobs(self, user: str) -> dict[str, Job]:
        """Return the jobs of `user` that are pending, running or ending, by their id."""
        lines = self.call("squeue", "--noheader", f"--user={user}", "--format=%A %T %j").splitlines()
        found = [Job(*(words[0], words[2], words[1])) for words in (line.split(maxsplit=2) for line in lines)]
        return {job.id: job for job in found}

    def history(self, name: str) -> list[str]:
        """Return the states of all Slurm jobs of that name in the accounting database, oldest first.

        For example: ["FAILED", "COMPLETED"]. The state of a cancelled job is "CANCELLED by UID".
        """
        lines = self.call(
            "sacct", "-nXP", "--starttime=now-1days", f"--name={name}", "--format=JobID,State"
        ).splitlines()
        return [state for _, state in sorted((int(line.split("|")[0]), line.split("|")[1]) for line in lines)]

    def cancel_all(self, user: str) -> None:
        self.call("scancel", "--quiet", f"--user={user}")
        wait_for(lambda: not self.jobs(user), 30, what="an empty queue")
