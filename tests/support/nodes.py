"""Several nodes of the service on one PostgreSQL: servers and workers that can have wrong clocks and can be killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.environments import StubAccount
from tests.support.postgres import Postgres
from tests.support.processes import end, start
from tests.support.requirements import need
from tests.support.servers import ROOT, Answer, AppServer, SSHServer

Worker = subprocess.Popen[bytes]


def wrong_clock(seconds: int) -> dict[str, str]:
    """Return the environment of a process whose clock is ahead by `seconds`. The times of files stay right."""
    if not seconds:
        return {}
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    need(found, "faketime")
    # Without the monotonic clock, time.sleep fails in this version: it sleeps until a time of that clock.
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": f"{seconds:+d}s", "NO_FAKE_STAT": "1"}


class Nodes:
    """The nodes "one" and "two" of a service: a server each, and any number of workers. `close` ends them."""

    def __init__(
        self,
        make_app: Callable[..., AppServer],
        account: StubAccount,
        sshd: SSHServer,
        postgres: Postgres,
        database: str,
        *,
        clocks: tuple[int, int] = (0, 0),
    ) -> None:
        """`clocks`: by how many seconds the clocks of the nodes are ahead."""
        self.account, self.sshd, self._postgres, self._database = account, sshd, postgres, database
        self.servers: dict[str, AppServer] = {}
        self._workers: list[tuple[str, Worker]] = []
        for name, seconds in zip(("one", "two"), clocks, strict=True):
            env = {
                "DATABASE_URL": postgres.url(database),
                "RUNNERS_NODE": name,
                "RUNNERS_WEBHOOK_PRIVATE_TARGETS": "127.0.0.1",
                "RUNNERS_STATUS_FRESHNESS": "0.2",
                "RUNNERS_RESTART_DELAY": "0",
                **wrong_clock(seconds),
            }
            self.servers[name] = make_app(account=account, sshd=sshd, env=env, workers=1)

    @property
    def one(self) -> AppServer:
        return self.servers["one"]

    @property
    def two(self) -> AppServer:
        return self.servers["two"]

    def work(self, node: str, interval: float = 1.0) -> Worker:
        """Start a worker on a node."""
        server = self.servers[node]
        argv = [sys.executable, str(ROOT / "manage.py"), "watch_runs", f"--interval={interval}"]
        log = server.folder / f"worker-{len(self._workers)}.log"
        worker = start(argv, log=log, env=server.environment, cwd=ROOT)
        self._workers.append((node, worker))
        return worker

    def kill(self, node: str) -> None:
        """Send SIGKILL to the server and the workers of a node."""
        self.servers[node].kill()
        for name, worker in self._workers:
            if name == node:
                worker.kill()
                worker.wait()

    def start(self, node: str) -> None:
        """Start the server and a worker of a node that was killed."""
        self.servers[node].start()
        self.work(node)

    def close(self) -> None:
        for _, worker in self._workers:
            end(worker)
        for server in self.servers.values():
            for log in (server.log, *server.folder.glob("worker-*.log")):
                assert "Traceback" not in log.read_text(errors="replace"), log.read_text(errors="replace")

    def sql(self, statement: str) -> str:
        """Return the unaligned output of a statement; an empty text for no rows."""
        found = self._postgres.sql(statement, self._database)
        return found if isinstance(found, str) else ""

    def shell(self, node: str, code: str) -> str:
        """Execute Python in a management shell of a node. Return what it prints."""
        return self.servers[node].manage("shell", "-v0", "-c", code).strip()

    def has_worker(self, node: str) -> bool:
        return self.sql(f"SELECT 1 FROM runners_heartbeat WHERE kind = 'watch_runs' AND node = '{node}'") == "1"


def unless_lost(request: Callable[[], Answer]) -> Any:
    """Return the answer to a request, or None if the server died before it answered."""
    try:
        return request()
    except (ConnectionError, OSError):
        return None
