"""The descriptions of experiments that the service has seen find runs, and are shown with them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from profiles.models import RunnerProfile
from runners.models import ExperimentDescription, RunnerRun
from runners.services import experiment_descriptions, retention, runs
from runners.services.experiment_descriptions import MOST_FOUND, SEEN_AGAIN, Home, home, learn
from tests.support.rows import saved_run

pytestmark = pytest.mark.django_db

NAMED = Home("ocean")
LONG = "Ocean " + "x" * 988 + " coast"  # 1000 characters
STRANGE = [
    "<b onclick=alert(1)>Sea</b> & 'ice' \"thick\"",
    "Réanalyse des océans ÅÄÖ Straße",
    "ניסוי אקלים \u202egnp.exe",
    "🌊🧊 Waves 👩‍🔬",
    "100% of a_b\\c [x] *?",
    LONG,
]


def found(text: str, viewer: Any = None, **filters: Any) -> list[str]:
    chosen = runs.find(viewer=viewer or AnonymousUser(), search=text, **filters)
    return [run.expid for run in chosen]


def ended(expid: str, installation: str = "ocean", **fields: Any) -> RunnerRun:
    return saved_run(expid, installation=installation, status="COMPLETED", finished=timezone.now(), **fields)


def descriptions() -> dict[str, str]:
    return dict(ExperimentDescription.objects.values_list("expid", "description"))


@pytest.mark.parametrize("text", STRANGE, ids=range(len(STRANGE)))
def test_any_description_finds_the_runs_of_its_experiment(text: str) -> None:
    ended("a001")
    ended("a002")
    learn(NAMED, {"a001": text, "a002": "Something else"})
    assert found(text) == ["a001"]
    assert found(f"  {text.upper()} ") == ["a001"]
    assert found(text.lower()[3:9]) == ["a001"]
    assert len(descriptions()["a001"]) <= 1000
    assert descriptions()["a001"].isprintable()


@pytest.mark.parametrize("text", ["%", "_", "100%", "a_b", "\\", "%%", "[x]"])
def test_wildcards_of_the_database_are_plain_characters(text: str) -> None:
    ended("a001")
    ended("a002")
    learn(NAMED, {"a001": "100% of a_b\\c %% [x]", "a002": "100 of axb"})
    assert found(text) == ["a001"]


def test_accents_and_case_are_compared_as_people_write_them() -> None:
    ended("a001")
    learn(NAMED, {"a001": "Expérience STRASSE"})
    assert found("EXPE\N{COMBINING ACUTE ACCENT}RIENCE stra\N{LATIN SMALL LETTER SHARP S}e") == ["a001"]
    assert found("\u202e") == []
    assert found("a001") == ["a001"]


def test_a_description_finds_only_runs_of_its_own_experiment() -> None:
    """In the default installation each account may have a database of its own; a named one is one database."""
    config = {"RUNNER": "SSH", "SSH": {}}
    mine = saved_run("a001", config=config, machine="SSH me@one", status="COMPLETED")
    saved_run("a001", config=config, machine="SSH you@one", status="COMPLETED")
    saved_run("a001", config=config, machine="SSH me@one", status="COMPLETED", superseded=True)
    saved_run("a001", config=config, machine="SSH me@one", installation="ocean", status="COMPLETED")
    learn(home("default", "SSH me@one", ""), {"a001": "Sea ice"})
    learn(home("default", "", ""), {"a001": "Sea of a machine that is not known"})
    assert [run.pk for run in runs.find(viewer=AnonymousUser(), search="sea")] == [mine.pk]
    assert experiment_descriptions.of_runs(RunnerRun.objects.all()) == {mine.pk: "Sea ice"}
    assert home("ocean", "SSH me@one", "") == home("ocean", "SSH you@two", "n") == NAMED


def test_a_description_does_not_lead_to_hidden_runs() -> None:
    secret = RunnerProfile.objects.create(name="SECRET", runner_type="LOCAL", module_loader_type="NO_MODULE")
    team = Group.objects.create(name="team")
    secret.view_groups.add(team)
    ended("a001", profile_name="SECRET", profile_id=secret.pk, started_by="grace")
    ended("a002")
    learn(NAMED, {"a001": "Sea ice of the team", "a002": "Sea ice"})
    ada = User.objects.create_user("ada")
    assert found("sea ice", ada) == ["a002"]
    assert found("of the team", ada) == []
    ada.groups.add(team)
    assert found("sea ice", User.objects.get(pk=ada.pk)) == ["a002", "a001"]


def test_experiments_without_runs_do_not_use_up_the_limit_of_a_search() -> None:
    """A list of an account has many experiments that were never run here."""
    ended("a001")
    learn(NAMED, {"a001": "Sea ice"} | {f"z{number:04}": "Sea ice" for number in range(MOST_FOUND + 10)})
    assert found("sea ice") == ["a001"]


def test_other_filters_and_orders_apply_to_what_a_description_finds() -> None:
    for expid, person in (("a001", "ada"), ("a002", "bob"), ("a003", "ada")):
        ended(expid, started_by=person)
    learn(NAMED, dict.fromkeys(("a001", "a002"), "Sea ice"))
    assert found("sea", started_by="ada") == ["a001"]
    assert found("sea", sort="experiment") == ["a001", "a002"]
    assert found("sea", oldest_first=True) == ["a001", "a002"]
    assert found("sea", status="ACTIVE") == []


def test_only_changes_are_written_and_in_one_statement() -> None:
    texts = {f"a{number:03}": f"number {number}" for number in range(50)}
    with CaptureQueriesContext(connection) as first:
        learn(NAMED, texts)
    assert sum("INSERT" in query["sql"] for query in first) == 1
    with CaptureQueriesContext(connection) as again:
        learn(NAMED, texts)
    assert [query["sql"].split()[0] for query in again] == ["SELECT"]
    before = timezone.now() - 2 * SEEN_AGAIN
    ExperimentDescription.objects.filter(expid="a007").update(seen_at=before)
    learn(NAMED, texts | {"a001": "another"})
    assert descriptions() == texts | {"a001": "another"}
    assert not ExperimentDescription.objects.filter(seen_at__lte=before).exists()


def test_a_cut_or_empty_description_does_not_replace_a_whole_one() -> None:
    learn(NAMED, {"a001": LONG, "a002": "Sea ice"})
    learn(NAMED, {"a001": LONG[:100], "a002": ""}, limit=100)
    assert descriptions() == {"a001": LONG, "a002": "Sea ice"}
    learn(NAMED, {"a001": "Other " + LONG[:94]}, limit=100)
    assert descriptions()["a001"] == "Other " + LONG[:94]
    learn(NAMED, {"a001": "Other"}, limit=100)
    assert descriptions()["a001"] == "Other"


def test_a_database_that_does_not_answer_fails_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(experiment_descriptions, "_store", fail)
    learn(NAMED, {"a001": "Sea ice"})
    assert descriptions() == {}


def test_retention_removes_descriptions_of_experiments_without_runs() -> None:
    ended("a001")
    learn(NAMED, dict.fromkeys(("a001", "a002", "a003"), "Sea ice"))
    now = timezone.now()
    ExperimentDescription.objects.exclude(expid="a003").update(seen_at=now - timedelta(days=40))
    assert retention.delete_rows(now - timedelta(days=30), dry_run=True)["experiment descriptions"] == 1
    assert retention.delete_rows(now - timedelta(days=30))["experiment descriptions"] == 1
    assert sorted(descriptions()) == ["a001", "a003"]
