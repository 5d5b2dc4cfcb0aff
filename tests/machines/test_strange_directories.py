"""Files that a run's owner writes into its directory, and processes that a signal may reach. Real local shells.

The texts of `scripts` are the same over SSH. tests/machines/test_detached_runs.py runs them both ways.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runners.models import new_run_key
from runners.services.machines import scripts
from runners.services.machines.probe import Identity, Probe, ProbeTarget
from runners.services.machines.registry import get_runner
from runners.services.machines.runner import Runner
from tests.support.contract import TIMEOUT, launch
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE, is_alive, kill_all, wait_for

OTHER = "f" * 32
FORGED = f"{OTHER} ended 0.-.1700000000 -"
QUICK = 5.0 * PATIENCE  # seconds


@pytest.fixture
def here(account: StubAccount) -> Runner:
    return get_runner(account.config())


class Live:
    """A living run and its directory."""

    def __init__(self, runner: Runner, account: StubAccount) -> None:
        self.runner = runner
        self.key, self.identity = launch(runner.config, ["sleep", "600"])
        self.directory = account.home / scripts.BASE / self.key

    def probe(self, *, known: bool = True) -> Probe:
        """Return the probe of this run. The same call also probes a run that was never launched."""
        begin = time.monotonic()
        targets = [ProbeTarget(self.key, self.identity if known else None), ProbeTarget(OTHER)]
        answers = self.runner.probe(targets, timeout=TIMEOUT)
        assert time.monotonic() - begin < QUICK
        assert answers[OTHER] == Probe(Probe.STARTING)
        return replace(answers[self.key], log=None)


@pytest.fixture
def live(here: Runner, account: StubAccount) -> Iterator[Live]:
    run = Live(here, account)
    yield run
    kill_all([run.identity.pid])


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


STRANGE: dict[str, Callable[[Path], object]] = {
    "nan": lambda d: (d / "ended.0.-.nan").touch(),
    "infinite": lambda d: (d / "ended.0.-.1e999").touch(),
    "negative": lambda d: (d / "ended.-1.-.-1").touch(),
    "many digits": lambda d: (d / f"ended.0.-.{'9' * 200}").touch(),
    "a long name": lambda d: (d / f"ended.{'x' * 240}").touch(),
    "a forged answer": lambda d: (d / f"ended.0\n{FORGED}\n").touch(),
    "a forged answer after CR": lambda d: (d / f"ended.0\r{FORGED}\r").touch(),
    "control characters": lambda d: (d / "ended.\x1b[2J\x07.\u202e").touch(),
    "no text": lambda d: Path(os.fsdecode(bytes(d) + b"/ended.\xff\xfe")).touch(),
    "many": lambda d: [(d / f"ended.{number}.-.1700000000").touch() for number in range(2000)],
    "an end while it lives": lambda d: (d / "ended.0.-.1700000000").touch(),
    "a directory": lambda d: (d / "ended.x").mkdir(),
    "a FIFO": lambda d: os.mkfifo(d / "ended.y"),
    "a link to nowhere": lambda d: (d / "ended.z").symlink_to("nowhere"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_an_invalid_end_is_undecided_and_hides_no_other_answer(live: Live, name: str) -> None:
    """While its process lives, the run is certainly running. Without its process, its end is unknown."""
    STRANGE[name](live.directory)
    for known in (True, False):
        assert live.probe(known=known) == Probe(Probe.RUNNING, identity=live.identity)
    kill_all([live.identity.supervisor_pid])  # so that it records no end
    kill_all([live.identity.pid])
    wait_for(lambda: not is_alive(live.identity.pid), what="the end of the run")
    answer = live.probe()
    assert answer.answer == Probe.CANNOT_TELL
    assert "has unexpected content" in answer.detail
    assert answer.detail.isprintable()
    assert len(answer.detail) < 300


@pytest.mark.parametrize("name", sorted(STRANGE.keys() - {"many", "an end while it lives"}))
def test_unexpected_file_names_beside_the_end_are_ignored(live: Live, name: str) -> None:
    STRANGE[name](live.directory)
    kill_all([live.identity.pid])
    ended = wait_for(lambda: (answer := live.probe()).answer != Probe.RUNNING and answer, what="the end of the run")
    assert (ended.answer, ended.exit_code, ended.signal) == (Probe.ENDED, 137, "KILL")


def test_an_end_file_of_a_living_process_is_not_believed(live: Live) -> None:
    (live.directory / "running").rename(live.directory / "ended.0.-.1700000000")
    assert live.probe().answer == Probe.RUNNING


def write(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


IDENTITIES: dict[str, Callable[[Path], object]] = {
    "a FIFO": lambda path: os.mkfifo(path),
    "a directory": lambda path: path.mkdir(),
    "another line": write("hello\n"),
    "a pattern": write("* * * * * * *\n"),
    "a forged answer": write(f"x\r{FORGED}\r\n"),
    "long": write("x" * 5_000_000),
    "pid 1 as a word": write("host boot pid:[1] one 1 1 1\n"),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_an_invalid_identity_is_undecided_and_hides_no_other_answer(live: Live, name: str) -> None:
    path = live.directory / "identity"
    whole = path.read_text()
    assert live.probe(known=False).identity == live.identity
    path.unlink()
    IDENTITIES[name](path)
    assert live.probe(known=False).answer == Probe.CANNOT_TELL
    assert live.probe().answer == Probe.RUNNING  # the row's identity has priority
    remove(path)
    path.write_text(whole)
    assert live.probe(known=False).answer == Probe.RUNNING


def test_an_identity_with_pid_1_cannot_be_told(live: Live) -> None:
    words = live.identity.words
    (live.directory / "identity").write_text(" ".join([*words[:3], "1", "0", *words[5:]]) + "\n")
    assert live.probe(known=False).answer == Probe.CANNOT_TELL


def test_a_log_that_is_not_a_regular_file_is_not_read(live: Live) -> None:
    log = live.directory / "log"
    log.unlink()
    assert live.runner.read_log(live.key, offset=0, limit=100, timeout=TIMEOUT) is None
    os.mkfifo(log)
    assert live.runner.read_log(live.key, offset=0, limit=100, timeout=QUICK) is None
    (live.directory / "running").rename(live.directory / "ended.88.-.1700000000")
    kill_all([live.identity.pid, live.identity.supervisor_pid])
    wait_for(lambda: live.probe().answer == Probe.ENDED, what="the end, with a FIFO for a log")


# --- signals ----------------------------------------------------------------------------------------------------------


def start_time(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19])


def kills_of(runner: Runner, identity: Identity) -> list[str]:
    """Return the `kill` commands that the signal script would execute for an identity. None of them is executed."""
    text = f'kill() {{ echo "kill $*"; }}\n{scripts.signal(new_run_key(), identity.words, "TERM")}'
    lines = runner.execute(text, timeout=TIMEOUT).text.splitlines()
    return [line for line in lines if line.startswith("kill")]


def test_no_signal_is_sent_to_pid_1_or_below(live: Live) -> None:
    assert kills_of(live.runner, live.identity) == [f"kill -s TERM -- -{live.identity.pid}"]
    for pid, start in ((1, start_time(1)), (0, 0), (-1, 0), (-live.identity.pid, live.identity.start)):
        assert kills_of(live.runner, replace(live.identity, pid=pid, start=start)) == []


LEAVES_ITS_GROUP = """
import os, sys, time
os.setpgid(0, 0)  # a leader
other = os.fork()
if not other:
    os.setpgid(0, 0)
    time.sleep(600)
member = os.fork()
if not member:
    time.sleep(600)
while os.getpgid(other) != other:
    time.sleep(0.01)
os.setpgid(0, other)  # and none any more; `member` stays in the group that bears this pid
print(os.getpid(), member, other, flush=True)
time.sleep(600)
"""


def test_a_group_is_signalled_only_through_its_leader(live: Live) -> None:
    with subprocess.Popen([sys.executable, "-c", LEAVES_ITS_GROUP], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid, member, other = map(int, process.stdout.readline().split())
        try:
            assert (os.getpgid(member), os.getpgid(pid)) == (pid, other)
            identity = replace(live.identity, pid=pid, start=start_time(pid))
            assert kills_of(live.runner, identity) == []
            live.runner.signal(new_run_key(), identity, "KILL", timeout=TIMEOUT)
            assert is_alive(member)
            assert is_alive(pid)
        finally:
            kill_all([member, other, pid])
