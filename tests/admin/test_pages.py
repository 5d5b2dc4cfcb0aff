"""Every page of the admin opens, and no record of past events looks editable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

import runners
from profiles.config import RunnerConfig
from profiles.models import RunnerProfile
from runners.admin.audit import COMMANDS
from runners.commands.registry import audit_names
from runners.models import ApiToken, AuditRecord, Operation, RunReason, RunStatus, TrustedHostKey, Webhook
from runners.models.webhook import WebhookDelivery, WebhookEvent
from tests.support.rows import saved_run, staff

pytestmark = pytest.mark.django_db

CONFIG = RunnerConfig("LOCAL", "NO_MODULE").as_dict()
READ_ONLY = ("runnerrun", "auditrecord", "operation", "webhookdelivery", "trustedhostkey")


@pytest.fixture(autouse=True)
def no_ssh_config(settings: Any, tmp_path: Any) -> None:
    settings.RUNNERS_SSH_CONFIG = str(tmp_path / "none")


@pytest.fixture
def rows(django_user_model: type[User]) -> dict[str, Model]:
    """One row of each model in `runners`."""
    user = django_user_model.objects.create_user("ada")
    run = saved_run(
        profile_name="P", started_by="ada", status=RunStatus.TERMINATED, reason=RunReason.FAILED, exit_code=3
    )
    hook = Webhook.objects.create(name="H", url="https://example.com/hook", events=[WebhookEvent.TERMINATED])
    return {
        "runnerrun": run,
        "auditrecord": AuditRecord.objects.create(
            endpoint="run-experiment", actor="ada", run_id=run.pk, argv=["autosubmit", "run", "a b"], detail="<b>words"
        ),
        "operation": Operation.objects.create(key="k" * 32, kind="create-experiment", config=CONFIG, timeout=10),
        "apitoken": ApiToken.issue(user=user, expiry=None, name="of a machine")[0],
        "trustedhostkey": TrustedHostKey.objects.create(host="h", key_type="ssh-ed25519", key="AAAA"),
        "webhook": hook,
        "webhookdelivery": WebhookDelivery.objects.create(
            webhook=hook, run=run, event=WebhookEvent.TERMINATED, payload={"type": "run.terminated"}
        ),
    }


def change(row: Model) -> str:
    return reverse(f"admin:runners_{row._meta.model_name}_change", args=[row.pk])


def opened(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, url
    return response.content.decode()


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_every_list_and_page_opens_without_inline_script_or_style(admin_client: Client, rows: dict[str, Model]) -> None:
    for name, row in rows.items():
        for url in (reverse(f"admin:runners_{name}_changelist"), change(row)):
            html = opened(admin_client, url)
            assert not re.search(
                r"<script(?![^>]*\bsrc=)[^>]*>\s*[^<\s]", re.sub(r"<script[^>]*json[^>]*>", "<x>", html)
            ), url
            assert "<style" not in html, url
            assert not re.search(r'<[^>]+ style="', html), url
            assert not re.search(r"<[^>]+ on[a-z]+=", html), url


def test_every_filter_opens(admin_client: Client, rows: dict[str, Model]) -> None:
    for name in rows:
        url = reverse(f"admin:runners_{name}_changelist")
        links = set(re.findall(r'href="(\?[^"]+)"', opened(admin_client, url)))
        for link in links:
            opened(admin_client, url + link.replace("&amp;", "&"))
        assert links or name == "webhook" or name == "trustedhostkey"


def test_filters_have_readable_names(admin_client: Client, rows: dict[str, Model]) -> None:
    expected = {
        "runnerrun": ["status", "reason", "profile", "host", "person", "date"],
        "auditrecord": ["outcome", "command", "date"],
        "operation": ["status", "command", "date"],
        "apitoken": ["validity", "scope"],
    }
    for name, titles in expected.items():
        html = opened(admin_client, reverse(f"admin:runners_{name}_changelist"))
        assert [words.strip() for words in re.findall(r"<summary>\s*By ([^<]*)", html)] == titles


def test_every_command_that_is_recorded_can_be_filtered_by() -> None:
    """Find the recorded commands in the source code, because no test could send every command once."""
    before = (
        r"(?:audited|AuditRecord)\(endpoint=",
        r"audit_command\([a-z.]*request, ",
        r"command = ",
        r"command\(",
        r"\n(?:ENDPOINT|ENDPOINT, OUTCOME|RUN_AGAIN) = ",
        r"endpoint = ",
        r"PairKind\([^()]*endpoint=",
        r"if row.is_authority else ",
    )
    pattern = f'(?:{"|".join(before)})"([a-z-]+)"'
    sources = [path.read_text() for path in Path(runners.__file__).parent.rglob("*.py")]
    found = {name for source in sources for name in re.findall(pattern, source)}
    assert {"run-experiment", "stop-experiment", "abandon-run", "create-ssh-key", "check-profile"} <= found
    registered = set(audit_names())
    assert registered < set(COMMANDS)
    assert found | registered == set(COMMANDS)


def test_long_lists_are_neither_counted_nor_faceted(
    admin_client: Client, rows: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.admin.base.MOST_COUNTED", 60)
    AuditRecord.objects.bulk_create([AuditRecord(endpoint="run-experiment", expid="a000") for _ in range(200)])
    url = reverse("admin:runners_auditrecord_changelist")
    with CaptureQueriesContext(connection) as queries:
        html = opened(admin_client, url)
    counts = [each["sql"] for each in queries.captured_queries if "COUNT(" in each["sql"]]
    assert len(counts) == 1
    assert "LIMIT 61" in counts[0]
    assert "the first 60 of more audit records: filter or search for the others" in text_of(html)
    assert "more than 60 results" in text_of(opened(admin_client, f"{url}?q=a000"))
    assert opened(admin_client, f"{url}?p=2").count('<th class="field-began">') == 10
    assert " 0 audit records" in text_of(opened(admin_client, f"{url}?command=stop-experiment"))
    for name in READ_ONLY:
        html = opened(admin_client, reverse(f"admin:runners_{name}_changelist") + "?_facets=True")
        assert not re.search(r"\bcounts\b", text_of(html).lower())  # "accounts" is a name in the menu


def test_select_all_is_offered_only_when_the_count_is_known(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(61):
        saved_run(f"a{number:03}")
    url = reverse("admin:runners_runnerrun_changelist")
    assert "Select all 61 runner runs" in text_of(opened(admin_client, url))
    monkeypatch.setattr("runners.admin.base.MOST_COUNTED", 60)
    text = text_of(opened(admin_client, url))
    assert "0 of 50 selected" in text
    assert "Select all" not in text


def test_every_search_takes_any_words_without_a_nul(admin_client: Client, rows: dict[str, Model]) -> None:
    for name in rows:
        for words, status in (("ada", 200), ("12", 200), ("%", 200), ("a b", 200), ("é\x01", 200), ("é\x00", 400)):
            response = admin_client.get(reverse(f"admin:runners_{name}_changelist"), {"q": words})
            assert response.status_code == status, (name, words)  # no database accepts a text with a NUL: 400, not 500


@pytest.mark.parametrize("config", [{}, {"RUNNER_TYPE": "SLURM"}, {**CONFIG, "SSH": {"HOST": "h"}}, [], "words"])
def test_a_run_with_an_invalid_configuration_is_still_shown(admin_client: Client, config: Any) -> None:
    run = saved_run("a001", config=config, reachable=False)
    text = text_of(opened(admin_client, change(run)))
    assert "not readable: The stored configuration" in text
    assert "Ask its machine now" not in text
    for name in ("refresh", "stop", "abandon"):
        response = admin_client.post(reverse(f"admin:runners_runnerrun_{name}", args=[run.pk]))
        assert response.status_code == 404
    log = opened(admin_client, reverse("admin:runners_runnerrun_log", args=[run.pk]))
    assert "The log cannot be read. The stored configuration" in text_of(log)
    listed = reverse("admin:runners_runnerrun_changelist")
    asked = admin_client.post(listed, {"action": "ask", "_selected_action": [run.pk]}, follow=True)
    assert "Probed 0 active run(s)" in text_of(asked.content.decode())


def test_times_are_shown_as_clock_times_and_not_as_ages(admin_client: Client, rows: dict[str, Model]) -> None:
    now = timezone.now()
    run = saved_run("a001", confirmed_at=now)
    Operation.objects.update(confirmed_at=now)
    WebhookDelivery.objects.update(delivered_at=now)
    ApiToken.objects.update(last_used=now)
    for row in (run, *(rows[name] for name in ("operation", "webhookdelivery", "apitoken"))):
        for url in (reverse(f"admin:runners_{row._meta.model_name}_changelist"), change(row)):
            html = opened(admin_client, url)
            assert "data-ago" not in html
            assert f"{timezone.localtime(now):%Y-%m-%d %H:%M}" in html
    html = opened(admin_client, reverse("admin:runners_runnerrun_stop", args=[run.pk]))
    assert "data-ago" not in html


@pytest.mark.parametrize("name", READ_ONLY)
def test_records_of_events_cannot_be_added_or_edited(admin_client: Client, rows: dict[str, Model], name: str) -> None:
    row = rows[name]
    html = opened(admin_client, reverse(f"admin:runners_{name}_changelist")) + opened(admin_client, change(row))
    html = "".join(re.findall(r'<div id="content-main">.*?<footer', html, re.DOTALL))  # without the menu
    assert html
    assert 'class="addlink"' not in html
    assert 'name="_save"' not in html
    assert ">History<" not in html
    assert admin_client.get(reverse(f"admin:runners_{name}_add")).status_code == 403
    assert admin_client.post(change(row), {"expid": "b000", "host": "b"}).status_code == 403
    if name != "trustedhostkey":  # trusted host keys can be deleted
        assert "deletelink" not in html
        assert "delete_selected" not in html
        assert (
            admin_client.post(reverse(f"admin:runners_{name}_delete", args=[row.pk]), {"post": "yes"}).status_code
            == 403
        )
    before = {field.name: getattr(row, field.attname) for field in row._meta.concrete_fields}
    row.refresh_from_db()
    assert {field.name: getattr(row, field.attname) for field in row._meta.concrete_fields} == before


def test_the_list_of_runs_is_filtered_by_status_profile_host_and_person(admin_client: Client) -> None:
    url = reverse("admin:runners_runnerrun_changelist")
    saved_run("a001", profile_name="ONE", host="alpha", started_by="ada", status=RunStatus.COMPLETED, exit_code=0)
    saved_run("a002", profile_name="TWO", host="beta", started_by="bob")
    saved_run("a003", profile_name="TWO", host="gamma", started_by="ada", reachable=False)
    for query, expected in (
        ("", {"a001", "a002", "a003"}),
        ("status=COMPLETED", {"a001"}),
        ("status=unreachable", {"a003"}),
        ("profile_name=TWO", {"a002", "a003"}),
        ("host=beta", {"a002"}),
        ("started_by=ada", {"a001", "a003"}),
        ("q=a002", {"a002"}),
        ("created__lt=2000-01-02 00:00:00%2B00:00", set()),
    ):
        html = opened(admin_client, f"{url}?{query}")
        assert set(re.findall(r">(a00\d)</a>", html)) == expected, query
    html = opened(admin_client, url)
    for choice in ("?host=alpha", "?host=gamma", "?profile_name=ONE", "?started_by=bob"):
        assert choice in html
    assert "UNREACHABLE running at the last probe of its machine" in text_of(html)
    assert 'class="badge completed" title="status: COMPLETED">COMPLETED' in html


def test_the_page_of_a_run_shows_all_its_fields(admin_client: Client, rows: dict[str, Model]) -> None:
    run = rows["runnerrun"]
    text = text_of(opened(admin_client, change(run)))
    for words in ("TERMINATED", "failed (exit code 3)", "me@here (LOCAL)", "RUNNER_TYPE", "autosubmit run a000", "ada"):
        assert words in text
    assert "run-experiment" in text
    assert "&lt;b&gt;words" in text  # from the audit trail, escaped
    assert f'"$HOME"/.autosubmit-runners/{run.key}'.replace('"', "&quot;") in text  # type: ignore[attr-defined]


def test_a_user_with_view_permission_is_offered_no_actions(rows: dict[str, Model]) -> None:
    profile = RunnerProfile.objects.create(name="P", runner_type="LOCAL", module_loader_type="NO_MODULE")
    run = saved_run("a001")
    delivery = rows["webhookdelivery"]
    names = [*rows, "runnerprofile"]
    client = staff(*(f"{'profiles' if name == 'runnerprofile' else 'runners'}.view_{name}" for name in names))
    html = opened(client, reverse("admin:profiles_runnerprofile_changelist"))
    html += opened(client, reverse("admin:profiles_runnerprofile_change", args=[profile.pk]))
    html += opened(client, change(run)) + opened(client, reverse("admin:runners_runnerrun_changelist"))
    html += opened(client, reverse("admin:runners_trustedhostkey_changelist")) + opened(client, change(delivery))
    for words in (
        "Import",
        "Duplicate",
        "Check connection",
        "Stop",
        "Ask its machine",
        "Read the keys of a machine",
        "Send it",
    ):
        assert words not in text_of(html).replace("Stop requested", "").replace("Stopped by", ""), words
    posts = [
        reverse("admin:profiles_runnerprofile_import"),
        reverse("admin:profiles_runnerprofile_check", args=[profile.pk]),
        reverse("admin:profiles_runnerprofile_preview", args=[profile.pk]),
        reverse("admin:runners_runnerrun_refresh", args=[run.pk]),
        reverse("admin:runners_runnerrun_stop", args=[run.pk]),
        reverse("admin:runners_runnerrun_abandon", args=[run.pk]),
        reverse("admin:runners_trustedhostkey_scan"),
        reverse("admin:runners_webhookdelivery_redeliver", args=[delivery.pk]),
        reverse("admin:runners_apitoken_add"),
    ]
    for url in posts:
        assert client.post(url, {"host": "localhost"}).status_code == 403, url


def test_a_user_without_permission_sees_no_log(client: Client, django_user_model: type[User]) -> None:
    client.force_login(django_user_model.objects.create_user("eve"))
    run = saved_run()
    for name in ("log", "stop", "refresh"):
        response = client.post(reverse(f"admin:runners_runnerrun_{name}", args=[run.pk]))
        assert response.status_code == 302
        assert response["Location"].startswith(reverse("admin:login"))
