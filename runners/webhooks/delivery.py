"""Deliver the messages of the outbox (services/outbox.py) to their receivers.

The worker (runners/worker) and `manage.py deliver_webhooks` call it. Delivery is at least once
and signed as in Standard Webhooks. The message id is the same for each attempt.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from runners.models import Webhook, WebhookDelivery, WebhookFormat
from runners.services import outbox
from runners.webhooks import chat
from runners.webhooks.http import TIMEOUT, NotSent, Response, post
from runners.webhooks.signing import sign
from runners_project import clock, metrics

log = logging.getLogger(__name__)

BACK_OFF = (5, 30, 120, 600, 3600, 21600)  # seconds after each failed attempt; then the message is given up
LEASE = timedelta(seconds=60)  # how long a message is reserved for one deliverer; longer than a delivery can take
RECEIVERS_AT_ONCE = 8
MESSAGES_AT_ONCE = 4  # of one receiver
MESSAGES_PER_THREAD = 25  # that one read of the outbox fetches
LONGEST = 60.0  # seconds for one call of `deliver_to`; what is left then is due, and the next call sends it
GONE = 410  # the receiver does not want these messages any more


@dataclass(frozen=True, slots=True)
class Round:
    """The result of one pass over the outbox."""

    delivered: int = 0
    failed: int = 0

    def __add__(self, other: Round) -> Round:
        return Round(self.delivered + other.delivered, self.failed + other.failed)


def deliver_due() -> Round:
    """Send every message that is due, to several receivers concurrently.

    Any number of processes may call it at once: each message is sent by one of them.
    """
    due = receivers()
    if not due:
        return Round()
    with ThreadPoolExecutor(min(RECEIVERS_AT_ONCE, len(due)), thread_name_prefix="webhook") as pool:
        return sum(pool.map(_in_thread(deliver_to), due), Round())


def receivers() -> list[int]:
    """Return the numbers of the webhooks that have messages that are due. Raises DatabaseError, InterfaceError."""
    return list(outbox.due().values_list("webhook_id", flat=True).order_by().distinct())


def deliver_to(webhook_id: int) -> Round:
    """Send the messages of one receiver that are due, until none is left, one has failed, or LONGEST is over.

    The first message goes alone: a receiver that is down costs one timeout, no matter how many messages it has. Then
    MESSAGES_AT_ONCE messages are sent concurrently. Any number of processes may call it at once: each message is sent
    by one of them. Raises DatabaseError, InterfaceError.
    """
    total, end, at_once = Round(), time.monotonic() + LONGEST, 1
    while time.monotonic() < end:
        waiting = outbox.due().filter(webhook_id=webhook_id).select_related("webhook").order_by("next_attempt", "id")
        batch = list(waiting[: at_once * MESSAGES_PER_THREAD if at_once > 1 else 1])
        done = _deliver_all(batch, at_once, end)
        total += done
        if done.failed or done == Round():
            break
        at_once = MESSAGES_AT_ONCE
    return total


def _deliver_all(batch: list[WebhookDelivery], at_once: int, end: float) -> Round:
    """Send messages of one receiver, until one has failed."""
    has_failed = threading.Event()

    def deliver(delivery: WebhookDelivery) -> Round:
        if has_failed.is_set() or time.monotonic() > end or not _reserve(delivery):
            return Round()
        done = _attempt(delivery)
        if done.failed:
            has_failed.set()
        return done

    if at_once == 1 or len(batch) == 1:
        return sum(map(deliver, batch), Round())
    shares = [batch[start::at_once] for start in range(at_once)]  # one thread each, with one database connection
    with ThreadPoolExecutor(at_once, thread_name_prefix="webhook") as pool:
        return sum(pool.map(_in_thread(lambda share: sum(map(deliver, share), Round())), shares), Round())


def _in_thread(work: Callable[[Any], Round]) -> Callable[[Any], Round]:
    """Return `work` for a thread of its own, whose database connection is closed afterwards."""

    def run(argument: Any) -> Round:
        try:
            return work(argument)
        finally:
            connection.close()

    return run


def _reserve(delivery: WebhookDelivery) -> bool:
    """Reserve a message: compare its `next_attempt` and set it to the end of the lease. Only one process succeeds."""
    until = clock.now() + LEASE
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
        error = f"an internal error of the service ({type(bug).__name__}), see its log"
    milliseconds = round((time.monotonic() - start) * 1000)
    is_done = response is not None and response.is_success
    wanted_wait = response.retry_after if response else None
    is_last = is_done or delivery.attempts > len(BACK_OFF) or (response is not None and response.status == GONE)
    now = clock.now()
    # Compare the lease: a deliverer that hung beyond its lease must not overwrite the result of the next one.
    WebhookDelivery.objects.filter(pk=delivery.pk, next_attempt=delivery.next_attempt).update(
        next_attempt=None if is_last else next_time(now, delivery.attempts, wanted_wait),
        delivered_at=now if is_done else None,
        last_status=response.status if response else None,
        last_error=error,
    )
    metrics.WEBHOOK_ATTEMPTS.labels("delivered" if is_done else "given_up" if is_last else "retried").inc()
    if is_done:
        log.info("Webhook %s: %s delivered in %s ms", hook.name, delivery.message_id, milliseconds)
        return Round(delivered=1)
    end = "given up" if is_last else "will be retried"
    log.warning("Webhook %s: %s failed (attempt %s, %s)", hook.name, delivery.message_id, delivery.attempts, end)
    return Round(failed=1)


def next_time(now: datetime, attempts: int, wanted: int | None) -> datetime:
    """Return the time of the retry after `attempts` failed attempts.

    The receiver may ask for a later time (Retry-After), up to the longest back-off.
    """
    wait = BACK_OFF[min(attempts, len(BACK_OFF)) - 1]
    return now + timedelta(seconds=max(wait, min(wanted or 0, BACK_OFF[-1])))


def _send(delivery: WebhookDelivery) -> Response:
    return send(delivery.webhook, delivery.message_id, delivery.payload)


def send(hook: Webhook, message_id: str, payload: dict[str, Any], *, timeout: float = TIMEOUT) -> Response:
    """Sign a message and send it once. Raises NotSent."""
    content = chat.body_of(hook.format, payload) if hook.format != WebhookFormat.GENERIC else payload
    body = json.dumps(content, separators=(",", ":")).encode()
    timestamp = int(clock.now().timestamp())
    try:
        signature = sign(hook.secrets, message_id, timestamp, body)
    except ValueError as error:
        raise NotSent(f"the signing secret of the webhook cannot be used: {error}") from error
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "autosubmit-runners",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature,
    }
    return post(hook.url, body, headers, timeout=timeout)
