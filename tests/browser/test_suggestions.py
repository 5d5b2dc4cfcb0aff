"""What the forms suggest, in a real browser: experiments to choose from, conflicts, counts of jobs, the last values."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.support import job_lists
from tests.support.browser import Watch, check_accessible, keep
from tests.support.environments import StubAccount
from tests.support.job_lists import job
from tests.support.servers import AppServer, SSHServer

SignIn = Callable[..., None]


def test_an_experiment_is_chosen_from_the_list_of_the_account_and_a_conflict_is_said_first(
    page: Page, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    account.control("run", "a001", SLEEP=600)
    for expid in ("a001", "a002", "longest0expid016"):
        account.experiment(expid)
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/start?profile_name=THIS_MACHINE")
    field = page.get_by_role("combobox", name="Experiment")
    expect(page.locator("#experiments option")).to_have_count(3)
    expect(page.locator(".suggestions .note")).to_have_text("3 experiments of this machine to choose from.")
    field.fill("a001")
    check_accessible(page)
    page.get_by_role("button", name="Start the run").click()
    page.wait_for_url("**/runs/1")

    page.goto(f"{stub_site.url}/start")  # the profile of last time
    expect(page.get_by_label("THIS_MACHINE")).to_be_checked()
    conflicts = page.locator("#conflicts")
    field.fill("a002")
    expect(conflicts).not_to_contain_text("is running")
    field.fill("a001")
    expect(conflicts).to_contain_text("a001 is running: run 1 of ada")
    check_accessible(page)
    keep(page, "start-conflict")
    conflicts.get_by_role("link", name="run 1").click()
    page.wait_for_url("**/runs/1")


def test_a_machine_that_does_not_answer_does_not_hold_up_the_form(
    page: Page, watch: Watch, stub_site: AppServer, account: StubAccount, sshd: SSHServer, sign_in: SignIn
) -> None:
    sshd.authorized = False
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/start?profile_name=CLUSTER")
    expect(page.locator(".suggestions")).to_contain_text("rejected the service's keys")
    page.get_by_role("combobox", name="Experiment").fill("a001")
    expect(page.get_by_role("button", name="Start the run")).to_be_enabled()
    check_accessible(page)
    keep(page, "start-no-list")


def test_jobs_are_counted_while_filters_are_typed_and_chosen_from_lists(
    page: Page, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    long_name = f"a001_{'LONG' * 45}"
    names = {"a001_INI": "COMPLETED", "a001_SIM": "FAILED", "a001_POST": "WAITING", long_name: "WAITING"}
    job_lists.write(account.home, "a001", [job(name, status, section=name[5:]) for name, status in names.items()])
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/experiments/set-status?profile_name=THIS_MACHINE&expid=a001")
    counts = page.locator("#selected-jobs")
    expect(counts).to_contain_text("a001 has 4 jobs.")
    page.get_by_label("Jobs by status").press_sequentially("FAILED WAITING")
    expect(counts).to_contain_text("3 of 4 jobs match: 2 WAITING, 1 FAILED.")
    sections = page.get_by_role("group", name="Sections of a001")
    sections.get_by_role("button", name="POST").click()
    expect(page.get_by_label("Jobs by section")).to_have_value("POST")
    expect(counts).to_contain_text("1 of 4 jobs match: 1 WAITING.")
    expect(sections.get_by_role("button", name="POST")).to_have_attribute("aria-pressed", "true")
    sections.get_by_role("button", name="POST").click()
    expect(page.get_by_label("Jobs by section")).to_have_value("")
    expect(counts).to_contain_text("3 of 4 jobs match")
    page.get_by_text("The jobs that match").click()
    page.get_by_role("button", name=long_name).click()
    expect(page.get_by_label("Jobs by name")).to_have_value(long_name)
    expect(counts).to_contain_text("1 of 4 jobs match")
    expect(page.get_by_role("button", name=long_name)).to_be_visible()  # the list stays open
    check_accessible(page)
    keep(page, "status-counts")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    keep(page, "status-counts-phone")
