"""Machines and nodes that are gone for good: their rows end, and the nightly commands succeed again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from profiles.config import RunnerConfig
from runners.models import AuditRecord, Heartbeat, Machine, Maintenance, Operation, RunnerRun, RunReason
from runners.models.operation import OperationStatus
from runners.services import health
from tests.support.processes import free_port
from tests.support.rows import open_profile, saved_run
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db(transaction=True)
LONG_AGO = timedelta(days=40)


@pytest.fixture
def gone(sshd: SSHServer) -> RunnerConfig:
    """The configuration of a machine that does not exist any more."""
    return RunnerConfig("SSH", "NO_MODULE", (), replace(sshd.target, port=free_port()))


def rows_of(config: RunnerConfig, **more: Any) -> tuple[RunnerRun, RunnerRun, Operation]:
    """Return an active run, one that ended long ago and has a pending restart, and an active operation."""
    fields = {"config": config.as_dict(), "runner": config.runner_type, "module_loader": "NO_MODULE", **more}
    active = saved_run("a001", **fields)
    old = saved_run(
        "a002",
        **fields,
        status="TERMINATED",
        reason="lost",
        finished=timezone.now() - LONG_AGO,
        restart_at=timezone.now() + timedelta(hours=1),
    )
    operation = Operation.objects.create(
        expid="a003", kind="create-job-list", config=config.as_dict(), timeout=60, node=more.get("node", "")
    )
    return active, old, operation


def assert_ended(active: RunnerRun, old: RunnerRun, operation: Operation, words: str) -> None:
    for row in (active, old, operation):
        row.refresh_from_db()
    assert (active.reason, active.detail) == (RunReason.ABANDONED, words)
    assert operation.status == OperationStatus.UNKNOWN
    assert old.restart_at is None
    assert words in old.restart_detail
    assert None not in (active.cleaned_at, old.cleaned_at, operation.cleaned_at)
    call_command("clean_runs", days=30, rows=True)  # ends well, and asks nobody
    assert set(RunnerRun.objects.all()) == {active}  # it is not old enough
    call_command("clean_runs", days=0, rows=True)
    assert not RunnerRun.objects.exists()
    assert not Operation.objects.exists()


def test_a_machine_that_is_gone(gone: RunnerConfig, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(gone)
    Machine.objects.create(name="127.0.0.1")
    Maintenance.objects.create(machine="127.0.0.1", text="for ever")
    with pytest.raises(CommandError, match="could not be cleaned"):
        call_command("clean_runs", days=30, rows=True)
    profile = open_profile("OLD", runner_type="SSH", ssh_host="127.0.0.1")
    with pytest.raises(CommandError, match="the profiles OLD lead there"):
        call_command("forget_machine", "127.0.0.1", reason="sold")
    profile.delete()
    with pytest.raises(CommandError, match="Give a reason"):
        call_command("forget_machine", "127.0.0.1", reason="  ")
    with pytest.raises(CommandError, match=r"no row of this service is of this machine. Known are: 127\.0\.0\.1"):
        call_command("forget_machine", "127.0.0.2", reason="sold")
    assert RunnerRun.objects.active().count() == 1
    call_command("forget_machine", "127.0.0.1", reason="sold")
    assert "1 active runs and 1 operations were declared ended, 1 restarts" in capsys.readouterr().out
    assert not Machine.objects.filter(name="127.0.0.1").exists()  # another test may have noted localhost
    assert not Maintenance.objects.exists()
    record = AuditRecord.objects.filter(endpoint="forget-machine").latest("pk")
    assert (record.outcome, record.detail) == ("ok", "127.0.0.1: sold")
    assert_ended(*rows, "The machine 127.0.0.1 is gone for good: sold")


def test_a_machine_that_answers_is_not_gone(sshd: SSHServer) -> None:
    active, _, _ = rows_of(sshd.config())
    with pytest.raises(CommandError, match="has just answered, so it is not gone"):
        call_command("forget_machine", "127.0.0.1", reason="sold")
    assert_kept(active)


def assert_kept(active: RunnerRun) -> None:
    active.refresh_from_db()
    assert active.is_active
    assert active.cleaned_at is None


def test_a_machine_whose_run_directory_is_wrong_answers(sshd: SSHServer) -> None:
    active, _, _ = rows_of(replace(sshd.config(), run_directory="/nowhere"))
    with pytest.raises(CommandError, match=r"It is not certain that 127\.0\.0\.1 is gone: .*/nowhere"):
        call_command("forget_machine", "127.0.0.1", reason="sold")
    assert_kept(active)


def test_a_machine_that_has_just_answered_another_node_is_not_gone(gone: RunnerConfig) -> None:
    active, _, _ = rows_of(gone)
    Machine.objects.create(name="127.0.0.1", last_answer=timezone.now(), is_answering=True)
    with pytest.raises(CommandError, match="has answered this node or another one"):
        call_command("forget_machine", "127.0.0.1", reason="sold", login_fails=True)
    assert_kept(active)
    Machine.objects.update(last_answer=timezone.now() - timedelta(minutes=2))
    call_command("forget_machine", "127.0.0.1", reason="sold")


@pytest.mark.parametrize("cause", ["key", "host_key"])
def test_a_machine_that_rejects_the_login_is_forgotten_only_on_demand(sshd: SSHServer, cause: str) -> None:
    rows = rows_of(sshd.config())
    if cause == "key":
        sshd.authorized = False
    else:
        sshd.forget_host_key()
    with pytest.raises(
        CommandError, match=r"not certain that the runs on 127\.0\.0\.1 have ended: .*--even-if-login-fails"
    ):
        call_command("forget_machine", "127.0.0.1", reason="the account is gone")
    assert RunnerRun.objects.active().count() == 1
    call_command("forget_machine", "127.0.0.1", reason="the account is gone", login_fails=True)
    rows[0].refresh_from_db()
    assert rows[0].reason == RunReason.ABANDONED


def test_localhost_is_a_node(gone: RunnerConfig) -> None:
    with pytest.raises(CommandError, match="use forget_node NAME"):
        call_command("forget_machine", "localhost", reason="sold")


def test_a_node_needs_a_name(gone: RunnerConfig) -> None:
    """`forget_node "$NODE"` without the variable must not end the runs over SSH, whose node is empty."""
    active, _, _ = rows_of(gone)
    with pytest.raises(CommandError, match="Give the name of the node"):
        call_command("forget_node", "", reason="its disk failed")
    active.refresh_from_db()
    assert active.is_active


def test_a_node_that_is_gone(account: Any, settings: Any) -> None:
    rows = rows_of(account.config(), node="old-node")
    RunnerRun.objects.update(node="old-node")  # `save` names the node of this process
    Operation.objects.update(node="old-node")
    beat = Heartbeat.objects.create(kind="watch_runs", owner="one", node="old-node", interval=10)
    with pytest.raises(CommandError, match=r"A worker of the node old-node was seen \d s ago"):
        call_command("forget_node", "old-node", reason="its disk failed")
    Heartbeat.objects.filter(pk=beat.pk).update(seen=timezone.now() - timedelta(minutes=2))
    beat = Heartbeat.objects.create(kind=health.SERVER, owner="two", node="old-node", interval=10)
    with pytest.raises(CommandError, match=r"A server of the node old-node was seen \d s ago.* expires 60 s after"):
        call_command("forget_node", "old-node", reason="its disk failed")
    Heartbeat.objects.filter(pk=beat.pk).update(seen=timezone.now() - timedelta(minutes=2))
    with pytest.raises(CommandError, match="is of the node other. Known are: old-node"):
        call_command("forget_node", "other", reason="its disk failed")
    settings.RUNNERS_NODE = "old-node"
    with pytest.raises(CommandError, match="runs on the node old-node, so it is not gone"):
        call_command("forget_node", "old-node", reason="its disk failed")
    settings.RUNNERS_NODE = "other-node"
    call_command("forget_node", "old-node", reason="its disk failed")
    assert not Heartbeat.objects.exists()
    assert_ended(*rows, "The node old-node of this service is gone for good: its disk failed")
