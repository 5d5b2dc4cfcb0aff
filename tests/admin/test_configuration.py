"""The configuration in the admin, used as an admin uses it: posted forms, read lists."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from profiles import parameters
from profiles.models import EndpointToggle, PublishedSSHKey, RunnerProfile, UserSettings
from profiles.toggles import toggles

pytestmark = pytest.mark.django_db

CHANGELISTS = ("runnerprofile", "endpointtoggle", "publishedsshkey", "usersettings")


@pytest.fixture
def browser(admin_client: Client, settings: Any, tmp_path: Any) -> Client:
    settings.RUNNERS_SSH_CONFIG = str(tmp_path / "none")
    return admin_client


def page(browser: Client, name: str, *args: Any, query: str = "") -> str:
    response = browser.get(reverse(f"admin:profiles_{name}", args=args) + query)
    assert response.status_code == 200
    return response.content.decode()


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def add(browser: Client, **fields: Any) -> dict[str, list[str]]:
    """Submit the form of a new profile. Return its errors by field, or {} if it was saved."""
    response = browser.post(reverse("admin:profiles_runnerprofile_add"), {"name": "NEW", "enabled": "on", **fields})
    if response.status_code == 302:
        return {}
    errors: dict[str, list[str]] = response.context["adminform"].form.errors
    return errors


def test_an_added_profile_is_stored_without_surplus_blanks(browser: Client) -> None:
    assert add(browser, runner_type="SSH", module_loader_type="LMOD", modules=" b/1 a,\r\nc\r\n", ssh_host=" h ") == {}
    row = RunnerProfile.objects.get(name="NEW")
    assert (row.modules, row.ssh_host, row.ssh_port, row.ssh_user) == ("b/1\na\nc", "h", None, "")


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("name", {"name": "a b"}),
        ("runner_type", {"runner_type": "SLURM"}),
        ("ssh_host", {"runner_type": "LOCAL", "ssh_host": "h"}),
        ("ssh_host", {"runner_type": "SSH", "ssh_host": "$(id)"}),
        ("ssh_port", {"runner_type": "SSH", "ssh_port": "65536"}),
        ("ssh_port", {"runner_type": "SSH", "ssh_port": "many"}),
        ("ssh_user", {"runner_type": "SSH", "ssh_user": "-u"}),
        ("modules", {"module_loader_type": "NO_MODULE", "modules": "a"}),
        ("modules", {"module_loader_type": "VENV", "modules": "~/venv"}),
    ],
)
def test_a_mistake_is_shown_at_its_field(browser: Client, field: str, fields: dict[str, Any]) -> None:
    errors = add(browser, **fields)
    assert list(errors) == [field]
    assert errors[field][0].endswith((".", ")"))
    assert not RunnerProfile.objects.exists()


def test_two_profiles_of_one_name(browser: Client) -> None:
    assert add(browser) == {}
    assert list(add(browser)) == ["name"]


def test_the_list_shows_the_open_parameters(browser: Client) -> None:
    RunnerProfile.objects.create(name="FULL", runner_type="LOCAL", module_loader_type="NO_MODULE")
    RunnerProfile.objects.create(
        name="USER_OPEN", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host="::1", ssh_port=22
    )
    RunnerProfile.objects.create(name="ALL_OPEN")
    html = page(browser, "runnerprofile_changelist")
    found = {
        name: text_of(cell)
        for name, cell in re.findall(r'field-name">.*?>([A-Z_]+)</a>.*?field-still_open">(.*?)</td>', html, re.DOTALL)
    }
    assert found == {"FULL": "-", "USER_OPEN": "SSH.USER", "ALL_OPEN": found["ALL_OPEN"]}
    assert found["ALL_OPEN"].startswith("RUNNER_TYPE, MODULE_LOADER_TYPE, MODULES?")
    assert "[::1]:22" in text_of(html)
    assert "(open)" in text_of(html)


def test_search_and_filters(browser: Client) -> None:
    RunnerProfile.objects.create(name="ONE", ssh_host="login1")
    RunnerProfile.objects.create(name="TWO", enabled=False)
    for query, shown, hidden in (("?q=login1", "ONE", "TWO"), ("?enabled__exact=0", "TWO", "ONE")):
        html = page(browser, "runnerprofile_changelist", query=query)
        assert f">{shown}</a>" in html
        assert f">{hidden}</a>" not in html


def test_the_form_explains_every_field(browser: Client) -> None:
    text = text_of(page(browser, "runnerprofile_add"))
    fields = (RunnerProfile.FIELDS, RunnerProfile.ACCESS, RunnerProfile.LIMITS)
    for name in ("name", "enabled", "description", *(name for part in fields for name in part.values())):
        without_column = parameters.table().get(name)
        help_text = without_column.help if without_column else RunnerProfile._meta.get_field(name).help_text
        assert help_text
        assert text_of(help_text)[:40] in text.replace("&#x27;", "'"), name


def test_profiles_are_switched_by_action_even_when_they_are_wrong(browser: Client) -> None:
    RunnerProfile.objects.create(name="WRONG", runner_type="LOCAL", ssh_host="-x")
    pk = RunnerProfile.objects.get().pk
    url = reverse("admin:profiles_runnerprofile_changelist")
    for action, expected in (("disable", False), ("enable", True)):
        browser.post(url, {"action": action, "_selected_action": [pk]})
        assert RunnerProfile.objects.get().enabled is expected
    history = text_of(page(browser, "runnerprofile_history", pk))
    assert history.count("Changed enabled") == 2


def test_all_toggles_are_there_and_switched_from_the_list(browser: Client) -> None:
    html = page(browser, "endpointtoggle_changelist")
    rows = list(EndpointToggle.objects.order_by("name"))
    assert {row.name for row in rows} == set(toggles())
    assert "create-experiment, create-job-list" in text_of(html)
    assert "Select endpoint toggle" not in text_of(html)
    form: dict[str, Any] = {"form-TOTAL_FORMS": len(rows), "form-INITIAL_FORMS": len(rows), "_save": "Save"}
    for index, row in enumerate(rows):
        form[f"form-{index}-id"] = row.pk
        if row.name != "RUNNER_RUN":
            form[f"form-{index}-enabled"] = "on"
    browser.post(reverse("admin:profiles_endpointtoggle_changelist"), form)
    assert [name for name, enabled in EndpointToggle.states().items() if not enabled] == ["RUNNER_RUN"]
    history = reverse("admin:profiles_endpointtoggle_history", args=[EndpointToggle.objects.get(name="RUNNER_RUN").pk])
    assert f'href="{history}"' in html
    assert re.search(r" admin Switched off\. ", text_of(browser.get(history).content.decode()))
    assert browser.get(reverse("admin:profiles_endpointtoggle_add")).status_code == 403
    page(browser, "endpointtoggle_changelist")
    assert EndpointToggle.objects.count() == len(toggles())


@pytest.mark.parametrize("line", ["-----BEGIN OPENSSH PRIVATE KEY-----", "  ", "a\x07b", "x" * 2501])
def test_what_must_not_be_published(browser: Client, line: str) -> None:
    response = browser.post(reverse("admin:profiles_publishedsshkey_add"), {"line": line})
    assert response.status_code == 200
    assert list(response.context["adminform"].form.errors) == ["line"]
    assert not PublishedSSHKey.objects.exists()


def test_published_keys_show_whether_they_are_real(browser: Client) -> None:
    real = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEfJ3oZp6FqE0sZkzqFq2eQ3vQ1m2m1m2m1m2m1m2m1m me@here"
    for line in (real, "MY-SSH-PUBLIC-KEY-1", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIEfJ"):
        assert browser.post(reverse("admin:profiles_publishedsshkey_add"), {"line": line}).status_code == 302
    html = page(browser, "publishedsshkey_changelist")
    assert (html.count("icon-yes"), html.count("icon-no")) == (1, 2)


def test_every_list_and_form_opens(browser: Client, django_user_model: type[User]) -> None:
    user = django_user_model.objects.create_user("ana")
    rows = [
        RunnerProfile.objects.create(name="P"),
        PublishedSSHKey.objects.create(line="k" * 200),
        UserSettings.objects.create(user=user, preferred_username="a"),
    ]
    for name in CHANGELISTS:
        page(browser, f"{name}_changelist")
    for row in rows:
        page(browser, f"{row._meta.model_name}_change", row.pk)
