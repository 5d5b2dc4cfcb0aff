"""Commands for other nodes of the service: signed rows, each of which is executed at most once, and soon or never."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from runners.exceptions import OutcomeUnknown, RunnerUnreachable
from runners.models import Heartbeat, NodeCommand
from runners.services import nodes, sizing
from runners_project import clock
from tests.support.environments import StubAccount

pytestmark = pytest.mark.django_db
Insert = Callable[[], NodeCommand]


@pytest.fixture(autouse=True)
def node(settings: Any) -> str:
    settings.RUNNERS_NODE = "one"
    return "one"


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "executed"


@pytest.fixture
def insert(account: StubAccount, node: str, mark: Path) -> Insert:
    """Return a function that inserts a command as another node does. It adds a line to `mark` when it is executed."""

    def do() -> NodeCommand:
        request = {"config": account.config().as_dict(), "script": f"echo x >> {mark}", "timeout": 20.0, "stdin": ""}
        return nodes.insert(node, request | {"login": False, "until": ""})

    return do


def executions(mark: Path) -> int:
    return len(mark.read_text().split()) if mark.exists() else 0


def shift(monkeypatch: pytest.MonkeyPatch, change: timedelta) -> None:
    now = clock.now()
    monkeypatch.setattr(nodes, "clock", SimpleNamespace(now=lambda: now + change))


def test_a_command_is_executed_once(insert: Insert, mark: Path) -> None:
    command = insert()
    assert nodes.waiting() == [command.pk]
    nodes.execute(command.pk)
    nodes.execute(command.pk)
    assert executions(mark) == 1
    assert nodes.waiting() == []


def test_a_row_that_was_reset_is_refused(insert: Insert, mark: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody with access to the database resets the row, or inserts it again after its deletion."""
    command = insert()
    nodes.execute(command.pk)
    NodeCommand.objects.update(begun=None, answer="")
    nodes.execute(command.pk)
    NodeCommand.objects.all().delete()
    NodeCommand.objects.create(pk=command.pk, node=command.node, request=command.request)
    nodes.execute(command.pk)
    assert executions(mark) == 1
    assert "is not executed" in caplog.text


def test_a_renumbered_row_is_refused(insert: Insert, mark: Path, caplog: pytest.LogCaptureFixture) -> None:
    command = insert()
    copy = NodeCommand.objects.create(node=command.node, request=command.request)
    nodes.execute(copy.pk)
    assert executions(mark) == 0
    assert f"command {copy.pk} for node one is not executed" in caplog.text


def test_a_row_of_another_node_is_refused(insert: Insert, mark: Path, settings: Any) -> None:
    command = insert()
    settings.RUNNERS_NODE = "two"
    nodes.execute(command.pk)
    NodeCommand.objects.update(node="two")
    nodes.execute(command.pk)
    assert executions(mark) == 0


@pytest.mark.parametrize(("age", "executed"), [(4, 1), (8, 0), (3600, 0)])
def test_an_old_row_is_refused(
    insert: Insert, mark: Path, monkeypatch: pytest.MonkeyPatch, age: int, executed: int
) -> None:
    """Its sender died before it could withdraw it. `created` in the row is of no help: anybody could change it."""
    command = insert()
    shift(monkeypatch, timedelta(seconds=age))
    NodeCommand.objects.update(created=nodes.clock.now())
    nodes.execute(command.pk)
    assert executions(mark) == executed


def test_a_request_of_another_secret_key_is_refused(insert: Insert, mark: Path, settings: Any) -> None:
    command = insert()
    settings.SECRET_KEY = settings.SECRET_KEY[::-1]
    nodes.execute(command.pk)
    assert executions(mark) == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_forged", [False, True])
def test_an_answer_of_another_command_is_refused(account: StubAccount, settings: Any, is_forged: bool) -> None:
    """Otherwise the old answer "running" could hide the end of a run."""
    config = account.config()
    Heartbeat.objects.create(kind=nodes.WORKER, owner="worker", node="two", interval=1)
    request = {"config": config.as_dict(), "script": "echo old", "timeout": 20.0, "stdin": "", "login": False}
    old = nodes.insert("one", request | {"until": ""})
    nodes.execute(old.pk)
    old.refresh_from_db()

    def work(new: NodeCommand) -> None:
        if is_forged:
            NodeCommand.objects.filter(pk=new.pk).update(begun=clock.now(), answer=old.answer)
        else:
            settings.RUNNERS_NODE = "two"
            nodes.execute(new.pk)

    with worker_of_node_two(work):
        runner = nodes.NodeRunner(config, "two")
        if is_forged:
            with pytest.raises(OutcomeUnknown, match="no valid signature"):
                runner.execute("echo new", timeout=10)
        else:
            assert runner.execute("echo new", timeout=10).stdout == b"new\n"


@contextmanager
def worker_of_node_two(work: Callable[[NodeCommand], None]) -> Iterator[None]:
    """Let a thread wait for a command to the node, and call `work` with it."""

    def wait_and_work() -> None:
        try:
            while not (new := NodeCommand.objects.filter(node="two").exclude(request="").first()):
                connection.close()
            work(new)
        finally:
            connection.close()

    thread = threading.Thread(target=wait_and_work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.parametrize(("interval", "seconds", "is_alive"), [(300, 140, True), (300, 931, False), (1, 34, False)])
def test_a_worker_is_alive_by_its_own_interval(
    account: StubAccount, monkeypatch: pytest.MonkeyPatch, interval: float, seconds: float, is_alive: bool
) -> None:
    """It beats each half interval. A newer row of another worker that is dead does not hide it."""
    monkeypatch.setattr(nodes, "TO_BEGIN", 0.1)
    seen = clock.now() - timedelta(seconds=seconds)
    for number in range(2):
        Heartbeat.objects.create(kind=nodes.WORKER, owner=f"{number}", node="two", interval=interval, seen=seen)
    dead = {"interval": 1, "seen": clock.now() - timedelta(seconds=40)}
    Heartbeat.objects.create(kind=nodes.WORKER, owner="dead", node="two", **dead)
    said = "did not begin" if is_alive else "whose worker was last seen at"
    with pytest.raises(RunnerUnreachable, match=said):
        nodes.NodeRunner(account.config(), "two").execute("true", timeout=5)
    assert sizing.size_of_this_service().workers == (2 if is_alive else 1)


@pytest.mark.django_db(transaction=True)
def test_the_sender_is_certain_that_a_node_with_another_secret_key_executes_nothing(
    account: StubAccount, mark: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "TO_BEGIN", 1.0)
    Heartbeat.objects.create(kind=nodes.WORKER, owner="worker", node="two", interval=1)

    def work(new: NodeCommand) -> None:
        settings.RUNNERS_NODE, settings.SECRET_KEY = "two", settings.SECRET_KEY[::-1]
        nodes.execute(new.pk)

    said = "nothing was executed there.* the same SECRET_KEY"
    with worker_of_node_two(work), pytest.raises(RunnerUnreachable, match=said):
        nodes.NodeRunner(account.config(), "two").execute(f"echo x >> {mark}", timeout=5)
    assert executions(mark) == 0


def test_a_command_that_cannot_be_begun_is_not_found_again_for_ever(insert: Insert) -> None:
    insert()
    NodeCommand.objects.update(request="forged")
    (number,) = nodes.waiting()
    nodes.execute(number)
    assert nodes.waiting() == [number]  # its sender withdraws it
    NodeCommand.objects.update(created=clock.now() - nodes.EXPIRES)
    assert nodes.waiting() == []
