"""The account page and the pages of machines in a browser, with ordinary, long and strange names."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Watch, check_accessible, keep
from tests.support.servers import AppServer

SignIn = Callable[..., None]
LONG = f"login-{'node' * 13}.{'cluster' * 8}.example"
SEED = f"""
from datetime import timedelta
from django.contrib.auth.models import User
from django.utils import timezone
from profiles.models import AccountMap, PublishedSSHKey, RunnerProfile
from runners.models import ApiToken, Machine, Maintenance, RunnerRun
now = timezone.now()
person = "somebody.with.a.very.long.name" + "n" * 60 + "@an-institute.example.org"
ada = User.objects.get(username="ada")
ada.email = person
ada.save()
key = "AAAAC3NzaC1lZDI1NTE5AAAAIE8vcNEwdi8BMbEu1rDxnN3nlrPYzRdB3qnUNSZ1Cnt0"
PublishedSSHKey.objects.create(line=f"ssh-ed25519 {{key}} autosubmit-runners")
ApiToken.issue(user=ada, name="laptop", expiry=timedelta(days=30))
ApiToken.issue(user=ada, name="<b>" + "w" * 97, scope="read", expiry=timedelta(days=-1))
profiles = [("L" * 100, "{LONG}", ""), ("BOUND", "hpc.example.org", "{{accounts}}")]
for name, host, users in profiles:
    RunnerProfile.objects.create(name=name, runner_type="SSH", ssh_host=host, module_loader_type="NO_MODULE",
                                 allowed_users=users, ssh_user="" if users else "operator")
AccountMap.objects.create(person="ada", accounts="abc012345\\nabc067890")
Machine.objects.create(name="{LONG}", is_answering=False, since=now - timedelta(hours=3),
                       last_answer=now - timedelta(hours=3), last_error_at=now - timedelta(seconds=9),
                       last_error_code="runner_unreachable", last_error="operator@{LONG}:22 cannot be reached")
Machine.objects.create(name="hpc.example.org", is_answering=True, since=now - timedelta(days=9), last_answer=now,
                       last_error_at=now - timedelta(days=9), last_error_code="runner_unreachable", last_error="x")
Maintenance.objects.create(machine="hpc.example.org", announced_by="root", ends=now + timedelta(hours=8),
                           text="New disks & <cables>. Questions to " + "o" * 80 + "@an-institute.example.org")
Maintenance.objects.create(machine="{LONG}", announced_by="root", starts=now + timedelta(days=2), text="Power")
config = {{"RUNNER_TYPE": "SSH", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": [],
          "SSH": {{"HOST": "{LONG}", "PORT": 22, "USER": "operator"}}}}
for number, starter in enumerate(["ada", person]):
    RunnerRun.objects.create(expid=f"a00{{number}}", config=config, runner="SSH", module_loader="NO_MODULE",
                             profile_name="L" * 100, user="operator", started_by=starter, reachable=False,
                             unreachable_detail="operator@{LONG}:22 cannot be reached: no route to host",
                             probing_until=now + timedelta(hours=1))
"""
LOOKS = {
    "light": {"viewport": {"width": 1440, "height": 900}},
    "dark": {"viewport": {"width": 1100, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
}


@pytest.fixture
def named_site(make_stub_site: Callable[..., AppServer]) -> AppServer:
    server = make_stub_site()
    server.manage("shell", "-v0", "-c", SEED)
    return server


def test_the_pages_fit_and_are_accessible_with_long_and_strange_names(
    new_page: Callable[..., Page], named_site: AppServer, sign_in: SignIn
) -> None:
    paths = {"account": "/account", "machines": "/machines", "machine": f"/machines/{LONG}"}
    paths["maintenance"] = "/machines/hpc.example.org"
    for look, options in LOOKS.items():
        page = new_page(**options)
        sign_in(page, named_site, name="root" if look == "dark" else "ada")
        for name, path in paths.items():
            page.goto(f"{named_site.url}{path}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            keep(page, f"{look}-{name}")
            check_accessible(page)
            overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert overflow <= 0, f"{path} is {overflow} px too wide on {look}"


def test_a_token_is_made_copied_used_and_revoked(
    new_page: Callable[..., Page], stub_site: AppServer, sign_in: SignIn
) -> None:
    page = new_page(permissions=["clipboard-read", "clipboard-write"])
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/account")
    form = page.get_by_role("form", name="New token")
    form.get_by_label("Name").fill("my <script> laptop")
    form.get_by_label("Valid for (days)").fill("7")
    with page.expect_response(lambda answer: answer.request.method == "POST") as made:
        form.get_by_role("button", name="Make a token").click()
    assert "no-store" in made.value.headers["cache-control"]
    shown = page.locator("#new-token")
    expect(shown).to_have_text(re.compile("^asr_[0-9a-f]{64}$"))
    text = shown.text_content() or ""
    page.locator("[data-copy=new-token]").click()
    expect(page.locator("[data-copy=new-token]")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == text
    check_accessible(page)
    asked = page.request.get(
        f"{stub_site.url}/v4/runners/runs", headers={"Authorization": f"Bearer {text}", "Cookie": ""}
    )
    assert asked.status == 200
    page.goto(f"{stub_site.url}/account")
    assert text not in page.content()
    expect(page.get_by_role("cell", name="my <script> laptop", exact=True)).to_be_visible()
    page.get_by_role("button", name="Revoke my <script> laptop").click()
    expect(page.get_by_text("is revoked")).to_be_visible()
    asked = page.request.get(
        f"{stub_site.url}/v4/runners/runs", headers={"Authorization": f"Bearer {text}", "Cookie": ""}
    )
    assert asked.status == 401


def test_a_maintenance_is_announced_obeyed_and_ended_by_keyboard_and_without_javascript(
    new_page: Callable[..., Page], stub_site: AppServer, sign_in: SignIn
) -> None:
    boss = new_page()
    sign_in(boss, stub_site, name="root")
    boss.goto(f"{stub_site.url}/machines")
    boss.get_by_role("link", name="this machine").focus()
    boss.keyboard.press("Enter")
    boss.get_by_label("Text").fill("New disks until Monday.")
    boss.get_by_role("button", name="Announce").focus()
    boss.keyboard.press("Enter")
    expect(boss.get_by_text("The maintenance is announced.")).to_be_visible()

    plain = new_page(java_script_enabled=False)
    plain.watch.allow("^503 POST /start")  # type: ignore[attr-defined]
    sign_in(plain, stub_site)
    plain.goto(f"{stub_site.url}/start?profile_name=THIS_MACHINE")
    expect(plain.get_by_text("New disks until Monday.").first).to_be_visible()  # before anything is sent
    plain.get_by_label("Experiment").first.fill("a000")
    plain.get_by_role("button", name="Start the run").click()
    expect(plain.get_by_role("alert")).to_contain_text("New disks until Monday.")
    keep(plain, "maintenance-refused")

    boss.get_by_role("button", name="End it now").click()
    expect(boss.get_by_text("Commands are accepted again")).to_be_visible()
    plain.goto(f"{stub_site.url}/start?profile_name=THIS_MACHINE")
    expect(plain.get_by_text("New disks until Monday.")).to_have_count(0)


def test_the_password_is_changed(page: Page, watch: Watch, stub_site: AppServer, sign_in: SignIn) -> None:
    sign_in(page, stub_site)
    watch.allow("^400 POST /account/password")
    page.goto(f"{stub_site.url}/account#password")
    form = page.get_by_role("form", name="Password")
    form.get_by_label("Old password").fill("wrong")
    form.get_by_label("New password", exact=False).first.fill("another horse battery")
    form.get_by_label("New password once more").fill("another horse battery")
    form.get_by_role("button").click()
    expect(page.get_by_text("Your old password was entered incorrectly")).to_be_visible()
    check_accessible(page)
