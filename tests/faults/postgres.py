"""A PostgreSQL cluster of the test run: no password, 127.0.0.1 only, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from tests.processes import free_port, wait_for


def find_postgres() -> Path | None:
    """The folder of initdb and pg_ctl: on PATH, or where Debian puts the newest version."""
    if found := shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: float(path.parts[4]))
    return places[-1].parent if places else None


class Postgres:
    """Runs as the account `postgres` when the tests run as root, which PostgreSQL refuses."""

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
        # Not captured: a server that was started inherits the streams, and the pipe would never end.
        with (self.folder / "calls.log").open("ab") as log:
            done = subprocess.run(
                [str(self._programs / program), *args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self.folder,
                env={**os.environ, "HOME": str(self.folder)},  # the HOME of a stub account ends with its test
                check=False,
                timeout=60,
            )
        assert done.returncode == 0, f"{program} {args}: {(self.folder / 'calls.log').read_text()[-2000:]}"
        return done

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories={self.folder}"
        self._call("pg_ctl", "-D", str(self._data), "-w", "-o", options, "-l", str(self.folder / "server.log"), "start")

    def stop(self) -> None:
        """All connections break at once, as in a failure."""
        self._call("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop")

    @property
    def is_up(self) -> bool:
        return (self._data / "postmaster.pid").exists()

    def ensure_up(self) -> None:
        if not self.is_up:
            self.start()

    def url(self, database: str) -> str:
        return f"postgres://tests@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, *, template: str = "template0") -> str:
        """A new database; its URL. The template must have no open connections."""
        statement = f"CREATE DATABASE {database} TEMPLATE {template}"
        wait_for(lambda: self.sql(statement, check=False), 20, what=statement)
        return self.url(database)

    def psql(self, database: str) -> list[str]:
        """The arguments of psql, which reads statements from its input and ends at the first error."""
        argv = [str(self._programs / "psql"), "-XAtq", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tests"]
        return [*argv, "-v", "ON_ERROR_STOP=1", "-d", database]

    def sql(self, statement: str, database: str = "postgres", *, check: bool = True) -> str | bool:
        """Execute a statement with psql; its output, unaligned. False when it failed and `check` is off."""
        argv = [*self.psql(database), "-c", statement]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip() or True if done.returncode == 0 else False
