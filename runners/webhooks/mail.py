"""Deliver the mail of the outbox (services/mail.py) to the mail server.

Delivery has a thread of its own, so a mail server that hangs delays nothing else. Each message has one deadline. A
server that fails gets one attempt per round. A server that refuses one message for now gets the next one.
"""

from __future__ import annotations

import logging
import smtplib
from datetime import timedelta

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import connection

from runners import printable
from runners.models import Mail
from runners.services.mail import is_on, unsubscribe_link
from runners.webhooks.delivery import BACK_OFF, Round, next_time
from runners_project import clock, metrics
from runners_project.shared_calls import AbandonableCalls

log = logging.getLogger(__name__)

DEADLINE = 30.0  # seconds for one message, from the connection to its acceptance
LEASE = timedelta(seconds=90)  # how long a message is reserved for one process; longer than a delivery can take
MESSAGES_PER_ROUND = 100
SHUTS_DOWN = 421  # the code of a server that takes no more commands now
STUCK = 4  # deliveries whose server never answers, before no more are tried in this process
_CALLS = AbandonableCalls("mail", STUCK)


class Refused(Exception):
    """The mail server rejects the message for good."""


def deliver_due() -> Round:
    """Send the mail that is due. Any number of processes may call it: each message is sent by one of them."""
    total = Round()
    if not is_on():
        return total
    waiting = Mail.objects.filter(next_attempt__lte=clock.now()).select_related("user", "subscription")
    for mail in list(waiting.order_by("next_attempt", "id")[:MESSAGES_PER_ROUND]):
        if not _reserve(mail):
            continue
        is_server_alive, done = _attempt(mail)
        total += done
        if not is_server_alive:
            break
    return total


def _reserve(mail: Mail) -> bool:
    until = clock.now() + LEASE
    mine = Mail.objects.filter(pk=mail.pk, next_attempt=mail.next_attempt)
    if not mine.update(next_attempt=until, attempts=mail.attempts + 1):
        return False
    mail.next_attempt, mail.attempts = until, mail.attempts + 1
    return True


def _attempt(mail: Mail) -> tuple[bool, Round]:
    """Send a message and store the result. The first value: whether the server may take the next message."""
    is_final, is_server_alive, error = False, True, ""
    try:
        if not mail.user.is_active or not mail.user.email:
            raise Refused("the account is not active, or has no address")
        _CALLS.call(("mail", mail.pk, mail.attempts), lambda: _send(mail), DEADLINE)
    except Refused as refusal:
        is_final, error = True, str(refusal)
    except TimeoutError:
        is_server_alive, error = False, f"the mail server did not answer within {DEADLINE:g} s"
    except (OSError, smtplib.SMTPException) as failure:
        is_server_alive, error = _is_answer(failure), f"{type(failure).__name__}: {failure}"
    except Exception as bug:  # our bug: this message fails and is given up eventually; the others must still be sent
        log.exception("Mail %s could not be sent", mail.pk)
        error = f"an internal error of the service ({type(bug).__name__}), see its log"
    is_last = not error or is_final or mail.attempts > len(BACK_OFF)
    now = clock.now()
    # Compare the lease, as for webhooks.
    Mail.objects.filter(pk=mail.pk, next_attempt=mail.next_attempt).update(
        next_attempt=None if is_last else next_time(now, mail.attempts, None),
        sent_at=None if error else now,
        last_error=printable.line(error),
    )
    metrics.MAIL_ATTEMPTS.labels("sent" if not error else "given_up" if is_last else "retried").inc()
    if error:
        log.warning("Mail %s failed (attempt %s): %s", mail.pk, mail.attempts, printable.line(error))
        return is_server_alive, Round(failed=1)
    log.info("Mail %s sent", mail.pk)
    return True, Round(delivered=1)


def _is_answer(failure: Exception) -> bool:
    """Return True if the server has answered about this message only, such as "the mailbox is full"."""
    codes = set()
    if isinstance(failure, smtplib.SMTPRecipientsRefused):
        codes = {code for code, _ in failure.recipients.values()}
    elif isinstance(failure, smtplib.SMTPDataError):
        codes = {failure.smtp_code}
    return bool(codes) and SHUTS_DOWN not in codes


def _send(mail: Mail) -> None:
    """Send a message. Raises OSError, SMTPException and Refused. It runs in a thread that may be abandoned."""
    headers = {"Message-ID": f"<mail-{mail.pk}@autosubmit-runners>", "Auto-Submitted": "auto-generated"}
    if mail.subscription:
        headers["List-Unsubscribe"] = f"<{unsubscribe_link(mail.subscription)}>"
        headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"  # RFC 8058
    try:
        message = EmailMessage(
            subject=mail.subject,
            body=mail.body,
            from_email=settings.DEFAULT_FROM_EMAIL,
            to=[mail.user.email],
            headers=headers,
            connection=get_connection(),
        )
        message.send()
    except ValueError as error:  # BadHeaderError, or an address that cannot be encoded
        raise Refused(f"the message cannot be written: {error}") from error
    except smtplib.SMTPRecipientsRefused as error:
        if all(code >= 500 for code, _ in error.recipients.values()):
            raise Refused(f"the mail server rejects the address: {error.recipients}") from error
        raise
    except smtplib.SMTPResponseException as error:
        if error.smtp_code >= 500 and not isinstance(error, smtplib.SMTPAuthenticationError):
            raise Refused(f"the mail server rejects the message: {error.smtp_code} {error.smtp_error!r}") from error
        raise
    finally:
        connection.close()
