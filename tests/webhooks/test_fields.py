"""What an admin may enter as a webhook."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from runners.models.webhook import Webhook, WebhookEvent

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    "values",
    [
        {"url": "ftp://example.org/"},
        {"url": "https://user:password@example.org/"},
        {"url": "https://example.org/#fragment"},
        {"url": "http://hooks:port/"},
        {"url": "http://-/"},
        {"url": "http://hooks:8080/\n"},
        {"url": "http:///hooks"},
        {"secret": "whsec_short"},
        {"secret": "whsec_" + base64.b64encode(bytes(32)).decode()},
        {"secret": "no prefix"},
        {"events": ["run.flew"]},
        {"events": "run.completed"},
        {"profile_names": [1]},
    ],
    ids=str,
)
def test_an_invalid_webhook_is_rejected(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Webhook(**({"name": "a", "url": "https://example.org/hook"} | values)).full_clean()
    assert set(caught.value.message_dict) == set(values)


@pytest.mark.parametrize(
    "url", ["http://hooks.example.org:8080/x?y=1", "http://hooks:8080/", "https://hooks", "http://[2001:db8::1]:80/"]
)
def test_a_webhook_needs_a_name_and_a_url(url: str) -> None:
    Webhook(name="a", url=url, events=WebhookEvent.values).full_clean()
