"""The history page: its timeline and its list of ended runs."""

from __future__ import annotations

import re
from datetime import timedelta

from django.db import connection
from django.test import Client
from django.utils import timezone

from runners.models import RunnerRun
from runners.pages.views.history import LANE, WIDTH, draw
from tests.support.rows import unsaved_run


def test_overlapping_runs_have_separate_lanes_within_the_timeline() -> None:
    now = timezone.now()
    first = unsaved_run(pk=1, status="COMPLETED", created=now - timedelta(hours=9), finished=now - timedelta(hours=1))
    beside = unsaved_run(pk=2, expid="a001", created=now - timedelta(hours=5))
    other = unsaved_run(pk=3, expid="a002", created=now - timedelta(seconds=1))
    picture = draw([first, beside, other], group=lambda run: run.expid)
    assert picture
    bars = {bar.run.pk: bar for bar in picture.bars}
    assert abs(bars[1].y - bars[2].y) == LANE
    assert [row.name for row in picture.rows] == ["a002", "a001"]
    assert all(bar.width > 0 and bar.x + bar.width <= WIDTH + 0.1 for bar in picture.bars)
    assert 2 <= len(picture.ticks) <= 9
    assert draw([], group=lambda run: run.expid) is None


def test_a_long_run_that_has_just_ended_is_recent_and_in_the_history(browser: Client) -> None:
    now = timezone.now()
    long = unsaved_run(expid="long", status="COMPLETED", exit_code=0, created=now - timedelta(days=21), finished=now)
    before = unsaved_run(
        expid="gone", status="COMPLETED", created=now - timedelta(days=50), finished=now - timedelta(days=20)
    )
    quick = unsaved_run(
        expid="fast", status="COMPLETED", created=now - timedelta(hours=2), finished=now - timedelta(hours=1)
    )
    on = unsaved_run(expid="goes", created=now - timedelta(days=40))
    for row in (long, before, quick, on):
        row.save()
    recent = browser.get("/").content.decode().partition("Recently ended")[2]
    assert re.findall(r'class="strong"[^>]*>(\w+)<', recent) == ["long", "fast"]
    assert [row.expid for row in browser.get("/history?days=7").context["runs"]] == ["goes", "long", "fast"]
    assert [row.expid for row in browser.get("/history?days=30").context["runs"]] == ["goes", "long", "fast", "gone"]
    assert [row.expid for row in browser.get("/history?expid=long").context["runs"]] == ["long"]


def test_the_last_ended_runs_are_found_by_an_index(db: None) -> None:
    start = timezone.now() - timedelta(days=14)
    plan = RunnerRun.objects.ended_since(start)[:25].explain()
    if connection.vendor == "sqlite":  # PostgreSQL reads all rows of a small table
        assert "run_finished" in plan
        assert "TEMP B-TREE" not in plan


def test_an_experiment_that_was_never_run_is_found_by_its_id(browser: Client) -> None:
    assert 'action="/experiments"' in browser.get("/").content.decode()
    assert browser.get("/experiments?expid=+A0b1+")["Location"] == "/experiments/a0b1"
    assert "It has no runs here." in browser.get("/experiments/a0b1").content.decode()
    for text in ("", "../x", "1abc"):
        refused = browser.get("/experiments", {"expid": text})
        assert refused.status_code == 404
        assert "An id has four or more" in refused.content.decode()


def test_a_row_links_to_its_experiment_and_its_run(browser: Client) -> None:
    row = unsaved_run()
    row.save()
    page = browser.get("/runs/list").content.decode()
    assert 'href="/experiments/a001">a001</a>' in page
    assert f'href="/runs/{row.pk}">run {row.pk}</a>' in page
