"""Notify receivers of the end of runs: an outbox and its delivery.

`run_ended` only inserts rows, in the transaction that ends the run. So no message is lost, no message is sent for a run
that has not ended, and no receiver can disturb a run. Only `deliver_due`, called by `manage.py deliver_webhooks` and
`watch_runs`, opens connections. Delivery is at least once and signed as in Standard Webhooks. The message id is the
same for each attempt.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, InterfaceError, close_old_connections, connection
from django.db.models import QuerySet
from django.utils import timezone

from runners.commands import reasons
from runners.models import RunnerRun, RunReason, RunStatus
from runners.models.webhook import Webhook, WebhookDelivery, WebhookEvent, secret_bytes
from runners.services.representations import iso_time, run_fields
from runners.webhooks.http import TIMEOUT, NotSent, Response, post

log = logging.getLogger(__name__)

BACK_OFF = (5, 30, 120, 600, 3600, 21600)  # seconds after each failed attempt; then the message is given up
LEASE = timedelta(seconds=60)  # how long a message is reserved for one deliverer; longer than a delivery can take
RECEIVERS_AT_ONCE = 8
MESSAGES_PER_ROUND = 100  # of one receiver
GONE = 410  # the receiver does not want these messages any more


def run_ended(run: RunnerRun) -> None:
    """Insert the messages for the receivers. Called once per run, inside the transaction that ends it.

    Without receivers this costs one small query.
    """
    event = event_of(run)
    hooks = [hook for hook in Webhook.objects.filter(enabled=True) if hook.wants(event, run.profile_name)]
    if hooks:
        run.refresh_from_db()  # other processes may have changed the row, e.g. stored who requested the stop
        payload = {"type": event, "timestamp": iso_time(run.modified), "data": message_fields(run)}
        WebhookDelivery.objects.bulk_create(
            WebhookDelivery(webhook=hook, run=run, event=event, payload=payload) for hook in hooks
        )


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
        told = reasons.jobs_sentence(*counts, at_least=jobs.get("at_least", False))
    return {**run_fields(run), "explanation": told}


def event_of(run: RunnerRun) -> WebhookEvent:
    """Return the event type for the end of a run."""
    if run.status == RunStatus.COMPLETED:
        return WebhookEvent.COMPLETED
    if run.reason == RunReason.NEVER_STARTED:
        return WebhookEvent.NEVER_STARTED
    return WebhookEvent.TERMINATED


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header `webhook-signature`. `timestamp` is in seconds since 1970."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret_bytes(secret), signed, hashlib.sha256)).decode()


def redeliver(delivery: WebhookDelivery) -> None:
    """Schedule a message again, delivered or not, with the same id and a new series of attempts."""
    delivery.attempts, delivery.delivered_at, delivery.next_attempt = 0, None, timezone.now()
    delivery.save(update_fields=["attempts", "delivered_at", "next_attempt"])


@dataclass(frozen=True, slots=True)
class Round:
    """The result of one pass over the outbox."""

    delivered: int = 0
    failed: int = 0

    def __add__(self, other: Round) -> Round:
        return Round(self.delivered + other.delivered, self.failed + other.failed)


def deliver_due() -> Round:
    """Send every message that is due, to several receivers concurrently.

    Any number of processes may call it at once: each message is sent by one of them. A receiver that fails is skipped
    for the rest of the round. So a dead receiver costs one timeout per round, no matter how many messages it has.
    """
    receivers = list(due().values_list("webhook_id", flat=True).order_by().distinct())
    if not receivers:
        return Round()
    with ThreadPoolExecutor(min(RECEIVERS_AT_ONCE, len(receivers)), thread_name_prefix="webhook") as pool:
        return sum(pool.map(_deliver_in_thread, receivers), Round())


def deliver_until(stop: threading.Event, interval: float) -> None:
    """Deliver due messages every `interval` seconds until `stop` is set. Call it in its own thread or process."""
    while not stop.is_set():
        try:
            deliver_due()
        except (DatabaseError, InterfaceError) as error:  # the database may come back; the messages wait meanwhile
            log.warning("The outbox of the webhooks cannot be read now: %s", error)
        close_old_connections()
        stop.wait(interval)
    connection.close()


def due(since: datetime | None = None) -> QuerySet[WebhookDelivery]:
    """Return the messages that wait to be sent and have been due at least since the time `since` (default: now)."""
    return WebhookDelivery.objects.filter(next_attempt__lte=since or timezone.now(), webhook__enabled=True)


def _deliver_in_thread(webhook_id: int) -> Round:
    try:
        return _deliver_to(webhook_id)
    finally:
        connection.close()


def _deliver_to(webhook_id: int) -> Round:
    total = Round()
    waiting = due().filter(webhook_id=webhook_id).select_related("webhook").order_by("next_attempt", "id")
    for delivery in list(waiting[:MESSAGES_PER_ROUND]):
        if not _lease(delivery):
            continue
        done = _attempt(delivery)
        total += done
        if done.failed:
            break
    return total


def _lease(delivery: WebhookDelivery) -> bool:
    """Reserve a message: compare its `next_attempt` and set it to the end of the lease. Only one process succeeds."""
    until = timezone.now() + LEASE
    mine = WebhookDelivery.objects.filter(pk=delivery.pk, next_attempt=delivery.next_attempt)
    # Count the attempt before sending, so that a message that crashes its deliverer is given up, too.
    if not mine.update(next_attempt=until, attempts=delivery.attempts + 1):
        return False
    delivery.next_attempt, delivery.attempts = until, delivery.attempts + 1
    return True


def _attempt(delivery: WebhookDelivery) -> Round:
    hook = delivery.webhook
    start = time.monotonic()
    response: Response | None = None
    try:
        response = _send(delivery)
        error = "" if response.is_success else f"HTTP {response.status}: {response.text}".rstrip(": ")
    except NotSent as failure:
        error = str(failure)
    except Exception as bug:  # our bug: this message fails and is given up eventually; the others must still be sent
        log.exception("Webhook %s: %s could not be sent", hook.name, delivery.message_id)
        error = f"an error in the service ({type(bug).__name__}); its log has more"
    milliseconds = round((time.monotonic() - start) * 1000)
    is_done = response is not None and response.is_success
    wanted_wait = response.retry_after if response else None
    is_last = is_done or delivery.attempts > len(BACK_OFF) or (response is not None and response.status == GONE)
    now = timezone.now()
    # Compare the lease: a deliverer that hung beyond its lease must not overwrite the result of the next one.
    WebhookDelivery.objects.filter(pk=delivery.pk, next_attempt=delivery.next_attempt).update(
        next_attempt=None if is_last else next_time(now, delivery.attempts, wanted_wait),
        delivered_at=now if is_done else None,
        last_status=response.status if response else None,
        last_error=error,
    )
    if is_done:
        log.info("Webhook %s: %s delivered in %s ms", hook.name, delivery.message_id, milliseconds)
        return Round(delivered=1)
    end = "given up" if is_last else "will be tried again"
    log.warning("Webhook %s: %s failed (attempt %s, %s)", hook.name, delivery.message_id, delivery.attempts, end)
    return Round(failed=1)


def next_time(now: datetime, attempts: int, wanted: int | None) -> datetime:
    """Return the time of the retry after `attempts` failed attempts.

    The receiver may ask for a later time (Retry-After), up to the longest back-off.
    """
    wait = BACK_OFF[min(attempts, len(BACK_OFF)) - 1]
    return now + timedelta(seconds=max(wait, min(wanted or 0, BACK_OFF[-1])))


def _send(delivery: WebhookDelivery) -> Response:
    body = json.dumps(delivery.payload, separators=(",", ":")).encode()
    timestamp = int(time.time())
    try:
        signature = sign(delivery.webhook.secret, delivery.message_id, timestamp, body)
    except ValueError as error:
        raise NotSent(f"the signing secret of the webhook cannot be used: {error}") from error
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "autosubmit-runners",
        "webhook-id": delivery.message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature,
    }
    return post(delivery.webhook.url, body, headers, timeout=TIMEOUT)
