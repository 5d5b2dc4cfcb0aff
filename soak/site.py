"""What the soak runs against: two nodes behind nginx, PostgreSQL, three sshds, and a receiver of webhooks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from soak.journal import Journal
from tests.support.environments import Account, StubAccount
from tests.support.paths import ROOT
from tests.support.postgres import Postgres
from tests.support.processes import end, free_port, is_listening, kill_all, start, wait_for, with_environment
from tests.support.servers import AppServer, SSHServer

PROGRAMS = ROOT / "soak" / "bin"
FAKETIME = "libfaketimeMT.so.1"
INTERVAL = 5.0  # seconds between two looks of a worker at a machine
FRESHNESS = 2.0  # RUNNERS_STATUS_FRESHNESS, seconds
# Debian's Lmod adds 200 ms to each login shell; no profile here needs it.
NO_LMOD = {"LMOD_ALLOW_ROOT_USE": "no", "USER_IS_ROOT": "1"}
SETTINGS = {
    "PROTECTION_LEVEL": "ALL",
    "LOG_LEVEL": "INFO",
    "THROTTLE_COMMANDS": "off",
    "RUNNERS_WEBHOOK_PRIVATE_TARGETS": "127.0.0.1",
    "RUNNERS_CONNECT_TIMEOUT": "5",
    "RUNNERS_LAUNCH_TIMEOUT": "15",
    "RUNNERS_PROBE_TIMEOUT": "10",
    "RUNNERS_COMMAND_TIMEOUT": "40",
    "RUNNERS_STOP_TIMEOUT": "8",
    "RUNNERS_TERM_WAIT": "4",
    "RUNNERS_KILL_WAIT": "4",
    "RUNNERS_RETRY_PAUSE": "2",
    "RUNNERS_RETRY_PAUSE_LONGEST": "8",
    "RUNNERS_COMMANDS_PER_PERSON": "6",
    "DATABASE_STATEMENT_TIMEOUT": "8",
    "DATABASE_CONNECT_TIMEOUT": "4",
    "RUNNERS_LOCAL_ENV_PASS": ",".join(("LANG", "LC_ALL", "TZ", *NO_LMOD)),
    **NO_LMOD,
}
NGINX = """
{user}
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
daemon off;
worker_processes 2;
events {{ worker_connections 256; }}
http {{
  access_log {folder}/nginx-access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream nodes {{ {servers} }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://nodes;
      proxy_connect_timeout 2s;
      proxy_read_timeout 330s;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"""
SET_UP = """
import json
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from runners.models import ApiToken, Webhook
tokens = []
for number in range({users}):
    user = get_user_model().objects.create_user("user%d" % number)
    tokens.append(ApiToken.issue(user=user)[1])
session = import_module(settings.SESSION_ENGINE).SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.create()
for name in ("a", "b"):
    Webhook.objects.create(name=name, url={url!r} + name)
print(json.dumps([tokens, session.session_key]))
"""


def find_faketime() -> Path:
    """Return the library of Debian's package faketime. FileNotFoundError if it is not installed."""
    found = next(Path("/usr/lib").glob(f"*/faketime/{FAKETIME}"), None)
    if found is None:
        raise FileNotFoundError("libfaketime is missing: tools/install-test-tools installs it (package faketime)")
    return found


class Machine(StubAccount):
    """A home with the stand-in that keeps a journal."""

    def __init__(self, folder: Path) -> None:
        Account.__init__(self, folder, programs=PROGRAMS)
        self._state = folder / ".stub-autosubmit"
        (folder / ".bash_profile").write_text('export PATH="$HOME/bin:$PATH"\n')


class Node:
    """One node of the service: a server with its processes, and a worker. `clock`: the file with its clock's offset."""

    def __init__(self, name: str, folder: Path, home: Path, env: dict[str, str]) -> None:
        self.name = name
        self.clock = folder / "clock"
        folder.mkdir()
        self.clock.write_text("+0\n")
        self.app = AppServer(folder, env={**env, "RUNNERS_NODE": name, "HOME": str(home)}, threads=8)
        self._worker: subprocess.Popen[bytes] | None = None
        self.worker_log = folder / "worker.log"

    def fake_clock(self, library: Path) -> None:
        """Let libfaketime read the clock of the processes of this node from `clock`. Monotonic clocks stay real."""
        real_sleep = self.app.folder / "real_sleep.so"
        source = ROOT / "soak" / "real_sleep.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(real_sleep), str(source)], check=True, timeout=60)
        self.app.environment |= {
            "LD_PRELOAD": f"{real_sleep}:{library}",
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }

    def start_server(self) -> None:
        self.app.start(wait=False)

    def start_worker(self) -> None:
        argv = [sys.executable, str(ROOT / "manage.py"), "watch_runs", f"--interval={INTERVAL}"]
        self._worker = start(argv, log=self.worker_log, env=self.app.environment, cwd=ROOT)

    def kill_server(self) -> None:
        """End all processes of the server with KILL."""
        if self.app.is_up:
            self.app.kill()

    def kill_worker(self) -> None:
        if self._worker:
            self._worker.kill()
            self._worker.wait()

    def start_what_has_ended(self) -> list[str]:
        """Start the server and the worker if they have ended, as systemd does. Return what was started."""
        started = []
        if not self.app.is_up:
            self.start_server()
            started.append(f"server {self.name}")
        if self._worker is None or self._worker.poll() is not None:
            self.start_worker()
            started.append(f"worker {self.name}")
        return started

    @property
    def server_pids(self) -> list[int]:
        """Return the main process, then its workers, without LOCAL commands."""
        if not self.app.is_up:
            return []
        ours = with_environment("DJANGO_SETTINGS_MODULE", "runners_project.settings")
        main = self.app.process_id
        return [main, *(pid for pid in self.app.worker_pids if pid in ours)]

    @property
    def worker_pid(self) -> int:
        return self._worker.pid if self._worker and self._worker.poll() is None else 0

    def stop(self) -> None:
        self.app.stop()
        if self._worker:
            end(self._worker)


@dataclass(frozen=True)
class Message:
    """One delivery of a webhook. `status`: what the receiver answered; 0: it closed the connection."""

    when: float
    endpoint: str
    message_id: str
    body: dict[str, Any]
    status: int


class Receiver:
    """A receiver of webhooks that records each request before it answers, and sometimes fails."""

    def __init__(self, seed: str) -> None:
        self.messages: list[Message] = []
        self.failures = 0.04  # the share of the requests to endpoint b that fail
        rng, lock, receiver = random.Random(seed), threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint = self.path.strip("/")
                with lock:
                    draw = rng.random()
                    status = 204 if endpoint == "a" or draw >= receiver.failures else rng.choice([0, 503])
                    message = Message(time.time(), endpoint, self.headers["webhook-id"], body, status)
                    receiver.messages.append(message)
                if status:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    self.close_connection = True

            def log_message(self, *args: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None: ...  # senders are killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Site:
    """Everything, started below `folder`. Its processes are started by the thread that creates it: see `start`."""

    def __init__(self, folder: Path, seed: str, users: int) -> None:
        self.folder = folder
        self.stack = ExitStack()
        try:
            self._start(seed, users)
        except BaseException:
            self.stack.close()
            raise

    def _start(self, seed: str, users: int) -> None:
        folder = self.folder
        self.receiver = Receiver(f"{seed}-receiver")
        self.stack.callback(self.receiver.close)
        self.postgres = self.stack.enter_context(Postgres())
        self.database = self.postgres.create("soak")
        homes = folder / "homes"  # the stand-in's `stop` looks for processes with a HOME below this soak's folder
        self.machines = {name: Machine(homes / name) for name in ("m1", "m2", "m3")}
        self.local = {name: Machine(homes / name) for name in ("one", "two")}
        self.homes = [machine.home for machine in (*self.machines.values(), *self.local.values())]
        self.stack.callback(self.end_commands)
        self.sshds = {
            name: self.stack.enter_context(SSHServer(folder / f"sshd-{name}", home=machine.home, env=NO_LMOD))
            for name, machine in self.machines.items()
        }
        known_hosts = folder / "known_hosts"
        known_hosts.write_text("".join(sshd.known_hosts.read_text() for sshd in self.sshds.values()))
        env = SETTINGS | {
            "DATABASE_URL": self.database,
            "RUNNERS_SSH_KEYS": ",".join(str(sshd.client_key) for sshd in self.sshds.values()),
            "RUNNERS_KNOWN_HOSTS": str(known_hosts),
            "RUNNERS_SSH_CONFIG": str(folder / "no_ssh_config"),
            "RUNNERS_STATUS_FRESHNESS": str(FRESHNESS),
        }
        self.nodes = {name: Node(name, folder / name, machine.home, env) for name, machine in self.local.items()}
        first = self.nodes["one"].app
        first.manage("migrate", "--verbosity=0")
        first.manage("import_profiles", str(self._profiles()))
        words = first.manage("shell", "--verbosity=0", "-c", SET_UP.format(users=users, url=self.receiver.url))
        self.tokens, self.session = json.loads(words.splitlines()[-1])
        self.nodes["two"].fake_clock(find_faketime())
        for node in self.nodes.values():
            self.stack.callback(node.stop)
            node.start_server()
            node.start_worker()
        self.port = free_port()
        self._write_nginx_configuration()
        self.start_nginx()
        self.stack.callback(self.stop_nginx)
        for node in self.nodes.values():
            wait_for(partial(is_listening, node.app.port), 60, what=f"node {node.name}")
        wait_for(lambda: is_listening(self.port), 20, what="nginx")
        self.journal = Journal(self.homes)
        self.stack.callback(self.journal.close)

    def _profiles(self) -> Path:
        lines = ["RUNNER_CONFIGURATION:", "  PROFILES:"]
        lines.append("    HERE: {RUNNER_TYPE: LOCAL, MODULE_LOADER_TYPE: NO_MODULE, INSTALLATION: here}")
        for name, sshd in self.sshds.items():
            place = f"SSH: {{HOST: 127.0.0.1, PORT: {sshd.port}, USER: {sshd.user}}}"
            lines.append(
                f"    {name}: {{RUNNER_TYPE: SSH, MODULE_LOADER_TYPE: NO_MODULE, INSTALLATION: {name}, {place}}}"
            )
        file = self.folder / "profiles.yml"
        file.write_text("\n".join(lines) + "\n")
        return file

    def _write_nginx_configuration(self) -> None:
        servers = " ".join(
            f"server 127.0.0.1:{node.app.port} max_fails=1 fail_timeout=2s;" for node in self.nodes.values()
        )
        user = "user root;" if os.geteuid() == 0 else ""
        text = NGINX.format(user=user, folder=self.folder, servers=servers, port=self.port)
        (self.folder / "nginx.conf").write_text(text)

    def start_nginx(self) -> None:
        argv = ["nginx", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), "-e", "stderr"]
        env = {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
        argv[0] = next(path for path in ("/usr/sbin/nginx", "/usr/local/sbin/nginx", "nginx") if Path(path).exists())
        self.nginx = start(argv, log=self.folder / "nginx.log", env=env)

    def stop_nginx(self) -> None:
        end(self.nginx)

    def kill_nginx(self) -> None:
        os.killpg(self.nginx.pid, signal.SIGKILL)
        self.nginx.wait()

    def homes_of(self, profile: str) -> list[Machine]:
        """Return the homes in which a run with this profile may be executed. LOCAL runs on the node that gets it."""
        return list(self.local.values()) if profile == "HERE" else [self.machines[profile]]

    def query(self, statement: str) -> list[dict[str, Any]]:
        """Execute a query without the service's code. Raises psycopg.Error while PostgreSQL is not available."""
        with psycopg.connect(self.database, row_factory=dict_row, connect_timeout=5) as connection:
            return connection.execute(statement).fetchall()

    def command_processes(self) -> list[int]:
        """Return the processes in the homes of the machines, without those of the service."""
        return [pid for machine in (*self.machines.values(), *self.local.values()) for pid in machine.processes()]

    def end_commands(self) -> None:
        kill_all(self.command_processes())

    def restart_what_has_ended(self) -> list[str]:
        """Start what has ended although nobody has stopped it."""
        started = [what for node in self.nodes.values() for what in node.start_what_has_ended()]
        if self.nginx.poll() is not None:
            self.start_nginx()
            started.append("nginx")
        return started

    def close(self) -> None:
        with suppress(AssertionError):
            self.postgres.ensure_up()
        self.stack.close()
