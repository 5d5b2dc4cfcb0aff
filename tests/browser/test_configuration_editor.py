"""The editor of configuration files in a real browser: difference, error line, conflict, former versions, keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.support.browser import Watch, check_accessible, keep
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE
from tests.support.servers import AppServer

SignIn = Callable[..., None]
SLOW = 30_000 * PATIENCE  # ms
ENABLE = "from profiles.models import EndpointToggle as T; T.objects.create(name='EDIT_CONFIGURATION', enabled=True)"
LONG = f"jobs_{'long_' * 9}a001.yml"


def test_a_file_is_edited_compared_saved_and_restored(
    page: Page, watch: Watch, new_page: Callable[..., Page], stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    watch.allow("^(400|409|412|422) POST /experiments/a001/config/file")
    stub_site.manage("shell", "-v0", "-c", ENABLE)
    account.experiment("a001")
    conf = account.home / "autosubmit" / "a001" / "conf"
    file = conf / "jobs_a001.yml"
    file.write_text("JOBS:\n  SIM:\n    WALLCLOCK: 00:10 # é <b>\n")
    (conf / LONG).write_text("A: 1\n")
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/experiments/a001/config")
    page.get_by_label("THIS_MACHINE").check()
    page.get_by_role("button", name="Show the files").click()
    expect(page.get_by_role("link", name=LONG)).to_be_visible(timeout=SLOW)
    page.get_by_role("link", name="jobs_a001.yml", exact=True).click()
    content = page.get_by_label("Content")
    expect(content).to_have_value("JOBS:\n  SIM:\n    WALLCLOCK: 00:10 # é <b>\n", timeout=SLOW)
    expect(page.locator(".editor-lines span")).to_have_count(4)
    check_accessible(page)

    content.fill("JOBS:\n  SIM:\n   - [wrong\n")  # not YAML: the line is marked, nothing is written
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#content-line")).to_contain_text(re.compile(r"The error is in line \d"), timeout=SLOW)
    expect(content).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".editor-lines .wrong")).to_have_count(1)
    check_accessible(page)
    keep(page, "configuration-error")
    assert "00:10" in file.read_text()

    content.fill("JOBS:\n  SIM:\n    WALLCLOCK: 00:20\n")
    page.get_by_role("button", name="Show the difference").click()
    expect(page.locator("pre[aria-label=Difference]")).to_contain_text("+    WALLCLOCK: 00:20", timeout=SLOW)
    assert "00:10" in file.read_text()
    keep(page, "configuration-difference")
    check_accessible(page)
    save = page.get_by_role("button", name="Save")
    save.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".alert.success")).to_contain_text("conf/jobs_a001.yml was written.", timeout=SLOW)
    assert file.read_text() == "JOBS:\n  SIM:\n    WALLCLOCK: 00:20\n"

    file.write_text("JOBS: {}\n")  # somebody else changes it meanwhile
    content.fill("JOBS:\n  SIM:\n    WALLCLOCK: 00:30\n")
    save.click()
    expect(page.locator(".alert.error")).to_be_visible(timeout=SLOW)
    expect(content).to_have_value("JOBS:\n  SIM:\n    WALLCLOCK: 00:30\n")
    assert file.read_text() == "JOBS: {}\n"

    page.goto(f"{stub_site.url}/experiments/a001/config/file?profile_name=THIS_MACHINE&path=jobs_a001.yml")
    page.locator("section[aria-labelledby=versions-title] li a").first.click()
    expect(content).to_have_attribute("readonly", "", timeout=SLOW)
    page.get_by_role("button", name="Restore this version").click()
    expect(page.locator(".alert.success")).to_be_visible(timeout=SLOW)
    assert "00:10" in file.read_text()

    phone = new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    sign_in(phone, stub_site)
    for place in ("", f"/file?profile_name=THIS_MACHINE&path={LONG}", "?profile_name=THIS_MACHINE"):
        phone.goto(f"{stub_site.url}/experiments/a001/config{place}")
        check_accessible(phone)
        assert phone.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), place
    keep(phone, "configuration-phone")
