"""The page that runs an experiment again, and what the page of an ended run offers."""

from __future__ import annotations

import html
import re

import pytest
from django.contrib.auth.models import User
from django.test import Client

from profiles.models import RunnerProfile
from runners.models import RunnerRun, RunReason, RunStatus
from runners.pages.offers import offers
from runners.services import jobs
from tests.support.environments import StubAccount
from tests.support.job_lists import job, write
from tests.support.processes import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
OTHER_VERSION = "uses (4.0) which is not the running Autosubmit version (4.1)"
NO_JOB_LIST = "Autosubmit couldn't load the workflow graph. Please run autosubmit create first"


@pytest.fixture
def run(account: StubAccount) -> RunnerRun:
    profile = RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    account.experiment("a001")
    jobs.forget()
    config = profile.resolve({})
    return RunnerRun.objects.create(
        expid="a001",
        profile_name="HERE",
        config=config.as_dict(),
        runner="LOCAL",
        module_loader="NO_MODULE",
        status=RunStatus.TERMINATED,
        reason=RunReason.FAILED,
        jobs={"total": 3, "failed": 2, "not_run": 0, "failed_jobs": ["a001_A", "a001_B"]},
        command_params={"run_only_members": ["fc0"]},
    )


def test_the_page_previews_and_then_starts(browser: Client, account: StubAccount, run: RunnerRun) -> None:
    write(account.home, "a001", [job("a001_A", "FAILED", member="fc0"), job("a001_B", "COMPLETED")])
    page = browser.get(f"/runs/{run.pk}").content.decode()
    link = re.search(rf'href="(/runs/{run.pk}/again\?first=failed_to_waiting)"', page)
    assert link and "2 jobs have failed" in page
    page = browser.get(link[1]).content.decode()
    assert re.search(r'value="failed_to_waiting" checked', page)
    form = {"first": "failed_to_waiting", "update_version": "on"}
    page = browser.post(f"/runs/{run.pk}/again", {**form, "action": "preview"}).content.decode()
    assert "First: set-job-status" in page and "a001_ONE" in page
    assert "--run_only_members=fc0 --update_version" in page
    assert RunnerRun.objects.count() == 1
    answer = browser.post(f"/runs/{run.pk}/again", {**form, "action": "do"})
    started = RunnerRun.objects.get(previous_run=run.pk)
    assert answer.url == f"/runs/{started.pk}"  # type: ignore[attr-defined]
    assert started.command_params == {"run_only_members": ["fc0"], "update_version": True}
    page = browser.get(answer.url).content.decode()  # type: ignore[attr-defined]
    assert "Job status for experiment a001 set successfully." in page and f"run {run.pk}</a>" in page
    wait_for(lambda: account.calls("run"), 20, what="the call")


def test_a_refusal_is_shown_with_the_form(browser: Client, account: StubAccount, run: RunnerRun) -> None:
    write(account.home, "a001", [job("a001_A", "COMPLETED")])
    answer = browser.post(f"/runs/{run.pk}/again", {"action": "do"})
    assert answer.status_code == 409 and "Nothing is left to run" in answer.content.decode()
    assert RunnerRun.objects.count() == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "Set the failed jobs to WAITING and run again"),
        (
            {"detail": OTHER_VERSION},
            "Update the version and run again",
        ),
        (
            {"detail": NO_JOB_LIST},
            "Create the job list",
        ),
        ({"detail": "Issues while checking the connectivity of platforms."}, "Run again later"),
        ({"reason": RunReason.NEVER_STARTED}, "Run again later, or ask an admin to test the profile's connection"),
        ({"status": RunStatus.ACTIVE, "reason": ""}, ""),
        ({"status": RunStatus.COMPLETED, "reason": "", "jobs": None}, ""),
    ],
)
def test_what_is_offered_fits_the_reason(run: RunnerRun, changes: dict[str, object], text: str) -> None:
    if "detail" in changes or "reason" in changes:
        run.jobs = None
    for name, value in changes.items():
        setattr(run, name, value)
    assert [offer.text for offer in offers(run, User())] == ([text] if text else [])


def test_a_new_run_keeps_the_restarts_and_its_options_can_be_changed_first(
    browser: Client, account: StubAccount, run: RunnerRun
) -> None:
    write(account.home, "a001", [job("a001_A", "WAITING", member="fc0")])
    wanted = {"on": ["lost"], "attempts": 7}
    RunnerRun.objects.filter(pk=run.pk).update(restart=wanted)
    page = browser.get(f"/runs/{run.pk}/again").content.decode()
    link = re.search(r'href="(/start\?[^"]*)"[^>]*>Change the options', page)
    assert link
    form = browser.get(html.unescape(link[1])).context["form"]
    assert form.profile.name == "HERE"
    shown = {name: form[name].value() for name in ("expid", "run_only_members", "restart_lost", "restart_attempts")}
    assert shown == {"expid": "a001", "run_only_members": "fc0", "restart_lost": "on", "restart_attempts": "7"}
    assert form.has_more_errors  # the options are unfolded
    browser.post(f"/runs/{run.pk}/again", {"action": "do"})
    assert RunnerRun.objects.get(previous_run=run.pk).restart == wanted
