"""After the database was restored from an older backup, runs and operations that are not in it are found again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from profiles.config import RunnerConfig
from runners.commands.registry import one_shot_commands
from runners.management.commands import find_runs
from runners.models import AuditRecord, Operation, RunnerRun, RunReason, RunStatus, new_run_key
from runners.models.webhook import Webhook, WebhookDelivery
from runners.services import audit, bounded_queries, found_runs, labels, lifecycle, operations, probing, starting
from runners.services.machines import scripts
from runners.services.machines.probe import cannot_tell
from runners.services.machines.runner import CommandResult
from tests.support.environments import StubAccount
from tests.support.processes import wait_for
from tests.support.rows import open_profile, saved_run

pytestmark = pytest.mark.django_db(transaction=True)
Start = Callable[..., RunnerRun]
DEAD = {"HOST": "127.0.0.1", "PORT": 1, "USER": "x"}


@pytest.fixture
def config(config_of: Any) -> RunnerConfig:
    made: RunnerConfig = config_of("NO_MODULE")
    return made


@pytest.fixture
def start(config: RunnerConfig, account: StubAccount) -> Start:
    """Start a run of the experiment, and another one that stays in the database: so the machine is known."""

    def start(expid: str, **control: Any) -> RunnerRun:
        account.experiment(expid)
        account.control("run", expid, **control)
        record = AuditRecord(actor="ana")
        return starting.run_experiment(expid=expid, config=config, profile_name="MACHINE", audit=record)

    account.experiment("z000")
    account.control("run", "z000", SLEEP=600)
    starting.run_experiment(expid="z000", config=config, profile_name="MACHINE", audit=AuditRecord())
    return start


def lose(*rows: RunnerRun | Operation) -> None:
    """Delete rows, as if the database had been restored from a backup that is older than they are."""
    for row in rows:
        type(row).objects.filter(pk=row.pk).delete()


def directory(run: RunnerRun, account: StubAccount) -> Path:
    return account.home / ".autosubmit-runners" / run.key


def test_a_lost_run_that_goes_on_or_has_ended_gets_its_row_back(
    start: Start, account: StubAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = Webhook.objects.create(name="hook", url="https://hooks.example.org/x")
    ended, running = start("a001", EXIT=7), start("a002", SLEEP=600)
    wait_for(lambda: list(directory(ended, account).glob("ended.7.*")), what="the end")
    probing.probe([ended])
    before = WebhookDelivery.objects.get(run=ended)
    lose(ended, running)
    WebhookDelivery.objects.all().delete()

    call_command("find_runs")  # only lists
    told = capsys.readouterr().out
    assert f"run {ended.pk} of a001, started by ana" in told and "ended with exit code 7" in told
    assert RunnerRun.objects.count() == 1

    call_command("find_runs", adopt=True)
    again = RunnerRun.objects.get(key=ended.key)
    assert (again.pk, again.expid, again.started_by, again.created) == (ended.pk, "a001", "ana", ended.created)
    assert (again.status, again.reason, again.exit_code) == (RunStatus.TERMINATED, RunReason.FAILED, 7)
    found = RunnerRun.objects.get(key=running.key)
    assert (found.pk, found.status, found.identity) == (running.pk, RunStatus.ACTIVE, running.identity)
    assert found.config == running.config
    # The receiver may have got this message from the service before the restore: it has the same id.
    after = WebhookDelivery.objects.get(webhook=hook, run=again)
    assert after.message_id == before.message_id
    record = AuditRecord.objects.get(endpoint="find-runs")
    assert record.outcome == AuditRecord.OK and f"runner run {running.pk}" in record.detail

    call_command("find_runs", adopt=True)  # nothing is left
    assert "0 of them without a row" in capsys.readouterr().out


def test_a_run_whose_end_was_told_gets_its_row_back(start: Start, account: StubAccount) -> None:
    """Its message outlives the row, and has the id that the message about this end would have."""
    Webhook.objects.create(name="hook", url="https://hooks.example.org/x")
    run = start("a001", EXIT=7)
    wait_for(lambda: list(directory(run, account).glob("ended.7.*")), what="the end")
    probing.probe([run])
    lose(run)
    call_command("find_runs", adopt=True)
    assert RunnerRun.objects.get(key=run.key).exit_code == 7
    assert WebhookDelivery.objects.count() == 1


def test_each_row_that_was_made_is_in_the_audit_log(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of one record is limited, and a backup may be older than hundreds of runs."""
    assert find_runs.NAMES_MOST * len("runner run 1234567890, ") < audit.DETAIL_LIMIT - 500
    monkeypatch.setattr(find_runs, "NAMES_MOST", 2)
    runs = [start(expid, SLEEP=600) for expid in ("a001", "a002", "a003")]
    lose(*runs)
    call_command("find_runs", adopt=True)
    records = AuditRecord.objects.filter(endpoint="find-runs")
    words = " ".join(record.detail for record in records)
    assert len(records) == 2
    assert all(f"runner run {run.pk}" in words for run in runs)


def test_a_number_that_was_given_again_is_not_taken_away(start: Start, account: StubAccount) -> None:
    run = start("a001", SLEEP=600)
    lose(run)
    other = saved_run("b001", pk=run.pk, status=RunStatus.COMPLETED)
    (found,) = [each for looked in found_runs.find() for each in looked.found]
    assert found_runs.adopt(found)
    again = RunnerRun.objects.get(key=run.key)
    assert again.pk not in (run.pk, None) and again.renumbered
    assert RunnerRun.objects.get(pk=other.pk).expid == "b001"


@pytest.mark.parametrize("model", [RunnerRun, Operation])
def test_a_row_with_a_new_number_hides_no_other_row_in_lists_by_date(model: type[RunnerRun | Operation]) -> None:
    now = timezone.now()

    def save(name: str, days: float, **fields: Any) -> None:
        made = {"expid": name, "config": {}, "created": now - timedelta(days=days), "key": new_run_key()}
        model.objects.create(**made, **({"timeout": 1} if model is Operation else {}), **fields)

    def found(after: float | None, before: float | None) -> set[str]:
        """Return what is in the list, from so many days ago until so many days ago."""
        first, last = (None if days is None else now - timedelta(days=days) for days in (after, before))
        rows = model.objects.filter(bounded_queries.numbers_between(model.objects.all(), first, last))
        rows = rows.filter(created__gte=first) if first else rows
        return set((rows.filter(created__lt=last) if last else rows).values_list("expid", flat=True))

    for name, days in (("a10", 10), ("a2", 2), ("a1", 1)):
        save(name, days)
    save("b3", 3, renumbered=True)
    save("a0", 0)
    assert found(2.5, None) == {"a2", "a1", "a0"}
    assert found(None, 2.5) == {"a10", "b3"}
    assert found(3.5, 2.5) == {"b3"}
    assert found(11, 3.5) == {"a10"}
    assert found(2.5, 0.5) == {"a2", "a1"}


def test_a_directory_whose_label_is_not_ours_is_only_counted(
    start: Start, account: StubAccount, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Copied by the owner of the account, changed, missing, signed by another service, or no file."""
    run = start("a001", SLEEP=600)
    lose(run)
    mine = directory(run, account)
    for text in (None, "# AAAA\ntrue\n", "true\n", "# " + "A" * 20_000, "\0\xff"):
        other = mine.with_name(new_run_key())
        other.mkdir()
        (other / "command.sh").write_text(text if text is not None else (mine / "command.sh").read_text())
    pipe = mine.with_name(new_run_key())
    pipe.mkdir()
    shutil.copy("/etc/hostname", pipe / "log")
    (pipe / "command.sh").symlink_to("/dev/zero")
    call_command("find_runs", adopt=True)
    told = capsys.readouterr().out
    assert "6 more are of another service or of an older version" in told
    assert RunnerRun.objects.filter(expid="a001").get().key == run.key

    lose(run)
    old, settings.SECRET_KEY = settings.SECRET_KEY, "another-7d1mQ0xTz8wXy1LrB7uHc2JdFg9PaSeM"
    call_command("find_runs", adopt=True)
    assert not RunnerRun.objects.filter(expid="a001").exists()
    settings.SECRET_KEY_FALLBACKS = [old]  # the key was rotated since
    call_command("find_runs", adopt=True)
    assert RunnerRun.objects.get(expid="a001").key == run.key


def test_a_row_that_is_active_in_the_way_is_named(start: Start, account: StubAccount) -> None:
    run = start("a001", SLEEP=600)
    lose(run)
    saved_run("a001", installation=run.installation)
    with pytest.raises(CommandError, match="1 rows were not made"):
        call_command("find_runs", adopt=True)
    assert not RunnerRun.objects.filter(key=run.key).exists()


def test_a_restart_that_was_done_after_the_backup_is_not_done_again(start: Start, account: StubAccount) -> None:
    run = start("a001", SLEEP=600)
    lose(run)
    first = saved_run(
        "a001", status=RunStatus.TERMINATED, restart_at=timezone.now(), restart_key=run.key, finished=timezone.now()
    )
    call_command("find_runs", adopt=True)
    first.refresh_from_db()
    assert (first.restart_at, first.restart_detail) == (None, f"Started again as run {run.pk}.")


def test_a_lost_operation_is_found(config: RunnerConfig, account: StubAccount, start: Start) -> None:
    command = one_shot_commands()["create-job-list"]
    account.experiment("a001")
    made = operations.start(
        command=command,
        expid="a001",
        config=config,
        profile_name="MACHINE",
        params={},
        timeout=60,
        audit=AuditRecord(actor="ana"),
    )
    lose(made)
    call_command("find_runs", adopt=True)
    again = Operation.objects.get(key=made.key)
    assert (again.pk, again.kind, again.argv) == (made.pk, made.kind, made.argv)

    def is_over() -> bool:
        probing.probe([again])
        return not again.is_active

    wait_for(is_over, what="the end of the operation")
    assert again.status == "succeeded"


def test_a_machine_that_is_silent_is_named_and_the_others_are_asked(
    start: Start, account: StubAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start("a001", SLEEP=600)
    lose(run)
    gone = RunnerConfig.from_dict({**run.config, "RUNNER_TYPE": "SSH", "SSH": DEAD})
    saved_run("b001", config=gone.as_dict(), runner="SSH", status=RunStatus.COMPLETED, finished=timezone.now())
    with pytest.raises(CommandError, match="1 accounts could not be asked"):
        call_command("find_runs", adopt=True)
    assert "127.0.0.1" in capsys.readouterr().err
    assert lifecycle.is_readable(RunnerRun.objects.get(key=run.key))
    assert f"runner run {run.pk}" in AuditRecord.objects.get(endpoint="find-runs").detail


def test_a_new_profile_does_not_get_the_number_of_the_lost_profile_of_a_run(start: Start) -> None:
    """The number decides who may see and stop the run."""
    last = open_profile("LAST")
    run = start("a001", SLEEP=600)
    run.profile_id, run.profile_name = last.pk + 5, "LOST"
    label = labels.of(run)
    lose(run)
    assert found_runs.adopt(found_runs.Found(labels.read(label, run.key), cannot_tell("not asked")))
    assert open_profile("NEW").pk > last.pk + 5


def test_numbers_are_skipped_although_a_machine_is_silent(start: Start) -> None:
    last = start("a001", SLEEP=600)
    gone = RunnerConfig.from_dict({**last.config, "RUNNER_TYPE": "SSH", "SSH": DEAD})
    saved_run("b001", config=gone.as_dict(), runner="SSH", status=RunStatus.COMPLETED, finished=timezone.now())
    with pytest.raises(CommandError, match="1 accounts could not be asked"):
        call_command("find_runs", adopt=True, skip_numbers=1000)
    assert saved_run("a002").pk > last.pk + 1000


def test_a_machine_that_lists_the_same_directories_for_ever_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of the account decides what its shell prints."""
    lines = "".join(f"{number:032x} -\n" for number in range(found_runs.DIRECTORIES_AT_ONCE)) + scripts.END + "\n"
    result = CommandResult(0, lines.encode(), b"", 0.1)
    calls: list[int] = []

    def execute(*args: Any, **options: Any) -> CommandResult:
        calls.append(1)
        assert len(calls) < 10, "it goes on for ever"
        return result

    runner = lifecycle.runner_of(saved_run("a001"))
    monkeypatch.setattr(type(runner), "execute", execute)
    assert "is not valid" in found_runs._look(runner).problem


def test_a_long_answer_hides_no_directory(start: Start, account: StubAccount, settings: Any) -> None:
    """Only the end of an answer is kept. What is missing must not look like an account without directories."""
    longest = scripts.LABEL_LIMIT + len(f"{new_run_key()} \n")
    assert found_runs.DIRECTORIES_AT_ONCE * longest + len(f"{scripts.END}\n") <= settings.RUNNERS_OUTPUT_LIMIT
    lose(start("a001", SLEEP=600))
    settings.RUNNERS_OUTPUT_LIMIT = 200
    (problem,) = {looked.problem for looked in found_runs.find()}
    assert "Set RUNNERS_OUTPUT_LIMIT to 1048576 or more" in problem


def test_numbers_that_were_told_are_not_used_again(db: None) -> None:
    last = saved_run("a001")
    call_command("find_runs", skip_numbers=1000)
    assert saved_run("a002").pk > last.pk + 1000
    newest = saved_run("a003")
    lose(newest)  # by the retention
    call_command("find_runs", skip_numbers=1)
    assert saved_run("a004").pk > newest.pk + 1
    with pytest.raises(CommandError, match="0 to 1000000"):
        call_command("find_runs", skip_numbers=-1)


def test_a_label_of_a_newer_version_may_have_more_columns() -> None:
    row = saved_run("a001")
    label = labels.of(row)
    assert labels.read(label, row.key).started_by == row.started_by
    with pytest.raises(labels.NotOurs):
        labels.read(label, new_run_key())


def test_a_local_run_of_another_node_stays_there(settings: Any) -> None:
    """Otherwise this node would look for its directory, find none, and call the run "never started"."""
    here, settings.RUNNERS_NODE = settings.RUNNERS_NODE, "another"
    row = saved_run("a001")
    label = labels.of(row)
    settings.RUNNERS_NODE = here
    lose(row)
    again = labels.read(label, row.key)
    again.save(force_insert=True)
    again.refresh_from_db()
    assert (again.node, again.machine) == ("another", row.machine)
