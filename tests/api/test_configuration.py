"""GET configuration/*, and the preferred username, over HTTP with the project's own settings."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from profiles.models import EndpointToggle, PublishedSSHKey, RunnerProfile, UserSettings
from profiles.toggles import toggles
from runners.models.token import ApiToken

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("open_to_all")]

CONFIGURATION = "/v4/runners/configuration"
PREFERRED = "/v4/user-settings/preferred-username"


@pytest.fixture
def ana(django_user_model: type[User], settings: Any) -> User:
    settings.PROTECTION_LEVEL = "ALL"
    return django_user_model.objects.create_user("ana")


def bearer(user: User) -> dict[str, str]:
    _, token = ApiToken.issue(user=user, expiry=None)
    return {"Authorization": f"Bearer {token}"}


def get(client: Client, path: str, *, expect: int = 200, **extra: Any) -> Any:
    response = client.get(path, **extra)
    assert response.status_code == expect, response.content
    return response.json()


def post(client: Client, body: object, *, expect: int = 200, **extra: Any) -> Any:
    response = client.post(PREFERRED, body, content_type="application/json", **extra)
    assert response.status_code == expect, response.content
    return response.json()


class TestProfiles:
    def test_wire(self, client: Client) -> None:
        assert get(client, f"{CONFIGURATION}/profiles") == {}
        RunnerProfile.objects.create(
            name="B", runner_type="SSH", module_loader_type="LMOD", modules="a", ssh_host="h", ssh_port=22, ssh_user="u"
        )
        RunnerProfile.objects.create(name="A", runner_type="LOCAL", module_loader_type="LMOD", modules="b\na")
        RunnerProfile.objects.create(name="OPEN")
        RunnerProfile.objects.create(name="OFF", enabled=False)
        found = get(client, f"{CONFIGURATION}/profiles")
        assert list(found) == ["A", "B", "OPEN"]
        assert found == {
            "A": {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "LMOD", "MODULES": ["b", "a"]},
            "B": {
                "RUNNER_TYPE": "SSH",
                "MODULE_LOADER_TYPE": "LMOD",
                "MODULES": "a",
                "SSH": {"HOST": "h", "PORT": 22, "USER": "u", "USERNAME": "u"},
            },
            "OPEN": {},
        }

    @pytest.mark.parametrize("name", ["profiles", "endpoints", "ssh-public-keys"])
    def test_paths_methods_and_protection(self, client: Client, settings: Any, name: str) -> None:
        assert get(client, f"{CONFIGURATION}/{name}/") == get(client, f"/v4//runners/configuration//{name}")
        response = client.post(f"{CONFIGURATION}/{name}", {}, content_type="application/json")
        assert response.status_code == 405
        settings.PROTECTION_LEVEL = "ALL"
        assert get(client, f"{CONFIGURATION}/{name}", expect=401)["error"] is True


class TestEndpoints:
    def test_all_four_whatever_rows_there_are(self, client: Client) -> None:
        found = get(client, f"{CONFIGURATION}/endpoints")
        assert found == {name: {"ENABLED": toggle.is_enabled} for name, toggle in toggles().items()}
        EndpointToggle.objects.create(name="UPDATE_EXPERIMENT_DETAILS", enabled=False)
        EndpointToggle.objects.create(name="RUNNER_RUN", enabled=True)
        found = get(client, f"{CONFIGURATION}/endpoints")
        off = {name for name, toggle in toggles().items() if not toggle.is_enabled} | {"UPDATE_EXPERIMENT_DETAILS"}
        assert {name for name in found if found[name]["ENABLED"] is False} == off
        assert not EndpointToggle.is_enabled("UPDATE_EXPERIMENT_DETAILS")
        assert EndpointToggle.is_enabled("RUNNER_RUN")
        assert EndpointToggle.is_enabled("SET_JOB_STATUS")


class TestPublishedKeys:
    def test_lines_in_their_order(self, client: Client) -> None:
        assert get(client, f"{CONFIGURATION}/ssh-public-keys") == []
        for line in ("ssh-rsa B", "ssh-ed25519 A é"):
            PublishedSSHKey.objects.create(line=line, comment="secret place")
        assert get(client, f"{CONFIGURATION}/ssh-public-keys") == ["ssh-rsa B", "ssh-ed25519 A é"]


class TestPreferredUsername:
    def test_is_null_until_it_is_stored(self, client: Client, ana: User) -> None:
        headers = bearer(ana)
        found = get(client, PREFERRED, headers=headers)
        assert found == {"user_id": "ana", "preferred_username": None, "created": None, "modified": None}
        stored = post(client, {"preferred_username": " abc01 "}, headers=headers)
        assert (stored["user_id"], stored["preferred_username"]) == ("ana", "abc01")
        assert get(client, PREFERRED + "/", headers=headers) == stored
        for name in ("created", "modified"):
            moment = datetime.fromisoformat(stored[name])
            assert moment.tzinfo
            assert not moment.microsecond
        post(client, {"preferred_username": "x" * 64}, headers=headers)
        assert UserSettings.objects.get().preferred_username == "x" * 64

    def test_each_person_has_an_own_one(self, client: Client, ana: User, django_user_model: type[User]) -> None:
        eva = django_user_model.objects.create_user("eva")
        for user in (ana, eva):
            post(client, {"preferred_username": f"{user.username}1"}, headers=bearer(user))
        for user in (ana, eva):
            assert get(client, PREFERRED, headers=bearer(user))["preferred_username"] == f"{user.username}1"

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"preferred_username": ""},
            {"preferred_username": "  "},
            {"preferred_username": None},
            {"preferred_username": 5},
            {"preferred_username": True},
            {"preferred_username": ["a"]},
            {"preferred_username": "a\nb"},
            {"preferred_username": "a\u0000"},
            {"preferred_username": "a\u202eb"},
            {"preferred_username": "x" * 129},
            {"preferred_username": "x" * 100_000},
            {"prefered_username": "a"},
        ],
    )
    def test_refuses_by_name_and_stores_nothing(self, client: Client, ana: User, body: object) -> None:
        found = post(client, body, expect=400, headers=bearer(ana))
        assert found["code"] == "invalid_request"
        assert "preferred_username" in found["errors"]
        assert isinstance(found["detail"], str)
        assert len(found["detail"]) < 300
        assert not UserSettings.objects.exists()

    def test_without_a_person(self, client: Client, settings: Any) -> None:
        assert get(client, PREFERRED, expect=404)["code"] == "not_found"
        post(client, {"preferred_username": "a"}, expect=404)
        settings.PROTECTION_LEVEL = "ALL"
        get(client, PREFERRED, expect=401)
        post(client, {"preferred_username": "a"}, expect=401)
