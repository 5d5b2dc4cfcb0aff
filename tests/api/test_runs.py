"""The resources: paged lists of runs, one run, byte ranges of its log, a profile's requirements, command previews."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.test.utils import CaptureQueriesContext

from profiles.config import RunnerConfig
from runners.models import AuditRecord, RunStatus
from runners.services import access, runs
from tests.support.api import Api, check
from tests.support.environments import StubAccount
from tests.support.processes import wait_for
from tests.support.rows import ended_runs
from tests.support.runs import start
from tests.support.servers import SSHServer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("open_to_all")]

RUNS = "/v4/runners/runs"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def numbers(page: dict[str, Any]) -> list[int]:
    return [run["runner_id"] for run in page["results"]]


def test_pages_of_runs_are_newest_first_without_gaps_or_duplicates(api: Api) -> None:
    expected = [run.pk for run in reversed(ended_runs(25))]
    seen: list[int] = []
    path = f"{RUNS}?page_size=10"
    while path:
        page = api.get(path)
        seen += numbers(page)
        ended_runs(3)  # runs that start meanwhile do not change the pages
        path = page["next"]
    assert seen == expected


def test_oldest_first(api: Api) -> None:
    expected = [run.pk for run in ended_runs(5)]
    page = api.get(f"{RUNS}?ordering=created&page_size=3")
    last = api.get(f"{RUNS}?ordering=created&page_size=3&cursor={page['next_cursor']}")
    assert numbers(page) + numbers(last) == expected
    assert last["next_cursor"] is None
    assert last["next"] is None


def test_a_page_that_holds_the_last_runs_has_no_cursor(api: Api) -> None:
    ended_runs(3)
    assert api.get(f"{RUNS}?page_size=3")["next_cursor"] is None
    assert api.get(f"{RUNS}?page_size=2")["next_cursor"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("expid", "a042"),
        ("status", "TERMINATED"),
        ("profile_name", "MINE"),
        ("runner", "SSH"),
        ("host", "login1"),
        ("user", "climate1"),
        ("started_by", "ana"),
    ],
)
def test_each_filter_finds_its_runs_and_stays_in_the_next_link(api: Api, name: str, value: str) -> None:
    ended_runs(3)
    wanted = [run.pk for run in ended_runs(3, **{name: value})]
    ended_runs(2)
    page = api.get(f"{RUNS}?{name}={value}&page_size=2")
    assert numbers(page) == wanted[:0:-1]
    assert numbers(api.get(page["next"])) == wanted[:1]
    assert api.get(f"{RUNS}?{name}={value}&created_before=2026-01-01T00:00:00Z")["results"] == []


def test_times_are_inclusive_at_the_beginning_and_exclusive_at_the_end(api: Api) -> None:
    rows = ended_runs(60)
    moments = [quote((NOW + timedelta(minutes=minute)).isoformat()) for minute in (20, 40)]
    page = api.get(f"{RUNS}?created_after={moments[0]}&created_before={moments[1]}&page_size=100")
    assert numbers(page) == [run.pk for run in rows[39:19:-1]]


@pytest.mark.parametrize("bound", ["created_after", "created_before"])
@pytest.mark.parametrize(
    ("moment", "is_early"),
    [
        ("0001-01-01T00:00:00Z", True),
        ("0001-01-01T00:10:00Z", True),
        ("9999-12-31T23:59:59Z", False),
        ("9999-12-31T23:59:59.999999Z", False),
    ],
)
def test_the_earliest_and_latest_times_are_accepted_as_bounds(
    api: Api, bound: str, moment: str, is_early: bool
) -> None:
    rows = ended_runs(2)
    found = numbers(api.get(f"{RUNS}?{bound}={moment}&ordering=created"))
    assert found == ([row.pk for row in rows] if is_early == (bound == "created_after") else [])


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-12:00", "10000-01-01T00:00:00Z"]
)
def test_a_time_out_of_range_is_rejected(api: Api, moment: str) -> None:
    assert "created_after" in api.get(f"{RUNS}?created_after={moment}", expect=400)["errors"]


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "UTC"])
@pytest.mark.parametrize("bound", ["created_after", "created_before"])
def test_the_edge_of_the_range_is_no_error_in_any_time_zone(api: Api, settings: Any, zone: str, bound: str) -> None:
    """SQL compares UTC, and has no time for the last hours of 9999 in New York."""
    settings.TIME_ZONE = zone
    api.client.raise_request_exception = False
    for moment in ("0001-01-01T00:00:00", "9999-12-31T23:30:00", "9999-12-31", "2026-03-08T02:30:00"):
        for offset in ("", "Z", "-05:00", "%2B09:00"):
            answer = api.client.get(f"{RUNS}?{bound}={moment}{offset}", headers=api.headers)
            if answer.status_code != 200:
                assert bound in check(answer, 400)["errors"], (moment, offset)
    assert api.get(f"{RUNS}?{bound}=0001-01-01T00:00:00Z")["results"] == []


def test_a_time_zone_with_a_blank_instead_of_plus_is_accepted(api: Api) -> None:
    rows = ended_runs(2)
    assert numbers(api.get(f"{RUNS}?created_after=2026-03-01T13:01:00+01:00")) == [rows[1].pk]


def test_a_run_that_was_inserted_late_is_found_by_its_time(api: Api) -> None:
    """`created` is set before the insertion.

    A database that makes writers wait can insert the rows in another order.
    """
    ended_runs(30)
    (late,) = ended_runs(created=NOW + timedelta(minutes=20, seconds=30))
    found = api.get(f"{RUNS}?created_before={quote((NOW + timedelta(minutes=21)).isoformat())}&page_size=1")
    assert numbers(found) == [late.pk]


@pytest.mark.parametrize(
    ("query", "member"),
    [
        ("status=DONE", "status"),
        ("expid=A001", "expid"),
        ("page_size=0", "page_size"),
        ("page_size=501", "page_size"),
        ("page_size=x", "page_size"),
        ("cursor=x", "cursor"),
        ("cursor=cnVuIDk5OTk5OTk5OTk5OTk5OTk5OTk5OTk", "cursor"),
        ("created_after=yesterday", "created_after"),
        ("ordering=expid", "ordering"),
        ("experiment=a001", "experiment"),
        ("expid=a001&expid=a002", "expid"),
        ("started_by=a%00b", "started_by"),
    ],
)
def test_an_invalid_query_parameter_is_rejected_by_name(api: Api, query: str, member: str) -> None:
    body = api.get(f"{RUNS}?{query}", expect=400)
    assert body["code"] == "invalid_request"
    assert member in body["errors"]


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"expid": "a001"},
        {"status": "ACTIVE"},
        {"profile_name": "P"},
        {"runner": "SSH"},
        {"host": "h"},
        {"user": "climate1"},
        {"started_by": "ana"},
        {"created_after": NOW, "created_before": NOW + timedelta(minutes=5)},
    ],
    ids=lambda filters: ",".join(filters) or "none",
)
@pytest.mark.parametrize("oldest_first", [False, True], ids=["newest", "oldest"])
def test_a_page_is_read_in_order_from_an_index_without_a_count(filters: dict[str, Any], oldest_first: bool) -> None:
    ended_runs(10)
    with CaptureQueriesContext(connection) as queries:
        list(runs.find(viewer=AnonymousUser(), **filters, oldest_first=oldest_first, beyond=5)[:51])
    assert not any("COUNT(" in query["sql"] for query in queries)
    if connection.vendor == "sqlite":
        plan = runs.find(viewer=AnonymousUser(), **filters, oldest_first=oldest_first, beyond=5)[:51].explain()
        assert "TEMP B-TREE" not in plan, plan
        assert "SEARCH" in plan, plan


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({"expid": "a001", "host": "h", "status": "COMPLETED"}, "run_expid_latest"),
        ({"profile_name": "P", "host": "h", "runner": "SSH"}, "run_profile_latest"),
        ({"profile_name": "P", "host": "h", "status": "ACTIVE"}, "run_status_latest"),
        ({"status": "TERMINATED", "runner": "SSH"}, "run_status_latest"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else value,
)
def test_the_most_selective_filter_decides_the_index(filters: dict[str, Any], index: str) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("other databases know better")
    plan = runs.find(viewer=AnonymousUser(), **filters, created_before=NOW)[:51].explain()
    assert f"USING INDEX {index}" in plan, plan
    assert "TEMP B-TREE" not in plan, plan


@pytest.mark.parametrize(("name", "near"), [("profile", "profile_name"), ("users", "user"), ("created", "created_")])
def test_an_unknown_filter_is_rejected_with_the_nearest_known_one(api: Api, name: str, near: str) -> None:
    assert f"Did you mean '{near}" in api.get(f"{RUNS}?{name}=x", expect=400)["errors"][name][0]


def test_a_list_contacts_no_machine_and_needs_one_query(api: Api, django_assert_num_queries: Any) -> None:
    ended_runs(20)
    ended_runs(status=RunStatus.ACTIVE, expid="b000", exit_code=None)
    access.view_rules()  # read at most once a second in each process
    with django_assert_num_queries(1):
        assert len(api.get(RUNS)["results"]) == 21


def test_a_request_for_an_active_run_probes_its_machine(
    api: Api, account: StubAccount, config_of: Callable[[str], RunnerConfig], settings: Any
) -> None:
    settings.RUNNERS_STATUS_FRESHNESS = 0.05
    run = start(account, config_of("NO_MODULE"), SLEEP=1)
    assert api.get(f"{RUNS}/{run.pk}")["status"] == "ACTIVE"
    wait_for(lambda: api.get(f"{RUNS}/{run.pk}")["status"] == "COMPLETED", 20)


@pytest.mark.parametrize("number", ["4711", "99999999999999999999999999"])
@pytest.mark.parametrize("part", ["", "/log"])
def test_an_unknown_run_is_not_found(api: Api, number: str, part: str) -> None:
    assert api.get(f"{RUNS}/{number}{part}", expect=404)["code"] == "run_not_found"


def test_only_an_unreachable_run_is_abandoned_and_only_with_a_reason(
    api: Api, account: StubAccount, sshd: SSHServer, settings: Any
) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT = 2
    run = start(account, sshd.config(), SLEEP=600)
    path, body = f"{RUNS}/{run.pk}/abandon", {"reason": "The machine was scrapped."}
    assert api.post(path, body, expect=409)["code"] == "still_reachable"
    sshd.stop()
    assert "reason" in api.post(path, {}, expect=400)["errors"]
    assert "reason" in api.post(path, {"reason": ""}, expect=400)["errors"]
    assert api.post(f"{RUNS}/4711/abandon", body, expect=404)["code"] == "run_not_found"
    answer = api.post(path, body)
    assert (answer["status"], answer["reason"], answer["reachable"]) == ("TERMINATED", "abandoned", False)
    assert answer["explanation"] == "The machine was scrapped. (nobody is signed in)"
    record = AuditRecord.objects.first()
    assert record
    assert (record.endpoint, record.outcome, record.detail) == ("abandon-run", "ok", "The machine was scrapped.")
    assert (record.run_id, record.expid) == (run.pk, "a001")
    assert api.post(path, body, expect=409)["code"] == "not_running"
