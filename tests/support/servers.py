"""Real servers for tests: `SSHServer` (OpenSSH's sshd) and `AppServer` (gunicorn with this service).

All servers listen on 127.0.0.1, on free ports, keep their state in the given folder and end with the test run.

    with SSHServer(folder, home=account.home) as sshd:
        sshd.port, sshd.user, sshd.client_key, sshd.known_hosts
        sshd.settings             Django settings that let this service use it (function `use`)
        sshd.environment          the same as environment variables, for AppServer
        sshd.config(module_loader_type=..., modules=(...))   a RunnerConfig for it
        sshd.stop() .start() .restart()      the machine is down / up again (same port)
        sshd.drop_connections()              every open connection breaks, new ones work
        with sshd.frozen(): ...              connections stay open, but nothing answers (SIGSTOP)
        with sshd.without_descriptors(): ... it cannot execute commands or accept connections
        sshd.swap_host_key()                 another host key at the next connection
        sshd.authorized = False              our key is rejected from now on

    with AppServer(folder, env={...}, workers=2) as app:
        app.get(path) / app.post(path, body) -> Answer(status, body, headers)
        app.manage("import_profiles", file)  -> output, in the server's own environment
        app.url, app.log_text()

    with listener(serve) as port: ...        serve(connection) in a thread for each connection; all end with the block

HOME: the account that SSH reaches is the current user, but sshd's `SetEnv HOME=...` gives its sessions another home.
This overrides the passwd entry (measured with OpenSSH 9.2). Only the initial working directory is still the home of
the passwd entry.
"""

from __future__ import annotations

import json
import os
import pwd
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from profiles.config import RunnerConfig
from runners.services.machines.ssh.target import SSHTarget
from tests.support.paths import ROOT
from tests.support.processes import (
    PATIENCE,
    descendants,
    end,
    free_port,
    is_listening,
    kill_all,
    start,
    wait_for,
    with_environment,
)

SSHD_PLACES = ("/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/lib/ssh/sshd")


def find_sshd() -> str | None:
    """Return the absolute path of sshd, or None. sshd must be called by it, and is rarely on PATH."""
    return shutil.which("sshd") or next((place for place in SSHD_PLACES if Path(place).is_file()), None)


def current_user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


class SSHServer:
    """A real sshd with its own keys, for the account that runs the tests. See the docstring of the module."""

    def __init__(
        self,
        folder: Path,
        *,
        home: Path,
        env: Mapping[str, str] | None = None,
        max_sessions: int | None = None,
        options: Mapping[str, str] | None = None,
        user: str | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """`env` is set in its sessions. `options`: additional sshd_config lines, e.g. {"ForceCommand": "..."}.

        `user`: the account for logins, if it differs from the one that runs the tests (needs root). This account must
        then have access to `folder`. `port`: 0 means a free one.
        """
        sshd = find_sshd()
        assert sshd, "sshd is not installed"
        self._sshd = sshd
        self.folder = folder
        self.home = home
        self.address, self.port = address, port or free_port()
        self.user = user or current_user()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711 if user else 0o700)  # sshd reads authorized_keys as the account of the login
        self.client_key = folder / "client_key"
        self.known_hosts = folder / "known_hosts"
        self.log = folder / "sshd.log"
        self._host_key = folder / "host_key"
        self._authorized_keys = folder / "authorized_keys"
        self._process: subprocess.Popen[bytes] | None = None
        self.prefix: list[str] = []  # a command before `sshd -D ...` at its next start, e.g. `unshare`
        keygen(self.client_key)
        keygen(self._host_key)
        self.authorized = True
        self.trust_host_key()
        session_env = {"HOME": str(home), **(env or {})}
        lines = {
            "ListenAddress": self.address,
            "Port": str(self.port),
            "HostKey": str(self._host_key),
            "AuthorizedKeysFile": str(self._authorized_keys),
            "PidFile": "none",
            "UsePAM": "no",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "UseDNS": "no",
            "LogLevel": "VERBOSE",
            # One line: sshd uses only the first of several SetEnv lines.
            "SetEnv": " ".join(f'"{name}={value}"' for name, value in session_env.items()),
            **({"MaxSessions": str(max_sessions)} if max_sessions else {}),
            **(options or {}),
        }
        self._config = folder / "sshd_config"
        self._config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))

    def __enter__(self) -> SSHServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- what a client needs ---

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "RUNNERS_SSH_KEYS": [str(self.client_key)],
            "RUNNERS_KNOWN_HOSTS": str(self.known_hosts),
            "RUNNERS_SSH_CONFIG": str(self.folder / "no_ssh_config"),
        }

    @property
    def environment(self) -> dict[str, str]:
        return {name: value if isinstance(value, str) else ",".join(value) for name, value in self.settings.items()}

    @property
    def target(self) -> SSHTarget:
        return SSHTarget(host="127.0.0.1", port=self.port, user=self.user)

    def config(self, module_loader_type: str = "NO_MODULE", modules: tuple[str, ...] = ()) -> RunnerConfig:
        return RunnerConfig("SSH", module_loader_type, modules, self.target)

    def ssh(self, command: str, *, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command with OpenSSH's own client, to inspect the machine without our code."""
        argv = ["ssh", "-F", "none", "-p", str(self.port), "-i", str(self.client_key), "-o", "BatchMode=yes"]
        argv += ["-o", f"UserKnownHostsFile={self.known_hosts}", f"{self.user}@127.0.0.1", command]
        return subprocess.run(argv, input=stdin, capture_output=True, check=False, timeout=60 * PATIENCE)

    # --- what can happen to a machine ---

    def start(self) -> None:
        if os.geteuid() == 0:  # sshd needs its directory for privilege separation, which Debian creates at boot
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._process = start(
            [*self.prefix, self._sshd, "-D", "-e", "-f", str(self._config)], log=self.log, umask=0o022
        )
        wait_for(self._answers, 10, what=f"sshd on port {self.port}")

    def _answers(self) -> bool:
        assert self._process
        if self._process.poll() is not None:
            raise AssertionError(f"sshd did not start: {self.log.read_text()}")
        return is_listening(self.port, self.address)

    def stop(self) -> None:
        """Stop sshd and its connections, as if the machine were gone. Detached commands keep running."""
        if self._process:
            sessions = self._sessions()
            end(self._process)
            kill_all(sessions)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def process_id(self) -> int:
        """Return the process id of sshd: another one after a restart, 0 while it is stopped."""
        return self._process.pid if self._process else 0

    def drop_connections(self) -> None:
        """Break all open connections. A client may open a new one at once."""
        dropped = self._sessions()
        kill_all(dropped)
        wait_for(lambda: not set(dropped) & set(self._sessions()), 10, what="end of the connections")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let the machine hang: connections stay open, the kernel accepts new ones, and nothing answers."""
        assert self._process
        pids = [self._process.pid, *self._sessions()]
        kill_all(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            kill_all(pids, signal.SIGCONT)

    @contextmanager
    def without_descriptors(self) -> Iterator[None]:
        """Let sshd and its connections run out of file descriptors: commands and new connections fail."""
        assert self._process
        pids = [self._process.pid, *self._sessions()]
        before = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
        for pid, (_, hard) in before.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        try:
            yield
        finally:
            for pid, limits in before.items():
                with suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)

    def swap_host_key(self) -> None:
        """Give the machine another host key. `trust_host_key()` adds it to the known hosts."""
        keygen(self._host_key)
        self.restart()

    def trust_host_key(self) -> None:
        kind, key = self._host_key.with_suffix(".pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    def forget_host_key(self) -> None:
        self.known_hosts.write_text("")

    @property
    def host_key_fingerprint(self) -> str:
        argv = ["ssh-keygen", "-l", "-f", str(self._host_key)]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[1]

    @property
    def authorized(self) -> bool:
        """Return True if sshd accepts our key (at the next connection)."""
        return bool(self._authorized_keys.read_text())

    @authorized.setter
    def authorized(self, value: bool) -> None:
        self._authorized_keys.write_text(self.client_key.with_suffix(".pub").read_text() if value else "")
        self._authorized_keys.chmod(0o644)  # sshd reads it as the account of the login

    def connection_count(self) -> int:
        """Return the number of authenticated connections since the first start."""
        return self.log.read_text(errors="replace").count("Accepted publickey")

    def open_connections(self) -> int:
        """Return the number of open connections.

        As root, each has two processes: a monitor and its unprivileged child. Only the monitor is counted.
        """
        assert self._process
        everyone = self._sessions()
        return sum(1 for pid in everyone if not any(pid in descendants(other) for other in everyone if other != pid))

    def _sessions(self) -> list[int]:
        if not self._process:
            return []
        return [pid for pid, name in descendants(self._process.pid).items() if name.startswith("sshd")]


def keygen(path: Path) -> None:
    for old in (path, path.with_suffix(".pub")):
        old.unlink(missing_ok=True)
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "autosubmit-runners tests", "-f", str(path)]
    subprocess.run(argv, check=True)


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Yield a port of 127.0.0.1 where `serve(connection)` is called in its own thread for each connection.

    The connection is closed when `serve` returns. An OSError in `serve` ends only the connection. At the end of the
    block, every connection is shut down and every thread has ended, so no socket is left for the garbage collector.
    """
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def call(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            serve(connection)

    def accept() -> None:
        with suppress(OSError):  # the listening socket was shut down
            while True:
                connection, _ = listening.accept()
                connections.append(connection)
                threads.append(threading.Thread(target=call, args=(connection,), daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            listening.shutdown(socket.SHUT_RDWR)  # close() alone does not interrupt an accept() in another thread
            acceptor.join()
            for connection in connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(30 * PATIENCE)
                assert not thread.is_alive(), "a connection is still served"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. `body`: the parsed JSON, or text if it is not JSON."""

    status: int
    body: Any
    headers: Mapping[str, str]


class AppServer:
    """This service as it is deployed: gunicorn, several worker processes with threads, and its own database file."""

    application = "runners_project.wsgi"

    def __init__(
        self,
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        workers: int = 2,
        threads: int = 8,
        template_db: Path | None = None,
        root: Path = ROOT,
    ) -> None:
        """`env` is added to a minimal environment. `template_db`: a migrated SQLite file to copy (saves 2 s).

        `root`: the checkout with the code, if it is another version.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.root = root
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        self.database = folder / "db.sqlite3"
        self.headers: dict[str, str] = {}  # sent with every request, e.g. Authorization
        self._workers, self._threads = workers, threads
        self._process: subprocess.Popen[bytes] | None = None
        if template_db:
            shutil.copy(template_db, self.database)
        passed = ("PATH", "LANG", "LC_ALL", "TZ", "HOME")
        self.environment = {name: os.environ[name] for name in passed if name in os.environ} | {
            "DJANGO_SETTINGS_MODULE": "runners_project.settings",
            "SECRET_KEY": "of the test run, signs nothing of value",
            "DATABASE_URL": f"sqlite:///{self.database}",
            "PROTECTION_LEVEL": "NONE",
            "RUNNERS_RETRY_PAUSE": "0",  # tests break and repair a machine within milliseconds
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        if not template_db and self.environment["DATABASE_URL"].startswith("sqlite"):
            self.manage("migrate", "--verbosity=0")

    def __enter__(self) -> AppServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *, wait: bool = True) -> None:
        argv = [sys.executable, "-m", "gunicorn", self.application, f"--bind=127.0.0.1:{self.port}"]
        argv += [f"--workers={self._workers}", f"--threads={self._threads}", "--timeout=120", "--graceful-timeout=5"]
        argv.append("--limit-request-line=8190")
        argv.append("--no-control-socket")  # by default, all servers share one file in the account's home
        self._process = start(argv, log=self.log, env=self.environment, cwd=self.root)
        if wait:
            wait_for(self._answers, 60, what=f"the service on port {self.port}; its log is {self.log}")

    def _answers(self) -> bool:
        assert self._process
        if self._process.poll() is not None:
            raise AssertionError(f"the service did not start: {self.log_text()}")
        return is_listening(self.port)

    def stop(self) -> None:
        if self._process:
            end(self._process, patience=15)
            self._process = None

    def kill(self) -> None:
        """Send SIGKILL to all processes of the server at once, as if memory had run out. `start` starts new ones."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        wait_for(lambda: not is_listening(self.port), 10, what="end of the server")
        self._process = None

    def restart(self) -> None:
        """Start new server processes with the same database."""
        self.stop()
        self.start()

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def process_id(self) -> int:
        """Return the process id of gunicorn's main process; 0 while the server is stopped."""
        return self._process.pid if self._process else 0

    @property
    def worker_pids(self) -> list[int]:
        assert self._process
        return list(descendants(self._process.pid))

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def manage(self, *args: str, check: bool = True) -> str:
        """Run a management command in the server's environment. Return its output. AssertionError if it fails."""
        argv = [sys.executable, str(self.root / "manage.py"), *args]
        options: dict[str, Any] = {"env": self.environment, "cwd": self.root, "timeout": 120 * PATIENCE}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)
        assert done.returncode == 0 or not check, f"{args} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def restore(self, template: Path) -> None:
        """Replace the rows of all tables by those of `template`, an earlier copy of the database. SQLite only.

        The server may be running. Ids are not reused, so that data that the server has cached about a row is never
        used for another row.
        """
        with closing(sqlite3.connect(self.database, timeout=30 * PATIENCE)) as database:
            database.execute("ATTACH ? AS template", [str(template)])
            names = "SELECT name FROM template.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            with database:
                for (table,) in database.execute(names).fetchall():
                    database.execute(f'DELETE FROM main."{table}"')
                    database.execute(f'INSERT INTO main."{table}" SELECT * FROM template."{table}"')

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, None, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.request("POST", path, body, **headers)

    def request(self, method: str, path: str, body: Any = None, *, timeout: float = 120, **headers: str) -> Answer:
        """Send a request to `path` (absolute, `/v4/...`). A `bytes` body is sent unchanged, any other as JSON."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        all_headers = {"Content-Type": "application/json", **self.headers}
        all_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=all_headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return _answer(response.status, response.read(), response.headers)
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.read(), error.headers)


def _answer(status: int, data: bytes, headers: Mapping[str, str]) -> Answer:
    try:
        return Answer(status, json.loads(data), headers)
    except ValueError:
        return Answer(status, data.decode("utf-8", "replace"), headers)


def use(server: SSHServer, settings: Any) -> None:
    """Change the settings so that the service in this process can reach `server`."""
    for name, value in server.settings.items():
        setattr(settings, name, value)


def heal(server: SSHServer) -> None:
    """Undo the changes of a test to the server."""
    server.authorized = True
    server.trust_host_key()
    if not server.is_up:
        server.restart()


PROFILES_YAML = """
RUNNER_CONFIGURATION:
  PROFILES:
    HERE: {{RUNNER_TYPE: LOCAL, MODULE_LOADER_TYPE: NO_MODULE}}
    THERE: {{RUNNER_TYPE: SSH, MODULE_LOADER_TYPE: NO_MODULE, SSH: {{HOST: 127.0.0.1, PORT: {port}, USER: {user}}}}}
"""


def servers_of(app: AppServer) -> list[int]:
    """Return the workers, without the LOCAL commands below them (which do not have the service's settings)."""
    ours = with_environment("DJANGO_SETTINGS_MODULE", "runners_project.settings")
    return [pid for pid in app.worker_pids if pid in ours]
