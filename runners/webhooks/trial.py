"""Send a test message to a receiver at once, and say in plain words what it answered.

The message is signed and sent like every other. It is not in the outbox: it tells nothing that has to arrive.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from runners.exceptions import TooManyRequests
from runners.models import Webhook
from runners.models.webhook import new_message_id
from runners.services.representations import iso_time
from runners.webhooks.chat import TEST
from runners.webhooks.delivery import send
from runners.webhooks.http import NotSent, Response
from runners_project import clock

TIMEOUT = 10.0  # seconds; a person and a thread of the server wait for it
AT_ONCE = 2  # tests of one process, so that receivers that do not answer cannot occupy its threads
_SLOTS = threading.BoundedSemaphore(AT_ONCE)

_ADVICE = {
    301: "It redirects to another address. Redirects are not followed: enter the last address.",
    400: "It does not understand the message. Compare the format of the webhook with what it expects.",
    401: "It wants credentials, or does not accept the signature. Compare the secret.",
    404: "There is no receiver at this address. Compare the URL.",
    405: "The address takes no POST requests. Compare the URL.",
    410: "It does not want messages any more. The service gives up each message after this answer.",
    429: "It has got too many messages. The service tries again later, as it asks.",
}
_SAME = {302: 301, 303: 301, 307: 301, 308: 301, 403: 401, 415: 400, 422: 400}


@dataclass(frozen=True, slots=True)
class Outcome:
    """`words`: one or two sentences for people. `answer`: the beginning of what a receiver said that rejects it."""

    is_accepted: bool
    words: str
    answer: str = ""


def send_test(hook: Webhook, sent_by: str) -> Outcome:
    """Send a test message, also if the webhook is off, and wait for the answer. Raises TooManyRequests."""
    now = clock.now()
    message = f"A test message of Autosubmit Runners for the webhook {hook.name}, sent by {sent_by}."
    payload = {"type": TEST, "timestamp": iso_time(now), "data": {"message": message, "sent_by": sent_by}}
    if not _SLOTS.acquire(blocking=False):
        raise TooManyRequests("Other test messages are being sent now. Try again.", retry_after=round(TIMEOUT))
    start = time.monotonic()
    try:
        response = send(hook, new_message_id(), payload, timeout=TIMEOUT)
    except NotSent as error:
        return Outcome(False, f"The receiver gave no answer: {error}")
    finally:
        _SLOTS.release()
    return _told(response, round((time.monotonic() - start) * 1000))


def _told(response: Response, milliseconds: int) -> Outcome:
    if response.is_success:
        words = f"The receiver accepted the test message (HTTP {response.status}, {milliseconds} ms)."
        return Outcome(True, words)
    status = response.status
    default = "The receiver has an error of its own." if status >= 500 else "The service takes this for a failure."
    advice = _ADVICE.get(_SAME.get(status, status), default)
    return Outcome(False, f"The receiver rejected the test message: HTTP {status}. {advice}", response.text)
