"""What the forms suggest: the values that a person used last, the experiments of an account, and what is in the way."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from profiles.models import RunnerProfile
from runners.models import ExperimentDescription, LastFormValues, RunnerRun
from runners.services import experiments, jobs
from runners.services.machines.answers import Unreadable
from runners.services.machines.experiments import parse
from tests.support import job_lists
from tests.support.environments import StubAccount
from tests.support.job_lists import job

STRANGE = "<b>tides</b> & 'winds' \N{WATER WAVE}\n" + "x" * 300


@pytest.fixture
def here(db: None) -> RunnerProfile:
    return RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")


def suggest(client: Client, what: str, command: str = "run-experiment", *, expect: int = 200, **fields: str) -> str:
    response = client.post(f"/suggest/{command}/{what}", fields, headers={"HX-Request": "true"})
    assert response.status_code == expect, response.content
    return response.content.decode()


def add_rows(account: StubAccount, *rows: tuple[str, str]) -> None:
    with sqlite3.connect(account.home / "autosubmit" / "autosubmit.db") as database:
        database.execute("CREATE TABLE experiment(id INTEGER PRIMARY KEY, name, description, autosubmit_version)")
        database.executemany("INSERT INTO experiment(name, description) VALUES (?, ?)", rows)
    database.close()


def test_a_form_begins_with_the_profile_and_the_values_that_were_used_last(
    browser: Client, account: StubAccount, here: RunnerProfile, ada: User
) -> None:
    RunnerProfile.objects.create(name="A_OPEN", runner_type="LOCAL")
    account.experiment("a001")
    assert browser.get("/start").context["form"].profile is None
    fields = {"profile_name": "A_OPEN", "param-MODULE_LOADER_TYPE": "NO_MODULE", "expid": "a001"}
    assert browser.post("/start", {**fields, "action": "preview"}).status_code == 200
    for path in ("/start", "/experiments/create", "/start?profile_name=GONE"):
        form = browser.get(path).context["form"]
        assert form.profile.name == "A_OPEN"
        assert form["param-MODULE_LOADER_TYPE"].value() == "NO_MODULE"
    # Another browser of the same person; another person.
    again = Client()
    again.force_login(ada)
    assert again.get("/start").context["form"].profile.name == "A_OPEN"
    assert browser.get("/start?profile_name=HERE").context["form"].profile == here
    grace = Client()
    grace.force_login(User.objects.create_user("grace"))
    assert grace.get("/start").context["form"].profile is None


def test_a_profile_that_a_person_may_not_use_any_more_is_not_suggested(
    browser: Client, here: RunnerProfile, ada: User
) -> None:
    RunnerProfile.objects.create(name="OTHER", runner_type="LOCAL", module_loader_type="NO_MODULE")
    LastFormValues.objects.create(user=ada, profile_name="HERE", values={"HERE": "not an object"})
    assert browser.get("/start").context["form"].profile == here
    here.run_groups.add(Group.objects.create(name="others"))
    assert browser.get("/start").context["form"].profile.name == "OTHER"  # the only one that is left


def test_the_experiments_of_the_account_are_suggested_with_their_descriptions(
    browser: Client, account: StubAccount, here: RunnerProfile
) -> None:
    for expid in ("a001", "a002", "zzzz", "a00bcdefghijklmn"):
        account.experiment(expid)
    (account.home / "autosubmit" / "metadata").mkdir()
    (account.home / "autosubmit" / "Not-One").mkdir()
    (account.home / "autosubmit" / "link").symlink_to("/")
    part = suggest(browser, "experiments", profile_name="HERE")
    assert '<option value="a002"></option>' in part  # without a database
    assert 'value="metadata"' not in part
    experiments.forget()
    add_rows(account, ("a001", "first"), ("a002", STRANGE), ("gone", "deleted"))
    part = suggest(browser, "experiments", profile_name="HERE")
    assert part.index('value="a002"') < part.index('value="a001"')
    assert "&lt;b&gt;tides&lt;/b&gt; &amp; &#x27;winds&#x27;" in part
    assert "x" * 80 not in part
    for name in ("gone", "zzzz", "metadata", "Not-One", "link"):
        assert f'value="{name}"' not in part
    assert "2 experiments of this machine" in part
    known = dict(ExperimentDescription.objects.values_list("expid", "description"))
    assert known["a001"] == "first"
    assert known["a002"].startswith("<b>tides</b> & 'winds' \N{WATER WAVE} xxx")
    assert len(known) == 2


def test_without_a_list_the_experiments_of_known_runs_are_suggested(
    browser: Client, account: StubAccount, here: RunnerProfile
) -> None:
    RunnerRun.objects.create(expid="b007", config={}, runner="LOCAL", status="COMPLETED", profile_id=here.pk)
    hidden = RunnerProfile.objects.create(name="HIDDEN", runner_type="LOCAL", module_loader_type="NO_MODULE")
    hidden.view_groups.add(Group.objects.create(name="others"))
    RunnerRun.objects.create(expid="s3cret", config={}, runner="LOCAL", status="COMPLETED", profile_id=hidden.pk)
    assert '<option value="b007">' in browser.get("/start?profile_name=HERE").content.decode()
    part = suggest(browser, "experiments", profile_name="HERE")
    assert '<option value="b007">' in part
    assert "no list of experiments" in part
    for name in ("HIDDEN", "NO_SUCH", ""):
        assert "s3cret" not in suggest(browser, "experiments", profile_name=name)
    suggest(browser, "experiments", "no-such-command", expect=404)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "#experiments - {",
        "#experiments - []",
        '#experiments - {"experiments": [], "total": -1}',
        '#experiments - {"experiments": [["a001", "x", 1]], "total": 1}',
        '#experiments - {"experiments": [["../x", "x", true]], "total": 1}',
        '#experiments - {"experiments": [["a001", "' + "x" * 101 + '", true]], "total": 1}',
        '#experiments - {"experiments": [["a001", "x", true]], "total": 0}',
        '#experiments - {"experiments": [], "total": 0}\n#experiments - {"experiments": [], "total": 0}',
        "#experiments - " + "[" * 100_000,
    ],
)
def test_a_list_that_is_not_valid_is_not_used(answer: str) -> None:
    with pytest.raises(Unreadable):
        parse(answer)


def active_run(account: StubAccount, profile: RunnerProfile, **values: Any) -> RunnerRun:
    common = {"runner": "LOCAL", "module_loader": "NO_MODULE", "status": "ACTIVE", "started_by": "grace"}
    return RunnerRun.objects.create(
        expid="a001", config=account.config().as_dict(), profile_id=profile.pk, profile_name=profile.name, **common
    )


def test_a_run_in_the_way_is_said_before_anything_is_sent(
    browser: Client, account: StubAccount, here: RunnerProfile
) -> None:
    assert "is running" not in suggest(browser, "conflicts", profile_name="HERE", expid="a001")
    run = active_run(account, here)
    for command in ("run-experiment", "create-job-list", "delete-experiment"):
        part = suggest(browser, "conflicts", command, profile_name="HERE", expid="a001")
        assert f'href="/runs/{run.pk}"' in part
        assert "of grace" in part
        assert "would be rejected" in part
    part = suggest(browser, "conflicts", "set-job-status", profile_name="HERE", expid="a001")
    assert "Also while it runs" in part
    part = suggest(browser, "conflicts", "set-job-status", profile_name="HERE", expid="a001", while_running="on")
    assert "would be rejected" not in part
    allowed = suggest(browser, "conflicts", "update-experiment-description", profile_name="HERE", expid="a001")
    assert "would be rejected" not in allowed
    for expid in ("a002", "", "A001", "<script>", "x" * 5000):
        assert "is running" not in suggest(browser, "conflicts", profile_name="HERE", expid=expid)


def test_a_run_that_a_person_may_not_see_is_only_said_to_be_there(
    browser: Client, account: StubAccount, here: RunnerProfile
) -> None:
    hidden = RunnerProfile.objects.create(name="HIDDEN", runner_type="LOCAL", module_loader_type="NO_MODULE")
    hidden.view_groups.add(Group.objects.create(name="others"))
    run = active_run(account, hidden)
    part = suggest(browser, "conflicts", profile_name="HERE", expid="a001")
    assert "in a run that you may not see" in part
    assert f"/runs/{run.pk}" not in part
    assert "grace" not in part


def test_the_last_run_of_the_experiment_is_named(browser: Client, account: StubAccount, here: RunnerProfile) -> None:
    run = active_run(account, here)
    RunnerRun.objects.filter(pk=run.pk).update(status="TERMINATED", reason="failed", exit_code=1)
    part = suggest(browser, "conflicts", profile_name="HERE", expid="a001")
    assert f'<a id="conflict-last" href="/runs/{run.pk}">run {run.pk}</a>, failed (exit code 1)' in part


@pytest.fixture
def jobs_of_a001(account: StubAccount, here: RunnerProfile) -> Iterator[None]:
    jobs.forget()
    when = job_lists.day("20000101")
    found = [job("a001_INI", "COMPLETED", section="INI"), job("a001_<b>STRANGE", "WAITING", section="ODD")]
    for chunk in range(1, 5):
        status = "FAILED" if chunk < 3 else "WAITING"
        values = {"section": "SIM", "date": when, "member": "fc0", "chunk": chunk}
        found.append(job(f"a001_20000101_fc0_{chunk}_SIM", status, **values))
    job_lists.write(account.home, "a001", found)
    yield
    jobs.forget()


@pytest.mark.usefixtures("jobs_of_a001")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"filter_status": "failed"}, "2 of 6 jobs</strong> match: 2 FAILED."),
        ({"filter_status": "FAILED COMPLETED"}, "3 of 6 jobs"),
        ({"filter_status": "ANY"}, "6 of 6 jobs"),
        ({"filter_type": "sim"}, "4 of 6 jobs</strong> match: 2 WAITING, 2 FAILED."),
        ({"filter_type": "SIM [1-2], INI"}, "1 of 6 jobs"),
        ({"filter_type": "SIM", "filter_status": "WAITING"}, "2 of 6 jobs"),
        ({"job_names_list": "a001_INI\r\na001_NONE"}, "1 of 6 jobs"),
        ({"filter_chunks": "[ 20000101 [ fc0 [1-3] ] ]"}, "3 of 6 jobs"),
        ({"filter_chunks": "[ Any [ Any [ Any ] ] ]"}, "4 of 6 jobs"),
        ({"filter_chunks": "[ 20000101 [ fc1 [1-3] ] ]"}, "0 of 6 jobs</strong> match."),
        ({"filter_type_chunk": "[ 20000101 [ fc0 [2 4] ] ],INI"}, "0 of 6 jobs"),
        ({"filter_type_chunk": "[ 20000101 [ fc0 [2 4] ] ],SIM", "filter_status": "FAILED"}, "1 of 6 jobs"),
        ({"filter_status": "FAIL"}, "Not counted: No status"),
        ({"filter_chunks": "[ 20000101 [ fc0"}, "Not counted: The filter by chunk is not complete"),
        ({"filter_chunks": "[ 20000101 [ fc0 [1-99999999] ] ]"}, "Not counted: Only Autosubmit can read"),
        ({"filter_chunks": "[ 20000101 [ fc0 [0-999999] ] ]"}, "Not counted: The range is too long"),
        ({"filter_chunks": "[" * 5000}, "Not counted"),
        ({}, "a001 has 6 jobs."),
    ],
)
def test_the_jobs_that_the_filters_select_are_counted(browser: Client, fields: dict[str, str], said: str) -> None:
    part = suggest(browser, "jobs", "set-job-status", profile_name="HERE", expid="a001", **fields)
    assert said in part
    assert 'data-adds="FAILED"' in part
    assert 'data-adds="SIM"' in part
    assert "<b>" not in part


def test_jobs_that_cannot_be_counted_say_why(browser: Client, account: StubAccount, here: RunnerProfile) -> None:
    jobs.forget()
    account.experiment("a001")
    part = suggest(browser, "jobs", "set-job-status", profile_name="HERE", expid="a001", filter_status="FAILED")
    assert "The jobs of a001 cannot be counted now: The experiment a001 has no job list." in part
    assert suggest(browser, "jobs", "set-job-status", profile_name="HERE", expid="A!").strip() == ""
    jobs.forget()
