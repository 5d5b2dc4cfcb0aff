"""The pages of the admin that ask before a deletion, for rows on which many others depend."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from runners.admin import base
from runners.models import ApiToken, Mail
from runners.models.webhook import Webhook, WebhookDelivery

pytestmark = pytest.mark.django_db


@pytest.fixture
def webhook() -> Webhook:
    webhook = Webhook.objects.create(name="hook", url="https://example.org/hook")
    WebhookDelivery.objects.bulk_create(
        WebhookDelivery(webhook=webhook, event="run.completed", payload={}, message_id=f"m{number}")
        for number in range(30)
    )
    return webhook


def test_a_webhook_with_messages_can_be_deleted(
    admin_client: Client, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = reverse("admin:runners_webhook_delete", args=[webhook.pk])
    with CaptureQueriesContext(
        connection,
    ) as few:
        page = admin_client.get(path).content.decode()
    assert "Webhook deliveries: 30" in page
    assert not any("payload" in query["sql"] for query in few.captured_queries), "it loads the messages"
    monkeypatch.setattr(base, "MOST_COUNTED", 20)
    assert "Webhook deliveries: more than 20" in admin_client.get(path).content.decode()
    admin_client.post(path, {"post": "yes"})
    assert not Webhook.objects.exists()
    assert not WebhookDelivery.objects.exists()


def test_a_person_with_mail_can_be_deleted(admin_client: Client) -> None:
    zoe = User.objects.create_user("zoe")
    Mail.objects.create(user=zoe, event="run.completed", subject="ended", body="it ended")
    ApiToken.issue(user=zoe, expiry=None, scope="read", name="one")
    path = reverse("admin:auth_user_delete", args=[zoe.pk])
    page = admin_client.get(path).content.decode()
    assert "Mail: 1" in page
    assert "API tokens: 1" in page
    admin_client.post(path, {"post": "yes"})
    assert not User.objects.filter(username="zoe").exists()


def test_rows_of_other_people_need_their_own_permission(client: Client, webhook: Webhook) -> None:
    """A token may be deleted by hand, so deleting its owner needs the permission to delete tokens."""
    zoe = User.objects.create_user("zoe")
    ApiToken.issue(user=zoe, expiry=None, scope="read", name="one")
    staff = User.objects.create_user("staff", is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(codename__in=["delete_user", "view_user"]))
    client.force_login(staff)
    path = reverse("admin:auth_user_delete", args=[zoe.pk])
    answer: Any = client.get(path)
    assert answer.context["perms_lacking"] == {"API token"}
    assert client.post(path, {"post": "yes"}).status_code == 403
    assert User.objects.filter(username="zoe").exists()
