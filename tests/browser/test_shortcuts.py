"""The keyboard shortcuts, and the page that lists them."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.support.browser import check_accessible, keep
from tests.support.servers import AppServer

SignIn = Callable[..., None]


def test_keys_lead_to_pages_but_not_while_somebody_types(page: Page, stub_site: AppServer, sign_in: SignIn) -> None:
    sign_in(page, stub_site)
    page.keyboard.type("gs")
    page.wait_for_url("**/start")
    page.keyboard.type("?")
    page.wait_for_url("**/shortcuts")
    check_accessible(page)
    for key in ("n", "p", "Home", "End"):
        expect(page.locator("#log-keys-title ~ dl kbd").get_by_text(key, exact=True)).to_be_visible()
    keep(page, "shortcuts")
    page.keyboard.type("gd")
    page.wait_for_url(f"{stub_site.url}/")
    page.goto(f"{stub_site.url}/experiments/set-status?profile_name=THIS_MACHINE")
    page.get_by_label("Jobs by status").press_sequentially("g?/gs")
    expect(page.get_by_label("Jobs by status")).to_have_value("g?/gs")
    page.goto(f"{stub_site.url}/runs")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.matches('input')")

    page.goto(f"{stub_site.url}/shortcuts")
    page.get_by_label("Shortcuts are on in this browser").uncheck()
    page.locator("h1").click()
    page.keyboard.type("gs?")
    page.reload()
    expect(page.get_by_label("Shortcuts are on in this browser")).not_to_be_checked()
    assert page.url.endswith("/shortcuts")
