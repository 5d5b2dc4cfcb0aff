"""A PostgreSQL cluster of the test run and a pgbouncer in front: no password, 127.0.0.1 only, removed at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tests.support.processes import PATIENCE, descendants, end, free_port, is_listening, kill_all, start, wait_for


def find_postgres() -> Path | None:
    """Return the folder of initdb and pg_ctl: the one on PATH, or Debian's folder of the newest version."""
    if found := shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: float(path.parts[4]))
    return places[-1].parent if places else None


class Postgres:
    """A cluster. It runs as the account `postgres` if the tests run as root, because PostgreSQL rejects root."""

    def __init__(self) -> None:
        programs = find_postgres()
        assert programs
        self._programs = programs
        self._user = "postgres" if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="autosubmit-runners-pg-"))
        self.port = free_port()
        if self._user:
            shutil.chown(self.folder, self._user)
        self._data = self.folder / "data"

    def __enter__(self) -> Postgres:
        self._call("initdb", "--pgdata", str(self._data), "--auth=trust", "--username=tests", "--no-sync")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_up:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _call(self, program: str, *args: str) -> subprocess.CompletedProcess[bytes]:
        # Do not capture the output: a started server inherits the streams, so the pipe would never end.
        with (self.folder / "calls.log").open("ab") as log:
            done = subprocess.run(
                [str(self._programs / program), *args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self.folder,
                env={**os.environ, "HOME": str(self.folder)},  # a stub account's HOME is removed after its test
                check=False,
                timeout=60 * PATIENCE,
            )
        assert done.returncode == 0, f"{program} {args}: {(self.folder / 'calls.log').read_text()[-2000:]}"
        return done

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories={self.folder}"
        self._call("pg_ctl", "-D", str(self._data), "-w", "-o", options, "-l", str(self.folder / "server.log"), "start")

    @property
    def pid(self) -> int:
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def stop(self) -> None:
        """Break all connections at once, as a failure does."""
        self._call("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all processes with SIGSTOP: connections stay open, the kernel accepts new ones, and nothing answers."""
        leader = int((self._data / "postmaster.pid").read_text().split()[0])
        kill_all([leader], signal.SIGSTOP)  # first, so that it starts no further children
        pids = [leader, *descendants(leader)]
        kill_all(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            kill_all(pids, signal.SIGCONT)

    @property
    def is_up(self) -> bool:
        return (self._data / "postmaster.pid").exists()

    def ensure_up(self) -> None:
        if not self.is_up:
            self.start()

    def url(self, database: str) -> str:
        return f"postgres://tests@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, *, template: str = "template0") -> str:
        """Create a database and return its URL. The template must have no open connections."""
        statement = f"CREATE DATABASE {database} TEMPLATE {template}"
        wait_for(lambda: self.sql(statement, check=False), 20, what=statement)
        # A copied sequence still has numbers that count as logged, but they are logged for its template only. After a
        # crash the sequence would issue these numbers again. After a checkpoint it logs them anew.
        self.sql("CHECKPOINT")
        return self.url(database)

    def psql(self, database: str) -> list[str]:
        """Return the arguments of psql, which reads statements from its input and ends at the first error."""
        argv = [str(self._programs / "psql"), "-XAtq", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tests"]
        return [*argv, "-v", "ON_ERROR_STOP=1", "-d", database]

    def sql(self, statement: str, database: str = "postgres", *, check: bool = True) -> str | bool:
        """Execute a statement with psql. Return its unaligned output, or False if it failed and `check` is off."""
        argv = [*self.psql(database), "-c", statement]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60 * PATIENCE)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip() or True if done.returncode == 0 else False


class PgBouncer:
    """pgbouncer in transaction mode, configured as packaged: it rejects start-up options that it does not know."""

    def __init__(self, postgres: Postgres) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="autosubmit-runners-bouncer-"))
        self.port = free_port()
        config = self.folder / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={postgres.port} user=tests\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nauth_type = any\n"
            "pool_mode = transaction\nunix_socket_dir =\n"
        )
        config.chmod(0o644)
        account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None  # pgbouncer refuses to run as root
        self.folder.chmod(0o755)
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "pgbouncer is not installed"
        argv = [program, str(config)]
        if account:
            ids = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
            argv = ["setpriv", *ids, "--pdeathsig=keep", *argv]
        self._process = start(argv, log=self.folder / "log")
        wait_for(self._answers, 10, what="pgbouncer")

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"pgbouncer did not start: {(self.folder / 'log').read_text()}")
        return is_listening(self.port)

    def url(self, database: str) -> str:
        return f"postgres://tests@127.0.0.1:{self.port}/{database}"

    def close(self) -> None:
        end(self._process)
        shutil.rmtree(self.folder, ignore_errors=True)
