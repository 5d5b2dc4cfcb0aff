"""The resources: paged lists of runs, one run, byte ranges of its log, a profile's requirements, command previews."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from profiles.config import ModuleLoaderType, RunnerConfig, RunnerType
from profiles.models import RunnerProfile
from runners.models import AuditRecord, RunnerRun, RunStatus
from runners.services import access, lifecycle, probing, runs, starting
from runners.services.machines.probe import Identity
from tests.support.api import Api
from tests.support.environments import StubAccount
from tests.support.processes import wait_for
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db

RUNS = "/v4/runners/runs"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def open_to_all(settings: Any) -> None:
    settings.PROTECTION_LEVEL = "NONE"


@pytest.fixture
def api(client: Client) -> Api:
    return Api(client)


def make(count: int = 1, **values: Any) -> list[RunnerRun]:
    """Create runs that have ended, one per minute."""
    first = RunnerRun.objects.count()
    rows = [
        RunnerRun(
            **{
                "expid": f"a{first + index:03}",
                "config": RunnerConfig(RunnerType.LOCAL, ModuleLoaderType.NO_MODULE).as_dict(),
                "runner": "LOCAL",
                "module_loader": "NO_MODULE",
                "status": RunStatus.COMPLETED,
                "exit_code": 0,
                "created": NOW + timedelta(minutes=first + index),
                **values,
            }
        )
        for index in range(count)
    ]
    return RunnerRun.objects.bulk_create(rows)


def numbers(page: dict[str, Any]) -> list[int]:
    return [run["runner_id"] for run in page["results"]]


# --- lists ------------------------------------------------------------------------------------------------------------


def test_runs_come_newest_first_by_pages_that_neither_miss_nor_repeat(api: Api) -> None:
    expected = [run.pk for run in reversed(make(25))]
    seen: list[int] = []
    path = f"{RUNS}?page_size=10"
    while path:
        page = api.get(path)
        seen += numbers(page)
        make(3)  # runs that start meanwhile do not change the pages
        path = page["next"]
    assert seen == expected


def test_oldest_first(api: Api) -> None:
    expected = [run.pk for run in make(5)]
    page = api.get(f"{RUNS}?ordering=created&page_size=3")
    last = api.get(f"{RUNS}?ordering=created&page_size=3&cursor={page['next_cursor']}")
    assert numbers(page) + numbers(last) == expected
    assert last["next_cursor"] is None
    assert last["next"] is None


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
def test_each_filter_finds_its_runs_and_its_link_keeps_it(api: Api, name: str, value: str) -> None:
    make(3)
    wanted = [run.pk for run in make(3, **{name: value})]
    make(2)
    page = api.get(f"{RUNS}?{name}={value}&page_size=2")
    assert numbers(page) == wanted[:0:-1]
    assert numbers(api.get(page["next"])) == wanted[:1]
    assert api.get(f"{RUNS}?{name}={value}&created_before=2026-01-01T00:00:00Z")["results"] == []


def test_times_are_inclusive_at_the_beginning_and_exclusive_at_the_end(api: Api) -> None:
    rows = make(60)
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
def test_the_first_and_the_last_moment_are_bounds_like_others(
    api: Api, bound: str, moment: str, is_early: bool
) -> None:
    rows = make(2)
    found = numbers(api.get(f"{RUNS}?{bound}={moment}&ordering=created"))
    assert found == ([row.pk for row in rows] if is_early == (bound == "created_after") else [])


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-12:00", "10000-01-01T00:00:00Z"]
)
def test_a_moment_beyond_all_is_refused(api: Api, moment: str) -> None:
    assert "created_after" in api.get(f"{RUNS}?created_after={moment}", expect=400)["errors"]


def test_a_time_zone_whose_plus_became_a_blank_is_understood(api: Api) -> None:
    rows = make(2)
    assert numbers(api.get(f"{RUNS}?created_after=2026-03-01T13:01:00+01:00")) == [rows[1].pk]


def test_a_run_that_was_inserted_late_is_found_by_its_time(api: Api) -> None:
    """`created` is set before the insertion.

    A database that makes writers wait can insert the rows in another order.
    """
    make(30)
    (late,) = make(created=NOW + timedelta(minutes=20, seconds=30))
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
def test_a_query_that_is_not_understood_is_refused_by_name(api: Api, query: str, member: str) -> None:
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
def test_a_page_is_read_from_an_index_in_order_and_nothing_is_counted(
    filters: dict[str, Any], oldest_first: bool
) -> None:
    make(10)
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
def test_of_several_filters_the_most_telling_finds_the_rows(filters: dict[str, Any], index: str) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("other databases know better")
    plan = runs.find(viewer=AnonymousUser(), **filters, created_before=NOW)[:51].explain()
    assert f"USING INDEX {index}" in plan, plan
    assert "TEMP B-TREE" not in plan, plan


@pytest.mark.parametrize(("name", "near"), [("profile", "profile_name"), ("users", "user"), ("created", "created_")])
def test_a_filter_that_nobody_knows_is_refused_with_the_nearest(api: Api, name: str, near: str) -> None:
    assert f"Did you mean '{near}" in api.get(f"{RUNS}?{name}=x", expect=400)["errors"][name][0]


def test_a_list_asks_no_machine_and_one_query(api: Api, django_assert_num_queries: Any) -> None:
    make(20)
    make(status=RunStatus.ACTIVE, expid="b000", exit_code=None)
    access.view_rules()  # read at most once a second in each process
    with django_assert_num_queries(1):
        assert len(api.get(RUNS)["results"]) == 21


# --- one run ----------------------------------------------------------------------------------------------------------


def start(account: StubAccount, config: RunnerConfig, expid: str = "a001", **control: str | float) -> RunnerRun:
    account.experiment(expid)
    account.control("run", expid, **control)
    return starting.run_experiment(
        expid=expid, config=config, profile_name="", audit=AuditRecord(endpoint="run-experiment")
    )


def end_of(run: RunnerRun) -> RunnerRun:
    def is_over() -> bool:
        probing.probe([run])
        return not run.is_active

    wait_for(is_over, 30, what="the end of the run")
    return run


def test_an_active_run_is_asked_after(
    api: Api, account: StubAccount, config_of: Callable[[ModuleLoaderType], RunnerConfig], settings: Any
) -> None:
    settings.RUNNERS_STATUS_FRESHNESS = 0.05
    run = start(account, config_of(ModuleLoaderType.NO_MODULE), SLEEP=1)
    assert api.get(f"{RUNS}/{run.pk}")["status"] == "ACTIVE"
    wait_for(lambda: api.get(f"{RUNS}/{run.pk}")["status"] == "COMPLETED", 20)


@pytest.mark.parametrize("number", ["4711", "99999999999999999999999999"])
@pytest.mark.parametrize("part", ["", "/log"])
def test_an_unknown_run_is_not_found(api: Api, number: str, part: str) -> None:
    assert api.get(f"{RUNS}/{number}{part}", expect=404)["code"] == "run_not_found"


# --- logs -------------------------------------------------------------------------------------------------------------


def follow(api: Api, path: str, limit: int) -> tuple[str, int]:
    """Read a log to its end as a client does. Return its text and the number of reads."""
    text, offset, reads = "", 0, 0
    while True:
        chunk = api.get(f"{path}?offset={offset}&limit={limit}")
        assert chunk["offset"] == offset
        text, offset, reads = text + chunk["text"], chunk["next_offset"], reads + 1
        if chunk["ended"]:
            assert offset == chunk["size"]
            return text, reads


@pytest.mark.parametrize("limit", [16, 17, 18, 19, 100_000])
def test_a_log_is_read_to_its_end_without_cutting_a_character(
    api: Api, account: StubAccount, config_of: Callable[[ModuleLoaderType], RunnerConfig], limit: int
) -> None:
    words = "ñandú 🐈 日本語 " * 5
    run = end_of(start(account, config_of(ModuleLoaderType.NO_MODULE), PRINT=words))
    text, _ = follow(api, f"{RUNS}/{run.pk}/log", limit)
    assert words in text
    assert "\ufffd" not in text
    assert "Run successful" in text


def test_a_live_log_has_not_ended_though_all_of_it_is_read(api: Api, account: StubAccount, settings: Any) -> None:
    settings.RUNNERS_STATUS_FRESHNESS = 0.05
    run = start(account, account.config(), PRINT="first words", SLEEP=2)
    path = f"{RUNS}/{run.pk}/log"
    wait_for(lambda: "first words" in api.get(path)["text"], 20)
    chunk = api.get(path)
    assert (chunk["next_offset"], chunk["ended"]) == (chunk["size"], False)
    last = wait_for(lambda: (now := api.get(f"{path}?offset={chunk['next_offset']}"))["ended"] and now, 20)
    assert "Run successful" in last["text"]
    assert "first words" not in last["text"]


def test_a_log_can_be_read_as_plain_text(api: Api, account: StubAccount) -> None:
    run = end_of(start(account, account.config(), PRINT="ñ"))
    response = api.client.get(f"{RUNS}/{run.pk}/log", headers={"Accept": "text/plain"})
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert "ñ" in response.content.decode()
    size = str(len(response.content))
    assert (response["X-Log-Offset"], response["X-Log-Next-Offset"], response["X-Log-Size"]) == ("0", size, size)
    assert response["X-Log-Ended"] == "true"


def test_bytes_come_as_base64_and_bad_ones_as_replacement_characters(api: Api, account: StubAccount) -> None:
    run = end_of(start(account, account.config()))
    log = account.home / ".autosubmit-runners" / run.key / "log"
    log.write_bytes(b"\xff\xfe\x80good\n\xe6\x97")  # the last character is never completed
    chunk = api.get(f"{RUNS}/{run.pk}/log?encoding=base64")
    assert base64.b64decode(chunk["data"]) == log.read_bytes()
    assert chunk["text"] is None
    text, _ = follow(api, f"{RUNS}/{run.pk}/log", 16)
    assert text == "\ufffd\ufffd\ufffdgood\n\ufffd"


def test_the_tail_begins_with_a_whole_character(api: Api, account: StubAccount) -> None:
    run = end_of(start(account, account.config()))
    log = account.home / ".autosubmit-runners" / run.key / "log"
    log.write_text("🐈" * 100)
    for tail in range(16, 20):
        chunk = api.get(f"{RUNS}/{run.pk}/log?tail={tail}")
        assert chunk["text"] == "🐈" * (tail // 4)
        assert (chunk["size"], chunk["next_offset"], chunk["ended"]) == (400, 400, True)


def test_the_tail_is_as_long_as_was_asked(api: Api, account: StubAccount) -> None:
    run = end_of(start(account, account.config(), BYTES=150_000))
    log = account.home / ".autosubmit-runners" / run.key / "log"
    for tail in (70_000, 1_000_000):
        chunk = api.get(f"{RUNS}/{run.pk}/log?tail={tail}")
        assert chunk["text"].encode() == log.read_bytes()[-tail:]
    for beside in ("offset=0", "limit=65536"):
        body = api.get(f"{RUNS}/{run.pk}/log?tail=100&{beside}", expect=400)
        assert "or tail" in body["errors"][beside.partition("=")[0]][0]


def test_an_offset_behind_the_end_reads_nothing(api: Api, account: StubAccount) -> None:
    run = end_of(start(account, account.config()))
    chunk = api.get(f"{RUNS}/{run.pk}/log?offset=1000000")
    assert (chunk["text"], chunk["ended"]) == ("", True)


def test_a_large_log_comes_whole(api: Api, account: StubAccount) -> None:
    run = end_of(start(account, account.config(), BYTES=3_000_000))
    text, reads = follow(api, f"{RUNS}/{run.pk}/log", 1_000_000)
    assert len(text) > 6_000_000
    assert reads <= 8


@pytest.mark.parametrize("query", ["offset=-1", "limit=15", "limit=1000001", "tail=0", "encoding=hex", "lines=3"])
def test_a_log_query_that_is_not_understood_is_refused(api: Api, query: str) -> None:
    (run,) = make()
    assert api.get(f"{RUNS}/{run.pk}/log?{query}", expect=400)["code"] == "invalid_request"


def test_a_log_that_is_not_there_is_not_found(api: Api, account: StubAccount) -> None:
    (run,) = make()
    assert api.get(f"{RUNS}/{run.pk}/log", expect=404)["code"] == "log_not_found"
    RunnerRun.objects.update(cleaned_at=timezone.now())
    assert api.get(f"{RUNS}/{run.pk}/log", expect=404)["code"] == "log_not_found"


def test_the_log_of_an_unreachable_machine_is_no_empty_log(
    api: Api, account: StubAccount, sshd: SSHServer, settings: Any
) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT = 2
    run = end_of(start(account, sshd.config()))
    sshd.stop()
    assert api.get(f"{RUNS}/{run.pk}/log", expect=502)["code"] == "runner_unreachable"


def test_only_a_run_that_nobody_can_ask_after_is_declared_ended_and_only_with_a_reason(
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


# --- profiles ---------------------------------------------------------------------------------------------------------


def test_requirements_say_what_a_launch_still_needs(api: Api) -> None:
    RunnerProfile.objects.create(name="OPEN", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host="h")
    body = api.get("/v4/runners/profiles/OPEN/requirements")
    by_name = {item["parameter"]: item for item in body["requirements"]}
    assert by_name.keys() == {"SSH.PORT", "SSH.USER"}
    assert by_name["SSH.USER"]["required"] is True
    assert (by_name["SSH.PORT"]["type"], by_name["SSH.PORT"]["maximum"]) == ("integer", 65535)
    assert api.get("/v4/runners/profiles/OPENED/requirements", expect=404)["code"] == "profile_not_found"


def test_requirements_say_what_an_admin_allows(api: Api) -> None:
    limits = {"allowed_hosts": "*.cluster\nlogin", "allowed_users": "project_*", "venv_roots": "/opt/a\n/opt/b"}
    profile = RunnerProfile.objects.create(name="WIDE", runner_type="SSH", **limits)
    path = "/v4/runners/profiles/WIDE/requirements"
    by_name = {item["parameter"]: item for item in api.get(path)["requirements"]}
    assert by_name["SSH.HOST"]["allowed_patterns"] == ["*.cluster", "login"]
    assert by_name["SSH.USER"]["allowed_patterns"] == ["project_*"]
    assert by_name["MODULES"]["allowed_roots"] == ["/opt/a", "/opt/b"]
    assert not {"allowed_patterns", "allowed_roots"} & by_name["SSH.PORT"].keys()
    profile.module_loader_type = "LMOD"  # modules are not paths
    profile.save()
    assert "allowed_roots" not in str(api.get(path))


@pytest.mark.parametrize("name", ["a%00b", "%00", "x" * 5000])
def test_a_name_that_no_profile_can_have_is_not_found(api: Api, name: str) -> None:
    path = f"/v4/runners/profiles/{name}"
    assert api.get(f"{path}/requirements", expect=404)["code"] == "profile_not_found"
    assert api.post(f"{path}/check", {}, expect=404)["code"] == "profile_not_found"
    assert "\0" not in AuditRecord.objects.get().profile_name  # PostgreSQL does not accept NUL


def test_a_name_that_no_database_takes_is_not_looked_up(api: Api, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):  # this query finds the nearest name
        api.get("/v4/runners/profiles/a%00b/requirements", expect=404)


def test_a_profile_is_checked_stage_by_stage(api: Api, account: StubAccount, sshd: SSHServer) -> None:
    target = sshd.target
    RunnerProfile.objects.create(
        name="THERE", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host=target.host, ssh_port=target.port
    )
    body = api.post("/v4/runners/profiles/THERE/check", {"profile_params": {"SSH": {"USER": target.user}}})
    assert body["ok"] is True, body
    assert [stage["name"] for stage in body["stages"]][:4] == ["resolve", "connect", "host_key", "authenticate"]
    assert AuditRecord.objects.get().endpoint == "check-profile"
    sshd.authorized = False
    failed = api.post("/v4/runners/profiles/THERE/check", {"profile_params": {"SSH": {"USER": target.user}}})
    assert failed["ok"] is False
    (stage,) = [stage for stage in failed["stages"] if stage["ok"] is False]
    assert stage["name"] == "authenticate"
    assert stage["remedy"]


def test_a_check_refuses_what_a_command_would_refuse(api: Api) -> None:
    RunnerProfile.objects.create(name="THERE", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host="h")
    path = "/v4/runners/profiles/THERE/check"
    assert api.post(path, {"profile_params": {}}, expect=400)["code"] == "invalid_profile"
    assert api.post(path, {"profile_name": "OTHER"}, expect=400)["code"] == "invalid_request"
    assert api.post("/v4/runners/profiles/X/check", {}, expect=404)["code"] == "profile_not_found"


# --- previews ---------------------------------------------------------------------------------------------------------

CREATE = {"command_params": {"description": "of the tests"}}
SET = {"expid": "a001", "command_params": {"job_names_list": ["a001_SIM"], "final_status": "READY"}}


@pytest.mark.parametrize(
    ("command", "body", "argv"),
    [
        ("run-experiment", {"expid": "a001"}, ["autosubmit", "run", "a001"]),
        ("set-job-status", SET, ["autosubmit", "setstatus", "a001"]),
        ("create-experiment", CREATE, ["flock"]),
        ("create-job-list", {"expid": "a001"}, ["autosubmit", "create"]),
        ("update-experiment-description", {"expid": "a001", "description": "x"}, ["autosubmit", "updatedescrip"]),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k", "Prefer": "respond-async"}], ids=["plain", "keyed"])
def test_a_dry_run_shows_the_command_and_does_nothing(
    client: Client, account: StubAccount, command: str, body: dict[str, Any], argv: list[str], headers: dict[str, str]
) -> None:
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    account.experiment("a001")
    api = Api(client, headers)
    plan = api.post(command, {"profile_name": "HERE", **body, "dry_run": True})
    assert plan["argv"][: len(argv)] == argv
    assert plan["profile"] == {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": []}
    assert argv[-1] in plan["script"]
    assert plan["detached"] is (command == "run-experiment")
    asked = [call for call in account.calls() if call[0] != "setstatus" or "--save" in call]
    assert asked == []  # create-job-list only asks Autosubmit which jobs are COMPLETED, without saving
    assert not RunnerRun.objects.exists()
    record = AuditRecord.objects.get()
    assert (record.outcome, record.run_id) == ("dry_run", None)


def test_a_dry_run_of_a_stop_shows_it_and_stops_nothing(api: Api, account: StubAccount) -> None:
    run = start(account, account.config(), SLEEP=30)
    plan = api.post("stop-experiment", {"expid": "a001", "cancel_jobs": True, "dry_run": True})
    assert plan["argv"] == ["autosubmit", "stop", "--cancel", "a001"]
    probing.probe([run])
    assert run.is_active
    assert isinstance(lifecycle.identity_of(run), Identity)
    assert api.post("stop-experiment", {"expid": "a002", "dry_run": True}, expect=404)["code"] == "run_not_found"


def test_a_dry_run_is_refused_as_the_command_would_be(api: Api, tmp_path: Path) -> None:
    body = {"expid": "a001", "profile_name": "NONE", "dry_run": True}
    assert api.post("run-experiment", body, expect=404)["code"] == "profile_not_found"
    assert api.post("run-experiment", body | {"dry_run": "yes"}, expect=400)["code"] == "invalid_request"
