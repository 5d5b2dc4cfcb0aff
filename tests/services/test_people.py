"""Names that look alike, and what a deactivated user loses."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.test import Client
from django.urls import reverse

from profiles.models import AccountMap
from profiles.validators import canonical
from runners.models import ApiToken, RunnerRun
from tests.support.api import Api
from tests.support.rows import api_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("protected")]


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Ana", "ANA", "ａｎａ", "a\u0301na", "ﬁona", "STRASSE"])
def test_a_lookalike_user_name_is_rejected(name: str, admin_client: Client) -> None:
    others = {"Ana": "ana", "ANA": "ana", "ａｎａ": "ana", "a\u0301na": "ána", "ﬁona": "fiona", "STRASSE": "straße"}
    User.objects.create_user(others[name])
    assert canonical(name) == canonical(others[name])
    with pytest.raises(ValidationError, match="too similar"):
        User.objects.create(username=name)
    User.objects.filter(username=others[name]).update(first_name="still there")
    user = User.objects.get(username=others[name])
    user.save()  # keeps its own name
    form = {"username": name, "password1": "long enough 123", "password2": "long enough 123", "usable_password": "true"}
    answer = admin_client.post(reverse("admin:auth_user_add"), form)
    assert answer.status_code == 200, "refused in the form"


def test_an_api_login_with_a_lookalike_name_is_rejected(client: Client, settings: Any) -> None:
    settings.AS_API_JWT_SECRET = "of the test run, signs nothing of value"
    User.objects.create_user("ana")
    for name in ("Ana", "ａna"):
        claims = {"user_id": name, "exp": 4_000_000_000}
        token = jwt.encode(claims, settings.AS_API_JWT_SECRET, algorithm="HS256")
        answer = Api(client, {"Authorization": f"Bearer {token}"}).post("run-experiment", {}, expect=401)
        assert answer["code"] == "invalid_credentials"
    assert User.objects.count() == 1


@pytest.mark.parametrize("name", ["a b", "-x", "x" * 65, "ä", "a;b", "$(id)", "a\nb"])
def test_a_preferred_username_that_is_no_account_is_refused(client: Client, ana: User, name: str) -> None:
    answer = api_of(client, ana).post("/v4/user-settings/preferred-username", {"preferred_username": name}, expect=400)
    assert "preferred_username" in answer["errors"]


# --- deactivated accounts ---------------------------------------------------------------------------------------------


def test_a_deactivated_user_loses_tokens_sessions_and_accounts_and_the_runs_go_on(
    client: Client, ana: User, admin_client: Client, settings: Any
) -> None:
    api = api_of(client, ana)
    settings.AS_API_JWT_SECRET = "of the test run, signs nothing of value"
    login = jwt.encode({"user_id": "ana", "exp": 4_000_000_000}, settings.AS_API_JWT_SECRET, algorithm="HS256")
    by_login = Api(client, {"Authorization": f"Bearer {login}"})
    by_login.post("run-experiment", {}, expect=400)
    AccountMap.objects.create(person="ana", accounts="bsc01")
    fields = {"config": {}, "runner": "LOCAL", "module_loader": "NO_MODULE"}
    run = RunnerRun.objects.create(expid="a001", started_by="ana", profile_name="", **fields)
    browser = Client()
    browser.force_login(ana)
    assert "ana" in browser.get("/").content.decode()
    ana.is_active = False
    ana.save()
    for each in (api, by_login):
        each.post("run-experiment", {}, expect=401)
    assert "Sign in" in browser.get("/").content.decode()
    assert not ApiToken.objects.exists() and not AccountMap.objects.exists()
    run.refresh_from_db()
    assert run.is_active
    assert "a001" in admin_client.get("/").content.decode()
    ana.is_active = True
    ana.save()
    api.post("run-experiment", {}, expect=401)
    assert "Sign in" in browser.get("/").content.decode()
