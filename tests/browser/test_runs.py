"""Users start, watch and stop real Autosubmit runs in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import check_accessible, keep
from tests.support.environments import AutosubmitAccount
from tests.support.processes import PATIENCE
from tests.support.servers import AppServer

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
SignIn = Callable[..., None]
RUN_URL = re.compile(r"/runs/(\d+)$")
AUTOSUBMIT = 60_000 * PATIENCE  # ms: a command needs 1.5 s before it does anything, on a shared machine


def start(page: Page, server: AppServer, expid: str) -> None:
    """Start a run with the form, from the dashboard to the run's page."""
    page.goto(f"{server.url}/")
    page.get_by_role("link", name="Start a run").first.click()
    page.locator("[name=expid]").fill(expid)
    page.get_by_role("button", name="Start the run").click(timeout=AUTOSUBMIT)
    page.wait_for_url(RUN_URL, timeout=AUTOSUBMIT)


def test_a_person_starts_a_run_watches_its_log_and_stops_another(
    page: Page, site: AppServer, autosubmit: AutosubmitAccount, sign_in: SignIn
) -> None:
    short, long = autosubmit.short_experiment("sleep 4"), autosubmit.short_experiment("sleep 600")
    sign_in(page, site)
    expect(page.get_by_text("Nothing is running now.")).to_be_visible()

    start(page, site, long)
    long_url = page.url
    start(page, site, short)
    state, log = page.locator("#state"), page.locator("#log-text")
    expect(state).to_contain_text("ACTIVE")
    expect(log).to_contain_text("Autosubmit", timeout=AUTOSUBMIT)
    before = len(log.inner_text())
    page.wait_for_function("before => document.getElementById('log-text').innerText.length > before", arg=before)
    keep(page, "run-active")
    expect(state).to_contain_text("COMPLETED", timeout=AUTOSUBMIT)
    expect(state).to_contain_text("ended well (exit code 0)")
    expect(log).to_contain_text("Run successful")
    expect(page.locator("#log-status")).to_contain_text("This is the end of its log")
    expect(page.get_by_role("link", name=f"Run {short} again")).to_be_visible()

    page.goto(f"{site.url}/")
    expect(page.locator("#runs")).to_contain_text(long)
    expect(page.locator("#runs")).to_contain_text("confirmed")
    keep(page, "dashboard")

    page.goto(long_url)
    page.get_by_role("link", name="Stop this run").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"Stop {long}")
    keep(page, "stop-dialog", full=False)
    dialog.get_by_role("button", name="Stop the run").click(timeout=AUTOSUBMIT)
    expect(page.locator("#state .steps")).to_contain_text("under way", timeout=AUTOSUBMIT)
    expect(state).to_contain_text("being stopped by ada")
    keep(page, "run-stopping", full=False)
    expect(state).to_contain_text("STOPPED", timeout=AUTOSUBMIT)
    expect(state).to_contain_text("stopped by ada (exit code 88)")
    expect(page.locator("#state .steps")).to_contain_text("the run has ended")
    expect(page.locator("#stop-outcome")).to_contain_text("stopped successfully")
    expect(page.locator("#details")).to_contain_text("stop-experiment")
    check_accessible(page)
    keep(page, "run-stopped")

    page.goto(f"{site.url}/")
    expect(page.locator("#runs")).to_contain_text("COMPLETED")
    expect(page.locator("#runs")).to_contain_text("STOPPED")
    page.goto(f"{site.url}/history")
    expect(page.locator("svg a")).to_have_count(2)
    keep(page, "history")


def test_statuses_are_previewed_by_autosubmit_itself_and_then_set(
    page: Page, site: AppServer, autosubmit: AutosubmitAccount, sign_in: SignIn
) -> None:
    expid = autosubmit.short_experiment(jobs=("ONE", "TWO"))
    before = autosubmit.job_statuses(expid)
    sign_in(page, site)
    page.goto(f"{site.url}/experiments/set-status?expid={expid}")
    page.get_by_label("New status").select_option("SUSPENDED")
    page.get_by_label("Jobs by name").fill(f"{expid}_ONE")
    page.get_by_role("button", name="Preview the changes").click(timeout=AUTOSUBMIT)
    preview = page.locator("#preview")
    expect(preview).to_contain_text("1 job would change", timeout=AUTOSUBMIT)
    expect(preview.get_by_role("row")).to_have_count(2)
    expect(preview).to_contain_text(f"{expid}_ONE")
    expect(preview).to_contain_text("autosubmit setstatus")
    assert autosubmit.job_statuses(expid) == before
    check_accessible(page)
    keep(page, "set-status", full=False)
    page.get_by_role("button", name="Set the status").click(timeout=AUTOSUBMIT)
    page.wait_for_url(re.compile(f"/experiments/{expid}"), timeout=AUTOSUBMIT)
    assert autosubmit.job_statuses(expid)[f"{expid}_ONE"] == "SUSPENDED"


def test_the_error_of_autosubmit_is_shown_with_its_last_lines(page: Page, site: AppServer, sign_in: SignIn) -> None:
    page.watch.allow("404 POST /experiments/set-status")  # type: ignore[attr-defined]
    sign_in(page, site)
    page.goto(f"{site.url}/experiments/set-status?expid=zzzz")
    page.get_by_label("New status").select_option("READY")
    page.get_by_label("Jobs by status").fill("failed")
    page.get_by_role("button", name="Preview the changes").click(timeout=AUTOSUBMIT)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("eCode=7012", timeout=AUTOSUBMIT)
    expect(alert.locator("pre")).to_contain_text("zzzz")
    expect(page.get_by_label("Jobs by status")).to_have_value("failed")
    check_accessible(page)
    keep(page, "command-failed")
