"""Fixtures of the tests of the API."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.support.api import Api


@pytest.fixture
def open_to_all(settings: Any) -> None:
    """Let requests without credentials in."""
    settings.PROTECTION_LEVEL = "NONE"


@pytest.fixture
def api(client: Client, settings: Any, open_to_all: None) -> Api:
    """Return a client without credentials and without a rate limit."""
    settings.THROTTLE_COMMANDS = ""
    return Api(client)
