"""The live log in a real browser: it follows, pauses, survives a restart of the service, shows colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.support.browser import Watch, check_accessible, keep
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE, wait_for
from tests.support.servers import AppServer, SSHServer

SignIn = Callable[..., None]
RESTART = 30_000 * PATIENCE  # ms


def open_run(page: Page, server: AppServer, account: StubAccount, sign_in: SignIn, profile: str = "CLUSTER") -> Path:
    """Start a long run and open its page. Return the path of the log to which its command would write."""
    account.control("run", "a001", SLEEP=600)
    account.experiment("a001")
    sign_in(page, server)
    page.goto(f"{server.url}/start?profile_name={profile}&expid=a001")
    page.get_by_role("button", name="Start the run").click()
    page.wait_for_url("**/runs/1")
    log = wait_for(lambda: next(account.home.glob(".autosubmit-runners/*/log"), None), what="the run's log")
    expect(page.locator("#log-status")).to_have_text("Live")
    return log


def append(log: Path, text: str) -> None:
    with log.open("a") as stream:
        stream.write(text)


def test_the_log_follows_its_end_and_waits_while_somebody_reads(
    page: Page, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    log = open_run(page, stub_site, account, sign_in)
    box, follow = page.locator("#log"), page.locator("#log-follow")
    append(log, "".join(f"line {number}\n" for number in range(300)))
    expect(box).to_contain_text("line 299")
    at_end = "box => box.scrollHeight - box.scrollTop - box.clientHeight < 24"
    assert box.evaluate(at_end)

    box.evaluate("box => { box.scrollTop = 100 }")
    expect(follow).to_have_attribute("aria-pressed", "false")
    append(log, "one more\n")
    expect(box).to_contain_text("one more")
    assert box.evaluate("box => box.scrollTop") == 100
    follow.click()
    expect(follow).to_have_attribute("aria-pressed", "true")
    assert box.evaluate(at_end)
    check_accessible(page)


def test_the_log_shows_colours_and_never_markup(
    page: Page, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    log = open_run(page, stub_site, account, sign_in)
    append(log, "\x1b[31mred\x1b[0m <img src=x onerror=alert(1)><script>alert(2)</script>\n\x1b[1;32mgreen\n")
    append(log, "still green\x1b[0m plain\x1b]0;title\x07\x1b[2J\n")
    expect(page.locator("#log-text .fg1")).to_have_text("red")
    expect(page.locator("#log-text")).to_contain_text("<img src=x onerror=alert(1)><script>alert(2)</script>")
    expect(page.locator("#log-text .fg2.bold").last).to_contain_text("still green")
    assert page.locator("#log-text img, #log-text script").count() == 0
    check_accessible(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    text = Path(download.value.path()).read_text()
    assert "red <img src=x" in text
    assert "\x1b" not in text
    assert download.value.suggested_filename == "a001-run1.log"


def test_an_open_log_page_survives_a_restart_of_the_service(
    page: Page, watch: Watch, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    watch.allow("console error .* htmx:(sendError|afterRequest)")
    log = open_run(page, stub_site, account, sign_in)
    append(log, "before\n")
    expect(page.locator("#log-text")).to_contain_text("before")
    stub_site.stop()
    expect(page.locator("#log-status")).to_contain_text("The service does not answer. Retrying", timeout=RESTART)
    expect(page.locator("#offline")).to_contain_text("No answer from the service. The page shows the state of")
    keep(page, "service-away", full=False)
    append(log, "meanwhile\n")
    stub_site.start()
    expect(page.locator("#log-text")).to_contain_text("meanwhile", timeout=RESTART)
    expect(page.locator("#log-status")).to_have_text("Live")
    expect(page.locator("#offline")).to_be_hidden()
    assert page.locator("#log-text").inner_text().count("before") == 1


def test_an_unreachable_machine_is_reported_and_the_last_state_stays(
    page: Page, stub_site: AppServer, account: StubAccount, sshd: SSHServer, sign_in: SignIn
) -> None:
    open_run(page, stub_site, account, sign_in)
    sshd.stop()
    expect(page.locator("#state")).to_contain_text("cannot tell since", timeout=RESTART)
    expect(page.locator("#state")).to_contain_text("UNREACHABLE")
    expect(page.locator("#log-status")).to_contain_text("Retrying", timeout=RESTART)
    keep(page, "unreachable")
    check_accessible(page)
    page.goto(stub_site.url)
    expect(page.locator("#runs")).to_contain_text("does not answer since")
    keep(page, "dashboard-unreachable")
    sshd.restart()
    expect(page.locator("#runs")).to_contain_text("confirmed", timeout=RESTART)


def test_a_long_log_shows_its_end_first_and_the_rest_on_request(
    page: Page, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    log = open_run(page, stub_site, account, sign_in, profile="THIS_MACHINE")
    append(log, "".join(f"number {number:06}\n" for number in range(10_000)))  # 140 kB

    def begins_with_its_end() -> bool:
        page.reload()
        expect(page.locator("#log-text")).to_contain_text("number 009999")
        return "number 000000" not in page.locator("#log-text").inner_text()

    wait_for(begins_with_its_end, what="the end first, once the read before the lines came is a second old")
    earlier = page.get_by_role("button", name="Show earlier lines")
    earlier.click()
    expect(page.locator("#log-text > div")).to_have_count(2)
    earlier.click()
    expect(earlier).to_be_hidden()
    lines = [line for line in page.locator("#log-text").inner_text().splitlines() if line.startswith("number")]
    assert lines == [f"number {number:06}" for number in range(10_000)]


def test_a_growing_log_keeps_the_page_small_while_its_user_reads(
    page: Page, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    log = open_run(page, stub_site, account, sign_in, profile="THIS_MACHINE")
    box, follow, status = page.locator("#log"), page.locator("#log-follow"), page.locator("#log-status")
    append(log, "".join(f"line {number}\n" for number in range(300)))
    expect(box).to_contain_text("line 299")
    box.evaluate("box => { box.scrollTop = 0 }")
    expect(follow).to_have_attribute("aria-pressed", "false")
    append(log, "".join(f"{number:06} {'x' * 250}\n" for number in range(20_000)))  # 5 MB
    expect(status).to_contain_text("Paused while you scroll", timeout=RESTART)
    expect(box).to_contain_text("line 299")
    length = "box => box.textContent.length"
    assert box.evaluate(length) < 3_000_000
    follow.click()
    expect(box).to_contain_text("019999", timeout=RESTART)
    expect(status).to_have_text("Live")
    assert box.evaluate(length) < 3_000_000
    expect(page.get_by_role("button", name="Show earlier lines")).to_be_attached()


def test_a_page_reports_a_database_that_does_not_answer_and_recovers(
    page: Page, watch: Watch, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    watch.allow("console error .* htmx:(sendError|afterRequest|responseError)")
    watch.allow("console error .*Response Status Error Code 503")
    watch.allow("^503 ")
    open_run(page, stub_site, account, sign_in)
    good = stub_site.environment["DATABASE_URL"]
    stub_site.environment["DATABASE_URL"] = f"{good}.is/not/there"
    stub_site.restart()
    words = "The service's database is unavailable."
    expect(page.locator("#log-status")).to_contain_text(words, timeout=RESTART)
    expect(page.locator("#offline")).to_contain_text(f"{words} The page shows the state of", timeout=RESTART)
    page.get_by_role("link", name="Stop this run").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop the run").click()
    expect(page.locator("#offline")).to_contain_text(f"{words} It is not known whether the command was executed")
    keep(page, "database-away", full=False)
    stub_site.environment["DATABASE_URL"] = good
    stub_site.restart()
    expect(page.locator("#log-status")).to_have_text("Live", timeout=RESTART)
    page.reload()
    expect(page.locator("#offline")).to_be_hidden()
