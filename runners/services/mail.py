"""Mail about runs: subscriptions of people, and the messages in the outbox. `runners.webhooks.mail` sends them.

`run_event` only inserts rows, in the same transaction as the event, as the outbox of the webhooks does. Without
EMAIL_HOST it does nothing. Messages carry counts and names of jobs, and no text of a log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.db import transaction
from django.db.models import Q, QuerySet

from profiles.models import RunnerProfile
from runners import printable
from runners.exceptions import InvalidRequest, TooManyRequests
from runners.models import Mail, MailSubscription, RunnerRun, WebhookEvent
from runners.services import access
from runners_project import clock

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000  # messages in the outbox; further ones are logged and dropped
MOST_RECIPIENTS = 500  # of one event
MOST_SUBSCRIPTIONS = 200  # of one person, of each kind
SUBJECT_LIMIT = 150  # characters
TEST = "test"
TEST_PAUSE = timedelta(seconds=60)  # between two test messages of one person
_SALT = "runners.mail.unsubscribe"
_HAPPENED = {
    WebhookEvent.SILENT: "is silent: it has had no output for longer than its profile allows",
    WebhookEvent.LOG_TOO_LARGE: "has a log that is longer than the limit of the service",
    WebhookEvent.RESTARTED: "was started again",
}
_SUBJECTS = {
    WebhookEvent.SILENT: "is silent",
    WebhookEvent.LOG_TOO_LARGE: "has a very large log",
    WebhookEvent.RESTARTED: "started again",
}
_NOT_RESTARTED = "is not started again"


def is_on() -> bool:
    """Return True if the service can send mail."""
    return bool(settings.EMAIL_HOST)


# --- The messages -----------------------------------------------------------------------------------------------------


def run_event(run: RunnerRun, event: WebhookEvent, data: dict[str, Any]) -> None:
    """Insert a message to each person who has asked for one and may see the run. `data`: as for webhooks.

    Each person gets each event of a run at most once (except SILENT and RESTARTED, as with webhooks).
    """
    if not is_on():
        return
    wanted = _subscriptions_to(run)
    by_user = {each.user_id: each for each in reversed(wanted) if access.may_see(each.user, run)}
    if not by_user or is_full():
        return
    Mail.objects.bulk_create(
        (
            Mail(
                user_id=user,
                subscription=subscription,
                run=run,
                event=event,
                subject=subject_of(run, event, data),
                body=body_of(run, event, data, subscription),
            )
            for user, subscription in by_user.items()
        ),
        ignore_conflicts=True,
    )


def _subscriptions_to(run: RunnerRun) -> list[MailSubscription]:
    mine = Q(profile_id=None, run=None, user__username=run.started_by) if run.started_by else Q(pk=None)
    of_profile = Q(profile_id=run.profile_id, run=None) if run.profile_id is not None else Q(pk=None)
    people = Q(user__is_active=True) & ~Q(user__email="")
    found = MailSubscription.objects.filter(people & (mine | of_profile | Q(run=run.pk))).select_related("user")
    return list(found.order_by("id")[:MOST_RECIPIENTS])


def is_full() -> bool:
    """Return True, and log it, if the outbox takes no more messages."""
    if Mail.objects.filter(next_attempt__isnull=False)[MOST_WAITING:].exists():
        logger.error("The outbox of mail has %s waiting messages: a message was dropped.", MOST_WAITING)
        return True
    return False


def subject_of(run: RunnerRun, event: WebhookEvent, data: dict[str, Any]) -> str:
    """Return the subject: one printable line."""
    words = _NOT_RESTARTED if data.get("restarted") is False else _SUBJECTS.get(event, run.status)
    reason = f" ({run.reason})" if run.reason and event not in _HAPPENED else ""
    return printable.line(f"[Autosubmit] {run.expid}: run {run.pk} {words}{reason}", SUBJECT_LIMIT)


def body_of(run: RunnerRun, event: WebhookEvent, data: dict[str, Any], subscription: MailSubscription) -> str:
    """Return the text of a message: what happened, why, where, and the links."""
    happened = _HAPPENED.get(event) or f"has ended: {run.status}" + (f", {run.reason}" if run.reason else "")
    happened = _NOT_RESTARTED if data.get("restarted") is False else happened
    code = "" if run.exit_code is None else f" (exit code {run.exit_code})"
    about = {
        "Profile": run.profile_name,
        "Machine": f"{run.user or 'an unknown account'} on {run.host or 'this machine'}",
        "Started by": run.started_by,
        "Requested": f"{run.created:%Y-%m-%d %H:%M:%S %Z}",
        "Last output": f"{run.last_output_at:%Y-%m-%d %H:%M:%S %Z}" if run.last_output_at else "",
        "Ended": f"{run.finished:%Y-%m-%d %H:%M:%S %Z}" if run.finished else "",
    }
    lines = [f"Run {run.pk} of experiment {run.expid} {happened}{code}.", ""]
    if told := printable.text(str(data.get("explanation") or "")):
        lines += [told, ""]
    lines += [f"{name}: {printable.line(str(value))}" for name, value in about.items() if value]
    lines += ["", f"Run: {link(f'/runs/{run.pk}')}", f"Experiment: {link(f'/experiments/{run.expid}')}", ""]
    lines += [f"You have asked for mail about {described(subscription, run)}.", f"Change it: {link('/account#mail')}"]
    return "\n".join(lines) + "\n"


def described(subscription: MailSubscription, run: RunnerRun) -> str:
    if subscription.run_id:
        return "this run"
    return f"the runs of the profile {run.profile_name}" if subscription.profile_id else "your runs"


def link(path: str) -> str:
    return f"{settings.RUNNERS_PUBLIC_URL}{path}"


# --- Subscriptions ----------------------------------------------------------------------------------------------------


def profiles_for(user: Any) -> list[RunnerProfile]:
    """Return the profiles whose runs `user` may see, by name."""
    hidden = access.hidden_profiles(user)
    return list(RunnerProfile.objects.exclude(pk__in=hidden).order_by("name"))


def subscriptions_of(user: Any) -> QuerySet[MailSubscription]:
    return MailSubscription.objects.filter(user=user).select_related("run")


def subscribe(user: Any, *, mine: bool, profiles: Iterable[str], runs: Iterable[int]) -> None:
    """Replace the subscriptions of a person. Raises InvalidRequest for a profile or run that the person cannot see."""
    known = {profile.name: profile.pk for profile in profiles_for(user)}
    profile_names, run_ids = set(profiles), set(runs)
    visible = access.visible(RunnerRun.objects.filter(pk__in=list(run_ids)[: MOST_SUBSCRIPTIONS + 1]), user)
    errors: dict[str, list[str]] = {}
    if strange := sorted(profile_names - known.keys()):
        errors["profiles"] = [f"There is no profile {printable.quoted(strange[0])} that you may see."]
    if max(len(profile_names), len(run_ids)) > MOST_SUBSCRIPTIONS:
        errors["runs"] = [f"At most {MOST_SUBSCRIPTIONS} profiles and {MOST_SUBSCRIPTIONS} runs."]
    elif missing := sorted(run_ids - set(visible.values_list("pk", flat=True))):
        errors["runs"] = [f"Run {missing[0]} does not exist."]
    if errors:
        raise InvalidRequest(" ".join(text for texts in errors.values() for text in texts), errors)
    wanted: set[tuple[int | None, int | None]] = {(known[name], None) for name in profile_names}
    wanted |= {(None, number) for number in run_ids}
    if mine:
        wanted.add((None, None))
    with transaction.atomic():
        present = {(each.profile_id, each.run_id): each.pk for each in subscriptions_of(user)}
        gone = [pk for key, pk in present.items() if key not in wanted]
        MailSubscription.objects.filter(pk__in=gone).delete()
        MailSubscription.objects.bulk_create(
            (
                MailSubscription(user=user, profile_id=profile, run_id=run)
                for profile, run in wanted
                if (profile, run) not in present
            ),
            ignore_conflicts=True,  # two requests at once
        )


def follow_run(user: Any, run: RunnerRun, *, is_wanted: bool) -> None:
    """Add or remove the subscription to one run. The caller has checked that the person may see it."""
    if is_wanted:
        MailSubscription.objects.get_or_create(user=user, run=run, profile_id=None)
    else:
        MailSubscription.objects.filter(user=user, run=run).delete()


def is_following(user: Any, run: RunnerRun) -> bool:
    """Return True if the person gets mail about this run in particular. False if no mail is sent."""
    return is_on() and MailSubscription.objects.filter(user=user, run=run).exists()


def send_test(user: User) -> Mail:
    """Put a test message into the outbox. Raises InvalidRequest without an address, and TooManyRequests."""
    if not is_on():
        raise InvalidRequest("This service sends no mail: an admin has to set EMAIL_HOST.")
    if not user.email:
        raise InvalidRequest("Your account has no address. Ask an admin to add one.")
    mails = Mail.objects.filter(user=user, event=TEST)
    if mails.filter(created__gt=clock.now() - TEST_PAUSE).exists() or is_full():
        seconds = round(TEST_PAUSE.total_seconds())
        raise TooManyRequests(f"One test message in {seconds} s. Try again later.", retry_after=seconds)
    body = f"This is a test message of the service at {link('/')}.\n\nChange it: {link('/account#mail')}\n"
    return Mail.objects.create(user=user, event=TEST, subject="[Autosubmit] Test message", body=body)


def send_again(row: Mail) -> None:
    """Schedule a message again, sent or not, with a new series of attempts."""
    row.attempts, row.sent_at, row.next_attempt = 0, None, clock.now()
    row.save(update_fields=["attempts", "sent_at", "next_attempt"])


def due(since: datetime) -> QuerySet[Mail]:
    """Return the messages that wait to be sent and have been due at least since the time `since`."""
    return Mail.objects.filter(next_attempt__lte=since)


# --- Unsubscribing without a sign-in ----------------------------------------------------------------------------------


def unsubscribe_link(subscription: MailSubscription) -> str:
    return link(f"/notifications/unsubscribe/{signing.dumps(subscription.pk, salt=_SALT)}")


def subscription_of(token: str) -> MailSubscription | None:
    """Return the subscription that a link in a message names; None if it is gone, or the link is not ours."""
    try:
        number = signing.loads(token, salt=_SALT)
    except signing.BadSignature:
        return None
    return MailSubscription.objects.filter(pk=number).first() if isinstance(number, int) else None
