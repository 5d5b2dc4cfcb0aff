"""The forms of the commands in a real browser: the values that they require, reject and keep."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, Route, expect

from tests.support.browser import Watch, check_accessible, keep
from tests.support.environments import StubAccount
from tests.support.processes import wait_for
from tests.support.servers import AppServer, SSHServer

SignIn = Callable[..., None]


def test_only_what_a_profile_leaves_open_is_asked_for(page: Page, stub_site: AppServer, sign_in: SignIn) -> None:
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/start")
    expect(page.locator("[name=expid]")).to_have_count(0)

    page.get_by_label("CLUSTER").check()
    account = page.get_by_label("Account on that machine")
    expect(account).not_to_have_value("")  # the preferred username
    page.locator("[name=expid]").fill("a001")

    page.get_by_label("THIS_MACHINE").check()
    expect(account).to_have_count(0)
    expect(page.locator("[name=expid]")).to_have_value("a001")

    page.get_by_label("YOURS").check()
    expect(page.get_by_label("How to reach the machine")).to_be_visible()
    expect(account).to_have_count(0)
    page.get_by_label("How to reach the machine").select_option("SSH")
    expect(account).to_be_visible()
    expect(page.get_by_label("SSH port")).to_have_attribute("max", "65535")
    page.get_by_label("How to prepare the environment").select_option("VENV")
    expect(page.get_by_text("The absolute path of one virtual environment.")).to_be_visible()
    expect(page.locator("[name=expid]")).to_have_value("a001")
    check_accessible(page)
    keep(page, "start-open")


def test_a_mistake_is_shown_at_its_field_and_the_input_is_kept(
    page: Page, watch: Watch, stub_site: AppServer, sign_in: SignIn
) -> None:
    watch.allow("422 POST /start")
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/start?profile_name=YOURS")
    page.get_by_label("How to reach the machine").select_option("SSH")
    page.locator("[name='param-SSH.HOST']").wait_for()
    page.get_by_label("SSH port").fill("70000")
    page.locator("[name=expid]").fill("A001")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("alert")).to_be_focused()
    port = page.locator(".field", has=page.get_by_label("SSH port"))
    expect(port).to_contain_text("65535")
    expect(port.locator(".errorlist")).to_be_visible()
    expect(page.get_by_label("SSH port")).to_have_value("70000")
    expect(page.get_by_label("SSH port")).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".field", has=page.locator("[name=expid]")).locator(".errorlist")).to_contain_text("A001")
    check_accessible(page)
    keep(page, "start-errors")


def test_input_typed_while_a_choice_is_loading_is_kept(
    page: Page, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    """The response to a choice rebuilds the form from the values at the time of the choice."""
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/start?profile_name=YOURS")
    held: list[Route] = []
    page.route("**/start", lambda route: held.append(route) if route.request.method == "POST" else route.continue_())
    with page.expect_request(lambda request: request.method == "POST"):
        page.get_by_label("How to reach the machine").select_option("SSH")
    page.locator("[name=expid]").fill("a001")
    wait_for(lambda: held, what="the choice")
    held[0].continue_()
    expect(page.get_by_label("Account on that machine")).to_be_visible()  # only the rebuilt form has this field
    expect(page.locator("[name=expid]")).to_have_value("a001")
    expect(page.get_by_label("How to reach the machine")).to_have_value("SSH")


CHOOSE_AT_ONCE = """
let isDone = false;
document.addEventListener("htmx:afterSwap", () => setTimeout(() => {
  const isRebuilt = document.querySelector("[name='param-SSH.HOST']");
  const loader = document.querySelector("[name='param-MODULE_LOADER_TYPE']");
  if (isDone || !isRebuilt) return;
  isDone = true;
  loader.value = "VENV";
  loader.dispatchEvent(new Event("change", {bubbles: true}));
}));
"""


def test_a_choice_made_as_soon_as_the_form_appears_is_handled(
    page: Page, stub_site: AppServer, sign_in: SignIn
) -> None:
    """By default, htmx lets a form settle for 20 ms before it listens to the form's events."""
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/start?profile_name=YOURS")
    page.evaluate(CHOOSE_AT_ONCE)
    page.get_by_label("How to reach the machine").select_option("SSH")
    expect(page.get_by_text("The absolute path of one virtual environment.")).to_be_visible()


def test_a_preview_shows_what_would_happen_and_does_nothing(
    page: Page, stub_site: AppServer, account: StubAccount, sshd: SSHServer, sign_in: SignIn
) -> None:
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/start?profile_name=CLUSTER&expid=a001")
    page.get_by_role("button", name="Preview").click()
    preview = page.locator("#preview")
    expect(preview).to_contain_text("autosubmit run a001")
    expect(preview).to_contain_text("127.0.0.1")
    preview.get_by_text("Complete script").click()
    expect(preview.locator("pre")).to_contain_text("exec autosubmit run a001")
    check_accessible(page)
    keep(page, "start-preview")
    assert account.calls() == []


def test_a_preview_disappears_when_the_form_changes(
    page: Page, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    account.experiment("a001")
    account.control("setstatus", PRINT="Changes NOT saved to the JobList!!!!:  use -s option to save")
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/experiments/set-status?profile_name=THIS_MACHINE&expid=a001")
    page.get_by_label("New status").select_option("COMPLETED")
    page.get_by_label("Jobs by name").fill("a001_ONE")
    primary = page.locator("button.primary")
    expect(primary).to_have_text("Preview the changes")
    for change in (
        lambda: page.get_by_label("Jobs by name").press_sequentially("x"),
        lambda: page.get_by_label("New status").select_option("READY"),
    ):
        page.get_by_label("Jobs by name").fill("a001_ONE")
        page.get_by_role("button", name="Preview the changes").click()
        expect(page.locator("#preview")).to_contain_text("1 job would change")
        expect(primary).to_have_text("Set the status")
        change()
        expect(page.locator("#preview")).to_have_count(0)
        expect(primary).to_have_text("Preview the changes")


def test_an_error_of_the_machine_is_shown_in_plain_text(
    page: Page, watch: Watch, stub_site: AppServer, account: StubAccount, sshd: SSHServer, sign_in: SignIn
) -> None:
    watch.allow("502 POST /start")
    sshd.authorized = False
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/start?profile_name=CLUSTER&expid=a001")
    page.get_by_role("button", name="Start the run").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("SSH authentication failed")
    expect(page.locator("[name=expid]")).to_have_value("a001")
    page.goto(f"{stub_site.url}/experiments/a001")
    expect(page.get_by_text("SSH authentication failed on the machine")).to_be_visible()


def test_an_experiment_is_created_listed_and_described(
    page: Page, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/experiments/create?profile_name=THIS_MACHINE")
    page.get_by_label("Description").fill("-tides & 'winds'\n\U0001f30a")
    page.get_by_text("More options").click()
    page.get_by_label("With example jobs").check()
    keep(page, "create")
    check_accessible(page)
    page.get_by_role("button", name="Create the experiment").click()
    page.wait_for_url(re.compile("job-list"))
    expect(page.get_by_role("status").first).to_contain_text("was created")
    expid = page.locator("[name=expid]").input_value()
    assert re.fullmatch("[a-z][a-z0-9]{3}", expid)
    assert "--description=-tides & 'winds'\n\U0001f30a" in account.calls("expid")[0]
    page.get_by_role("button", name="Create the job list").click()
    page.wait_for_url(re.compile(f"/experiments/{expid}"))
    page.get_by_role("link", name="Change the description").click()
    page.get_by_label("New description").fill("calm")
    page.get_by_role("button", name="Change the description").click()
    page.wait_for_url(re.compile(f"/experiments/{expid}"))
    assert [call[-1] for call in account.calls("updatedescrip")] == ["calm"]
    expect(page.get_by_text("updatedescrip")).to_be_visible()
    check_accessible(page)
    keep(page, "experiment")


def test_a_disabled_command_is_reported_and_not_offered(
    page: Page, watch: Watch, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    switch = "from profiles.models import EndpointToggle as T; T.objects.create(name={!r}, enabled=False)"
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/start?profile_name=THIS_MACHINE&expid=a001")
    stub_site.manage("shell", "-v0", "-c", switch.format("RUNNER_RUN"))
    watch.allow("403 POST /start")
    page.get_by_role("button", name="Start the run").click()
    expect(page.get_by_role("alert")).to_contain_text("disabled")
    expect(page.get_by_role("button", name="Start the run")).to_be_disabled()
    assert account.calls() == []


def test_every_page_leads_strangers_to_the_login(page: Page, stub_site: AppServer) -> None:
    page.goto(stub_site.url)
    check_accessible(page)
    keep(page, "landing")
    page.get_by_role("link", name="Sign in").click()
    for path in ("/start", "/runs/1", "/runs/1/log", "/history", "/experiments/a001", "/experiments/create"):
        page.goto(f"{stub_site.url}{path}")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    check_accessible(page)
    keep(page, "login")
