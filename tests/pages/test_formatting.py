"""Durations and outcomes in words."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db.models import DateTimeField

from runners.models import AuditRecord
from runners.templatetags import formatting as words
from tests.support.paths import ROOT
from tests.support.rows import unsaved_run


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (303, "5 min 3 s"), (7500, "2 h 5 min"), (273_600, "3 d 4 h")],
)
def test_durations_are_shown_in_their_two_largest_units(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


def test_a_time_is_an_element_with_utc_as_text_and_tooltip() -> None:
    madrid = datetime(2026, 11, 24, 4, 46, 2, tzinfo=timezone(timedelta(hours=1)))
    assert words.local_time(madrid) == (
        '<time datetime="2026-11-24T04:46:02+01:00" title="2026-11-24 03:46:02 UTC" data-local="second">'
        "2026-11-24 03:46:02 UTC</time>"
    )
    assert ">2026-11-24 03:46 UTC<" in words.local_time(madrid, "minute")
    assert words.local_time(None) == ""
    assert words.iso_local_time("2026-11-24T04:46:02+01:00") == words.local_time(madrid)
    assert words.iso_local_time("<yesterday>") == "<yesterday>"
    assert words.iso_local_time(None) == ""


TIMES = {field.name for model in apps.get_models() for field in model._meta.fields if isinstance(field, DateTimeField)}
SHARED = {"local_time", "iso_local_time", "ago", "age"}  # each writes a <time> element, which times.js knows


@pytest.mark.parametrize("path", sorted((ROOT / "templates").rglob("*.html")), ids=lambda path: path.name)
def test_templates_show_times_through_the_shared_filters_only(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\|(date|time|timesince|timeuntil|naturaltime)\b|{% now ", text)
    for written in re.findall(r"{{\s*(.*?)\s*}}", text):
        value, *filters = re.split(r"\|(?=\w)", written)
        names = {each.partition(":")[0] for each in filters}
        if value.rpartition(".")[2] in TIMES | {"start", "end", "time"}:
            assert names & (SHARED | {"exact_time", "iso_time"}), written
        if "exact_time" in names:  # plain text, which times.js replaces in elements with this attribute
            assert re.search(r"data-times>[^<]*" + re.escape(written), text), written
        if "iso_time" in names:  # for scripts
            assert re.search(r'data-\w+="{{ ' + re.escape(written), text), written


def test_pages_of_the_admin_show_times_through_the_shared_filters_only() -> None:
    for model, page in admin.site._registry.items():
        if page.__module__.startswith("runners."):
            raw = {str(name) for name in (*page.list_display, *page.readonly_fields) if not hasattr(page, str(name))}
            assert TIMES.isdisjoint(raw), model


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"status": "COMPLETED", "exit_code": 0}, "ended well (exit code 0)"),
        ({"status": "TERMINATED", "reason": "failed", "exit_code": 1}, "failed (exit code 1)"),
        ({"status": "TERMINATED", "reason": "stopped", "stopped_by": "ada"}, "stopped by ada"),
        ({"status": "TERMINATED", "reason": "never_started"}, "the launch never reached the command"),
        ({"status": "ACTIVE"}, "being started"),
        ({"status": "ACTIVE", "identity": {"pid": 1}}, "running"),
        ({"status": "ACTIVE", "identity": {"pid": 1}, "reachable": False}, "running at the last probe of its machine"),
    ],
)
def test_the_outcome_of_a_run_is_shown_in_words(fields: dict[str, Any], said: str) -> None:
    assert words.outcome(unsaved_run(**fields)) == said


@pytest.mark.parametrize(
    ("outcome", "said", "is_bad"),
    [
        ("ok", "done", False),
        ("dry_run", "preview", False),
        ("replayed", "answered again", False),
        ("command_failed", "The command ran and failed", True),
        ("profile_forbidden", "The profile may not be used this way", True),
        ("of_another_version", "of_another_version", True),
    ],
)
def test_the_outcome_of_a_command_is_shown_in_words(outcome: str, said: str, is_bad: bool) -> None:
    record = AuditRecord(outcome=outcome)
    assert words.result(record) == said
    assert words.is_refusal(record) is is_bad
