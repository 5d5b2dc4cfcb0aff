"""The effect of users of a machine that does not answer on other users."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from bench.measure import requests_per_second
from bench.stage import COMMANDS, Stage
from tests.support.servers import AppServer, SSHServer

THINKING = 1.0  # seconds between an answer and the next request of one user
PAUSE = 0.1  # seconds between two requests of the others
STATUS_CONNECTIONS = 128


@contextmanager
def healthy(machine: SSHServer) -> Iterator[None]:
    """The machine has no fault."""
    yield


@contextmanager
def frozen(machine: SSHServer) -> Iterator[None]:
    """sshd and its sessions are stopped (SIGSTOP): connections stay open, nothing answers."""
    with machine.frozen():
        yield


@dataclass
class Noticed:
    """What others notice, in seconds: the p95 of a status, and each other answer, by request.

    `answers`: the number of answers to the users of the machine, by HTTP status.
    """

    status: float = 0.0
    seconds: dict[str, list[float]] = field(default_factory=dict)
    answers: dict[int, int] = field(default_factory=dict)
    refused: int = 0  # LOCAL runs

    def p95(self, what: str) -> float:
        values = sorted(self.seconds[what])
        return values[int(len(values) * 0.95)]


def notice(
    stage: Stage, server: AppServer, machine: SSHServer, fault: Callable[[SSHServer], Any], users: int, seconds: int
) -> Noticed:
    """Measure the others' requests while `users` people request run, status, set-job-status, check and log.

    The others are STATUS_CONNECTIONS that poll a status without a pause, and two clients with pages and LOCAL runs.
    """
    stage.run_seconds(600)
    noticed = Noticed()
    is_over = Event()
    bad = {"profile_name": "BAD", "profile_params": {}}
    local = {"profile_name": "LOCAL", "profile_params": {}}
    names = itertools.count()
    first = stage.client(server)
    number = first.post(COMMANDS + "run-experiment", {"expid": "u000", **bad}).body["runner_id"]
    assert first.post(COMMANDS + "run-experiment", {"expid": "w000", **local}).status == 200
    change = {"command_params": {"final_status": "READY", "job_names_list": ["v000_SIM"]}}
    presses: list[tuple[str, str, dict[str, Any] | None]] = [
        ("POST", COMMANDS + "run-experiment", {"expid": "u000", **bad}),
        ("POST", COMMANDS + "get-runner-run-status", {"expid": "u000"}),
        ("POST", COMMANDS + "set-job-status", {"expid": "v000", **bad, **change}),
        ("POST", "/v4/runners/profiles/BAD/check", {}),
        ("GET", f"/v4/runners/runs/{number}/log?tail=1000", None),
    ]

    def press(user: int) -> None:
        is_over.wait(THINKING * user / users)
        for turn in itertools.count(user):
            method, path, body = presses[turn % len(presses)]
            status = stage.client(server, person=user).request(method, path, body).status
            noticed.answers[status] = noticed.answers.get(status, 0) + 1
            if is_over.wait(THINKING):
                return

    def ask(what: str, method: str, path: str, make: Callable[[], Any]) -> None:
        while not is_over.is_set():
            reply = stage.client(server, person=-1).request(method, path, make())
            if reply.status == 503 and what == "LOCAL run":
                noticed.refused += 1
                continue
            assert reply.status == 200, reply
            noticed.seconds.setdefault(what, []).append(reply.seconds)
            is_over.wait(PAUSE)

    with fault(machine), ThreadPoolExecutor(users + 2) as pool:
        done = [pool.submit(press, user) for user in range(users)]
        done += [
            pool.submit(ask, "page", "GET", "/login", lambda: None),
            pool.submit(
                ask, "LOCAL run", "POST", COMMANDS + "run-experiment", lambda: {"expid": f"l{next(names):04x}", **local}
            ),
        ]
        try:
            polled = requests_per_second(
                stage.folder,
                server.port,
                COMMANDS + "get-runner-run-status",
                '{"expid": "w000"}',
                seconds=seconds,
                headers=stage.headers(person=-1),
                connections=STATUS_CONNECTIONS,
            )
            noticed.status = polled.p95
        finally:
            is_over.set()
        for future in done:
            future.result()
    stage.end_runs()
    return noticed


@contextmanager
def machine_and_server(stage: Stage, name: str) -> Iterator[tuple[SSHServer, AppServer]]:
    """Start another machine and a server with the profile BAD for it."""
    with ExitStack() as stack:
        machine = stack.enter_context(SSHServer(stage.folder / f"{name}-sshd", home=stage.home))
        place = {"HOST": "127.0.0.1", "PORT": machine.port, "USERNAME": machine.user}
        bad = {"RUNNER_TYPE": "SSH", "MODULE_LOADER_TYPE": "NO_MODULE", "SSH": place}
        server = stage.another(name, more={"BAD": bad}, env={**machine.environment, "RUNNERS_RETRY_PAUSE": "5"})
        stack.enter_context(server)
        yield machine, server
