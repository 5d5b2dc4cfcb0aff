"""The faults, and when each of them happens. The schedule depends on the seed only."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from soak.site import Node, Site
from tests.support.processes import descendants, kill_all

SKEW = 240  # seconds
EARLY = 0.3  # the share of the soak after which the processes of node one live on, so that their memory can be judged


@dataclass(frozen=True)
class Planned:
    """A fault. `at`: seconds after the begin of the soak. `draw` selects among what is there at that time."""

    at: float
    seconds: float
    kind: str
    target: str
    draw: float


@dataclass
class Done:
    """A fault that has happened. `begin`, `end`: seconds since 1970."""

    kind: str
    target: str
    begin: float
    end: float = 0.0


@dataclass
class Damage:
    """What the faults have ended on the machines: the keys of the runs and operations."""

    killed: set[str] = field(default_factory=set)
    supervisors: set[str] = field(default_factory=set)


# The kind: what it is done to, and its shortest and longest duration in seconds.
KINDS: dict[str, tuple[str, float, float]] = {
    "connections dropped": ("machine", 0, 0),
    "machine frozen": ("machine", 3, 12),
    "machine down": ("machine", 3, 10),
    "shells of sshd killed": ("machine", 0, 0),
    "server killed": ("node", 0.5, 3),
    "server process killed": ("node", 0, 0),
    "server frozen": ("node", 2, 8),
    "server restarted": ("node", 6, 6),
    "worker killed": ("node", 1, 4),
    "worker frozen": ("node", 4, 12),
    "PostgreSQL restarted": ("postgres", 0.5, 3),
    "PostgreSQL frozen": ("postgres", 2, 12),
    "database connections ended": ("postgres", 0, 0),
    "nginx killed": ("nginx", 0.5, 2),
    "nginx frozen": ("nginx", 1, 4),
    "run killed": ("command", 0, 0),
    "run terminated": ("command", 0, 0),
    "supervisor killed": ("command", 0, 0),
    "clock ahead": ("clock", 8, 15),
    "clock behind": ("clock", 8, 15),
}
ENDS_PROCESSES = ("server killed", "server process killed", "server restarted", "worker killed")


def schedule(seed: str, seconds: float) -> list[Planned]:
    """Return the faults of a soak: each kind once, in any order, then again, until `seconds` are over."""
    rng = random.Random(f"{seed}-faults")
    kinds = list(KINDS)
    gap = min(6.0, 0.9 * seconds / len(kinds))
    found: list[Planned] = []
    free: dict[str, float] = {}
    at = gap
    while at < seconds:
        for kind in rng.sample(kinds, len(kinds)):
            what, least, most = KINDS[kind]
            target = what
            if what == "machine":
                target = rng.choice(["m1", "m2", "m3"])
            elif what == "node":
                is_spared = kind in ENDS_PROCESSES and at > EARLY * seconds
                target = rng.choice(["one", "two"]) if not is_spared else "two"
            lasts = rng.uniform(least, most) * min(1.0, 0.4 + seconds / 300)
            begin = max(at, free.get(target, 0.0))
            if begin + lasts < seconds:
                found.append(Planned(begin, lasts, kind, target, rng.random()))
                free[target] = begin + lasts + 2
            at += rng.uniform(0.6 * gap, 1.4 * gap)
    return sorted(found, key=lambda planned: planned.at)


class Faults:
    """Executes faults on a site. Only the thread that has started the site may call it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.done: list[Done] = []
        self.failed: list[str] = []  # what the soak could not do to the site
        self.damage = Damage()
        self.down: set[str] = set()  # what was ended and is started again at the end of its fault
        self._open: list[tuple[float, Done, ExitStack]] = []

    def is_under_way(self, target: str) -> bool:
        return any(done.target == target for _, done, _ in self._open)

    def begin(self, planned: Planned) -> None:
        done = Done(planned.kind, planned.target, time.time())
        stack = ExitStack()
        try:
            undo = getattr(self, "_" + planned.kind.lower().replace(" ", "_"))(planned, stack)
            if undo:
                stack.callback(undo)
        except (AssertionError, OSError) as error:
            self.failed.append(f"{planned.kind} ({planned.target}): {error!r}")
        self.done.append(done)
        self._open.append((time.monotonic() + planned.seconds, done, stack))

    def end_those_over(self, *, everything: bool = False) -> None:
        for entry in list(self._open):
            when, done, stack = entry
            if everything or time.monotonic() >= when:
                try:
                    stack.close()
                except (AssertionError, OSError) as error:
                    self.failed.append(f"the end of {done.kind} ({done.target}): {error!r}")
                done.end = time.time()
                self._open.remove(entry)

    # --- machines ---

    def _connections_dropped(self, planned: Planned, stack: ExitStack) -> None:
        with suppress(AssertionError):
            self.site.sshds[planned.target].drop_connections()

    def _machine_frozen(self, planned: Planned, stack: ExitStack) -> None:
        stack.enter_context(self.site.sshds[planned.target].frozen())

    def _machine_down(self, planned: Planned, stack: ExitStack) -> Callable[[], None]:
        self.site.sshds[planned.target].stop()
        return self.site.sshds[planned.target].start

    def _shells_of_sshd_killed(self, planned: Planned, stack: ExitStack) -> None:
        """End what the sessions execute: the shells that report launches and answer probes."""
        below = descendants(self.site.sshds[planned.target].process_id)
        kill_all([pid for pid, name in below.items() if not name.startswith("sshd")])

    # --- nodes ---

    def _node(self, planned: Planned) -> Node:
        return self.site.nodes[planned.target]

    def _server_killed(self, planned: Planned, stack: ExitStack) -> Callable[[], None]:
        node = self._node(planned)
        self.down.add(f"server {node.name}")
        node.kill_server()
        return lambda: self._start_again(f"server {node.name}", node.start_server)

    def _start_again(self, name: str, start: Callable[[], None]) -> None:
        self.down.discard(name)
        start()

    def _server_process_killed(self, planned: Planned, stack: ExitStack) -> None:
        pids = self._node(planned).server_pids[1:]
        kill_all(pids[: 1 if planned.draw < 0.5 else 2])

    def _server_frozen(self, planned: Planned, stack: ExitStack) -> Callable[[], None]:
        pids = self._node(planned).server_pids
        kill_all(pids, signal.SIGSTOP)
        return lambda: kill_all(pids, signal.SIGCONT)

    def _server_restarted(self, planned: Planned, stack: ExitStack) -> None:
        """End the server with TERM: it ends what it has begun. It is then started again, as after an upgrade."""
        kill_all(self._node(planned).server_pids[:1], signal.SIGTERM)

    def _worker_killed(self, planned: Planned, stack: ExitStack) -> Callable[[], None]:
        node = self._node(planned)
        self.down.add(f"worker {node.name}")
        node.kill_worker()
        return lambda: self._start_again(f"worker {node.name}", node.start_worker)

    def _worker_frozen(self, planned: Planned, stack: ExitStack) -> Callable[[], None]:
        """Stop a worker for longer than the time after which it counts as dead: its work is done twice."""
        pid = self._node(planned).worker_pid
        kill_all([pid] * (pid > 0), signal.SIGSTOP)
        return lambda: kill_all([pid] * (pid > 0), signal.SIGCONT)

    # --- database and proxy ---

    def _postgresql_restarted(self, planned: Planned, stack: ExitStack) -> Callable[[], None]:
        self.site.postgres.stop()
        return self.site.postgres.start

    def _postgresql_frozen(self, planned: Planned, stack: ExitStack) -> None:
        stack.enter_context(self.site.postgres.frozen())

    def _database_connections_ended(self, planned: Planned, stack: ExitStack) -> None:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'soak'"
        self.site.postgres.sql(others, check=False)

    def _nginx_killed(self, planned: Planned, stack: ExitStack) -> Callable[[], None]:
        self.down.add("nginx")
        self.site.kill_nginx()
        return lambda: self._start_again("nginx", self.site.start_nginx)

    def _nginx_frozen(self, planned: Planned, stack: ExitStack) -> Callable[[], None]:
        group = self.site.nginx.pid
        os.killpg(group, signal.SIGSTOP)
        return lambda: os.killpg(group, signal.SIGCONT)

    # --- what runs on the machines ---

    def _victim(self, planned: Planned) -> tuple[str, int] | None:
        """Return the key and the process id of a run that executes now."""
        runs = [process for process in self.site.journal.living() if process.command == "run"]
        if not runs:
            return None
        victim = runs[int(planned.draw * len(runs))]
        return victim.key, victim.pid

    def _signal_run(self, planned: Planned, number: int) -> None:
        if victim := self._victim(planned):
            self.damage.killed.add(victim[0])
            kill_all([victim[1]], number)

    def _run_killed(self, planned: Planned, stack: ExitStack) -> None:
        self._signal_run(planned, signal.SIGKILL)

    def _run_terminated(self, planned: Planned, stack: ExitStack) -> None:
        self._signal_run(planned, signal.SIGTERM)

    def _supervisor_killed(self, planned: Planned, stack: ExitStack) -> None:
        if victim := self._victim(planned):
            key, pid = victim
            with suppress(OSError):
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
                if parent > 1:
                    self.damage.supervisors.add(key)
                    kill_all([parent])

    # --- clocks ---

    def _clock(self, offset: int) -> Callable[[], None]:
        clock = self.site.nodes["two"].clock
        clock.write_text(f"{offset:+d}\n")

        def undo() -> None:
            clock.write_text("+0\n")

        return undo

    def _clock_ahead(self, planned: Planned, stack: ExitStack) -> Callable[[], None]:
        return self._clock(SKEW)

    def _clock_behind(self, planned: Planned, stack: ExitStack) -> Callable[[], None]:
        return self._clock(-SKEW)


def counts(done: list[Done]) -> Iterator[tuple[str, int]]:
    for kind in KINDS:
        number = sum(1 for each in done if each.kind == kind)
        if number:
            yield kind, number
