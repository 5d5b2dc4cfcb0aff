"""The load of open dashboards and of viewers of one log. The clients poll as the pages do."""

from __future__ import annotations

import http.client
import json
import random
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import cpu_seconds
from tests.compat.client import Client
from tests.support.servers import AppServer

LIST = 3.0  # seconds between polls, as in templates/pages/dashboard.html
LOG = 1.0  # seconds between polls, as in runners/static/runners/log.js while new lines arrive
CSRF = "c" * 32
PEOPLE = 10
# Create people and one session for each dashboard. Print the session keys.
SESSIONS = """
import json
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
store = import_module(settings.SESSION_ENGINE).SessionStore
people = [User.objects.get_or_create(username=f"person{number}")[0] for number in range(%d)]
keys = []
for number in range(%d):
    user = people[number %% len(people)]
    session = store()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    keys.append(session.session_key)
print(json.dumps(keys))
"""


@dataclass
class Load:
    """The result of one measurement. `core`: the share of one core that the server's processes used."""

    seconds: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    empty: int = 0
    statuses: set[int] = field(default_factory=set)
    core: float = 0.0
    per_request: float = 0.0  # CPU seconds
    commands: float = 0.0  # SSH commands per second

    def words(self) -> str:
        ordered = sorted(self.seconds)
        return (
            f"{100 * self.core:.0f} % of a core ({1000 * self.per_request:.1f} ms per request), "
            f"p50 {1000 * statistics.median(ordered):.0f} ms, "
            f"p95 {1000 * ordered[int(0.95 * len(ordered))]:.0f} ms, "
            f"{statistics.mean(self.sizes) / 1000:.1f} kB per answer, {100 * self.empty / len(self.sizes):.0f} % of "
            f"them empty, {self.commands:.1f} SSH commands/s"
        )


def sessions(server: AppServer, count: int) -> list[str]:
    """Return the session keys of `count` dashboards of PEOPLE people."""
    output = server.manage("shell", "-c", SESSIONS % (PEOPLE, count))
    keys: list[str] = json.loads(output.strip().splitlines()[-1])
    return keys


def measure(
    server: AppServer, log: Path, viewers: list[Callable[[Load, Callable[[], bool]], None]], seconds: float
) -> Load:
    """Let every viewer poll in its own thread for `seconds`. `log` is sshd's."""
    load, begin = Load(), time.monotonic()
    end = begin + seconds

    def is_over() -> bool:
        return time.monotonic() > end

    threads = [threading.Thread(target=viewer, args=[load, is_over], daemon=True) for viewer in viewers]
    used, said = cpu_seconds(server.worker_pids), log.read_text(errors="replace").count("Starting session: command")
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
    took = time.monotonic() - begin
    load.core = (cpu_seconds(server.worker_pids) - used) / took
    load.per_request = load.core * took / len(load.seconds)
    load.commands = (log.read_text(errors="replace").count("Starting session: command") - said) / took
    assert load.statuses <= {200, 204, 304}, load.statuses
    return load


def dashboard(port: int, key: str) -> Callable[[Load, Callable[[], bool]], None]:
    """Return a viewer that polls the list each LIST seconds. Random start."""

    def poll(load: Load, is_over: Callable[[], bool]) -> None:
        cookies = {"Cookie": f"sessionid={key}; csrftoken={CSRF}", "HX-Request": "true", "Accept-Encoding": "gzip"}
        etag = ""
        time.sleep(random.random() * LIST)  # noqa: S311  (no secret)
        while not is_over():
            begin = time.monotonic()
            known = {"If-None-Match": etag} if etag else {}
            status, headers, size = _ask(port, "GET", "/runs/list", {**cookies, **known}, load)
            etag = headers.get("etag", "")
            load.sizes.append(size)
            load.empty += status in (204, 304)
            time.sleep(max(0.0, LIST - (time.monotonic() - begin)))

    return poll


def log_viewer(port: int, key: str, run: int) -> Callable[[Load, Callable[[], bool]], None]:
    """Return a viewer that follows a log as its page does."""

    def poll(load: Load, is_over: Callable[[], bool]) -> None:
        cookies = {"Cookie": f"sessionid={key}", "Accept": "application/json"}
        time.sleep(random.random() * LOG)  # noqa: S311  (no secret)
        query = ""
        while not is_over():
            begin = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            start = time.perf_counter()
            connection.request("GET", f"/runs/{run}/log{query}", headers=cookies)
            response = connection.getresponse()
            body = response.read()
            load.seconds.append(time.perf_counter() - start)
            load.statuses.add(response.status)
            load.sizes.append(len(body))
            connection.close()
            answer = json.loads(body)
            assert not answer["problem"], answer
            load.empty += not answer["html"]
            query = f"?from={answer['next']}"
            time.sleep(max(0.0, LOG - (time.monotonic() - begin)))

    return poll


def _ask(port: int, method: str, path: str, headers: dict[str, str], load: Load) -> tuple[int, dict[str, str], int]:
    """Send a request on a new connection, as nginx does. Return status, headers and size of the body on the wire."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    start = time.perf_counter()
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    size = len(response.read())
    load.seconds.append(time.perf_counter() - start)
    load.statuses.add(response.status)
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, size


def start_runs(client: Client, expids: list[str]) -> list[int]:
    """Start runs over SSH. Return their numbers."""
    numbers = []
    for expid in expids:
        body = {"expid": expid, "profile_name": "SSH", "profile_params": {}}
        reply = client.post("/v4/runners/command/run-experiment", body)
        assert reply.status == 200, reply
        numbers.append(int(reply.body["runner_id"]))
    return numbers
