"""The test message of a webhook: really sent and signed, bounded, with the receiver's answer in plain words."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from standardwebhooks import Webhook as Verifier

from runners.exceptions import TooManyRequests
from runners.models import AuditRecord, Mail, WebhookDelivery
from runners.services import health
from runners.webhooks import trial
from tests.support.webhooks import Receiver, hook

pytestmark = pytest.mark.django_db


def press(client: Client, pk: int) -> str:
    return client.post(reverse("admin:runners_webhook_test", args=[pk]), follow=True).content.decode()


def test_the_receiver_gets_a_signed_message_also_while_the_webhook_is_off(
    admin_client: Client, receiver: Receiver
) -> None:
    row = hook(receiver, enabled=False)
    shown = press(admin_client, row.pk)
    assert "The receiver accepted the test message (HTTP 204," in shown
    ((_, headers, body),) = receiver.requests
    message = Verifier(row.secret).verify(body, headers)
    assert (message["type"], message["data"]["sent_by"]) == ("test", "admin")
    record = AuditRecord.objects.get(endpoint="test-webhook")
    assert (record.actor, record.outcome) == ("admin", "ok")
    assert record.detail.startswith("of the tests: The receiver accepted")
    assert not WebhookDelivery.objects.exists()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (302, "Redirects are not followed"),
        (403, "Compare the secret"),
        (404, "Compare the URL"),
        (418, "takes this for a failure"),
        (422, "Compare the format"),
        (429, "too many messages"),
        (503, "an error of its own"),
    ],
)
def test_a_rejection_is_explained(receiver: Receiver, status: int, words: str) -> None:
    receiver.statuses = [status]
    outcome = trial.send_test(hook(receiver), "ada")
    assert not outcome.is_accepted
    assert f"HTTP {status}" in outcome.words
    assert words in outcome.words
    assert outcome.answer == "what the receiver has to say"


def test_what_the_receiver_says_is_shown_as_text(admin_client: Client, make_receiver: Callable[..., Receiver]) -> None:
    receiver = make_receiver()
    receiver.statuses = [500]
    shown = press(admin_client, hook(receiver, name="<b>bold</b>").pk)
    assert "It said: what the receiver has to say" in shown
    assert "<b>bold</b>" not in shown


def test_a_silent_receiver_is_given_up_at_the_deadline(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "TIMEOUT", 0.5)
    receiver.hold.clear()
    start = time.monotonic()
    outcome = trial.send_test(hook(receiver), "ada")
    assert time.monotonic() - start < 10
    assert outcome.words == "The receiver gave no answer: no answer within 0.5 s"


def test_an_internal_address_is_not_reached(receiver: Receiver, settings: Any) -> None:
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = []
    assert "RUNNERS_WEBHOOK_PRIVATE_TARGETS" in trial.send_test(hook(receiver), "ada").words
    assert not receiver.requests


@pytest.mark.parametrize("form", ["slack", "mattermost"])
def test_a_chat_gets_one_sentence(receiver: Receiver, form: str) -> None:
    assert trial.send_test(hook(receiver, name="a *chat* @all", format=form), "ada").is_accepted
    body = json.loads(receiver.requests[0][2])
    assert list(body) == ["text"]
    assert "*chat*" not in body["text"]
    assert body["text"].startswith("A test message of Autosubmit Runners")


def test_tests_at_the_same_time_are_limited(admin_client: Client, receiver: Receiver) -> None:
    row = hook(receiver)
    for _ in range(trial.AT_ONCE):
        assert trial._SLOTS.acquire(blocking=False)
    try:
        with pytest.raises(TooManyRequests):
            trial.send_test(row, "ada")
        assert "Other test messages are being sent now" in press(admin_client, row.pk)
    finally:
        for _ in range(trial.AT_ONCE):
            trial._SLOTS.release()
    assert not receiver.requests


def test_only_people_who_may_change_webhooks_can_test_them(client: Client, receiver: Receiver) -> None:
    row = hook(receiver)
    user = User.objects.create_user("grace", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_webhook"))
    client.force_login(user)
    page = client.get(reverse("admin:runners_webhook_change", args=[row.pk])).content.decode()
    assert "Send a test message" not in page
    assert client.post(reverse("admin:runners_webhook_test", args=[row.pk])).status_code == 403
    assert not receiver.requests
    user.user_permissions.add(Permission.objects.get(codename="change_webhook"))
    assert "accepted" in press(client, row.pk)
    assert client.get(reverse("admin:runners_webhook_test", args=[row.pk])).status_code == 405


# --- mail -------------------------------------------------------------------------------------------------------------


def test_mail_that_waits_is_a_warning_and_can_be_sent_again(
    admin_client: Client, admin_user: User, settings: Any
) -> None:
    settings.EMAIL_HOST = "mail.example.org"
    due = timezone.now() - timedelta(seconds=50)
    row = Mail.objects.create(user=admin_user, event="test", subject="<i>a test</i>", body="text", next_attempt=due)
    health.forget()
    assert "mail_backlog" not in [warning.code for warning in health.report().warnings]
    Mail.objects.update(next_attempt=due - timedelta(seconds=20))
    health.forget()
    assert "mail_backlog" in [warning.code for warning in health.report().warnings]
    Mail.objects.update(next_attempt=None, attempts=7, last_error="no route")
    listed = reverse("admin:runners_mail_changelist")
    shown = admin_client.get(f"{listed}?state=given-up").content.decode()
    assert "no route" in shown
    assert "<i>a test</i>" not in shown
    assert admin_client.get(reverse("admin:runners_mail_change", args=[row.pk])).status_code == 200
    admin_client.post(listed, {"action": "send_again", "_selected_action": [row.pk]})
    row.refresh_from_db()
    assert (row.attempts, row.state) == (0, Mail.WAITING)
