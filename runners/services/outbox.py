"""The outbox of the webhooks: messages about runs and operations are rows here, until they are delivered.

The functions only insert rows, in the transaction that ends the run, or changes it in another way. So no message is
lost, no message is sent for something that did not happen, and no receiver can disturb a run.
`runners.webhooks.delivery` sends the messages.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.dispatch import Signal

from runners.commands import run_log
from runners.models import Operation, RunnerRun, RunReason, RunStatus, Webhook, WebhookDelivery, WebhookEvent
from runners.models.webhook import new_message_id
from runners.services import mail
from runners.services.representations import iso_time, run_fields
from runners_project import clock, metrics

inserted = Signal()  # after the commit of new messages; `webhooks`: the numbers of their receivers


def run_ended(run: RunnerRun) -> None:
    """Insert the messages for the receivers. Called once per run, inside the transaction that ends it.

    Without receivers this costs one small query.
    """
    transaction.on_commit(metrics.RUNS_ENDED.labels(run.status, run.reason).inc)
    _insert(run, event_of(run), {})


def tell(run: RunnerRun, event: WebhookEvent, **more: Any) -> None:
    """Insert the messages about a run that goes on, inside the transaction that stores what has happened.

    Each receiver gets each event of a run at most once: later calls insert nothing. The exceptions are SILENT and
    RESTARTED, whose callers count the silences, and the restarts and refusals. `more`: further members of `data`, as
    JSON types, without any text of a log.
    """
    _insert(run, event, more)


def _insert(run: RunnerRun, event: WebhookEvent, more: dict[str, Any]) -> None:
    hooks = [hook for hook in Webhook.objects.filter(enabled=True) if hook.wants(event, run.profile_name)]
    if hooks or mail.is_on():
        run.refresh_from_db()  # other processes may have changed the row, e.g. stored who requested the stop
        mail.run_event(run, event, message_fields(run) | more)
    if hooks:
        when = clock.now() if run.is_active else run.modified
        payload = _payload(event, when, message_fields(run) | more)
        what = f"{event} refused" if more.get("restarted") is False else event
        WebhookDelivery.objects.bulk_create(
            (
                WebhookDelivery(
                    webhook=hook, run=run, event=event, payload=payload, message_id=_message_id(hook, run, what)
                )
                for hook in hooks
            ),
            ignore_conflicts=True,  # of an event that was told, also if the row of the run was made again since
        )
        _tell_inserted(hooks)


def _message_id(hook: Webhook, run: RunnerRun, what: str) -> str:
    """Return the id of a message. It is the same if the message is written again after a restore from a backup.

    So a receiver that has got the message from the service before the restore can drop the second one. `what`: the
    event; the refusal of a restart differs from the message that the run is a restart itself.
    """
    if what == WebhookEvent.SILENT:  # a run may be silent several times
        return new_message_id()
    return f"msg_{hashlib.sha256(f'{hook.pk} {run.key} {what}'.encode()).hexdigest()[:32]}"


def forget(run: RunnerRun) -> None:
    """Remove the messages about a run that are not delivered yet. Called inside the transaction that deletes it."""
    WebhookDelivery.objects.filter(run=run, delivered_at=None).delete()


def operation_failed(operation: Operation) -> None:
    """Insert the messages about an operation that failed. Called inside the transaction that ends it."""
    event = WebhookEvent.OPERATION_FAILED
    hooks = [hook for hook in Webhook.objects.filter(enabled=True) if hook.wants(event, operation.profile_name)]
    if hooks:
        payload = _payload(event, operation.modified, operation_fields(operation))
        WebhookDelivery.objects.bulk_create(
            WebhookDelivery(webhook=hook, event=event, payload=payload) for hook in hooks
        )
        _tell_inserted(hooks)


def _tell_inserted(hooks: list[Webhook]) -> None:
    transaction.on_commit(lambda: inserted.send(Webhook, webhooks=[hook.pk for hook in hooks]))


def _payload(event: WebhookEvent, when: datetime, data: dict[str, Any]) -> dict[str, Any]:
    return {"type": event, "timestamp": iso_time(when), "data": data}


def operation_fields(operation: Operation) -> dict[str, Any]:
    """Return the fields of an operation for receivers. They contain no text of a machine."""
    error = operation.error if isinstance(operation.error, dict) else {}
    return {
        "operation_id": operation.pk,
        "kind": operation.kind,
        "status": operation.status,
        "code": str(error.get("code", "")),
        "expid": operation.expid,
        "profile_name": operation.profile_name,
        "installation": operation.installation,
        "started_by": operation.started_by,
        "created": iso_time(operation.created),
        "finished": iso_time(operation.finished),
        "exit_code": operation.exit_code,
    }


def message_fields(run: RunnerRun) -> dict[str, Any]:
    """Return the fields of a run for receivers: those of the API, but `explanation` contains no text of a log.

    Receivers are external, and a log may contain any text. Counts and names of jobs are in `jobs`.
    """
    if run.reason in (RunReason.LOST, RunReason.ABANDONED):  # the explanation is then our sentence, or the admin's
        return run_fields(run)
    jobs = run.jobs
    told = ""
    if jobs:
        counts = (jobs["total"], jobs["failed"], jobs["failed_jobs"], jobs["not_run"])
        told = run_log.jobs_sentence(*counts, at_least=jobs.get("at_least", False))
    return {**run_fields(run), "explanation": told}


def event_of(run: RunnerRun) -> WebhookEvent:
    """Return the event type for the end of a run."""
    if run.status == RunStatus.COMPLETED:
        return WebhookEvent.COMPLETED
    if run.reason == RunReason.NEVER_STARTED:
        return WebhookEvent.NEVER_STARTED
    return WebhookEvent.TERMINATED


def redeliver(delivery: WebhookDelivery) -> None:
    """Schedule a message again, delivered or not, with the same id and a new series of attempts."""
    delivery.attempts, delivery.delivered_at, delivery.next_attempt = 0, None, clock.now()
    delivery.save(update_fields=["attempts", "delivered_at", "next_attempt"])
    _tell_inserted([delivery.webhook])


def due(since: datetime | None = None) -> QuerySet[WebhookDelivery]:
    """Return the messages that wait to be sent and have been due at least since the time `since` (default: now)."""
    return WebhookDelivery.objects.filter(next_attempt__lte=since or clock.now(), webhook__enabled=True)
