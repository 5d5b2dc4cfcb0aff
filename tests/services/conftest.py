"""Fixtures of the tests of services: users."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from profiles.models import RunnerProfile
from runners.models.token import ApiToken, TokenScope
from tests.support.api import Api
from tests.support.environments import StubAccount
from tests.support.rows import World


@pytest.fixture
def ana() -> User:
    return User.objects.create_user("ana", password="of ana")


@pytest.fixture
def ben() -> User:
    return User.objects.create_user("ben")


@pytest.fixture
def protected(settings: Any) -> None:
    settings.PROTECTION_LEVEL = "ALL"


@pytest.fixture
def world(client: Client, settings: Any, account: StubAccount) -> World:
    settings.PROTECTION_LEVEL = "ALL"
    settings.THROTTLE_COMMANDS = ""
    account.experiment("a001")
    profile = RunnerProfile.objects.create(name="P", runner_type="LOCAL", module_loader_type="NO_MODULE")
    operators = Group.objects.create(name="operators")

    def api(name: str, **fields: Any) -> Api:
        user = User.objects.create_user(name, **fields)
        _, token = ApiToken.issue(user=user, expiry=None, scope=TokenScope.RUN, name="tests")
        return Api(client, {"Authorization": f"Bearer {token}"})

    world = World(profile, operators, api("ana"), api("ben"), api("root", is_superuser=True))
    User.objects.get(username="ana").groups.add(operators)
    return world
