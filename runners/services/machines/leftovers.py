"""Processes that remain on the machine after the end of a run: helpers of Autosubmit, and jobs of the local platform.

Autosubmit starts its log recovery and the jobs of the local platform in the session and the process group of the run.
The jobs are meant to outlive a run. The log recovery is not, but it survives if the run is killed or its `join` hangs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from django.conf import settings

from runners import printable
from runners.exceptions import OutcomeUnknown, RunnerUnreachable
from runners.services.machines import scripts
from runners.services.machines.probe import Identity
from runners.services.machines.runner import Runner

GRACE = 3.0  # seconds in which Autosubmit's helpers usually end by themselves
POLL = 0.5
SHOWN = 5  # processes that an answer names; the others are counted
_LINE = re.compile(r"left ([1-9][0-9]{0,9}) (job|helper) (.{0,120})")


@dataclass(frozen=True, slots=True)
class Leftover:
    pid: int
    is_job: bool  # of the local platform
    name: str  # its command line, 120 characters at most

    def __str__(self) -> str:
        return f"{self.name or 'a process'} (pid {self.pid})"


@dataclass(frozen=True, slots=True)
class Run:
    """A run whose processes are searched. `keys`: of the run, and of earlier runs whose jobs may still exist.

    `group`: search also in the process group of the run; only right after its end.
    """

    expid: str
    identity: Identity
    keys: Sequence[str]
    group: bool


def look(runner: Runner, run: Run, *, helpers: str = "", jobs: str = "") -> list[Leftover]:
    """Return the processes that are left, as the node of the run reports them, on whatever node `runner` arrives.

    `helpers` and `jobs` are signals to send to the processes of that kind. Raises OutcomeUnknown if the node cannot
    tell or is not found, and the errors of `Runner.execute`.
    """
    script = scripts.leftovers(run.keys, run.identity.words, run.expid, group=run.group, helpers=helpers, jobs=jobs)
    host, deadline = run.identity.host, time.monotonic() + settings.RUNNERS_PROBE_TIMEOUT
    try:
        return _look_there(runner.at_node(host), host, script)
    except OutcomeUnknown:
        for way in runner.runners_at(host, deadline):
            with suppress(OutcomeUnknown, RunnerUnreachable):
                found = _look_there(way, host, script)
                runner.learn_way(host, way)
                return found
        raise


def _look_there(runner: Runner, host: str, script: str) -> list[Leftover]:
    lines = runner.execute(script, timeout=settings.RUNNERS_PROBE_TIMEOUT).text.splitlines()
    if lines == ["rebooted"]:
        return []
    if "end" not in lines[-1:]:
        where = f"{host}, a node of {runner.where}"
        raise OutcomeUnknown(
            f"It is not known which processes of the run are left on {where}: another machine answered, or the answer "
            "is not valid."
        )
    found = [match for line in lines[:-1] if (match := _LINE.fullmatch(line))]
    return [
        Leftover(int(pid), kind == "job", printable.line(name, 120)) for pid, kind, name in (m.groups() for m in found)
    ]


def end(runner: Runner, run: Run, *, jobs: bool) -> tuple[list[Leftover], list[Leftover]]:
    """End the helpers, and with `jobs` also the jobs: TERM, then KILL. Return (the processes found, those still alive).

    Helpers first get GRACE seconds to end by themselves; those that do are in neither list. Raises the errors of
    `look`.
    """
    before = _await(runner, run, jobs=False, seconds=GRACE)
    before = before if jobs else _helpers(before)
    left = before
    for name, seconds in (("TERM", settings.RUNNERS_TERM_WAIT), ("KILL", settings.RUNNERS_KILL_WAIT)):
        if not left:
            break
        look(runner, run, helpers=name, jobs=name if jobs else "")
        left = _await(runner, run, jobs=jobs, seconds=seconds)
        left = left if jobs else _helpers(left)
    return before, left


def _await(runner: Runner, run: Run, *, jobs: bool, seconds: float) -> list[Leftover]:
    """Poll until no process is left that has to end (helpers; with `jobs` all), for `seconds` at most."""
    deadline = time.monotonic() + seconds
    while True:
        found = look(runner, run)
        if not (found if jobs else _helpers(found)) or time.monotonic() >= deadline:
            return found
        time.sleep(POLL)


def _helpers(found: list[Leftover]) -> list[Leftover]:
    return [each for each in found if not each.is_job]


def summary(found: Sequence[Leftover]) -> str:
    """Name the first SHOWN processes and count the others."""
    names = ", ".join(map(str, found[:SHOWN]))
    return names + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
