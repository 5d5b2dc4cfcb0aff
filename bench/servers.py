"""`make bench-servers`: compare gunicorn, Granian and waitress with this service, alone and behind nginx.

Every server gets the same clients: many that request a status, and slow ones that hold connections while a healthy
client sends requests. nginx has the configuration of docs/deployment.md, so it reads headers and bodies before it
forwards a request. If nginx is not installed, its columns are left out, and the table says so.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

from bench.measure import cpu_seconds, find_wrk
from bench.report import machine
from tests.support.processes import descendants, end, free_port, is_listening, start, wait_for
from tests.support.servers import ROOT, AppServer

WORKERS, THREADS = 2, 8
SLOW, UNREAD = 40, 16  # slow clients; clients that do not read their answer
PROBES, DEADLINE = 5, 8.0  # requests of the healthy client, and its timeout for each answer in seconds
STATUS = "/v4/runners/command/get-runner-run-status"
SMALL = "/v4/runners/configuration/endpoints"
LARGE = "/bench/large"
HEADING = "## Servers compared"
SEED = """
from runners.models import RunnerRun
local = {"runner_type": "LOCAL", "module_loader_type": "NO_MODULE", "modules": [], "ssh": None}
RunnerRun.objects.create(expid="a000", config=local, runner="LOCAL", module_loader="NO_MODULE", status="COMPLETED",
    exit_code=0)
"""
NGINX = """
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    {documented}
  }}
}}
"""
INTRODUCTION = """\
`make bench-servers`: this service under three servers, {workers} processes with {threads} threads each (waitress: one
process with as many). SQLite, protection off. Statuses of an ended run by wrk on the same machine, measured in turns.
In the rows below them a healthy client asks {probes} times, one after the other, while slow clients hold their
connections: median and maximum; it waits {deadline:g} s for each answer. nginx has the configuration of
[server and proxy](deployment.md). The choice:
[decisions/2026-11-26-gunicorn-behind-nginx.md](decisions/2026-11-26-gunicorn-behind-nginx.md).{nginx}
"""
MISSING = " **nginx is not installed on this machine, so its columns were left out.**"


class Server(AppServer):
    """This service in one of the servers. `argv` follows `python -m`; {port}, {workers}, {threads}, {all_threads}."""

    def __init__(self, folder: Path, argv: str) -> None:
        super().__init__(folder, env={"HOME": str(folder), "LOG_LEVEL": "ERROR"}, workers=WORKERS, threads=THREADS)
        self._argv = argv.format(
            port=self.port, workers=WORKERS, threads=THREADS, all_threads=WORKERS * THREADS
        ).split()
        self.manage("shell", "-v0", "-c", SEED)

    def start(self) -> None:
        argv = [sys.executable, "-m", *self._argv]
        self._process = start(argv, log=self.log, env=self.environment, cwd=ROOT)
        wait_for(self._answers, 60, what=f"the service on port {self.port}; its log is {self.log}")
        wait_for(lambda: ask(self.port, 10) is not None, 60, what="the first answer")

    @property
    def pids(self) -> list[int]:
        """Return the ids of all its processes, including the first one."""
        assert self._process
        return [self._process.pid, *descendants(self._process.pid)]

    def memory(self) -> int:
        """Return the megabytes of all its processes together. Shared pages count for each process."""
        sizes = (re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()) for pid in self.pids)
        return sum(int(found[1]) for found in sizes if found) // 1024


SERVERS = {
    "gunicorn": "gunicorn bench.servers_app --bind=127.0.0.1:{port} --workers={workers} --threads={threads} "
    "--timeout=120 --graceful-timeout=5 --no-control-socket",
    "granian": "granian --interface=wsgi --http=1 --no-ws --host=127.0.0.1 --port={port} --workers={workers} "
    "--blocking-threads={threads} --workers-kill-timeout=5 bench.servers_app:application",
    "waitress": "waitress --listen=127.0.0.1:{port} --threads={all_threads} bench.servers_app:application",
}


@contextmanager
def proxy(folder: Path, upstream: int) -> Iterator[int]:
    """Run nginx in front of a port; yield the port of nginx."""
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    folder.mkdir()
    port = free_port()
    config = folder / "nginx.conf"
    found = re.search(r"```nginx\n(.*?)```", (ROOT / "docs/deployment.md").read_text(), re.DOTALL)
    assert found, "docs/deployment.md has no configuration of nginx"
    documented = found[1].replace("127.0.0.1:8000", f"127.0.0.1:{upstream}")
    config.write_text(NGINX.format(folder=folder, port=port, documented=documented))
    process = start([nginx, "-p", str(folder), "-c", str(config), "-g", "daemon off;"], log=folder / "nginx.out")
    try:
        wait_for(lambda: is_listening(port), 20, what=f"nginx; its log is {folder}/nginx.out")
        yield port
    finally:
        end(process)


def has_nginx() -> bool:
    return bool(shutil.which("nginx") or Path("/usr/sbin/nginx").exists())


# --- clients ----------------------------------------------------------------------------------------------------------


def rate(folder: Path, port: int, connections: int, seconds: int, pids: list[int]) -> tuple[float, float]:
    """Return the statuses per second over persistent connections of wrk, and the CPU seconds of `pids` per status.

    AssertionError if an answer is not 2xx.
    """
    used = cpu_seconds(pids)
    script = folder / "post.lua"
    script.write_text(
        "wrk.method='POST'\nwrk.headers['Content-Type']='application/json'\nwrk.body='{\"expid\": \"a000\"}'\n"
    )
    argv = [find_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script)]
    done = subprocess.run(
        [*argv, f"http://127.0.0.1:{port}{STATUS}"], capture_output=True, text=True, check=True, timeout=seconds + 60
    )
    assert "Non-2xx" not in done.stdout, done.stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    requests = re.search(r"(\d+) requests in", done.stdout)
    assert found and requests, done.stdout
    return float(found[1]), (cpu_seconds(pids) - used) / int(requests[1])


def ask(port: int, deadline: float) -> float | None:
    """Return the seconds until a healthy client has its small answer, or None at the deadline or on an error."""
    begin = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=deadline)
    try:
        connection.request("GET", SMALL)
        response = connection.getresponse()
        json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return time.monotonic() - begin


def connect(port: int, data: bytes, *, window: int = 0) -> socket.socket:
    client = socket.socket()
    if window:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    client.settimeout(DEADLINE)
    client.connect(("127.0.0.1", port))
    client.sendall(data)
    return client


def half_header(port: int) -> socket.socket:
    return connect(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")


def half_body(port: int) -> socket.socket:
    head = (
        f"POST {STATUS} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    )
    return connect(port, head.encode() + b'{"expid": ')


def unread_answer(port: int) -> socket.socket:
    return connect(port, f"GET {LARGE} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(), window=4096)


def stream(port: int) -> socket.socket:
    return connect(port, b"GET /bench/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")


def unread_body(port: int) -> socket.socket:
    head = "POST /bench/unread HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 20000\r\n\r\n"
    client = connect(port, head.encode() + b"x" * 20_000)
    client.recv(1000)  # the client reads its answer and keeps the connection
    return client


# Number of slow clients, and their kind. The streams leave some of the sixteen threads free.
CASES: dict[str, tuple[int, Callable[[int], socket.socket]]] = {
    f"{SLOW} half headers": (SLOW, half_header),
    f"{SLOW} half bodies": (SLOW, half_body),
    f"{UNREAD} answers that nobody reads": (UNREAD, unread_answer),
    "6 streams of 6 s": (6, stream),
    "12 streams of 6 s": (12, stream),
    f"{UNREAD} unread bodies, connections kept": (UNREAD, unread_body),
}


def hold(port: int, count: int, client: Callable[[int], socket.socket]) -> str:
    """Return the answer times of the healthy client while `count` other clients hold their connections."""
    with ExitStack() as stack:
        for _ in range(count):
            try:
                stack.enter_context(client(port))
            except OSError:  # the server accepts no more clients, or does not answer: the healthy one shows it
                break
        time.sleep(0.5)  # until all of them have reached the application
        seconds = [ask(port, DEADLINE) for _ in range(PROBES)] if ask(port, DEADLINE) is not None else [None]
    answered = [each for each in seconds if each is not None]
    if not answered:
        return "**nobody is answered**"
    if len(answered) < len(seconds):
        return f"**{len(answered)} of {len(seconds)} are answered**"
    return f"{1000 * statistics.median(answered):.0f} ms (max {1000 * max(answered):.0f})"


# --- the table --------------------------------------------------------------------------------------------------------


def measure(folder: Path, seconds: int, rounds: int) -> dict[str, dict[str, str]]:
    """Return the cells by column (server, with or without nginx) and row. Rates are measured in turns."""
    columns: dict[str, dict[str, str]] = {}
    with ExitStack() as stack:
        ports: dict[str, int] = {}
        servers: dict[str, Server] = {}
        for name, argv in SERVERS.items():
            servers[name] = stack.enter_context(Server(folder / name, argv))
            ports[name] = servers[name].port
            if has_nginx():
                ports[f"{name}, nginx"] = stack.enter_context(proxy(folder / f"nginx-{name}", servers[name].port))
        rates: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(rounds):
            for column, port in ports.items():
                pids = servers[column.partition(",")[0]].pids
                for connections in (8, 64):
                    rates.setdefault((column, connections), []).append(rate(folder, port, connections, seconds, pids))
        for column, port in ports.items():
            cells: dict[str, str] = {}
            for connections in (8, 64):
                per_second, cpu = (
                    statistics.median(values) for values in zip(*rates[column, connections], strict=True)
                )
                cells[f"statuses/s, {connections} connections"] = f"{per_second:.0f}"
                cells[f"CPU of the server per status, {connections} connections"] = f"{1000 * cpu:.2f} ms"
            server = servers[column.partition(",")[0]]
            cells["memory after it"] = f"{server.memory()} MB"
            for row, (count, client) in CASES.items():
                cells[row] = hold(port, count, client)
                server.restart()  # so that one case does not affect the next
            columns[column] = cells
            sys.stderr.write(f"{column}: {cells}\n")
    return columns


def text(columns: dict[str, dict[str, str]], seconds: float) -> str:
    rows = list(next(iter(columns.values())))
    versions = ", ".join(f"{name} {version(name)}" for name in SERVERS)
    lines = [
        HEADING,
        "",
        *INTRODUCTION.format(
            workers=WORKERS, threads=THREADS, probes=PROBES, deadline=DEADLINE, nginx="" if has_nginx() else MISSING
        ).splitlines(),
        "",
        "| | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        *(f"| {row} | " + " | ".join(cells[row] for cells in columns.values()) + " |" for row in rows),
        "",
        f"Versions: {versions}. {machine()}; {seconds / 60:.0f} minutes.",
        "",
    ]
    return "\n".join(lines)


def write(path: Path, section: str) -> None:
    """Replace the section in a document, or add it at the end."""
    before, _, rest = path.read_text().partition(HEADING)
    _, heading, after = rest.partition("\n## ")
    path.write_text(before.rstrip() + "\n\n" + section + (heading + after if heading else ""))


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare WSGI servers with this service.")
    parser.add_argument("--quick", action="store_true", help="short loads: shows that it works, measures little")
    parser.add_argument("--output", type=Path, help="put the section into this document (default: print it)")
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-servers-") as folder:
        columns = measure(Path(folder), *((1, 1) if options.quick else (4, 3)))
    section = text(columns, time.monotonic() - begin)
    if options.output:
        write(options.output, section)
    else:
        sys.stdout.write(section)
    return 0


if __name__ == "__main__":
    sys.exit(main())
