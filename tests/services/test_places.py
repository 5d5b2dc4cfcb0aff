"""Which looks may use the shared places of a worker (runners/worker/places.py)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta

import pytest

from profiles.config import RunnerConfig
from runners.models import Machine, RunnerRun
from runners.services.machines.ssh.target import SSHTarget
from runners.worker import due, embedded, places
from runners.worker.due import Silent, Work
from runners_project import clock
from tests.support.rows import saved_run

pytestmark = pytest.mark.django_db
HOST = "127.0.0.9"
MANY = 20


@pytest.fixture
def looks() -> list[Work]:
    """Return the looks at many accounts of one host."""
    for number in range(MANY):
        config = RunnerConfig("SSH", "NO_MODULE", (), SSHTarget(HOST, 22, f"u{number}"))
        saved_run(f"a{number:03}", config=config.as_dict(), runner="SSH")
    return list(due.find_machines())


def admitted(looks: list[Work]) -> int:
    """Return how many of the looks may be done at the same time."""
    with ExitStack() as stack:
        return sum(stack.enter_context(due.place(look)) for look in looks)


def test_a_host_that_has_answered_is_not_bounded(looks: list[Work]) -> None:
    Machine.objects.create(name=HOST, is_answering=True, last_answer=clock.now() - timedelta(minutes=1))
    assert admitted(looks) == MANY


def test_a_host_that_has_not_answered_recently_gets_a_few_places(looks: list[Work]) -> None:
    assert admitted(looks) == places.UNKNOWN_AT_ONCE
    Machine.objects.create(name=HOST, is_answering=True, last_answer=clock.now() - timedelta(minutes=3))
    assert admitted(looks) == places.UNKNOWN_AT_ONCE
    assert not places._taken


def test_a_host_that_does_not_answer_gets_no_place(looks: list[Work]) -> None:
    Machine.objects.create(name=HOST, is_answering=False)
    assert admitted(looks) == 0
    assert admitted([replace(look, queue=due.SILENT) for look in looks]) == MANY


def test_the_places_are_those_of_a_host_by_its_own_name(looks: list[Work]) -> None:
    """The configuration may name it in capitals, or by an alias. The name in the row of the machine is the host's."""
    other = RunnerConfig("SSH", "NO_MODULE", (), SSHTarget("Other.Example.ORG", 22, "u"))
    saved_run("b000", config=other.as_dict(), runner="SSH")
    Machine.objects.create(name="other.example.org", is_answering=False)
    assert admitted(list(due.find_machines())) == places.UNKNOWN_AT_ONCE


def test_other_work_and_looks_of_a_node_need_no_place(looks: list[Work]) -> None:
    Machine.objects.create(name="localhost", is_answering=False)
    run = saved_run("b000")
    assert admitted([Work("upkeep"), due.look_at(run.machine, run.node, is_silent=False)]) == 2


def test_one_round_looks_at_silent_hosts_too(looks: list[Work], monkeypatch: pytest.MonkeyPatch) -> None:
    Machine.objects.create(name=HOST, is_answering=False)
    done: list[str] = []
    monkeypatch.setitem(due.FUNCTIONS, "look", lambda voice, machine, node: done.append(machine))
    worker = embedded.EmbeddedWorker(Silent(), due.find_machines)
    worker.begin()
    worker.close(cancel=False)
    assert sorted(done) == sorted(RunnerRun.objects.values_list("machine", flat=True))
