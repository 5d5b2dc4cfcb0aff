"""Each secret can be changed without a gap: the old value is accepted, or used, beside the new one for a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from django.contrib.auth.models import User
from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from runners.models.webhook import Webhook, new_secret
from runners.services import mail
from runners_project.env import envfallbacks

OLD, NEW, OTHER = (f"{word}-7d1mQ0xTz8wXy1LrB7uHc2JdFg9PaSeM" for word in ("old", "new", "other"))
READ = "/v4/runners/configuration/profiles"


@pytest.fixture
def rotated(settings: Any) -> None:
    """The settings while every secret is rotated."""
    settings.PROTECTION_LEVEL = "ALL"
    for name in ("SECRET_KEY", "METRICS_TOKEN", "AS_API_JWT_SECRET", "AS_API_SECRET_TOKEN"):
        setattr(settings, name, NEW)
        setattr(settings, f"{name}_FALLBACKS", [OLD])
    settings.RUNNERS_REMOTE_USER_SECRET, settings.RUNNERS_REMOTE_USER_SECRET_FALLBACKS = NEW, [OLD]


def status(client: Client, path: str, credential: str) -> int:
    return int(client.get(path, headers={"Authorization": f"Bearer {credential}"}).status_code)


@pytest.mark.django_db
@pytest.mark.parametrize(("secret", "expected"), [(NEW, 200), (OLD, 200), (OTHER, 401)])
def test_a_fallback_is_accepted_and_another_secret_is_not(
    client: Client, rotated: None, secret: str, expected: int
) -> None:
    login = jwt.encode({"user_id": "ana", "exp": datetime.now(UTC) + timedelta(minutes=5)}, secret, algorithm="HS256")
    assert status(client, READ, login) == expected
    assert status(client, READ, secret) == expected
    assert status(client, "/metrics", secret) == expected


@pytest.mark.django_db
def test_without_the_secret_its_fallbacks_are_not_accepted(client: Client, rotated: None, settings: Any) -> None:
    settings.AS_API_SECRET_TOKEN = settings.METRICS_TOKEN = ""
    assert status(client, READ, OLD) == 401
    assert status(client, "/metrics", OLD) == 404


def test_an_expired_login_of_a_fallback_is_called_expired(client: Client, rotated: None, db: None) -> None:
    login = jwt.encode({"user_id": "ana", "exp": datetime.now(UTC) - timedelta(hours=1)}, OLD, algorithm="HS256")
    answer = client.get(READ, headers={"Authorization": f"Bearer {login}"})
    assert "expired" in answer.json()["detail"]


@pytest.mark.django_db
def test_sessions_and_links_survive_a_new_secret_key(client: Client, settings: Any) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = OLD, []
    client.force_login(User.objects.create_user("ana"))
    link = signing.dumps(5, salt=mail._SALT)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
    assert "ana" in client.get("/").content.decode()
    assert signing.loads(link, salt=mail._SALT) == 5
    settings.SECRET_KEY_FALLBACKS = []  # the session now has the new key; the link does not
    assert "ana" in client.get("/").content.decode()
    with pytest.raises(signing.BadSignature):
        signing.loads(link, salt=mail._SALT)


@pytest.mark.parametrize("value", ["short", f"{OLD},changeme-changeme-changeme-changeme"])
def test_a_weak_fallback_prevents_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SOME_FALLBACKS", value)
    with pytest.raises(ImproperlyConfigured, match="SOME_FALLBACKS: one of its secrets .*Remove it") as caught:
        envfallbacks("SOME_FALLBACKS")
    assert value not in str(caught.value)


@pytest.mark.django_db
def test_the_admin_keeps_the_secret_that_is_replaced(admin_client: Client) -> None:
    first, second = new_secret(), new_secret()
    row = Webhook.objects.create(name="hook", url="https://hooks.example.org/x", secret=first)
    address = f"/admin/runners/webhook/{row.pk}/change/"
    form = {"name": "hook", "enabled": "on", "url": row.url, "format": "generic"}
    admin_client.post(address, {**form, "secret": second, "previous_secret": ""})
    row.refresh_from_db()
    assert (row.secret, row.previous_secret) == (second, first)
    admin_client.post(address, {**form, "secret": second, "previous_secret": ""})
    row.refresh_from_db()
    assert (row.secret, row.previous_secret) == (second, "")


@pytest.mark.django_db
def test_the_admin_does_not_drop_a_secret_that_a_receiver_may_still_use(admin_client: Client) -> None:
    first, second, third = new_secret(), new_secret(), new_secret()
    row = Webhook.objects.create(name="hook", url="https://hooks.example.org/x", secret=second, previous_secret=first)
    address = f"/admin/runners/webhook/{row.pk}/change/"
    form = {"name": "hook", "enabled": "on", "url": row.url, "format": "generic"}
    refused = admin_client.post(address, {**form, "secret": third, "previous_secret": first})
    assert "still has an old secret" in refused.content.decode()
    row.refresh_from_db()
    assert (row.secret, row.previous_secret) == (second, first)
    admin_client.post(address, {**form, "secret": third, "previous_secret": ""})  # both have leaked
    row.refresh_from_db()
    assert (row.secret, row.previous_secret) == (third, "")
