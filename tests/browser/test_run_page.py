"""The page of a run and its log in a real browser: jumps, search, links, copy; notification, title and icon."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.support.browser import check_accessible, keep
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE, wait_for
from tests.support.servers import AppServer

SignIn = Callable[..., None]
SLOW = 30_000 * PATIENCE  # ms
LINES = 12_000


def start(page: Page, server: AppServer, account: StubAccount, sign_in: SignIn, **values: Any) -> Path:
    """Start a run and open its page. Return the path of its log."""
    account.control("run", "a001", **{"SLEEP": 600, **values})
    account.experiment("a001")
    sign_in(page, server)
    page.goto(f"{server.url}/start?profile_name=THIS_MACHINE&expid=a001")
    page.get_by_role("button", name="Start the run").click()
    page.wait_for_url("**/runs/1")
    return wait_for(lambda: next(account.home.glob(".autosubmit-runners/*/log"), None), what="the run's log")


def long_log(log: Path) -> int:
    """Fill the log with 0.7 MB. Return the number of lines that it had before."""
    before = log.read_bytes().count(b"\n")
    with log.open("a") as stream:
        for number in range(1, LINES + 1):
            tag = "[ERROR] broken" if number in (4_000, 8_000) else "[INFO] all is well"
            stream.write(f"{tag}, number {number:06}, with some words behind it\n")
    return before


def test_the_whole_log_is_searched_and_shown_at_any_place(
    page: Page, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    log = start(page, stub_site, account, sign_in)
    before = long_log(log)
    status, text, marked = page.locator("#log-status"), page.locator("#log-text"), page.locator("#log-text .marked")
    expect(text).to_contain_text(f"number {LINES:06}", timeout=SLOW)
    expect(page.locator("#log-size")).to_contain_text("kB")

    page.get_by_role("button", name="Beginning").click()
    expect(status).to_have_text("The beginning of the log.")
    expect(text).to_contain_text("number 000001")
    expect(text).not_to_contain_text(f"number {LINES:06}")
    page.get_by_role("button", name="Next error").click()
    expect(marked).to_contain_text("number 004000", timeout=SLOW)
    expect(status).to_have_text(f"Error in line {4_000 + before:,}.")
    page.get_by_role("button", name="Next error").click()
    expect(marked).to_contain_text("number 008000", timeout=SLOW)
    page.get_by_role("button", name="Next error").click()
    expect(marked).to_contain_text("number 004000", timeout=SLOW)
    expect(status).to_contain_text("from the beginning again")
    page.get_by_role("button", name="Previous error").click()
    expect(marked).to_contain_text("number 008000", timeout=SLOW)

    field = page.get_by_label("Search the whole log")
    field.fill("NUMBER 006345,")
    field.press("Enter")
    expect(marked).to_contain_text("number 006345", timeout=SLOW)
    expect(marked.locator(".n")).to_have_css("text-align", "right")
    expect(text).not_to_have_class(re.compile("unnumbered"), timeout=SLOW)  # the machine counts the lines before it
    line = page.evaluate("getComputedStyle(document.querySelector('#log-text')).counterReset")
    assert line.startswith("line ")
    number = int(line.split()[1]) + page.evaluate(
        "[...document.querySelectorAll('#log-text .l:not(.rest)')].findIndex(l => l.classList.contains('marked')) + 1"
    )
    assert number == 6_345 + before
    keep(page, "run-log-search")
    field.press("Shift+Enter")
    expect(marked).to_contain_text("number 006345", timeout=SLOW)
    field.fill("nowhere to be found")
    field.press("Enter")
    expect(status).to_have_text("“nowhere to be found” is nowhere in the log.", timeout=SLOW)

    field.fill("number 01000")
    page.get_by_role("button", name="List").click()
    matches = page.locator("#log-matches .match")
    expect(matches).to_have_count(10, timeout=SLOW)
    check_accessible(page)
    matches.nth(5).get_by_role("link").click()
    expect(marked).to_contain_text("number 010005", timeout=SLOW)

    marked.locator(".n").click()
    expect(status).to_contain_text("The link to this line is copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url and re.search(r"/runs/1\?at=\d+#log$", link)
    page.reload()
    expect(marked).to_contain_text("number 010005", timeout=SLOW)
    page.get_by_role("button", name="Copy").click()
    expect(status).to_contain_text("are copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "number 010005, with some words behind it\n" in copied
    page.get_by_role("button", name="End", exact=True).click()
    expect(text).to_contain_text(f"number {LINES:06}", timeout=SLOW)
    expect(status).to_have_text("Live")


def test_the_log_is_read_by_keyboard_without_wrapping_and_as_plain_text(
    page: Page, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    log = start(page, stub_site, account, sign_in)
    long_log(log)
    expect(page.locator("#log-text")).to_contain_text(f"number {LINES:06}", timeout=SLOW)
    box = page.locator("#log")
    box.press("Home")
    expect(page.locator("#log-text")).to_contain_text("number 000001", timeout=SLOW)
    box.press("n")
    expect(page.locator("#log-text .marked")).to_contain_text("number 004000", timeout=SLOW)
    box.press("/")
    expect(page.get_by_label("Search the whole log")).to_be_focused()
    box.press("End")
    expect(page.locator("#log-text")).to_contain_text(f"number {LINES:06}", timeout=SLOW)
    page.get_by_role("button", name="Wrap").click()
    expect(page.locator("#log-text")).to_have_css("white-space", "pre")
    page.reload()
    expect(page.get_by_role("button", name="Wrap")).to_have_attribute("aria-pressed", "false")
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Raw").click()
    expect(popup.value.locator("body")).to_contain_text("number 000001", timeout=SLOW)


def test_a_line_of_two_megabytes_does_no_harm(
    page: Page, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    log = start(page, stub_site, account, sign_in)
    with log.open("a") as stream:
        stream.write("begin " + "abcdefgh" * 250_000 + " middle " + "abcdefgh" * 1000 + "\nthe next line\n")
    expect(page.locator("#log-text")).to_contain_text("the next line", timeout=SLOW)
    field = page.get_by_label("Search the whole log")
    field.fill("begin abc")
    field.press("Enter")
    expect(page.locator("#log-text .marked")).to_contain_text("begin abc", timeout=SLOW)
    field.fill("h middle a")
    field.press("Enter")
    expect(page.locator("#log-text .marked")).to_contain_text("middle", timeout=SLOW)
    assert page.evaluate("document.querySelector('#log-text').textContent.length") < 1_500_000
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


NOTIFICATION = """
window.told = [];
window.Notification = class extends EventTarget {
  static permission = "default";
  static async requestPermission() { return (this.permission = "granted"); }
  constructor(title, options) { super(); window.told.push([title, options.body]); }
};
"""


def test_the_end_is_told_by_the_browser_the_title_and_the_icon(
    page: Page, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    page.add_init_script(NOTIFICATION)
    start(page, stub_site, account, sign_in)
    expect(page).to_have_title("ACTIVE: a001, run 1 · Autosubmit Runners")
    icon = page.locator("link[rel=icon]")
    expect(icon).to_have_attribute("href", re.compile(r"icon-active[^/]*\.svg$"))
    button = page.get_by_role("button", name="Tell me when it ends")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#tell-note")).to_contain_text("This browser tells you")
    check_accessible(page)
    keep(page, "run-active")
    page.get_by_role("link", name="Stop this run").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("You started it")
    dialog.get_by_role("button", name="Stop the run").click()
    expect(page).to_have_title("STOPPED: a001, run 1 · Autosubmit Runners", timeout=SLOW)
    expect(icon).to_have_attribute("href", re.compile(r"icon-stopped[^/]*\.svg$"))
    ((title, words),) = page.evaluate("window.told")
    assert (title, words[:14]) == ("STOPPED: a001, run 1 · Autosubmit Runners", "stopped by ada")
    expect(button).to_be_hidden()


def test_a_failed_run_says_why_and_leads_into_its_log(
    new_page: Callable[..., Page], stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    page = new_page()
    reason = "Some jobs have failed and reached maximum retrials"
    start(page, stub_site, account, sign_in, SLEEP=0, EXIT=14, PRINT="[INFO] start\n" * 3000)
    expect(page.locator("#state .headline")).to_contain_text("FAILED", timeout=SLOW)
    expect(page.locator("#state .reason")).to_contain_text(reason)
    expect(page.locator("#state .last-words pre")).to_be_hidden()
    page.get_by_role("link", name="Show it in the log").click()
    expect(page.locator("#log-text .marked")).to_contain_text(reason, timeout=SLOW)
    check_accessible(page)
    keep(page, "run-failed")
    for options in ({"viewport": {"width": 390, "height": 844}}, {"color_scheme": "dark"}):
        other = new_page(**options)
        sign_in(other, stub_site)
        other.goto(f"{stub_site.url}/runs/1")
        expect(other.locator("#log-text")).to_contain_text(reason)
        check_accessible(other)
        assert other.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        keep(other, f"run-failed-{'dark' if 'color_scheme' in options else 'phone'}")
    plain = new_page(java_script_enabled=False)
    sign_in(plain, stub_site)
    plain.goto(f"{stub_site.url}/runs/1")
    plain.get_by_role("link", name="Show it in the log").click()
    expect(plain.locator("body")).to_contain_text(reason)


def test_stopping_the_run_of_another_person_names_owner_and_age(
    new_page: Callable[..., Page], stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    start(new_page(), stub_site, account, sign_in)
    page = new_page()
    sign_in(page, stub_site, name="root")
    page.goto(f"{stub_site.url}/runs/1")
    page.get_by_role("link", name="Stop this run").click()
    warning = page.get_by_role("dialog").locator(".alert")
    expect(warning).to_contain_text(re.compile(r"This is not your run\. ada started it \d+ s ago, as "))
    keep(page, "run-stop-other", full=False)
    check_accessible(page)
    page.goto(f"{stub_site.url}/runs/1/stop")
    expect(page.locator("main .alert")).to_contain_text("ada started it")


def test_the_page_of_an_experiment(
    new_page: Callable[..., Page], stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    page = new_page()
    start(page, stub_site, account, sign_in, SLEEP=0)
    page.goto(f"{stub_site.url}/experiments/a001")
    for title in ("Jobs", "Runs", "Configuration", "Activity"):
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    expect(page.locator("#configuration-files")).not_to_contain_text("Show the files", timeout=SLOW)
    check_accessible(page)
    keep(page, "experiment")
    phone = new_page(viewport={"width": 390, "height": 844})
    sign_in(phone, stub_site)
    phone.goto(f"{stub_site.url}/experiments/a001")
    check_accessible(phone)
    assert phone.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    keep(phone, "experiment-phone")
