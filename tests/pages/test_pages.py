"""The pages, tested with a client that is not a browser. tests/browser tests them in browsers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from profiles.models import EndpointToggle, RunnerProfile
from runners.exceptions import CommandFailed
from runners.models import AuditRecord, RunnerRun, SignInAttempts
from runners.pages.ansi import PLAIN, Style, to_html
from runners.pages.views import run as run_pages
from runners.pages.views.history import LANE, WIDTH, draw
from runners.pages.views.run import DOWNLOAD_CHUNK, plain_lines, whole_log
from runners.services import idempotency, own_process
from runners.services.machines.probe import LogChunk
from runners.templatetags import formatting as words
from tests.support.environments import StubAccount
from tests.support.servers import ROOT, AppServer

LOCAL = {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": []}


def run(**fields: Any) -> RunnerRun:
    values: dict[str, Any] = {"expid": "a001", "config": LOCAL, "runner": "LOCAL", "module_loader": "NO_MODULE"}
    return RunnerRun(**{**values, **fields})


# --- colours ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain & <b>", "plain &amp; &lt;b&gt;"),
        ("\x1b[31mred\x1b[0m not", '<span class="fg1">red</span> not'),
        ("\x1b[1;92mbright", '<span class="fg10 bold">bright</span>'),
        ("\x1b[38;5;214morange\x1b[39m.", '<span class="fg3">orange</span>.'),
        ("\x1b[38;2;250;5;5mtrue colour", '<span class="fg9">true colour</span>'),
        ("\x1b[33;20m[WARNING]", '<span class="fg3">[WARNING]</span>'),
        ("\x1b[7mturned", '<span class="reverse">turned</span>'),
        ("\x1b[H\x1b[2J\x1b]0;title\x07clear\x1b(B", "clear"),
        ("cut off \x1b[38;5", "cut off "),
        ("50 %\r100 %\r\nnext", "100 %\nnext"),
        ("a\x00b\x08c\u202ed", "abcd"),
        ('\x1b[31m" onmouseover="', '<span class="fg1">&quot; onmouseover=&quot;</span>'),
    ],
)
def test_terminal_output_becomes_harmless_html(text: str, html: str) -> None:
    assert to_html(text)[0] == html


def test_a_colour_goes_on_in_the_next_piece_of_the_log() -> None:
    _, style = to_html("\x1b[1;31mfirst")
    assert to_html("second", Style.decode(style.encode()))[0] == '<span class="fg1 bold">second</span>'


@pytest.mark.parametrize("text", ["", "zz", "f99", "f1" * 50, '"><script>', "f1;b2", "f1."])
def test_a_style_that_was_tampered_with_is_the_plain_one(text: str) -> None:
    assert Style.decode(text) == PLAIN


def test_a_download_is_plain_text_wherever_the_pieces_are_cut() -> None:
    text = "\x1b[31mrød\x1b[0m\n\x1b[1mtwo\x1b[0m\nlast".encode()
    for size in range(1, len(text)):
        pieces = iter([text[i : i + size] for i in range(0, len(text), size)])
        assert b"".join(plain_lines(pieces)).decode() == "rød\ntwo\nlast"


@pytest.mark.parametrize(
    ("answers", "ends_with"),
    [
        ([(0, 10**18, b"x" * DOWNLOAD_CHUNK)] * 100, "a download ends after"),
        ([(0, 10**18, b"x")], "the machine sends no more]"),
        ([(0, 10**18, b"")], "the machine sends no more]"),
        ([(0, DOWNLOAD_CHUNK * 2, b"x" * DOWNLOAD_CHUNK), None], "the log was removed]"),
        ([(0, DOWNLOAD_CHUNK * 2, b"x" * DOWNLOAD_CHUNK), CommandFailed("no disk")], "no disk]"),
        ([(0, DOWNLOAD_CHUNK + 1, b"x" * DOWNLOAD_CHUNK), (0, DOWNLOAD_CHUNK, b"y")], "xy"),
    ],
)
def test_a_download_ends_whatever_the_machine_answers(
    answers: list[Any], ends_with: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_pages, "DOWNLOAD_LIMIT", 10 * DOWNLOAD_CHUNK)
    left = iter(answers)

    def read(run: RunnerRun, offset: int, limit: int) -> LogChunk | None:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return LogChunk(offset, answer[1], answer[2]) if answer else None  # parse_log rejects any other offset

    monkeypatch.setattr(run_pages, "read", read)
    first = read(run(), 0, DOWNLOAD_CHUNK)
    assert first
    parts = list(whole_log(run(), first))
    assert sum(map(len, parts)) <= 11 * DOWNLOAD_CHUNK
    assert ends_with in parts[-1].decode().strip() or b"".join(parts).endswith(ends_with.encode())


def test_a_log_without_line_ends_is_sent_in_pieces() -> None:
    pieces = list(plain_lines(iter([b"x" * DOWNLOAD_CHUNK] * 20)))
    assert sum(map(len, pieces)) == 20 * DOWNLOAD_CHUNK
    assert max(map(len, pieces)) <= 2 * 1024**2


# --- sentences and the picture ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (303, "5 min 3 s"), (7500, "2 h 5 min"), (273_600, "3 d 4 h")],
)
def test_durations_are_said_in_their_two_largest_units(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"status": "COMPLETED", "exit_code": 0}, "ended well (exit code 0)"),
        ({"status": "TERMINATED", "reason": "failed", "exit_code": 1}, "failed (exit code 1)"),
        ({"status": "TERMINATED", "reason": "stopped", "stopped_by": "ada"}, "stopped by ada"),
        ({"status": "TERMINATED", "reason": "never_started"}, "the launch never reached the command"),
        ({"status": "ACTIVE"}, "being started"),
        ({"status": "ACTIVE", "identity": {"pid": 1}}, "running"),
        ({"status": "ACTIVE", "identity": {"pid": 1}, "reachable": False}, "running when its machine was last asked"),
    ],
)
def test_what_became_of_a_run_is_said_in_words(fields: dict[str, Any], said: str) -> None:
    assert words.outcome(run(**fields)) == said


def test_runs_that_overlap_get_lanes_of_their_own_and_stay_within_the_picture() -> None:
    now = timezone.now()
    first = run(pk=1, status="COMPLETED", created=now - timedelta(hours=9), finished=now - timedelta(hours=1))
    beside = run(pk=2, expid="a001", created=now - timedelta(hours=5))
    other = run(pk=3, expid="a002", created=now - timedelta(seconds=1))
    picture = draw([first, beside, other], group=lambda run: run.expid)
    assert picture
    bars = {bar.run.pk: bar for bar in picture.bars}
    assert abs(bars[1].y - bars[2].y) == LANE
    assert [row.name for row in picture.rows] == ["a002", "a001"]
    assert all(bar.width > 0 and bar.x + bar.width <= WIDTH + 0.1 for bar in picture.bars)
    assert 2 <= len(picture.ticks) <= 9
    assert draw([], group=lambda run: run.expid) is None


def test_a_run_of_weeks_that_has_just_ended_is_recent_and_in_the_history(browser: Client) -> None:
    now = timezone.now()
    long = run(expid="long", status="COMPLETED", exit_code=0, created=now - timedelta(days=21), finished=now)
    before = run(expid="gone", status="COMPLETED", created=now - timedelta(days=50), finished=now - timedelta(days=20))
    quick = run(expid="fast", status="COMPLETED", created=now - timedelta(hours=2), finished=now - timedelta(hours=1))
    on = run(expid="goes", created=now - timedelta(days=40))
    for row in (long, before, quick, on):
        row.save()
    recent = browser.get("/").content.decode().partition("Recently ended")[2]
    assert re.findall(r'class="strong"[^>]*>(\w+)<', recent) == ["long", "fast"]
    assert [row.expid for row in browser.get("/history?days=7").context["runs"]] == ["goes", "long", "fast"]
    assert [row.expid for row in browser.get("/history?days=30").context["runs"]] == ["goes", "long", "fast", "gone"]
    assert [row.expid for row in browser.get("/history?expid=long").context["runs"]] == ["long"]


def test_what_ended_last_is_found_by_an_index(db: None) -> None:
    start = timezone.now() - timedelta(days=14)
    plan = RunnerRun.objects.ended_since(start)[:25].explain()
    if connection.vendor == "sqlite":  # PostgreSQL reads all rows of a small table
        assert "run_finished" in plan
        assert "TEMP B-TREE" not in plan


# --- permissions ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_counted() -> None:
    cache.clear()


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada", password="x")


@pytest.fixture
def browser(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


def test_a_part_of_a_page_sends_the_whole_page_to_the_login_when_the_session_is_over(client: Client, db: None) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://testserver/runs/3"}
    response = client.get("/runs/list", headers=headers)
    assert response.status_code == 204
    assert response["HX-Redirect"] == "/login?next=http%3A%2F%2Ftestserver%2Fruns%2F3"
    elsewhere = client.get("/runs/list", headers={**headers, "HX-Current-URL": "http://evil.example/"})
    assert elsewhere["HX-Redirect"] == "/login?next=%2F"


def test_the_sign_in_may_be_somewhere_else(client: Client, settings: Any, db: None) -> None:
    settings.LOGIN_URL = "openapi"  # the recipe for OpenID Connect also names its own view here
    assert 'href="/openapi.json">Sign in' in client.get("/").content.decode()
    assert client.get("/start")["Location"] == "/openapi.json?next=/start"
    assert client.get("/runs/list", headers={"HX-Request": "true"})["HX-Redirect"] == "/openapi.json?next=%2F"


def test_an_experiment_that_was_never_run_is_found_by_its_id(browser: Client) -> None:
    assert 'action="/experiments"' in browser.get("/").content.decode()
    assert browser.get("/experiments?expid=+A0b1+")["Location"] == "/experiments/a0b1"
    assert "It was never run here." in browser.get("/experiments/a0b1").content.decode()
    for text in ("", "../x", "1abc"):
        refused = browser.get("/experiments", {"expid": text})
        assert refused.status_code == 404
        assert "An id has four or more" in refused.content.decode()


def test_a_row_leads_to_its_experiment_and_to_its_run(browser: Client) -> None:
    row = run()
    row.save()
    page = browser.get("/runs/list").content.decode()
    assert 'href="/experiments/a001">a001</a>' in page
    assert f'href="/runs/{row.pk}">run {row.pk}</a>' in page


def test_only_profiles_that_a_person_may_use_are_offered_and_accepted(browser: Client, ada: User) -> None:
    profile = RunnerProfile.objects.create(name="GUARDED", runner_type="LOCAL", module_loader_type="NO_MODULE")
    RunnerProfile.objects.create(name="OFF", runner_type="LOCAL", module_loader_type="NO_MODULE", enabled=False)
    group = Group.objects.create(name="modellers")
    profile.run_groups.add(group)
    page = browser.get("/start").content.decode()
    assert "GUARDED" not in page
    assert "OFF" not in page
    assert "There is no profile that you may use" in page
    refused = browser.post("/start", {"profile_name": "GUARDED", "expid": "a001", "action": "do"})
    assert refused.status_code == 422
    assert "an admin has given that to certain groups" in refused.content.decode()
    assert not RunnerRun.objects.exists()
    record = AuditRecord.objects.get()
    assert (record.outcome, record.actor, record.endpoint) == ("profile_forbidden", "ada", "run-experiment")
    assert (record.expid, record.profile_name) == ("a001", "GUARDED")
    browser.post("/start", {"profile_name": "OFF", "expid": "a001", "action": "preview"})
    assert AuditRecord.objects.latest("id").outcome == "profile_not_found"
    ada.groups.add(group)
    assert "GUARDED" in browser.get("/start").content.decode()


def test_a_run_of_a_guarded_profile_is_shown_without_a_stop_and_not_stopped(browser: Client) -> None:
    profile = RunnerProfile.objects.create(name="GUARDED", runner_type="LOCAL", module_loader_type="NO_MODULE")
    profile.stop_groups.add(Group.objects.create(name="operators"))
    row = run(profile_name="GUARDED")
    row.save()
    assert "Stop this run" not in browser.get(f"/runs/{row.pk}").content.decode()
    answer = browser.post(f"/runs/{row.pk}/stop", headers={"HX-Request": "true"})
    assert "You may not stop" in answer.content.decode()
    row.refresh_from_db()
    assert row.is_active
    assert AuditRecord.objects.get().outcome == "profile_forbidden"


def test_an_ended_run_never_stops_the_newer_one_of_its_experiment(browser: Client) -> None:
    old, new = run(status="COMPLETED", exit_code=0), run()
    old.save()
    new.save()
    answer = browser.post(f"/runs/{old.pk}/stop", headers={"HX-Request": "true"}).content.decode()
    assert f"run {new.pk} of a001 is active now" in answer
    new.refresh_from_db()
    assert new.is_active
    assert new.stop_requested_at is None


def test_a_switched_off_endpoint_refuses_and_leaves_an_audit_record(browser: Client, account: StubAccount) -> None:
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    EndpointToggle.objects.create(name="SET_JOB_STATUS", enabled=False)
    form = {"profile_name": "HERE", "expid": "a001", "final_status": "READY", "filter_status": "FAILED"}
    for action in ("preview", "do"):
        response = browser.post("/experiments/set-status", {**form, "action": action})
        assert response.status_code == 403
        assert "currently disabled" in response.content.decode()
    assert list(AuditRecord.objects.values_list("outcome", "actor")) == [("endpoint_disabled", "ada")] * 2
    assert account.calls() == []


def test_a_parameter_outside_of_the_admins_limits_is_refused_at_its_field(browser: Client) -> None:
    RunnerProfile.objects.create(
        name="BOUND", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host="h.example.com", allowed_users="ada_*"
    )
    page = browser.get("/start?profile_name=BOUND").content.decode()
    assert "Allowed: ada_*." in page
    body = {"profile_name": "BOUND", "expid": "a001", "param-SSH.USER": "root", "action": "preview"}
    response = browser.post("/start", body)
    assert response.status_code == 422
    assert "param-SSH.USER" in response.context["form"].errors
    record = AuditRecord.objects.get()
    assert record.outcome == "profile_forbidden"
    assert "ada_*" in record.detail


def test_mistakes_and_previews_leave_the_records_that_they_leave_in_the_api(browser: Client) -> None:
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    form = {"profile_name": "HERE", "expid": "a001"}
    assert browser.post("/start", {**form, "action": "choose", "expid": "A001"}).status_code == 200
    assert not AuditRecord.objects.exists()
    browser.post("/start", {**form, "action": "do", "expid": "A\0" * 20})
    browser.post("/start", {**form, "action": "preview"})
    mistake, preview = AuditRecord.objects.order_by("id")
    assert (mistake.outcome, mistake.profile_name) == ("invalid_request", "HERE")
    assert mistake.expid == "A?" * 8
    assert "expid" in mistake.detail
    assert (preview.outcome, preview.argv) == ("dry_run", ["autosubmit", "run", "a001"])
    page = browser.get("/experiments/a001").content.decode()
    assert "looked at only" in page
    assert "dry_run" not in page


@pytest.mark.parametrize(
    ("outcome", "said", "is_bad"),
    [
        ("ok", "done", False),
        ("dry_run", "looked at only", False),
        ("replayed", "answered again", False),
        ("command_failed", "The command ran and failed", True),
        ("profile_forbidden", "The profile may not be used this way", True),
        ("of_another_version", "of_another_version", True),
    ],
)
def test_what_became_of_a_command_is_said_in_words(outcome: str, said: str, is_bad: bool) -> None:
    record = AuditRecord(outcome=outcome)
    assert words.result(record) == said
    assert words.is_refusal(record) is is_bad


def test_what_was_given_last_for_a_profile_is_offered_again(browser: Client) -> None:
    RunnerProfile.objects.create(name="S", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host="h.example.com")
    browser.post("/start", {"profile_name": "S", "expid": "a001", "param-SSH.USER": "ada_l", "action": "preview"})
    assert 'value="ada_l"' in browser.get("/experiments/job-list?profile_name=S").content.decode()


def test_a_log_that_is_not_there_is_explained(browser: Client, account: StubAccount) -> None:
    row = run(status="TERMINATED", reason="never_started")
    row.save()
    answer = browser.get(f"/runs/{row.pk}/log").json()
    assert answer["done"]
    assert "never started" in answer["note"]
    download = browser.get(f"/runs/{row.pk}/log/download")
    assert download.status_code == 404
    assert "There is no log: the command was never started" in download.content.decode()
    assert f"Back to run {row.pk}" in download.content.decode()


def test_what_somebody_else_is_asking_after_holds_up_no_viewer_of_the_log(
    browser: Client, account: StubAccount
) -> None:
    """The log itself is readable. Only the row says that its machine does not answer."""
    row = run(reachable=False, unreachable_detail="no answer", probing_until=timezone.now() + timedelta(hours=1))
    row.save()
    log = account.home / ".autosubmit-runners" / row.key / "log"
    log.parent.mkdir(parents=True)
    log.write_text("a line\n")
    answer = browser.get(f"/runs/{row.pk}/log").json()
    assert (answer["problem"], answer["was_asked"], answer["html"]) == ("no answer", False, "")
    RunnerRun.objects.update(probing_until=timezone.now() - timedelta(seconds=1))
    answer = browser.get(f"/runs/{row.pk}/log").json()
    assert (answer["problem"], answer["was_asked"], answer["html"]) == ("", True, "a line\n")


def test_asking_a_machine_takes_a_post(browser: Client) -> None:
    row = run(status="COMPLETED", exit_code=0)
    row.save()
    assert browser.get(f"/runs/{row.pk}/refresh").status_code == 405
    assert browser.post(f"/runs/{row.pk}/refresh").status_code == 204


def test_why_a_run_cannot_be_stopped_is_said(browser: Client) -> None:
    row = run()
    row.save()
    assert "Stop this run" in browser.get(f"/runs/{row.pk}").content.decode()
    EndpointToggle.objects.create(name="RUNNER_RUN", enabled=False)
    for path in (f"/runs/{row.pk}", f"/runs/{row.pk}/stop"):
        page = browser.get(path).content.decode()
        assert "Stop this run" not in page
        assert "an admin has switched off starting and stopping for now" in page


def test_while_a_step_of_a_stop_is_under_way_only_a_kill_is_offered(browser: Client) -> None:
    row = run(
        stop_requested_at=timezone.now(),
        stop_steps=[{"action": "autosubmit stop", "outcome": "", "seconds": None, "ended": False}],
        stop_owner=own_process.owner(),
        stop_until=timezone.now() + timedelta(minutes=1),
    )
    row.save()
    page = browser.get(f"/runs/{row.pk}").content.decode()
    assert "Stopping…" in page
    assert "Kill it now" in page
    assert "Stop it again" not in page
    row.stop_steps[0] |= {"seconds": 20.0, "outcome": "exit code 0", "ended": False}
    row.stop_owner, row.stopped_by = "", "ada"
    row.save()
    assert "the stop by ada did not end it" in browser.get(f"/runs/{row.pk}").content.decode()
    assert "Stop it again" in browser.get(f"/runs/{row.pk}").content.decode()
    assert "checked" in browser.get(f"/runs/{row.pk}/stop?force=1").content.decode()
    assert "checked" not in browser.get(f"/runs/{row.pk}/stop").content.decode()


def test_a_stop_that_nobody_carries_out_any_more_is_called_interrupted(browser: Client) -> None:
    """Its process is gone, or its time limit is over."""
    mine = own_process.owner()
    for owner, until in ((mine, -1), (f"{mine.rsplit(' ', 3)[0]} 999999999 1 aa", 60)):
        row = run(
            expid=f"a00{until % 7}",
            identity={"pid": 2},
            stop_requested_at=timezone.now(),
            stopped_by="ada",
            stop_steps=[{"action": "autosubmit stop", "outcome": "", "seconds": None, "ended": False}],
            stop_owner=owner,
            stop_until=timezone.now() + timedelta(seconds=until),
        )
        row.save()
        page = browser.get(f"/runs/{row.pk}").content.decode()
        assert "the stop by ada was interrupted" in page
        assert "the service ended during this step" in page
        assert "Stopping…" not in page
        assert "Stop it again" in page
        assert AuditRecord.objects.filter(run_id=row.pk, outcome="interrupted", actor="ada").count() == 1


def test_a_stop_that_was_interrupted_between_two_steps_is_told_too(browser: Client) -> None:
    done = {"action": "autosubmit stop", "outcome": "exit code 0", "seconds": 2.0, "ended": False}
    for steps in ([], [done]):
        row = run(
            expid=f"a00{len(steps)}",
            identity={"pid": 2},
            stop_requested_at=timezone.now(),
            stop_steps=steps,
            stop_owner=own_process.owner(),
            stop_until=timezone.now() - timedelta(seconds=1),
        )
        row.save()
        page = browser.get(f"/runs/{row.pk}").content.decode()
        assert "the service ended between two steps" in page
        assert "was interrupted" in page


def test_what_an_ended_run_has_left_can_be_cancelled_on_its_page(browser: Client, account: StubAccount) -> None:
    account.experiment("a001")
    row = run(status="TERMINATED", reason="stopped", config=account.config().as_dict(), finished=timezone.now())
    row.save()
    assert "Cancel its jobs" in browser.get(f"/runs/{row.pk}").content.decode()
    assert "Cancel the jobs of a001?" in browser.get(f"/runs/{row.pk}/stop").content.decode()
    account.control("stop", JOBS="a001_SIM", PLATFORM="elsewhere")
    done = browser.post(f"/runs/{row.pk}/stop", {"cancel_jobs": "on"}, headers={"HX-Request": "true"}).content.decode()
    assert "Experiment a001 is not running, but its jobs may go on." in done
    assert "a001_SIM may go on" in done
    assert "set-job-status with final_status READY" in done
    assert "Jobs: 1 asked to end, may go on" in browser.get(f"/runs/{row.pk}").content.decode()
    run(status="TERMINATED", reason="stopped").save()  # a newer run of the same experiment
    assert "Cancel its jobs" not in browser.get(f"/runs/{row.pk}").content.decode()


# --- duplicate forms --------------------------------------------------------------------------------------------------


@pytest.fixture
def creation(browser: Client, account: StubAccount) -> dict[str, str]:
    """Return the fields of a completed form."""
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    page = browser.get("/experiments/create?profile_name=HERE")
    return {"profile_name": "HERE", "description": "tides", "action": "do", "once": page.context["once"]}


def test_a_form_that_is_sent_again_creates_nothing_twice(
    browser: Client, account: StubAccount, creation: dict[str, str]
) -> None:
    first, again = (browser.post("/experiments/create", creation) for _ in range(2))
    assert first.status_code == 302
    assert first["Location"] == again["Location"] == "/experiments/job-list?expid=a000&profile_name=HERE"
    assert (
        "This form was sent before: it has created experiment a000" in browser.get(again["Location"]).content.decode()
    )
    assert len(account.calls("expid")) == 1
    assert list(AuditRecord.objects.order_by("id").values_list("outcome", "expid")) == [
        ("ok", "a000"),
        ("replayed", "a000"),
    ]
    changed = browser.post("/experiments/create", {**creation, "description": "waves"})
    fresh = browser.post("/experiments/create", {**creation, "once": "of another form"})
    assert ["a001" in changed["Location"], "a002" in fresh["Location"]] == [True, True]


def test_a_form_whose_command_has_failed_may_be_sent_again(
    browser: Client, account: StubAccount, creation: dict[str, str]
) -> None:
    account.control("expid", FAIL="No space left")
    refused = browser.post("/experiments/create", creation)
    assert refused.status_code == 502
    assert "No space left" in refused.content.decode()
    assert refused.context["once"] == creation["once"]
    account.control("expid")
    assert "expid=a000" in browser.post("/experiments/create", creation)["Location"]


def test_a_form_that_is_under_way_is_not_done_twice(
    browser: Client, account: StubAccount, creation: dict[str, str]
) -> None:
    fields = {name: [value] for name, value in creation.items() if name != "once"}
    key = idempotency.hash_of(creation["once"], fields)
    idempotency.claim(caller="ada", key=key, endpoint="create-experiment", request_hash=key)  # by this living process
    answer = browser.post("/experiments/create", creation)
    assert answer.status_code == 409
    assert "nothing is created twice" in answer.content.decode()
    assert answer["Retry-After"]
    assert answer.context["once"] == creation["once"]
    assert account.calls() == []


# --- rate limits ------------------------------------------------------------------------------------------------------


def test_commands_of_pages_and_api_count_together(browser: Client, settings: Any) -> None:
    settings.THROTTLE_COMMANDS = "3/min"
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    row = run()
    row.save()
    form = {"profile_name": "HERE", "expid": "a001", "action": "preview"}
    assert [browser.post("/start", form).status_code for _ in range(2)] == [200, 200]
    assert browser.post("/v4/runners/command/run-experiment", {}, "application/json").status_code == 400
    refused = browser.post("/start", form)
    assert refused.status_code == 429
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert "Too many requests" in refused.content.decode()
    stop = browser.post(f"/runs/{row.pk}/stop")
    assert stop.status_code == 429
    row.refresh_from_db()
    assert row.stop_requested_at is None
    assert [record.outcome for record in AuditRecord.objects.order_by("-id")[:2]] == ["throttled"] * 2
    assert browser.get("/start").status_code == 200


@pytest.mark.parametrize("path", ["/login", "/admin/login/"])
def test_guessing_passwords_is_slowed_down(client: Client, ada: User, settings: Any, path: str) -> None:
    settings.THROTTLE_FAILED_LOGINS = "3/min"
    User.objects.filter(pk=ada.pk).update(is_staff=True)
    wrong = {"username": "ada", "password": "guessed"}
    assert [client.post(path, wrong).status_code for _ in range(3)] == [200] * 3
    for body in (wrong, {"username": "ada", "password": "x"}):  # also after a correct guess
        refused = client.post(path, body)
        assert refused.status_code == 429
        assert 1 <= int(refused["Retry-After"]) <= 60
        assert "Too many attempts" in refused.content.decode()
    assert client.get(path).status_code == 200
    SignInAttempts.objects.all().delete()
    assert client.post(path, {"username": "ada", "password": "x"}).status_code == 302


@pytest.mark.parametrize("query", ["from=-1", "from=x", "before=1e9", "from=9999999999999999", "style=%22%3E"])
def test_a_log_request_that_was_tampered_with_is_harmless(browser: Client, account: StubAccount, query: str) -> None:
    row = run(status="COMPLETED", exit_code=0)
    row.save()
    assert browser.get(f"/runs/{row.pk}/log?{query}").status_code == 200


# --- errors outside of any page ---------------------------------------------------------------------------------------


def test_a_database_that_does_not_answer_is_said_on_every_page(
    make_app: Callable[..., AppServer], tmp_path: Path
) -> None:
    app = make_app(env={"DATABASE_URL": f"sqlite:///{tmp_path}/gone/db.sqlite3"}, workers=1)
    app.headers = {"Cookie": "sessionid=of-somebody-signed-in"}
    for path in ("/", "/runs/1", "/runs/list", "/start", "/history", "/admin/", "/admin/runners/runnerrun/", "/login"):
        answer = app.get(path)
        assert answer.status == 503, (path, answer.body)
        assert "The database does not answer" in answer.body
        assert answer.headers["Retry-After"] == "5"
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


def send_login(origin: str, **headers: str) -> HttpResponse:
    """Sign ada in with a form that contains its token."""
    browser = Client(enforce_csrf_checks=True, headers={"Host": "testserver", "Origin": origin, **headers})
    token = browser.get("/login").context["csrf_token"]
    return browser.post("/login", {"username": "ada", "password": "x", "csrfmiddlewaretoken": str(token)})


def test_a_proxy_that_does_tls_untold_is_named_as_the_cause(ada: User, settings: Any) -> None:
    refused = send_login("https://testserver")
    assert refused.status_code == 403
    words = refused.content.decode()
    assert "BEHIND_HTTPS_PROXY=1" in words
    assert "https://testserver" in words
    assert "http://testserver" in words
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert send_login("https://testserver", **{"X-Forwarded-Proto": "https"}).status_code == 302


def test_a_form_of_another_origin_and_one_that_has_expired_are_told_apart(ada: User) -> None:
    foreign = send_login("https://evil.example").content.decode()
    assert "https://evil.example" in foreign
    assert "CSRF_TRUSTED_ORIGINS" in foreign
    assert "BEHIND_HTTPS_PROXY" not in foreign
    expired = Client(enforce_csrf_checks=True).post("/login", {"username": "ada", "password": "x"})
    assert expired.status_code == 403
    assert "This form has expired" in expired.content.decode()


# --- browser caches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/history", "/login", "/admin/", "/docs", "/openapi.json", "/no-such-page"])
def test_no_page_is_stored_by_a_browser(client: Client, ada: User, path: str) -> None:
    """After a sign-out, the browser's Back button must not show the page."""
    for _ in ("signed out", "signed in"):
        assert "no-store" in client.get(path).headers["Cache-Control"]
        client.force_login(ada)


# --- a reverse proxy that signs people in -----------------------------------------------------------------------------


PROXY_SECRET = "that the proxy of the tests sends, 0123456789"


def named(name: str, secret: str = PROXY_SECRET) -> dict[str, str]:
    """Return the headers that the proxy sends."""
    return {"X-Remote-User": name, "X-Remote-User-Secret": secret}


@pytest.fixture
def behind_proxy(settings: Any) -> None:
    settings.RUNNERS_REMOTE_USER_HEADER = "X-Remote-User"
    settings.RUNNERS_REMOTE_USER_CREATE = True
    settings.RUNNERS_REMOTE_USER_SECRET = PROXY_SECRET
    place = settings.MIDDLEWARE.index("django.contrib.auth.middleware.AuthenticationMiddleware") + 1
    proxy = "runners.pages.remote_user.ProxyUserMiddleware"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE[:place], proxy, *settings.MIDDLEWARE[place:]]
    settings.AUTHENTICATION_BACKENDS = [
        "runners.pages.remote_user.ProxyUserBackend",
        "django.contrib.auth.backends.ModelBackend",
    ]


def test_a_proxys_header_signs_people_in_and_makes_an_account_without_rights(
    client: Client, behind_proxy: None, db: None
) -> None:
    assert "grace" in client.get("/", headers=named("grace")).content.decode()
    user = User.objects.get(username="grace")
    assert not user.is_staff
    assert not user.has_usable_password()


@pytest.mark.parametrize("name", ["ADA", "ad\uff41", "a b", "x" * 151, "a;b", "a/b"])
def test_a_proxys_name_that_is_nobodys_or_looks_like_anothers_is_not_signed_in(
    client: Client, behind_proxy: None, ada: User, name: str
) -> None:
    as_sent = name.encode().decode("latin-1")  # how WSGI passes bytes
    for _ in range(2):
        page = client.get("/", headers=named(as_sent))
        client.force_login(ada)  # in the next request, the name ends her session
    assert page.status_code == 200 and "Sign in" in page.content.decode()
    assert User.objects.count() == 1


def test_a_proxys_name_is_read_as_utf8(client: Client, behind_proxy: None, db: None) -> None:
    for _ in range(2):
        assert "josé" in client.get("/", headers=named("josé".encode().decode("latin-1"))).content.decode()
    assert User.objects.get().username == "josé"


def test_somebody_else_in_the_header_ends_the_session_of_the_first(
    client: Client, behind_proxy: None, db: None
) -> None:
    client.get("/", headers=named("grace"))
    assert "ada" in client.get("/", headers=named("ada")).content.decode()
    assert "Sign in" in client.get("/").content.decode()


def test_unknown_and_switched_off_people_stay_out_when_accounts_are_not_made(
    client: Client, behind_proxy: None, settings: Any, ada: User
) -> None:
    settings.RUNNERS_REMOTE_USER_CREATE = False
    assert "Sign in" in client.get("/", headers=named("mallory")).content.decode()
    assert not User.objects.filter(username="mallory").exists()
    User.objects.filter(pk=ada.pk).update(is_active=False)
    assert "Sign in" in client.get("/", headers=named("ada")).content.decode()


@pytest.mark.parametrize("secret", ["", "wrong", PROXY_SECRET[:-1], PROXY_SECRET + "x", "\u00e9"])
def test_a_header_without_the_proxys_secret_is_nobodys(
    client: Client, behind_proxy: None, ada: User, secret: str
) -> None:
    assert "Sign in" in client.get("/", headers=named("ada", secret)).content.decode()
    assert "Sign in" in client.get("/", headers={"X-Remote-User": "ada"}).content.decode()
    assert "ada" in client.get("/", headers=named("ada")).content.decode()


def test_with_the_unix_socket_only_requests_from_it_count(
    client: Client, behind_proxy: None, settings: Any, ada: User
) -> None:
    settings.RUNNERS_REMOTE_USER_SECRET, settings.RUNNERS_REMOTE_USER_SOCKET = "", True
    assert "Sign in" in client.get("/", headers={"X-Remote-User": "ada"}).content.decode()  # from 127.0.0.1
    assert "ada" in client.get("/", headers={"X-Remote-User": "ada"}, REMOTE_ADDR="").content.decode()


def test_the_header_alone_stops_the_start() -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "SECRET_KEY": PROXY_SECRET,
        "RUNNERS_REMOTE_USER_HEADER": "X-Remote-User",
    }
    environment["DATABASE_URL"] = "sqlite:///:memory:"
    argv = [sys.executable, "manage.py", "check"]
    refused = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode and "RUNNERS_REMOTE_USER_SECRET" in refused.stderr and "SOCKET=1" in refused.stderr
    for proof in ({"RUNNERS_REMOTE_USER_SECRET": PROXY_SECRET}, {"RUNNERS_REMOTE_USER_SOCKET": "1"}):
        assert not subprocess.run(argv, cwd=ROOT, env=environment | proof, capture_output=True, check=False).returncode


def test_the_header_means_nothing_without_the_setting(client: Client, db: None) -> None:
    for name in ("X-Remote-User", "Remote-User"):
        assert "Sign in" in client.get("/", headers={name: "root"}).content.decode()
    assert not User.objects.exists()
