"""Many viewers of one log: they share one read per second, and each viewer gets the whole log in order."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from profiles.config import RunnerConfig
from profiles.models import RunnerProfile
from runners.exceptions import RunnerUnreachable
from runners.models import RunnerRun
from runners.services import log_cache, logs
from tests.support.api import Api
from tests.support.environments import StubAccount
from tests.support.faults import sessions
from tests.support.processes import PATIENCE
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db
VIEWERS = 50


def make_run(account: StubAccount, config: RunnerConfig, log: bytes = b"", **values: Any) -> tuple[RunnerRun, Path]:
    values = {"expid": "a001", "runner": config.runner_type, "module_loader": config.module_loader_type, **values}
    row = RunnerRun.objects.create(config=config.as_dict(), **values)
    path = account.home / ".autosubmit-runners" / row.key / "log"
    path.parent.mkdir(parents=True)
    path.write_bytes(log)
    return row, path


def in_threads(count: int, function: Callable[[int], object]) -> list[Any]:
    """Return what `function(number)` returns or raises in each of `count` simultaneous threads."""
    results: list[Any] = [None] * count
    barrier = threading.Barrier(count)

    def call(number: int) -> None:
        barrier.wait(20 * PATIENCE)
        try:
            results[number] = function(number)
        except RunnerUnreachable as error:
            results[number] = error

    threads = [threading.Thread(target=call, args=[number], daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60 * PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    return results


def test_fifty_viewers_who_start_anywhere_cost_one_read_per_second(account: StubAccount, sshd: SSHServer) -> None:
    row, path = make_run(account, sshd.config(), b"begin\n")
    assert log_cache.read(row, offset=0, limit=100)  # opens the connection
    is_over = threading.Event()

    def write() -> None:
        for number in range(10_000):
            if is_over.wait(0.02):
                break
            with path.open("a") as stream:
                stream.write(f"line {number} of the log\n")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    seconds = 4.0

    def view(number: int) -> tuple[int, bytes]:
        """Read like log.js: each viewer has its own moments and offset. Half of the viewers read like API clients."""
        limit = 256 * 1024 if number % 2 else 64 * 1024
        time.sleep(random.random())
        first = log_cache.read(row, offset=-random.randrange(1, 100), limit=limit)
        assert first
        data, start = first.data, first.offset
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.2 + random.random())
            chunk = log_cache.read(row, offset=start + len(data), limit=limit)
            assert chunk and chunk.offset == start + len(data) and chunk.next_offset <= chunk.size
            data += chunk.data
        return start, data

    before, begun = sessions(sshd), time.monotonic()
    views = in_threads(VIEWERS, view)
    took = time.monotonic() - begun
    reads = sessions(sshd) - before
    is_over.set()
    writer.join()
    whole = path.read_bytes()
    assert all(data and whole[start : start + len(data)] == data for start, data in views)
    # One read per second. Two limits double the reads, and the first looks begin at their own offsets.
    assert reads <= 3 * took + 3, f"{reads} reads in {took:.1f} s"


def test_a_waiter_of_a_hanging_read_gets_an_answer_in_time(
    account: StubAccount, sshd: SSHServer, settings: Any
) -> None:
    row, _ = make_run(account, sshd.config(), b"line\n")
    settings.RUNNERS_PROBE_TIMEOUT, settings.RUNNERS_CONNECT_TIMEOUT = 5, 2
    assert log_cache.read(row, offset=0, limit=100)
    log_cache.forget()

    def view(_: int) -> float:
        begin = time.monotonic()
        with pytest.raises(RunnerUnreachable):
            log_cache.read(row, offset=0, limit=100)
        return time.monotonic() - begin

    with sshd.frozen():
        seconds = sorted(in_threads(8, view))
    assert seconds[-2] < log_cache.PATIENCE + 1, seconds  # all except the viewer that reads
    chunk = None
    end = time.monotonic() + 20
    while chunk is None and time.monotonic() < end:  # an error is remembered for at most one second
        try:
            chunk = log_cache.read(row, offset=0, limit=100)
        except RunnerUnreachable:
            time.sleep(0.2)
    assert chunk and chunk.data == b"line\n"


def test_a_log_cached_before_the_end_is_read_again(account: StubAccount) -> None:
    row, path = make_run(account, account.config(), b"first\n")
    assert logs.read(row, limit=1000).data == b"first\n"
    with path.open("a") as stream:
        stream.write("last\n")
    RunnerRun.objects.update(status="COMPLETED", exit_code=0)
    page = logs.read(RunnerRun.objects.get(), limit=1000)
    assert (page.data, page.ended) == (b"first\nlast\n", True)


def test_each_cached_part_equals_the_answer_of_the_machine(
    account: StubAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read a growing log and a truncated log at random offsets. Little is cached, but a part can always be shared."""
    clock = SimpleNamespace(now=time.monotonic())
    monkeypatch.setattr(log_cache, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(log_cache, "KEPT_BYTES", 150)
    row, path = make_run(account, account.config(), bytes(range(200)))
    data = path.read_bytes()
    for number in range(60):
        offset, limit = random.choice([-1, 1]) * random.randrange(len(data) + 20), random.randrange(1, 300)
        if number % 5 == 0:  # the shared read expires; the next one continues where it ended
            clock.now += 1.1
            data = data[:100] if number == 30 else data + random.randbytes(30)
            path.write_bytes(data)
        chunk = log_cache.read(row, offset=offset, limit=limit)
        start = offset if offset >= 0 else max(0, len(data) + offset)
        assert chunk
        assert (chunk.offset, chunk.size, chunk.data) == (start, len(data), data[start : start + limit])


def test_the_log_cache_is_bounded(account: StubAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_cache, "KEPT_LOGS", 3)
    monkeypatch.setattr(log_cache, "KEPT_BYTES", 1000)
    for number in range(5):
        row, _ = make_run(account, account.config(), b"x" * 5000, status="COMPLETED", expid=f"a00{number}")
        assert log_cache.read(row, offset=0, limit=5000)
    kept = [last.chunk for last in log_cache._last.values()]
    assert [len(chunk.data) for chunk in kept if chunk] == [1000] * 3


def test_a_shared_log_is_only_for_users_who_may_view_the_run(client: Client, account: StubAccount) -> None:
    profile = RunnerProfile.objects.create(name="P", runner_type="LOCAL", module_loader_type="NO_MODULE")
    profile.view_groups.add(Group.objects.create(name="team"))
    row, _ = make_run(account, account.config(), b"secret\n", status="COMPLETED", profile_name="P")
    member, stranger = User.objects.create_user("member"), User.objects.create_user("stranger")
    member.groups.add(Group.objects.get(name="team"))
    for user, expected in ((member, 200), (stranger, 404), (member, 200), (stranger, 404)):
        client.force_login(user)
        assert Api(client).get(f"/v4/runners/runs/{row.pk}/log", expect=expected)
        assert client.get(f"/runs/{row.pk}/log").status_code == expected
