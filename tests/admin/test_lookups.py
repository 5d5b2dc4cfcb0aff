"""The URLs of the admin's lists reveal nothing that the lists do not show, for any query."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db.models import Field
from django.http import HttpRequest
from django.test import Client
from django.urls import reverse

from runners.models import ApiToken
from runners.models.webhook import Webhook, new_secret
from runners_project.admin_site import OnlyOfferedFilters, offered_lookups

pytestmark = pytest.mark.django_db
MODELS = {f"{model._meta.label}": model for model in admin.site._registry}


@pytest.fixture
def viewer() -> Client:
    """Return a client of a staff user who may view everything and change nothing."""
    user = User.objects.create_user("sam", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return client


def ask(client: Client, model: type, **lookups: str) -> int:
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"  # type: ignore[attr-defined]
    return client.get(f"{reverse(name)}?{urlencode(lookups)}").status_code


def request_of(client: Client) -> HttpRequest:
    """Return a request of the person who is signed in."""
    answer: Any = client.get("/admin/")
    request: HttpRequest = answer.wsgi_request
    return request


@pytest.mark.parametrize(
    "lookup", ["secret__regex", "secret__startswith", "secret", "secret__gte", "deliveries__webhook__secret__regex"]
)
def test_filters_do_not_reveal_the_secret_of_a_webhook(viewer: Client, lookup: str) -> None:
    Webhook.objects.create(name="hook", url="https://hooks.example.org/", secret=new_secret())
    assert ask(viewer, Webhook, **{lookup: "whsec_"}) == 400
    assert ask(viewer, Webhook) == 200


def test_filters_do_not_reveal_hashes_of_passwords_and_tokens(viewer: Client, admin_client: Client) -> None:
    for client in (viewer, admin_client):
        for model, lookup in (
            (User, "password__startswith"),
            (ApiToken, "digest__regex"),
            (ApiToken, "user__password__startswith"),
            (User, "runner_settings__preferred_username"),
            (User, "auth_token_set__digest__startswith"),
        ):
            assert ask(client, model, **{lookup: "a"}) == 400, (model, lookup)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_only_fields_of_filters_can_be_queried(viewer: Client, model: type) -> None:
    """Check every list of the admin, including lists that are added later."""
    model_admin = admin.site._registry[model]
    assert isinstance(model_admin, OnlyOfferedFilters)
    filters = model_admin.list_filter
    words = {item.parameter_name for item in filters if isinstance(item, type)}  # the filter checks its values
    fields = {item if isinstance(item, str) else item[0] for item in filters if not isinstance(item, type)}
    for field in model._meta.get_fields():  # type: ignore[attr-defined]
        if isinstance(field, Field) and field.name not in fields:
            for suffix in ("__regex", "__startswith", "__gt", "__isnull", "__in", *([""] * (field.name not in words))):
                assert ask(viewer, model, **{f"{field.name}{suffix}": "1"}) == 400, f"{field.name}{suffix}"


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_filter_that_a_list_offers_works(admin_client: Client, model: type) -> None:
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"  # type: ignore[attr-defined]
    page = admin_client.get(reverse(name)).content.decode()
    for query in set(re.findall(r'href="\?([^"]+)"', page)):
        assert admin_client.get(f"{reverse(name)}?{query.replace('&amp;', '&')}").status_code == 200, query


def test_no_page_of_a_list_shows_or_sorts_by_a_secret(viewer: Client) -> None:
    secrets = []
    for letter in "ba":
        hook = Webhook.objects.create(name=f"hook {letter}", url="https://hooks.example.org/", secret=new_secret())
        token, text = ApiToken.issue(user=User.objects.create_user(letter, password="of them"), expiry=None)
        user = token.user
        secrets += [hook.secret, text, user.password]  # the hash of a token is its primary key and reveals nothing
    pages = {f"{reverse('admin:runners_webhook_changelist')}{hook.pk}/change/"}
    for model, row in ((Webhook, hook), (ApiToken, token), (User, user)):
        name = f"{model._meta.app_label}_{model._meta.model_name}"
        listed = reverse(f"admin:{name}_changelist")
        columns = admin.site._registry[model].list_display
        pages |= {f"{listed}?o={place}" for place in range(1, len(columns) + 2)}
        pages |= {reverse(f"admin:{name}_{page}", args=[row.pk]) for page in ("change", "history")}
        pages |= {f"{listed}?q={secret[:12]}" for secret in secrets}
        assert not {"secret", "digest", "password"} & {*columns, *admin.site._registry[model].search_fields}
        for field in ("secret", "password"):
            assert viewer.get(f"{listed}?_to_field={field}&_popup=1").status_code == 400
    asked = {"app_label": "profiles", "model_name": "usersettings", "field_name": "user", "term": "a"}
    pages.add(f"{reverse('admin:autocomplete')}?{urlencode(asked)}")
    for page in pages:
        answer = viewer.get(page)
        assert answer.status_code == 200, page
        for secret in secrets:
            assert secret not in answer.content.decode(), page
            assert "?q=" not in page or "hook a" not in answer.content.decode(), page


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_search_is_bounded(admin_client: Client, model: type) -> None:
    if not admin.site._registry[model].search_fields:
        return
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"  # type: ignore[attr-defined]
    for words, is_searched in (("a " * 10, True), ("a " * 11, False), ("a " * 1500, False), ("a" * 201, False)):
        answer = admin_client.get(reverse(name), {"q": words})
        assert answer.status_code == 200
        assert ("Nothing was searched" in answer.content.decode()) is not is_searched, words[:20]


LARGE = ("9" * 15, "9" * 25, "9" * 5000, "²", "١", "-1", "x")


@pytest.mark.parametrize("path", ["runners/trustedhostkey/scan/?profile=", "profiles/runnerprofile/add/?copy_of="])
def test_a_number_of_an_address_that_no_row_has_finds_none(admin_client: Client, path: str) -> None:
    for text in LARGE:
        assert admin_client.get(f"/admin/{path}{quote(text)}").status_code == 200, text
    assert admin_client.post("/admin/runners/trustedhostkey/scan/", {"profile": "9" * 5000}).status_code == 200


@pytest.mark.filterwarnings("ignore:DateTimeField .* received a naive datetime:RuntimeWarning")
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_no_number_or_time_of_an_address_is_an_error_of_a_list(
    admin_client: Client, settings: Any, model: type
) -> None:
    """SQLite holds no number from 2^63 on, and UTC has no time for the last hours of 9999 in New York."""
    settings.TIME_ZONE = "America/New_York"
    admin_client.raise_request_exception = False
    lookups = offered_lookups(admin.site._registry[model], request_of(admin_client))
    for lookup in sorted({*lookups, "p", "o", "q", "e"}):
        for text in ("9" * 25, "9" * 5000, f"1,{'9' * 25}", "9999-12-31T23:00", "9999-12-31", "0001-01-01", "²"):
            assert ask(admin_client, model, **{lookup: text}) in (200, 302, 400), (lookup, text[:30])


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_no_value_of_an_address_is_an_error_of_an_empty_form(admin_client: Client, model: type) -> None:
    admin_client.raise_request_exception = False
    path = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_add")  # type: ignore[attr-defined]
    for field in model._meta.get_fields():  # type: ignore[attr-defined]
        for text in ("9" * 25, "9999-12-31", "2026-01-01 10:00", "x,y", "[1]", ""):
            answer = admin_client.get(path, {field.name: text})
            assert answer.status_code in (200, 302, 403), (field.name, text)


@pytest.mark.parametrize(
    ("model", "field", "form"),
    [
        ("profiles_runnerprofile", "run_groups", {"name": "P"}),
        ("auth_group", "permissions", {"name": "G"}),
        ("auth_user", "groups", {"username": "root"}),
    ],
)
def test_a_form_rejects_a_number_that_no_row_has(
    admin_client: Client, admin_user: User, model: str, field: str, form: dict[str, str]
) -> None:
    pages = {"auth_user": reverse("admin:auth_user_change", args=[admin_user.pk])}
    answer = admin_client.post(pages.get(model) or reverse(f"admin:{model}_add"), {**form, field: ["9" * 25]})
    assert answer.status_code == 200
    assert f"Select a valid choice. {'9' * 25} is not one of the available choices" in answer.content.decode()


def test_a_form_shows_a_rejected_number_again(admin_client: Client) -> None:
    for text in ("9" * 25, "9" * 5000, "x"):
        answer = admin_client.post(reverse("admin:profiles_usersettings_add"), {"user": text})
        assert answer.status_code == 200
        assert "Select a valid choice" in answer.content.decode()


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_an_action_on_a_row_that_cannot_exist_is_no_error(admin_client: Client, model: type) -> None:
    admin_client.raise_request_exception = False
    model_admin = admin.site._registry[model]
    path = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")  # type: ignore[attr-defined]
    for action in model_admin.get_actions(request_of(admin_client)):
        for text in ("9" * 25, "x", "-1"):
            answer = admin_client.post(path, {"action": action, "_selected_action": [text]})
            assert answer.status_code in (200, 302, 400), (action, text)
