"""What is stored for webhooks when a run ends."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import IntegrityError, connection

from profiles.config import RunnerConfig
from runners.exceptions import CommandFailed
from runners.models import AuditRecord, Operation, OperationStatus, RunnerRun, RunReason, RunStatus
from runners.models.webhook import WebhookDelivery, WebhookEvent
from runners.services import lifecycle, operations, outbox, starting
from runners.webhooks import delivery as webhooks
from tests.support.environments import StubAccount
from tests.support.webhooks import Receiver, active_run, ended_run, hook

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("end", "event"),
    [
        ({"reason": "", "exit_code": 0}, "run.completed"),
        ({"reason": RunReason.FAILED, "exit_code": 3}, "run.terminated"),
        ({"reason": RunReason.LOST}, "run.terminated"),
        ({"reason": RunReason.ABANDONED, "confirmed": False}, "run.terminated"),
        ({"reason": RunReason.NEVER_STARTED}, "run.never_started"),
    ],
    ids=["completed", "failed", "lost", "abandoned", "never started"],
)
def test_the_end_of_a_run_is_written_to_the_outbox(receiver: Receiver, end: dict[str, Any], event: str) -> None:
    listener = hook(receiver)
    run = active_run()
    lifecycle.finish_run(run, **end)
    delivery = WebhookDelivery.objects.get()
    assert (delivery.webhook, delivery.run, delivery.event) == (listener, run, event)
    assert delivery.payload == {
        "type": event,
        "timestamp": run.modified.isoformat(timespec="seconds"),
        "data": outbox.message_fields(RunnerRun.objects.get(pk=run.pk)),
    }
    assert not receiver.requests  # the end of a run only stores the message


def test_a_message_has_counts_and_job_names_and_no_text_of_a_log(receiver: Receiver) -> None:
    hook(receiver)
    run = active_run()
    jobs = {"total": 13, "failed": 1, "not_run": 2, "failed_jobs": ["a001_BAD"]}
    lifecycle.finish_run(run, reason=RunReason.FAILED, exit_code=1, detail="password=hunter2 in a log", jobs=jobs)
    payload = WebhookDelivery.objects.get().payload
    assert payload["data"]["jobs"] == jobs
    assert payload["data"]["explanation"] == "1 of 13 jobs failed: a001_BAD. 2 of 13 jobs were not run."
    assert "hunter2" not in str(payload)


def test_a_failed_launch_is_reported_as_never_started(receiver: Receiver, account: StubAccount) -> None:
    hook(receiver)
    config = RunnerConfig("LOCAL", "VENV", (f"{account.home}/no-such-venv",))
    with pytest.raises(CommandFailed):
        starting.run_experiment(expid="a001", config=config, profile_name="MACHINE", audit=AuditRecord())
    delivery = WebhookDelivery.objects.get()
    assert (delivery.event, delivery.payload["data"]["reason"]) == ("run.never_started", "never_started")


def test_the_message_has_what_other_processes_wrote_to_the_run(receiver: Receiver) -> None:
    hook(receiver)
    run = active_run()
    RunnerRun.objects.filter(pk=run.pk).update(stopped_by="somebody else")
    lifecycle.finish_run(run, reason=RunReason.STOPPED)
    assert WebhookDelivery.objects.get().payload["data"]["stopped_by"] == "somebody else"


def test_only_the_wanted_events_and_profiles_are_written(receiver: Receiver) -> None:
    hook(receiver, "everything")
    hook(receiver, "failures", events=["run.terminated", "run.never_started"])
    hook(receiver, "one profile", profile_names=["OTHER"])
    hook(receiver, "off", enabled=False)
    ended_run("a001")
    ended_run("a002", exit_code=1, profile_name="OTHER")
    told = {(delivery.run.expid, delivery.webhook.name) for delivery in WebhookDelivery.objects.all() if delivery.run}
    assert told == {("a001", "everything"), ("a002", "everything"), ("a002", "failures"), ("a002", "one profile")}


def test_an_end_that_several_processes_see_is_stored_once(receiver: Receiver) -> None:
    hook(receiver)
    run = active_run()
    copies = [RunnerRun.objects.get(pk=run.pk) for _ in range(6)]

    def finish(copy: RunnerRun) -> bool:
        try:
            return lifecycle.finish_run(copy, reason=RunReason.FAILED, exit_code=1)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(finish, copies)) == [False] * 5 + [True]
    assert WebhookDelivery.objects.count() == 1


def test_an_event_of_a_run_that_goes_on_is_told_once(receiver: Receiver) -> None:
    hook(receiver)
    run = active_run()
    for limit in (1, 2):
        outbox.tell(run, WebhookEvent.LOG_TOO_LARGE, limit=limit)
    for _ in range(2):  # it may be silent several times
        outbox.tell(run, WebhookEvent.SILENT)
    lifecycle.finish_run(run, reason="", exit_code=0)
    stored = list(WebhookDelivery.objects.order_by("id"))
    assert [each.event for each in stored] == ["run.log_too_large", "run.silent", "run.silent", "run.completed"]
    assert stored[0].payload["data"]["limit"] == 1


def test_both_outcomes_of_restarts_are_told_with_ids_that_survive_a_restore(receiver: Receiver) -> None:
    hook(receiver)
    run = active_run()

    def tell() -> list[tuple[bool, str]]:
        for restarted in (True, False, False):
            outbox.tell(run, WebhookEvent.RESTARTED, restarted=restarted, why="a reason")
        stored = WebhookDelivery.objects.order_by("id")
        return [(each.payload["data"]["restarted"], each.message_id) for each in stored]

    before = tell()
    assert [restarted for restarted, _ in before] == [True, False]
    WebhookDelivery.objects.all().delete()
    assert tell() == before


@pytest.mark.parametrize("status", [OperationStatus.FAILED, OperationStatus.UNKNOWN])
def test_a_failed_operation_is_told_without_the_text_of_a_machine(receiver: Receiver, status: OperationStatus) -> None:
    hook(receiver)
    hook(receiver, "runs only", events=["run.terminated"])
    config = RunnerConfig("LOCAL", "NO_MODULE").as_dict()
    operation = Operation.objects.create(kind="create-job-list", expid="a001", config=config, timeout=60)
    error = CommandFailed("password=hunter2", output="hunter2")
    assert operations.finish_operation(operation, status=status, error=error)
    assert not operations.finish_operation(operation, status=status, error=error)
    payload = WebhookDelivery.objects.get().payload
    assert payload["type"] == "operation.failed"
    assert payload["data"].items() >= {"kind": "create-job-list", "expid": "a001", "code": "command_failed"}.items()
    assert "hunter2" not in str(payload)


def test_the_end_and_its_message_are_stored_together_or_not_at_all(receiver: Receiver) -> None:
    run = active_run()
    hook(receiver)
    with connection.cursor() as cursor:
        table = WebhookDelivery._meta.db_table
        cursor.execute(f"CREATE TEMP TRIGGER full BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END")
        try:
            with pytest.raises(IntegrityError, match="full"):  # raised by the message
                lifecycle.finish_run(run, reason="", exit_code=0)
        finally:
            cursor.execute("DROP TRIGGER full")
    assert RunnerRun.objects.get(pk=run.pk).status == RunStatus.ACTIVE
    lifecycle.finish_run(run, reason="", exit_code=0)
    assert WebhookDelivery.objects.get().run == run


def test_without_webhooks_an_end_costs_one_more_query(django_assert_num_queries: Any) -> None:
    run = active_run()
    with django_assert_num_queries(4):  # BEGIN, the end, the webhooks, COMMIT
        lifecycle.finish_run(run, reason="", exit_code=0)


def test_the_payload_is_json_whatever_the_run_says(receiver: Receiver) -> None:
    hook(receiver)
    run = active_run()
    RunnerRun.objects.filter(pk=run.pk).update(started_by='größe "quoted" \u2028', modules="a\nb")
    lifecycle.finish_run(run, reason="", exit_code=0)
    webhooks.deliver_due()
    data = json.loads(receiver.requests[0][2])["data"]
    assert (data["started_by"], data["modules"]) == ('größe "quoted" \u2028', "a\nb")
    assert os.fsencode(data["started_by"])
