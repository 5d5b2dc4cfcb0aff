"""Which process is the run? Reboots, reused pids, another node behind the same address, wrong clocks.

Promise: the pid alone proves nothing. Only the same machine can say "gone". A foreign process is never signalled.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.utils import timezone

from profiles.config import RunnerConfig
from runners.exceptions import NotRunning, RunnerUnreachable
from runners.models import RunnerRun
from runners.services import lifecycle, runs
from runners.services.machines.registry import get_runner
from tests.support.environments import StubAccount
from tests.support.faults import (
    EXPID,
    MakeGate,
    add_control,
    in_background,
    look,
    run_processes,
    start_run,
    stop_run,
    stored,
    wait_ended,
)
from tests.support.processes import PATIENCE, is_alive, kill_all, wait_for
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db(transaction=True)

ANOTHER_BOOT = "11111111-2222-3333-4444-555555555555"
HOUR = 3600.0

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may put sshd into other namespaces")


@pytest.fixture
def foreigner() -> Iterator[int]:
    """Yield a living process that does not belong to us."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True, env={})
    yield process.pid
    process.kill()
    process.wait()


def rewrite_identity(run: RunnerRun, **changes: Any) -> None:
    RunnerRun.objects.filter(pk=run.pk).update(identity={**(run.identity or {}), **changes})


# --- a reused pid -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known_by", ["the row", "the run directory"])
def test_a_process_that_reuses_the_pid_is_not_the_run_and_is_never_signalled(
    known_by: str, there: RunnerConfig, account: StubAccount, foreigner: int
) -> None:
    """Run and supervisor are gone without an exit code. A living foreign process now has the pids of both."""
    account.control("run", SLEEP=600)
    run = start_run(there)
    assert run.identity
    account.kill()
    start = int(Path(f"/proc/{foreigner}/stat").read_text().rpartition(") ")[2].split()[19])
    changes = {"pid": foreigner, "start": start - 1, "supervisor_pid": foreigner, "supervisor_start": start - 1}
    if known_by == "the row":
        rewrite_identity(run, **changes)
    else:
        words = [str(value) for value in {**run.identity, **changes}.values()]
        (account.home / ".autosubmit-runners" / run.key / "identity").write_text(" ".join(words) + "\n")
        RunnerRun.objects.update(identity=None, pid=None)
    stopped = stop_run(force=True)
    assert [step["outcome"] for step in stopped.steps] == ["had already ended"]
    assert (stopped.run.status, stopped.run.reason) == ("TERMINATED", "lost")
    assert is_alive(foreigner)


def test_a_pid_that_is_reused_while_a_stop_is_under_way_is_not_signalled(
    there: RunnerConfig, account: StubAccount, foreigner: int
) -> None:
    account.control("run", SLEEP=600)
    run = start_run(there)
    identity = lifecycle.identity_of(run)
    assert identity
    account.kill()
    start = int(Path(f"/proc/{foreigner}/stat").read_text().rpartition(") ")[2].split()[19])
    words = identity.words
    words[3:7] = [str(foreigner), str(start - 1)] * 2
    stale = type(identity).parse(" ".join(words))
    for name in ("INT", "TERM", "KILL"):
        answer = get_runner(there).signal(run.key, stale, name, timeout=30)
        assert answer.answer == "gone"
    assert is_alive(foreigner)


# --- another boot, another node ---------------------------------------------------------------------------------------


def become(sshd: SSHServer, *, hostname: str = "", boot_id: str = "", folder: Path) -> None:
    """Put another machine behind this address: other pid namespace, and host name and boot id as given."""
    words = ["mount --make-rprivate /"]
    if hostname:
        words.append(f"echo {hostname} >/proc/sys/kernel/hostname")
    if boot_id:
        (folder / "boot_id").write_text(boot_id + "\n")
        words.append(f"mount --bind {folder}/boot_id /proc/sys/kernel/random/boot_id")
    namespaces = ["--uts", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]
    sshd.stop()
    sshd.prefix = ["unshare", *namespaces, "sh", "-c", f'{" && ".join(words)} && exec "$@"', "sh"]
    sshd.start()


@pytest.fixture
def machine(account: StubAccount, make_sshd: Callable[..., SSHServer], monkeypatch: pytest.MonkeyPatch) -> SSHServer:
    account.experiment(EXPID)
    account.control("run", SLEEP=600)
    monkeypatch.setattr(lifecycle, "RETRY_UNREACHABLE", 0.1)
    return make_sshd(account.home)


def back_to_itself(sshd: SSHServer) -> None:
    sshd.stop()
    sshd.prefix = []
    sshd.start()


@needs_root
def test_after_a_reboot_the_run_is_over(machine: SSHServer, account: StubAccount, tmp_path: Path) -> None:
    start_run(machine.config())
    machine.stop()
    account.kill()
    become(machine, boot_id=ANOTHER_BOOT, folder=tmp_path)
    ended = look()
    assert (ended.status, ended.reason, ended.exit_code) == ("TERMINATED", "lost", None)
    assert "rebooted" in ended.detail
    again = start_run(machine.config())
    assert again.identity and again.identity["boot_id"] == ANOTHER_BOOT


@needs_root
def test_after_a_reboot_an_end_that_was_written_before_counts(
    machine: SSHServer, account: StubAccount, tmp_path: Path, make_gate: MakeGate
) -> None:
    gate = make_gate().arm()
    add_control(account, "run", gate.text, EXIT=7)
    start_run(machine.config())
    gate.wait_held()
    gate.release()
    wait_for(lambda: not account.processes(), what="its end")
    become(machine, boot_id=ANOTHER_BOOT, folder=tmp_path)
    ended = look()
    assert (ended.status, ended.reason, ended.exit_code) == ("TERMINATED", "failed", 7)


@needs_root
@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"hostname": "login2", "boot_id": ANOTHER_BOOT}, id="another node"),
        pytest.param({}, id="a container on the same host"),
    ],
)
def test_another_node_behind_the_address_cannot_tell(
    other: dict[str, str], machine: SSHServer, account: StubAccount, tmp_path: Path
) -> None:
    run = start_run(machine.config())
    before = stored(run)
    become(machine, **other, folder=tmp_path)
    shown = look()
    assert (shown.status, shown.reachable) == ("ACTIVE", False)
    assert "another machine answered" in shown.unreachable_detail
    with pytest.raises(RunnerUnreachable, match="another machine answered"):
        stop_run(force=True)
    assert stored(run) == before
    assert run_processes(account) == [run.pid]
    back_to_itself(machine)
    wait_for(lambda: look().reachable, what="the node of the run")
    assert stop_run().run.reason == "stopped"


@needs_root
def test_a_run_that_ended_is_seen_from_any_node(
    machine: SSHServer, account: StubAccount, tmp_path: Path, make_gate: MakeGate
) -> None:
    """The home is shared, so the exit code is shared, too."""
    gate = make_gate().arm()
    add_control(account, "run", gate.text, EXIT=7)
    start_run(machine.config())
    become(machine, hostname="login2", boot_id=ANOTHER_BOOT, folder=tmp_path)
    gate.wait_held()
    assert not look().reachable
    gate.release()
    ended = wait_ended()
    assert (ended.exit_code, ended.reason, ended.reachable) == (7, "failed", True)


# --- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-20 * HOUR, 20 * HOUR, -1e9], ids=["past", "future", "decades"])
def test_the_machines_clock_is_wrong(wrong: float, there: RunnerConfig, account: StubAccount) -> None:
    """The machine reports the end of a run. The stored end always lies between the run's start and now."""
    account.control("run", EXIT=7)
    run = start_run(there)
    folder = account.home / ".autosubmit-runners" / run.key
    (ended,) = wait_for(lambda: list(folder.glob("ended.*")), what="its end")
    code, signal, _ = ended.name.removeprefix("ended.").split(".")
    ended.rename(folder / f"ended.{code}.{signal}.{int(time.time() + wrong)}")
    shown = look()
    assert (shown.status, shown.exit_code) == ("TERMINATED", 7)
    assert shown.finished
    assert shown.created <= shown.finished <= timezone.now()


@pytest.mark.parametrize("jump", [-HOUR, HOUR], ids=["back", "forward"])
def test_the_clock_of_the_service_jumps(jump: float, there: RunnerConfig, account: StubAccount) -> None:
    """Stored times lie in the future or long ago. The service probes the machine nevertheless."""
    account.control("run", SLEEP=600)
    run = start_run(there)
    moved: dict[str, datetime] = {
        name: timezone.now() - timedelta(seconds=jump) for name in ("created", "confirmed_at")
    }
    RunnerRun.objects.update(**moved, probing_until=timezone.now() - timedelta(seconds=jump))
    account.kill()
    ended = runs.get_run(expid=EXPID, viewer=AnonymousUser())
    assert (ended.pk, ended.status, ended.reason) == (run.pk, "TERMINATED", "lost")
    assert ended.finished and ended.finished >= ended.created - timedelta(seconds=1)
    with pytest.raises(NotRunning):
        stop_run()


def test_a_forward_clock_jump_during_a_launch_starts_no_unrecorded_run(
    there: RunnerConfig, account: StubAccount, make_gate: MakeGate, at_login: Callable[[str], None]
) -> None:
    """The launch is suddenly past its deadline but has an identity. The service trusts the identity."""
    gate = make_gate().arm()
    at_login(gate.text)
    account.control("run", SLEEP=600)
    outcome = in_background(lambda: start_run(there))
    gate.wait_held()
    RunnerRun.objects.update(created=timezone.now() - timedelta(seconds=HOUR))
    assert look().status == "ACTIVE"
    gate.release()
    run = outcome.result(40 * PATIENCE)
    assert (run.status, look().status) == ("ACTIVE", "ACTIVE")
    wait_for(lambda: run_processes(account) == [run.pid], what="the run")
    kill_all([run.pid or 0])
