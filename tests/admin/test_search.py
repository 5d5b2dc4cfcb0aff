"""The search of the admin's long lists: exact values first, then values of few, then texts of the newest rows."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from runners.admin.search import EXACT, PART, IndexedSearch
from runners.models import AuditRecord, RunnerRun, RunStatus, TrustedHostKey, Webhook
from runners.models.webhook import WebhookDelivery
from runners.services.bounded_queries import first_values
from tests.support.rows import saved_run

pytestmark = pytest.mark.django_db
RUNS, AUDIT = "admin:runners_runnerrun_changelist", "admin:runners_auditrecord_changelist"
LIMITED = "Only the newest rows were searched"


def found(client: Client, name: str, **query: Any) -> tuple[list[str], bool]:
    """Return the experiments that a list shows, and whether it says that its search was limited."""
    answer = client.get(reverse(name), query)
    assert answer.status_code == 200
    return [row.expid for row in answer.context["cl"].result_list], LIMITED in answer.content.decode()


@pytest.fixture
def runs() -> None:
    saved_run("a001", host="alpha1", profile_name="ONE", started_by="ada", user="ada")
    saved_run("a002", host="alpha2", profile_name="TWO", started_by="bob", user="ada")
    saved_run("ada", host="beta", profile_name="ADA", started_by="eve", user="eve", status=RunStatus.COMPLETED)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a001", ["a001"]),
        ("ada", ["ada", "a002", "a001"]),  # an experiment, a person, an account, part of a profile
        ("alpha", ["a002", "a001"]),
        ("LPHA2", ["a002"]),
        ("alpha bob", ["a002"]),
        ("ada eve", ["ada"]),
        ("ada nothing", []),
        ('"alpha bob"', []),
        ("nothing", []),
    ],
)
def test_runs_are_found_by_exact_values_and_by_parts_of_host_and_profile(
    admin_client: Client, runs: None, words: str, expected: list[str]
) -> None:
    assert found(admin_client, RUNS, q=words) == (expected, False)


def test_filters_apply_to_what_is_found(admin_client: Client, runs: None) -> None:
    assert found(admin_client, RUNS, q="ada", status="COMPLETED") == (["ada"], False)
    assert found(admin_client, RUNS, q="ada", host="alpha1") == (["a001"], False)


def test_texts_are_searched_only_if_no_column_has_the_word_and_only_in_the_newest(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, detail in enumerate(("disk full", "disk full", "about a000", "nothing")):
        AuditRecord.objects.create(endpoint="run-experiment", expid=f"a{number:03}", detail=detail)
    assert found(admin_client, AUDIT, q="disk") == (["a001", "a000"], False)
    assert found(admin_client, AUDIT, q="a000") == (["a000"], False)  # not the text of another record
    assert found(admin_client, AUDIT, q="a000 full") == (["a000"], False)
    monkeypatch.setattr("runners.admin.search.NEWEST", 3)
    assert found(admin_client, AUDIT, q="disk") == (["a001"], True)
    assert found(admin_client, AUDIT, q="a000") == (["a000"], False)


def test_a_word_in_several_columns_finds_the_newest_rows_of_each(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        saved_run(f"a00{number}", started_by="ada" if number % 2 else "bob", user="bob" if number % 2 else "ada")
    assert len(found(admin_client, RUNS, q="ada")[0]) == 6
    monkeypatch.setattr("runners.admin.search.MOST_FOUND", 2)
    assert found(admin_client, RUNS, q="ada") == (["a005", "a004", "a003", "a002"], True)


def test_a_search_says_that_not_every_host_was_compared(
    admin_client: Client, runs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.admin.search.MOST_VALUES", 2)
    answer = admin_client.get(reverse(RUNS), {"q": "bet"})
    assert [row.expid for row in answer.context["cl"].result_list] == []  # the third host
    assert "Only the first 2 of these values were compared: host, profile_name." in answer.content.decode()
    assert found(admin_client, RUNS, q="beta")[0] == ["ada"]
    assert "were compared" not in admin_client.get(reverse(AUDIT), {"q": "beta"}).content.decode()


def test_each_exact_column_of_a_search_has_an_index_that_begins_with_it() -> None:
    """Without an index, the search would read the whole table."""
    for model, model_admin in admin.site._registry.items():
        if not isinstance(model_admin, IndexedSearch) or model is TrustedHostKey:  # a few hundred rows at most
            continue
        assert all(lookup.endswith((EXACT, PART)) for lookup in model_admin.search_fields), model
        paths = [lookup.removesuffix(EXACT) for lookup in model_admin.search_fields if lookup.endswith(EXACT)]
        for path in (*paths, *model_admin.few_values):
            *relations, name = path.split("__")
            of: Any = model
            for relation in relations:
                of = of._meta.get_field(relation).related_model
            indexed = {index.fields[0] for index in of._meta.indexes if index.fields}
            column = of._meta.get_field(name)
            assert column.unique or column.db_index or name in indexed, f"{of.__name__}.{name}"


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL reads small tables without an index")
def test_sqlite_uses_the_index_of_tokens_which_has_a_condition(admin_client: Client) -> None:
    AuditRecord.objects.create(endpoint="run-experiment", expid="a001", token="asr_1")
    with CaptureQueriesContext(connection) as queries:
        assert found(admin_client, AUDIT, q="asr_1") == (["a001"], False)
    seeks = [each["sql"] for each in queries if '"token" ' in each["sql"].partition("WHERE")[2]]
    assert len(seeks) >= 3  # whether the token exists, the number of its records, and the records
    for sql in seeks:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
            plan = " ".join(str(row) for row in cursor.fetchall())
        assert "audit_token" in plan, (sql, plan)


def test_first_values_returns_different_values_sorted(runs: None) -> None:
    saved_run("a003", host="alpha1")
    saved_run("a004", host="")
    assert first_values(RunnerRun, "host", 10) == ["alpha1", "alpha2", "beta"]
    assert first_values(RunnerRun, "host", 2) == ["alpha1", "alpha2"]
    RunnerRun.objects.all().delete()
    assert first_values(RunnerRun, "host", 2) == []


def test_the_list_of_runs_needs_few_queries_whatever_its_filters_offer(admin_client: Client) -> None:
    for number in range(20):
        saved_run(f"a{number:03}", host=f"h{number}", profile_name=f"P{number}", started_by=f"person{number}")
    with CaptureQueriesContext(connection) as queries:
        admin_client.get(reverse(RUNS))
    assert len(queries) < 12, [each["sql"] for each in queries]


def test_a_list_is_sorted_only_by_the_columns_that_it_offers(admin_client: Client) -> None:
    for expid in ("a002", "a001", "a003"):
        saved_run(expid)
    columns = ["action_checkbox", *admin.site._registry[RunnerRun].list_display]
    assert found(admin_client, RUNS, o=columns.index("id"))[0] == ["a002", "a001", "a003"]
    assert found(admin_client, RUNS, o=columns.index("expid"))[0] == ["a003", "a001", "a002"]  # as without an order


def test_the_list_of_webhooks_counts_the_messages_with_one_query(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = [Webhook.objects.create(name=f"hook{number}", url="https://hooks.example.org/") for number in range(3)]
    for hook in hooks[:2]:
        WebhookDelivery.objects.create(webhook=hook, event="run.completed", payload={})
        WebhookDelivery.objects.create(webhook=hook, event="run.completed", payload={}, next_attempt=None)
    url = reverse("admin:runners_webhook_changelist")
    with CaptureQueriesContext(connection) as queries:
        html = admin_client.get(url).content.decode()
    assert re.findall(r'field-waiting">([^<]*)<', html) == ["1", "1", "0"]
    assert html.count('<span class="badge failed">1</span>') == 2
    assert sum("runners_webhookdelivery" in each["sql"] for each in queries) == 1
    monkeypatch.setattr("runners.admin.webhooks.MOST_UNDONE", 4)
    assert re.findall(r'field-waiting">([^<]*)<', admin_client.get(url).content.decode()) == ["1+", "1+", "0+"]


def test_a_date_filter_begins_where_the_rows_of_its_time_are(admin_client: Client) -> None:
    for number, year in enumerate((2020, 2021, 2022)):
        saved_run(f"a{number:03}", created=datetime(year, 6, 1, tzinfo=UTC))
    query = {"created__gte": "2021-01-01 00:00:00+00:00", "created__lt": "2022-01-01 00:00:00+00:00"}
    with CaptureQueriesContext(connection) as queries:
        assert found(admin_client, RUNS, **query) == (["a001"], False)
    first, _, last = RunnerRun.objects.order_by("pk").values_list("pk", flat=True)
    sql = [each["sql"] for each in queries if "COUNT(" in each["sql"]]
    assert f'"id" > {first}' in sql[0]
    assert f'"id" < {last}' in sql[0]
