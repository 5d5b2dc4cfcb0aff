"""clean_runs removes what ended long ago, on the machine and in the database, and keeps what may still be alive."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from profiles.config import RunnerConfig
from runners.models import AuditRecord, RunnerRun, RunReason, RunStatus, new_run_key
from runners.models.operation import Operation, OperationStatus
from runners.models.webhook import Webhook, WebhookDelivery
from runners.services import lifecycle, probing, starting
from runners.services.machines.local import LocalRunner
from runners.services.machines.ssh.runner import SSHRunner
from tests.support.environments import StubAccount
from tests.support.processes import free_port, wait_for
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db(transaction=True)

LONG_AGO = timedelta(days=40)


def start(expid: str, config: RunnerConfig, account: StubAccount, **control: Any) -> RunnerRun:
    account.experiment(expid)
    account.control("run", expid, **control)
    return starting.run_experiment(expid=expid, config=config, profile_name="MACHINE", audit=AuditRecord())


def ended(expid: str, config: RunnerConfig, account: StubAccount, *, age: timedelta = LONG_AGO) -> RunnerRun:
    """Return a real run that has ended. Its row says that it ended `age` ago."""
    run = start(expid, config, account)

    def is_over() -> bool:
        probing.probe([run])
        return not run.is_active

    wait_for(is_over, what=f"end of {expid}")
    RunnerRun.objects.filter(pk=run.pk).update(finished=timezone.now() - age)
    return run


def directory(run: RunnerRun | Operation, account: StubAccount) -> Path:
    return account.home / ".autosubmit-runners" / run.key


@pytest.fixture
def no_module(config_of: Any) -> RunnerConfig:
    config: RunnerConfig = config_of("NO_MODULE")
    return config


def test_old_directories_go_and_others_stay(
    no_module: RunnerConfig, account: StubAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    old = ended("a001", no_module, account)
    young = ended("a002", no_module, account, age=timedelta(days=20))
    active = start("a003", no_module, account, SLEEP=600)
    RunnerRun.objects.filter(pk=active.pk).update(created=timezone.now() - LONG_AGO)
    assert directory(old, account).is_dir()

    call_command("clean_runs", days=30, dry_run=True)
    assert "1 directories would be removed" in capsys.readouterr().out
    assert directory(old, account).is_dir()
    assert not RunnerRun.objects.exclude(cleaned_at=None).exists()

    call_command("clean_runs", days=30)
    assert "1 directories removed" in capsys.readouterr().out
    assert [directory(run, account).exists() for run in (old, young, active)] == [False, True, True]
    assert list(RunnerRun.objects.exclude(cleaned_at=None)) == [old]

    call_command("clean_runs", days=30)
    assert capsys.readouterr().out == ""  # nothing is removed twice


def test_a_machine_is_asked_once(
    sshd: SSHServer, account: StubAccount, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = sshd.config()
    runs = [ended(f"a00{number}", config, account) for number in range(3)]
    local = ended("b001", account.config(), account)
    exchanges = []
    for kind in (SSHRunner, LocalRunner):
        whole = kind.exchange

        def counted(self: Any, *args: Any, whole: Any = whole) -> Any:
            exchanges.append(self.where)
            return whole(self, *args)

        monkeypatch.setattr(kind, "exchange", counted)
    call_command("clean_runs", days=30)
    assert len(exchanges) == 2
    assert not any(directory(run, account).exists() for run in [*runs, local])
    assert "3 directories removed" in capsys.readouterr().out


def test_an_abandoned_run_that_still_lives_keeps_its_directory(
    no_module: RunnerConfig, account: StubAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start("a001", no_module, account, SLEEP=600)
    lifecycle.finish_run(run, reason=RunReason.ABANDONED, confirmed=False, finished=timezone.now())
    RunnerRun.objects.update(finished=timezone.now() - LONG_AGO)
    call_command("clean_runs", days=30, rows=True)
    assert "1 kept" in capsys.readouterr().out
    assert directory(run, account).is_dir()
    assert RunnerRun.objects.get().cleaned_at is None
    account.kill()
    call_command("clean_runs", days=30, rows=True)
    assert not directory(run, account).exists()
    assert not RunnerRun.objects.exists()


def test_a_run_without_a_directory_is_marked_as_cleaned(no_module: RunnerConfig, account: StubAccount) -> None:
    run = RunnerRun.objects.create(
        expid="a001", config=no_module.as_dict(), runner=no_module.runner_type, module_loader="NO_MODULE"
    )
    lifecycle.finish_run(run, reason=RunReason.NEVER_STARTED)
    call_command("clean_runs", days=0)
    assert RunnerRun.objects.get().cleaned_at


def test_while_the_home_is_away_nothing_is_marked_as_cleaned(
    no_module: RunnerConfig, account: StubAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ended("a001", no_module, account)
    away = account.home.with_name("away")
    account.home.rename(away)
    try:
        call_command("clean_runs", days=30, rows=True)
    finally:
        away.rename(account.home)
    assert "1 kept" in capsys.readouterr().out
    assert directory(run, account).is_dir()
    call_command("clean_runs", days=30, rows=True)
    assert not directory(run, account).exists()
    assert not RunnerRun.objects.exists()


def test_directories_of_operations_go_too(no_module: RunnerConfig, account: StubAccount) -> None:
    done, active = (
        Operation.objects.create(
            key=new_run_key(),
            kind="create-job-list",
            config=no_module.as_dict(),
            timeout=60,
            status=status,
            finished=timezone.now() - LONG_AGO if status == OperationStatus.SUCCEEDED else None,
        )
        for status in (OperationStatus.SUCCEEDED, OperationStatus.RUNNING)
    )
    for operation in (done, active):
        directory(operation, account).mkdir(parents=True)
        (directory(operation, account) / "ended.0.-.1700000000").touch()
    call_command("clean_runs", days=30, rows=True)
    assert not directory(done, account).exists()
    assert directory(active, account).exists()
    assert list(Operation.objects.all()) == [active]


def test_only_directories_of_known_runs_are_removed(no_module: RunnerConfig, account: StubAccount) -> None:
    run = ended("a001", no_module, account)
    foreign = account.home / ".autosubmit-runners" / new_run_key()
    foreign.mkdir()
    hostile = ended("a002", no_module, account)
    RunnerRun.objects.filter(pk=hostile.pk).update(key="../autosubmit")
    call_command("clean_runs", days=30)
    assert not directory(run, account).exists()
    assert foreign.is_dir()
    assert (account.home / "autosubmit").is_dir()


def test_a_machine_that_cannot_be_reached_keeps_its_rows_and_does_not_stop_the_others(
    sshd: SSHServer, account: StubAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = ended("a001", account.config(), account), ended("a002", sshd.config(), account)
    config = sshd.config()
    assert config.target
    lost = replace(config, target=replace(config.target, port=free_port()))
    RunnerRun.objects.filter(pk=there.pk).update(config=lost.as_dict())
    with pytest.raises(CommandError, match="1 machine"):
        call_command("clean_runs", days=30, rows=True)
    assert "connection refused" in capsys.readouterr().err
    assert list(RunnerRun.objects.all()) == [there]
    assert not directory(here, account).exists()


def test_rows_and_audit_records_go_only_when_asked(
    no_module: RunnerConfig, account: StubAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = Webhook.objects.create(name="a", url="https://hooks.example.org/")
    run = ended("a001", no_module, account)
    WebhookDelivery.objects.update(created=timezone.now() - LONG_AGO, next_attempt=None)
    waiting = WebhookDelivery.objects.create(
        webhook=hook, event="run.completed", payload={}, created=timezone.now() - LONG_AGO
    )
    AuditRecord.objects.create(endpoint="old", created=timezone.now() - LONG_AGO)
    AuditRecord.objects.create(endpoint="young")

    call_command("clean_runs", days=30)
    assert RunnerRun.objects.filter(pk=run.pk, status=RunStatus.COMPLETED).exists()
    assert (WebhookDelivery.objects.count(), AuditRecord.objects.count()) == (2, 3)  # one is of the command itself
    call_command("clean_runs", days=30, rows=True, audit=True, dry_run=True)
    assert "up to 1 runner runs would be deleted" in capsys.readouterr().out
    assert RunnerRun.objects.exists()
    call_command("clean_runs", days=30, rows=True, audit=True)
    assert not RunnerRun.objects.exists()
    assert list(WebhookDelivery.objects.all()) == [waiting]
    assert [record.endpoint for record in AuditRecord.objects.exclude(endpoint="clean-runs")] == ["young"]
    assert AuditRecord.objects.filter(endpoint="clean-runs", outcome="ok").count() == 3


def test_negative_days_are_refused() -> None:
    with pytest.raises(CommandError):
        call_command("clean_runs", days=-1)
