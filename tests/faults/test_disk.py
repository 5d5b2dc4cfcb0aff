"""The disk of the account is full or read-only. A real small file system is its home.

Promise: a full disk loses no exit code, and the service starts nothing that it cannot record.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from profiles.config import RunnerConfig
from runners.exceptions import CommandFailed
from runners.models import RunnerRun
from tests.support.environments import StubAccount, live_in
from tests.support.faults import EXPID, MakeGate, add_control, look, start_run, stop_run, wait_ended
from tests.support.processes import PATIENCE, kill_all, wait_for
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db(transaction=True)


class Disk:
    """A file system of a few megabytes in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._call("mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "autosubmit-runners-tests", str(folder))

    def _call(self, *argv: str) -> None:
        subprocess.run(argv, check=True, timeout=30 * PATIENCE)

    def fill(self) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as filler:
            for size in (65536, 1):
                try:
                    while filler.write(b"x" * size):
                        pass
                except OSError:
                    continue

    def empty(self) -> None:
        (self.folder / "filler").unlink()

    def make_read_only(self) -> None:
        """Remount read-only. Retry: the kernel refuses while an ending process has a file open for writing."""
        argv = ["mount", "-o", "remount,ro", str(self.folder)]
        wait_for(
            lambda: subprocess.run(argv, timeout=30 * PATIENCE, check=False).returncode == 0,
            10,
            what="a read-only disk",
        )

    def make_writable(self) -> None:
        self._call("mount", "-o", "remount,rw", str(self.folder))

    def close(self) -> None:
        self._call("umount", "-l", str(self.folder))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = Disk(folder)
    yield disk
    disk.close()


@pytest.fixture
def small(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubAccount]:
    """Return an account whose home is on that disk."""
    account = StubAccount(disk.folder / "home")
    account.experiment(EXPID)
    live_in(account, monkeypatch)
    yield account
    account.kill()


@pytest.fixture
def there(runner_type: str, small: StubAccount, make_sshd: Callable[..., SSHServer]) -> RunnerConfig:
    return small.config() if runner_type == "LOCAL" else make_sshd(small.home).config()


def test_the_exit_code_survives_a_full_disk(
    there: RunnerConfig, small: StubAccount, disk: Disk, make_gate: MakeGate
) -> None:
    gate = make_gate().arm()
    add_control(small, "run", gate.text, EXIT=7)
    start_run(there)
    gate.wait_held()
    disk.fill()
    gate.release()
    ended = wait_ended()
    assert (ended.status, ended.reason, ended.exit_code) == ("TERMINATED", "failed", 7)


def test_the_signal_of_a_killed_run_is_reported_on_a_full_disk(
    there: RunnerConfig, small: StubAccount, disk: Disk
) -> None:
    small.control("run", SLEEP=600)
    run = start_run(there)
    wait_for(lambda: small.calls("run"), what="the run")
    disk.fill()
    kill_all([run.pid or 0])
    ended = wait_ended()
    assert (ended.reason, ended.exit_code, ended.signal) == ("killed", 137, "KILL")


def test_a_run_is_stopped_on_a_full_disk(there: RunnerConfig, small: StubAccount, disk: Disk) -> None:
    small.control("run", SLEEP=600)
    start_run(there)
    wait_for(lambda: small.calls("run"), what="the run")
    disk.fill()
    stopped = stop_run().run
    assert (stopped.status, stopped.reason) == ("TERMINATED", "stopped")


def full(disk: Disk) -> None:
    disk.fill()


def read_only(disk: Disk) -> None:
    disk.make_read_only()


@pytest.mark.parametrize(
    ("fault", "words"), [(full, "No space left on device"), (read_only, "Read-only file system")], ids=["full", "ro"]
)
def test_nothing_is_started_that_cannot_be_recorded(
    fault: Callable[[Disk], None], words: str, there: RunnerConfig, small: StubAccount, disk: Disk
) -> None:
    start_run(there)  # so that the folder of the run directories exists
    wait_ended()
    fault(disk)
    with pytest.raises(CommandFailed) as failed:
        start_run(there)
    assert words in str(failed.value)
    shown = look()
    assert (shown.status, shown.reason) == ("TERMINATED", "never_started")
    assert words in shown.detail
    wait_for(lambda: not small.processes(), what="the end of what the launch had begun")
    disk.make_writable()
    if fault is full:
        disk.empty()
    assert len(small.calls("run")) == 1
    start_run(there)
    assert wait_ended().status == "COMPLETED"


def test_a_launch_without_a_trace_is_undecided_until_it_can_be_claimed(
    there: RunnerConfig, small: StubAccount, disk: Disk
) -> None:
    """A launch called never_started could still start later: it is "cannot tell" until the claim can be written."""
    start_run(there)
    ended = wait_ended()
    lost = RunnerRun(expid=EXPID, config=there.as_dict(), runner=there.runner_type, module_loader="NO_MODULE")
    lost.created = ended.created.replace(year=2020)
    lost.save()
    disk.make_read_only()
    shown = look()
    assert (shown.pk, shown.status, shown.reachable) == (lost.pk, "ACTIVE", False)
    disk.make_writable()
    ended = wait_ended()
    assert (ended.pk, ended.reason) == (lost.pk, "never_started")
