"""The list of all runs: filters, search, order, pages, counts, and what it remembers."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.html import escape

from profiles.models import RunnerProfile
from runners.models import RunnerRun
from runners.pages.views import runs
from runners.services import bounded_queries, experiment_descriptions
from tests.support.rows import unsaved_run

pytestmark = pytest.mark.django_db


def save(**fields: Any) -> RunnerRun:
    run = unsaved_run(**fields)
    run.save()
    return run


@pytest.fixture
def some() -> dict[str, RunnerRun]:
    """Runs of ada and bob with different outcomes, the oldest first."""
    now = timezone.now()
    ended = {"status": "TERMINATED", "finished": now - timedelta(hours=1)}
    return {
        "failed": save(
            expid="a000", reason="failed", started_by="ada", host="one", created=now - timedelta(days=3), **ended
        ),
        "stopped": save(expid="a00b", reason="stopped", started_by="bob", host="two", **ended),
        "killed": save(expid="b000", reason="killed", signal="KILL", started_by="bob", host="one", **ended),
        "unstarted": save(expid="b001", reason="never_started", started_by="ada", host="", **ended),
        "well": save(
            expid="b002", status="COMPLETED", started_by="ada", host="two", profile_name="OTHER", finished=now
        ),
        "silent": save(expid="c000", started_by="ada", host="one", silent_since=now - timedelta(hours=5)),
        "unsure": save(expid="c001", started_by="bob", host="gone", reachable=False, unreachable_detail="no answer"),
    }


def shown(answer: HttpResponse) -> list[str]:
    assert answer.status_code == 200, answer.status_code
    return re.findall(r'class="strong"[^>]*>(\w+)<', answer.content.decode())


ALL = ["c001", "c000", "b002", "b001", "b000", "a00b", "a000"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("mine=0", ALL),
        ("mine=1", ["c000", "b002", "b001", "a000"]),
        ("status=ACTIVE", ["c001", "c000"]),
        ("status=COMPLETED", ["b002"]),
        ("status=TERMINATED&reason=stopped", ["a00b"]),
        ("reason=never_started", ["b001"]),
        ("mark=silent", ["c000"]),
        ("mark=unreachable", ["c001"]),
        ("profile=OTHER", ["b002"]),
        ("machine=one", ["c000", "b000", "a000"]),
        ("machine=one&person=bob", ["b000"]),
        ("person=nobody", []),
        ("q=a00", ["a00b", "a000"]),
        ("q=+A000+", ["a000"]),
        ("q=%25", []),
        ("q=zz", []),
        ("since=2999-01-01", []),
        ("until=2000-01-01", []),
        ("sort=started", ALL[::-1]),
        ("sort=experiment", sorted(ALL)),
        ("sort=-experiment", sorted(ALL)[::-1]),
        ("sort=-ended", ["b002", "b001", "b000", "a00b", "a000"]),
        ("sort=machine&status=TERMINATED", ["b001", "b000", "a000", "a00b"]),
        ("sort=-person&status=TERMINATED", ["a00b", "b000", "a000", "b001"]),
        ("page=2", []),
        ("unknown=1", ALL),
    ],
)
def test_the_address_selects_and_sorts_runs(
    browser: Client, some: dict[str, RunnerRun], query: str, expected: list[str]
) -> None:
    assert shown(browser.get(f"/runs?{query}")) == expected
    assert shown(browser.get(f"/runs?{query}", headers={"HX-Request": "true"})) == expected


def test_a_run_is_found_by_its_number(browser: Client, some: dict[str, RunnerRun]) -> None:
    assert shown(browser.get(f"/runs?q={some['killed'].pk}")) == ["b000"]
    assert shown(browser.get("/runs?q=999999999999999999")) == []
    assert shown(browser.get(f"/runs?q={10**90}")) == []


def test_a_run_is_found_by_the_description_of_its_experiment(browser: Client, some: dict[str, RunnerRun]) -> None:
    strange = '<b>Tides</b> & "winds" \u05d0\u05d1 100% ' + "x" * 960
    place = experiment_descriptions.home_of_run(some["killed"])
    experiment_descriptions.learn(place, {"b000": strange, "b001": "Tides of the south", "gone": "Tides"})
    assert shown(browser.get("/runs?q=TIDES")) == ["b001", "b000"]
    assert shown(browser.get("/runs?q=100%25")) == ["b000"]
    assert shown(browser.get("/runs?q=100_")) == []
    assert chips(browser.get("/runs?q=tides"))["All"] == "2"
    page = browser.get("/runs").content.decode()
    title = escape(strange)
    assert f'<bdi class="words line" dir="auto" title="{title}">{title}</bdi>' in page
    assert "<b>Tides" not in page
    with CaptureQueriesContext(connection) as queries:
        browser.get("/runs", headers={"HX-Request": "true"})
    assert sum("experimentdescription" in query["sql"] for query in queries) == 1


def test_times_are_days_of_the_service(browser: Client, some: dict[str, RunnerRun]) -> None:
    today = f"{timezone.localdate()}"
    before = f"{timezone.localdate() - timedelta(days=3)}"
    assert shown(browser.get(f"/runs?since={today}")) == ALL[:-1]
    assert shown(browser.get(f"/runs?since={before}&until={before}")) == ["a000"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("status=GONE", "Status: Select a valid choice"),
        ("since=yesterday", "Write a day such as 2026-11-24."),
        ("since=9999-12-31", "less than or equal to"),
        ("since=2026-02-02&until=2026-02-01", "This day is before the first day."),
        ("status=ACTIVE&reason=failed", "Only runs that are TERMINATED have a reason."),
        ("mine=1&person=bob", "Choose everybody&#x27;s runs, or leave this field empty."),
        ("page=0", "greater than or equal to 1"),
        ("page=201", "less than or equal to 200"),
        ("sort=password", "Order: Select a valid choice"),
        ("q=" + "x" * 101, "at most 100 characters"),
    ],
)
def test_an_invalid_filter_is_named_and_shows_no_runs(
    browser: Client, some: dict[str, RunnerRun], query: str, said: str
) -> None:
    answer = browser.get(f"/runs?{query}")
    assert answer.status_code == 400
    assert said in answer.content.decode()
    assert 'class="strong"' not in answer.content.decode()


def test_empty_fields_of_the_form_are_removed_from_the_address(browser: Client) -> None:
    answer = browser.get("/runs?mine=0&q=+a000+&status=&reason=&sort=")
    assert (answer.status_code, answer["Location"]) == (302, "/runs?mine=0&q=a000")
    assert browser.get("/runs?q=")["Location"] == "/runs?mine=0"


def test_the_list_remembers_that_it_showed_my_runs(browser: Client, some: dict[str, RunnerRun]) -> None:
    assert shown(browser.get("/runs")) == ALL
    browser.get("/runs?mine=1")
    assert browser.get("/runs")["Location"] == "/runs?mine=1"
    assert shown(browser.get("/runs?status=ACTIVE")) == ["c001", "c000"]  # a shared address says the whole filter
    assert browser.get("/runs")["Location"] == "/runs?mine=1"
    browser.get("/runs?mine=0")
    assert shown(browser.get("/runs")) == ALL


def test_the_badge_says_what_became_of_a_run_and_its_title_the_words_of_the_api(
    browser: Client, some: dict[str, RunnerRun]
) -> None:
    page = browser.get("/runs").content.decode()
    found = re.findall(r'<span class="status \w+" title="([^"]+)"><span[^>]*></span>([A-Z ]+)</span>', page)
    assert found == [
        ("status: ACTIVE, reachable: false", "UNREACHABLE"),
        ("status: ACTIVE, reachable: true", "ACTIVE"),
        ("status: COMPLETED", "COMPLETED"),
        ("status: TERMINATED, reason: never_started", "NEVER STARTED"),
        ("status: TERMINATED, reason: killed", "KILLED"),
        ("status: TERMINATED, reason: stopped", "STOPPED"),
        ("status: TERMINATED, reason: failed", "FAILED"),
    ]


def chips(answer: HttpResponse) -> dict[str, str]:
    found = re.findall(r'class="chip"[^>]*>([^<]+?) <span class="count">([^<]+)<', answer.content.decode())
    return dict(found)


def test_the_states_are_counted_with_the_other_filters(browser: Client, some: dict[str, RunnerRun]) -> None:
    everything = chips(browser.get("/runs"))
    assert everything == {
        "All": "7",
        "Active": "2",
        "Completed": "1",
        "Stopped": "1",
        "Failed": "1",
        "Killed": "1",
        "Never started": "1",
    }
    assert chips(browser.get("/runs?machine=one&reason=failed")) == {
        "All": "3",
        "Active": "1",
        "Failed": "1",
        "Killed": "1",
    }
    assert '<span class="count">1</span></h1>' in browser.get("/runs?machine=one&reason=failed").content.decode()


def test_pages_follow_each_other(browser: Client) -> None:
    for _ in range(120):
        save(status="COMPLETED")
    numbers: list[str] = []
    link = "/runs?mine=0"
    while link:
        page = browser.get(link).content.decode()
        numbers += re.findall(r'class="number"[^>]*>run (\d+)<', page)
        found = re.search(r'rel="next" href="([^"]+)"', page)
        link = "/runs" + found[1].replace("&amp;", "&") if found else ""
    assert numbers == sorted(numbers, key=int, reverse=True)
    assert len(set(numbers)) == 120
    last = browser.get("/runs?page=3").content.decode()
    assert "101 to 120" in last
    assert 'rel="prev" href="?mine=0&amp;page=2"' in browser.get("/runs?mine=0&page=3").content.decode()
    assert 'rel="prev" href="?mine=0"' in browser.get("/runs?mine=0&page=2").content.decode()


def test_more_runs_than_are_counted_are_called_over(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(8):
        save(status="COMPLETED")
    monkeypatch.setattr(runs, "COUNTED", 5)
    page = browser.get("/runs?mine=0")
    assert "over 6" not in page.content.decode()
    assert '<span class="count">over 5</span></h1>' in page.content.decode()
    assert chips(page)["Completed"] == "5+"


def test_only_visible_runs_are_listed_counted_and_suggested(browser: Client) -> None:
    secret = RunnerProfile.objects.create(name="SECRET", runner_type="LOCAL", module_loader_type="NO_MODULE")
    secret.view_groups.add(Group.objects.create(name="team"))
    hidden = save(expid="hush", profile_name="SECRET", host="vault", started_by="grace")
    save(expid="open", host="plain")
    answer = browser.get("/runs")
    assert shown(answer) == ["open"]
    assert chips(answer)["All"] == "1"
    for word in ("vault", "grace", "SECRET", "hush"):
        assert word not in answer.content.decode()
        assert shown(browser.get(f"/runs?q={word.lower()}")) == []
        assert shown(browser.get(f"/runs?machine={word}")) == []
    assert shown(browser.get(f"/runs?q={hidden.pk}")) == []


def test_an_unchanged_list_is_an_empty_answer(browser: Client, some: dict[str, RunnerRun]) -> None:
    first = browser.get("/runs?mine=0", headers={"HX-Request": "true"})
    again = browser.get("/runs?mine=0", headers={"HX-Request": "true", "If-None-Match": first["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    RunnerRun.objects.filter(pk=some["silent"].pk).update(silent_since=None)
    changed = browser.get("/runs?mine=0", headers={"HX-Request": "true", "If-None-Match": first["ETag"]})
    assert changed.status_code == 200
    assert "no output since" not in changed.content.decode()


def test_a_query_that_takes_too_long_is_stopped_and_the_page_says_what_to_do(
    browser: Client, some: dict[str, RunnerRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "ROWS_LIMIT", 0.05)
    monkeypatch.setattr(runs.RunsPage, "_find", lambda self, form: _Slow())
    page = browser.get("/runs?mine=0")
    assert page.status_code == 200
    assert "The database needs too long for these filters." in page.content.decode()
    with connection.cursor() as cursor:  # the connection is not limited any more
        cursor.execute(SLOW.replace("100000000", "1000"))
        assert cursor.fetchone() == (1000,)


SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000) SELECT COUNT(*) FROM n"


class _Slow:
    """Rows whose query takes much longer than the limit."""

    def __getitem__(self, part: slice) -> list[RunnerRun]:
        with connection.cursor() as cursor:
            cursor.execute(SLOW)
        return []


def test_a_count_that_takes_too_long_is_none(db: None) -> None:
    with pytest.raises(bounded_queries.TooSlow), bounded_queries.time_limit(0.05):
        _Slow()[0:1]
    save()
    assert bounded_queries.count(RunnerRun.objects.all(), 10, 5) == 1
