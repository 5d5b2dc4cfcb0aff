"""An admin in a real browser: imports profiles, corrects a mistake, checks a connection, approves a host key."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.contrib.admin import site
from playwright.sync_api import Page, expect

from tests.support.browser import PASSWORD, RULES, check_accessible, keep, populate
from tests.support.environments import StubAccount
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE
from tests.support.servers import AppServer, SSHServer
from tests.support.webhooks import Receiver

EXAMPLE = ROOT / "profiles.example.yml"
MACHINE = 40_000 * PATIENCE  # ms: the service contacts a machine, on a shared machine

ROWS = """
from django.contrib.auth.models import User
from django.utils import timezone
from datetime import timedelta
from runners.models import *
from runners.models.webhook import *
now = timezone.now()
local = {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": []}
ssh = {**local, "RUNNER_TYPE": "SSH", "SSH": {"HOST": "login1", "PORT": 22, "USER": "ada"}}
def run(expid, hours, minutes, **fields):
    begin = now - timedelta(hours=hours)
    end = None if fields.get("status") == "ACTIVE" else begin + timedelta(minutes=minutes)
    common = dict(expid=expid, config=ssh, runner="SSH", module_loader="NO_MODULE", host="login1", user="ada",
        profile_name="CLUSTER", started_by="ada", created=begin, modified=end or begin, finished=end, pid=4711,
        confirmed_at=end or now, identity={"host": "login1", "boot_id": "8d8f", "pid": 4711, "start_time": 4242})
    return RunnerRun.objects.create(**{**common, **fields})
run("a000", 90, 700, status="COMPLETED", exit_code=0)
run("a001", 50, 30, status="TERMINATED", reason="failed", exit_code=3, detail="No space left on device")
run("a002", 30, 90, status="TERMINATED", reason="stopped", exit_code=88, stopped_by="root")
run("a003", 3, 0, status="ACTIVE", reachable=False, unreachable_detail="login1:22 cannot be reached: no answer",
    confirmed_at=now - timedelta(minutes=40))
last = run("a004", 2, 0, status="ACTIVE", runner="LOCAL", config=local, host="here", profile_name="THIS_MACHINE",
    identity={"host": "here", "boot_id": "51c7", "pid": 4711, "start_time": 4242})
for number, (endpoint, outcome, detail) in enumerate([("run-experiment", "ok", ""), ("stop-experiment",
    "command_timed_out", "Experiment a004 was not stopped within 60 s."), ("set-job-status", "dry_run", "")]):
    AuditRecord.objects.create(endpoint=endpoint, actor="ada", expid="a004", run_id=last.pk, outcome=outcome,
        detail=detail, argv=["autosubmit", "run", "a004"], duration_ms=1000 + number, address="192.0.2.1")
Operation.objects.create(key="k" * 32, kind="create-experiment", config=ssh, timeout=60, status="failed",
    error={"code": "command_failed", "detail": "no"}, host="login1", identity={"pid": 1})
TrustedHostKey.objects.create(host="login1", key_type="ssh-ed25519", approved_by="root",
    key="AAAAC3NzaC1lZDI1NTE5AAAAIEfJ3oZp6FqE0sZkzqFq2eQ3vQ1m2m1m2m1m2m1m2m1m")
ApiToken.issue(user=User.objects.get(username="ada"), expiry=timedelta(days=30), name="cron of ada")
hook = Webhook.objects.create(name="chat", url="https://example.com/hook", enabled=False)
Mail.objects.create(user=User.objects.get(username="ada"), run=last, event="run.completed", subject="a004", body="...")
WebhookDelivery.objects.create(webhook=hook, run=last, event="run.completed", payload={}, next_attempt=None)
"""
LONG = "A" * 100
# A row of every other model, and names of 100 characters.
MORE_ROWS = f"""
from django.contrib.auth.models import Group
from profiles.models import *
Group.objects.create(name="climate")
RunnerProfile.objects.create(name="{LONG}", runner_type="LOCAL", module_loader_type="NO_MODULE")
AccountMap.objects.create(person="ada", accounts="abc012345")
PublishedSSHKey.objects.create(line="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEfJ3oZp6FqE0sZkzqFq2eQ3vQ1m2m1m2m1m2m1m2m1m")
Machine.objects.create(name="login1." + "m" * 90 + ".example.com")
Maintenance.objects.create(machine="login1", text="New disks", starts=now, announced_by="root")
run("a005", 1, 5, status="TERMINATED", reason="never_started", profile_name="{LONG}")
AuditRecord.objects.create(endpoint="run-experiment", actor="a" * 64 + "@example.com", expid="a005",
    outcome="profile_not_found", profile_name="{LONG}", detail="No profile {LONG}", duration_ms=3)
Operation.objects.create(key="l" * 32, kind="create-experiment", config=local, timeout=60, status="succeeded",
    host="here", profile_name="{LONG}", started_by="a" * 64 + "@example.com", identity={{"pid": 1}})
"""
ALL_IMPACTS = ("minor", "moderate", "serious", "critical")


@pytest.fixture
def app_of_admin(make_app: Callable[..., AppServer], account: StubAccount, sshd: SSHServer) -> AppServer:
    """A server without configuration that does not know the machine's host key."""
    sshd.forget_host_key()
    env = {"PROTECTION_LEVEL": "ALL", "RUNNERS_WEBHOOK_PRIVATE_TARGETS": "127.0.0.1"}
    server = make_app(account=account, sshd=sshd, env=env)
    populate(server, [])
    return server


@pytest.fixture
def admin(page: Page, app_of_admin: AppServer) -> Page:
    """The admin's first page, with an admin signed in."""
    return enter(page, app_of_admin)


def enter(page: Page, server: AppServer) -> Page:
    page.goto(f"{server.url}/admin/")
    page.get_by_label("Username").fill("root")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Administration")).to_be_visible()
    return page


def example(sshd: SSHServer, *, port: str) -> str:
    """Return the example with the test's machine as its cluster."""
    text = EXAMPLE.read_text()
    old = (
        "MODULE_LOADER_TYPE: LMOD\n      MODULES: autosubmit\n      SSH: {HOST: autosubmit.example.com, PORT: 22, USER"
    )
    assert old in text
    new = f"MODULE_LOADER_TYPE: CONDA\n      MODULES: autosubmit\n      SSH: {{HOST: 127.0.0.1, PORT: {port}, USER"
    return text.replace(old, new).replace("autosubmit_user", sshd.user)


def test_an_admin_imports_profiles_checks_a_machine_and_approves_its_key(admin: Page, sshd: SSHServer) -> None:
    page = admin
    page.get_by_role("link", name="Runner profiles", exact=True).first.click()
    page.get_by_role("link", name="Import YAML").click()
    check_accessible(page)
    page.get_by_label("YAML", exact=True).fill(example(sshd, port="22222222"))
    page.get_by_role("button", name="Show what it changes").click()

    mistakes = page.get_by_role("alert")
    expect(mistakes).to_contain_text("1 error: nothing was imported")
    expect(mistakes).to_contain_text("RUNNER_CONFIGURATION.PROFILES.CLUSTER.SSH.PORT")
    expect(mistakes).to_contain_text("22222222")
    check_accessible(page)
    keep(page, "admin-import-mistake")

    text = page.get_by_label("YAML", exact=True)
    text.fill(text.input_value().replace("22222222", "2222"))
    page.get_by_role("button", name="Show what it changes").click()
    plan = page.locator("#plan")
    expect(plan).to_contain_text("6 added")
    text.fill(text.input_value().replace("PORT: 2222,", f"PORT: {sshd.port},"))
    plan.get_by_role("button", name="Import: make these changes").click()
    expect(page.locator(".messagelist")).to_contain_text("You have edited the YAML after the preview.")
    expect(plan).to_contain_text(str(sshd.port))
    page.get_by_role("button", name="Show what it changes").click()
    expect(page.locator(".messagelist")).to_have_count(0)
    expect(plan).to_contain_text(re.compile(r"SSH\.HOST\s*127\.0\.0\.1"))
    check_accessible(page)
    keep(page, "admin-import")
    plan.get_by_role("button", name="Import: make these changes").click()
    expect(page.locator(".messagelist")).to_contain_text("Imported: 6 added")
    check_accessible(page)
    keep(page, "admin-profiles")

    page.get_by_role("link", name="CLUSTER", exact=True).click()
    page.get_by_role("link", name="Check connection").click()
    page.get_by_role("button", name="Check connection").click()
    verdict = page.locator("#verdict")
    expect(verdict).to_contain_text("The check failed at: Verify its host key.", timeout=MACHINE)
    check_accessible(page)
    keep(page, "admin-check-failed")

    page.get_by_role("link", name="Compare and approve the host key").click()
    page.get_by_role("button", name="Show its keys").click()
    expect(page.locator("table.keys")).to_contain_text(sshd.host_key_fingerprint, timeout=MACHINE)
    expect(page.locator("table.keys")).to_contain_text("not known yet")
    check_accessible(page)
    keep(page, "admin-host-key")
    page.get_by_role("button", name="Approve the selected keys").click()
    expect(page.locator(".messagelist")).to_contain_text("Approved: [127.0.0.1]")

    page.get_by_role("button", name="Check connection").click()
    # The page shows each stage as it happens: the last one takes two seconds, the others are shown before it ends.
    expect(page.locator("tr[data-stage=authenticate]")).to_contain_text("good", timeout=MACHINE)
    expect(page.locator("tr.waiting:visible")).to_have_count(1)
    expect(verdict).to_have_count(0)
    expect(verdict).to_contain_text("Everything works.", timeout=MACHINE)
    expect(page.locator("tr.waiting:visible")).to_have_count(0)
    expect(page.locator("tr[data-stage=autosubmit]")).to_contain_text("Autosubmit 4.")
    check_accessible(page)
    keep(page, "admin-check")


def test_the_form_shows_the_fields_of_the_runner_and_its_yaml(admin: Page, app_of_admin: AppServer) -> None:
    page = admin
    page.goto(f"{app_of_admin.url}/admin/profiles/runnerprofile/add/")
    host, modules, roots = (page.locator(f"#id_{name}") for name in ("ssh_host", "modules", "venv_roots"))
    preview = page.locator("#profile-preview")
    expect(host).to_be_visible()
    expect(roots).to_be_visible()
    page.get_by_label("Name:").fill("NEW")
    expect(preview.locator("pre")).to_have_text(re.compile(r"NEW:\s+LIMITS:"))
    page.get_by_label("Runner type:").select_option("SSH")
    page.get_by_label("Module loader:").select_option("LMOD")
    host.fill("login1")
    modules.fill("gcc/12\nautosubmit")
    expect(preview.locator("pre")).to_contain_text("HOST: login1")
    expect(preview).to_contain_text("SSH.USER")
    expect(roots).to_be_hidden()
    expect(page.locator("#id_allowed_hosts")).to_be_hidden()  # the host is not open
    expect(page.locator("#id_allowed_users")).to_be_visible()
    check_accessible(page)
    keep(page, "admin-profile-form")

    page.get_by_label("Runner type:").select_option("LOCAL")
    expect(host).to_be_hidden()
    expect(preview.locator("pre")).not_to_contain_text("HOST")  # hidden fields are not sent
    page.get_by_label("Module loader:").select_option("NO_MODULE")
    expect(modules).to_be_hidden()
    expect(preview).to_contain_text("Nothing: a request with this profile needs no profile_params.")
    page.get_by_label("Name:").fill("NOT A NAME")
    expect(preview).to_contain_text("It cannot be saved")
    check_accessible(page)
    page.get_by_label("Name:").fill("NEW")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".messagelist")).to_contain_text("was added successfully")
    page.locator("#result_list").get_by_role("link", name="NEW").click()
    expect(host).to_be_hidden()
    page.get_by_label("Runner type:").select_option("SSH")
    expect(host).to_have_value("")  # it was stored as open


def test_everything_can_be_done_without_javascript(
    new_page: Callable[..., Page], app_of_admin: AppServer, account: StubAccount
) -> None:
    page = enter(new_page(java_script_enabled=False), app_of_admin)
    page.goto(f"{app_of_admin.url}/admin/profiles/runnerprofile/add/")
    page.get_by_label("Name:").fill("HERE")
    page.get_by_label("Runner type:").select_option("LOCAL")
    page.get_by_label("Module loader:").select_option("NO_MODULE")
    page.get_by_label("SSH host:").fill("h")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".errorlist")).to_contain_text("LOCAL takes no SSH parameters")
    page.get_by_label("SSH host:").fill("")
    page.get_by_role("button", name="Save and continue editing").click()
    expect(page.locator("#profile-preview pre")).to_contain_text("HERE:")
    page.get_by_role("link", name="Check connection").click()
    page.get_by_role("button", name="Check connection").click()
    expect(page.locator("#verdict")).to_contain_text("Everything works.", timeout=MACHINE)


@pytest.mark.timeout(600)
def test_every_page_of_the_admin_is_accessible_in_light_and_dark(admin: Page, app_of_admin: AppServer) -> None:
    """The index, pages of their own, and a list, an add form and a change form of every registered model."""
    page, base = admin, f"{app_of_admin.url}/admin"
    app_of_admin.manage("shell", "-v0", "-c", ROWS + MORE_ROWS)
    page.set_viewport_size({"width": 1440, "height": 900})
    mistakes: list[str] = []

    def check(path: str) -> None:
        page.goto(f"{base}/{path}")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            try:
                check_accessible(page, ALL_IMPACTS, RULES if scheme == "light" else ["wcag141", "wcag143"])
            except AssertionError as error:
                mistakes.append(f"{scheme}: {error}")
        page.emulate_media(color_scheme="light")

    for path in ("", "first-steps/", "service-keys/", "password_change/"):
        check(path)
    for model in site._registry:
        path = f"{model._meta.app_label}/{model._meta.model_name}"
        check(f"{path}/")
        keep(page, f"admin-{model._meta.model_name}")
        hidden = page.locator(".results:has(.clip)").evaluate_all("all => all.map(e => e.scrollWidth - e.clientWidth)")
        if any(hidden):
            mistakes.append(f"{path}: {hidden[0]} px of its columns are out of sight")
        link = page.locator(f"#result_list a[href*='{path}/'][href*='/change/']").first
        check(link.evaluate("link => link.pathname").removeprefix("/admin/") if link.count() else f"{path}/1/change/")
        expect(page.locator("#content form")).not_to_have_count(0)  # else the model has no row
        keep(page, f"admin-{model._meta.model_name}-one")
        if page.request.get(f"{base}/{path}/add/", max_redirects=0).ok:
            check(f"{path}/add/")
    page.context.clear_cookies()
    check("login/")
    assert not mistakes, "\n".join(mistakes)


def test_the_pages_of_runs_show_their_log_audit_and_actions(admin: Page, app_of_admin: AppServer) -> None:
    page = admin
    app_of_admin.manage("shell", "-v0", "-c", ROWS)
    base = f"{app_of_admin.url}/admin"
    page.goto(f"{base}/runners/runnerrun/")
    expect(page.locator("#result_list")).to_contain_text("UNREACHABLE")
    page.get_by_role("link", name="a004", exact=True).click()
    expect(page.locator("#log-tail")).to_contain_text("The log does not exist", timeout=MACHINE)
    expect(page.locator("#audit-trail")).to_contain_text("command_timed_out")
    check_accessible(page)
    keep(page, "admin-run")
    page.goto(f"{base}/runners/runnerrun/")
    page.get_by_role("link", name="a003", exact=True).click()
    page.get_by_role("link", name="Declare ended").click()
    check_accessible(page)
    keep(page, "admin-abandon")
    page.get_by_role("link", name="Cancel").click()
    page.get_by_role("link", name="Stop", exact=True).click()
    check_accessible(page)
    keep(page, "admin-stop")


def test_a_toggle_is_switched_off_and_on_again(admin: Page, app_of_admin: AppServer) -> None:
    page = admin
    secret = app_of_admin.manage("create_token", "ada").strip().splitlines()[-1]
    body = {"expid": "a000", "profile_name": "NONE"}

    def code() -> str:
        answer = app_of_admin.post("/v4/runners/command/run-experiment", body, Authorization=f"Bearer {secret}")
        return f"{answer.status} {answer.body['code']}"

    assert code() == "404 profile_not_found"  # the endpoint is enabled
    page.goto(f"{app_of_admin.url}/admin/profiles/endpointtoggle/")
    running = page.get_by_label("runner-run is enabled")
    expect(running).to_be_checked()
    running.uncheck()
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".messagelist")).to_contain_text("1 endpoint toggle was changed")
    expect(running).not_to_be_checked()
    check_accessible(page)
    keep(page, "admin-toggles")
    assert code() == "403 endpoint_disabled"

    page.get_by_role("link", name="History of runner-run").click()
    expect(page.locator("#change-history tbody tr")).to_have_count(1)
    expect(page.locator("#change-history tbody tr")).to_contain_text(re.compile(r"root\s*Switched off\."))
    check_accessible(page)
    keep(page, "admin-toggle-history")
    page.go_back()
    running.check()
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".messagelist")).to_contain_text("1 endpoint toggle was changed")
    assert code() == "404 profile_not_found"


def test_the_admin_can_be_read_in_the_dark_and_on_a_phone(
    new_page: Callable[..., Page], app_of_admin: AppServer
) -> None:
    app_of_admin.manage("shell", "-v0", "-c", ROWS)
    for name, options in (
        ("dark", {"color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 390, "height": 844}}),
    ):
        page = enter(new_page(**options), app_of_admin)
        page.goto(f"{app_of_admin.url}/admin/runners/runnerrun/")
        check_accessible(page)
        keep(page, f"admin-{name}-runs")
        page.goto(f"{app_of_admin.url}/admin/profiles/runnerprofile/import/")
        text = page.get_by_label("YAML", exact=True)
        text.fill("RUNNER_CONFIGURATION: {PROFILES: {P: {RUNNER_TYPE: SHH}}}")
        page.get_by_role("button", name="Show what it changes").click()
        expect(page.get_by_role("alert")).to_contain_text("Did you mean SSH?")
        check_accessible(page)
        text.fill("RUNNER_CONFIGURATION: {ENDPOINTS: {RUNNER_RUN: {ENABLED: false}}, PROFILES: {P: {}}}")
        page.get_by_role("button", name="Show what it changes").click()
        expect(page.locator("#plan")).to_contain_text("1 changed")
        check_accessible(page)
        keep(page, f"admin-{name}-import")


def test_a_token_is_created_and_shown_once(admin: Page, app_of_admin: AppServer) -> None:
    page = admin
    page.goto(f"{app_of_admin.url}/admin/runners/apitoken/")
    page.get_by_role("link", name="Add API token").first.click()
    page.get_by_label("User:").select_option("ada")
    page.get_by_label("Name:").fill("the nightly job")
    check_accessible(page)
    keep(page, "admin-token-form")
    page.get_by_role("button", name="Make the token").click()
    secret = page.locator("pre.token").inner_text()
    assert secret.startswith("asr_")
    check_accessible(page)
    page.get_by_role("link", name="I have copied it").click()
    expect(page.locator("#result_list")).to_contain_text("the nightly job")
    assert secret not in page.content()
    keep(page, "admin-tokens")
    page.get_by_label("Select this object for an action").check()
    page.get_by_label("Action:").select_option("Revoke the selected tokens")
    page.get_by_role("button", name="Go").click()
    expect(page.locator("#content")).to_contain_text("Are you sure")
    expect(page.locator("#content")).to_contain_text("Deleting a token revokes it")
    check_accessible(page)
    keep(page, "admin-token-revoke")
    page.get_by_role("button", name="Yes").click()
    expect(page.locator("#result_list")).to_have_count(0)


def test_a_new_admin_makes_the_keys_in_the_first_steps(
    admin: Page, app_of_admin: AppServer, new_page: Callable[..., Page]
) -> None:
    page = admin
    steps = page.locator(".first-steps")
    expect(steps.locator("[data-step=key]")).to_contain_text("to do")
    expect(steps.locator("[aria-current=step]")).to_have_attribute("data-step", "key")
    check_accessible(page)
    keep(page, "admin-first-steps", full=False)
    steps.get_by_role("link", name="Service keys").first.click()
    page.get_by_role("button", name="Make the SSH key").click()
    line = page.locator("#line-key")
    expect(line).to_contain_text("ssh-ed25519 ")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == line.inner_text().strip()
    page.get_by_role("button", name="Make the user CA").click()
    expect(page.locator("#line-ca")).to_contain_text("ssh-ed25519 ")
    check_accessible(page)
    keep(page, "admin-service-keys")
    page.get_by_text("Replace it").first.click()
    page.get_by_role("button", name="Make a new one").first.click()
    expect(page.get_by_role("alert")).to_contain_text("Confirm it")
    page.get_by_text("Replace it").first.click()
    page.get_by_label("Each machine will need the new line.").first.check()
    page.get_by_role("button", name="Make a new one").first.click()
    expect(page.locator("#line-key-old")).to_be_visible()
    check_accessible(page)

    page.goto(f"{app_of_admin.url}/admin/")
    expect(steps.locator("[data-step=key]")).to_contain_text("done")
    page.get_by_role("button", name="Hide").click()
    expect(steps).to_have_count(0)
    page.get_by_role("link", name="First steps", exact=True).click()
    expect(steps.locator("[data-step=key]")).to_contain_text("done")
    for name, options in (
        ("dark", {"color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 390, "height": 844}}),
    ):
        other = enter(new_page(**options), app_of_admin)
        for path in ("first-steps", "service-keys"):
            other.goto(f"{app_of_admin.url}/admin/{path}/")
            check_accessible(other)
            assert other.evaluate("document.documentElement.scrollWidth <= innerWidth")
            keep(other, f"admin-{name}-{path}")


def test_a_webhook_is_tested_on_its_page(admin: Page, app_of_admin: AppServer) -> None:
    page, receiver = admin, Receiver()
    try:
        page.goto(f"{app_of_admin.url}/admin/runners/webhook/add/")
        page.get_by_label("Name:").fill("chat")
        page.get_by_label("Url:").fill(receiver.url)
        page.get_by_role("button", name="Save and continue editing").click()
        receiver.statuses = [204, 403]
        page.get_by_role("button", name="Send a test message").click()
        expect(page.locator(".messagelist")).to_contain_text("The receiver accepted the test message")
        check_accessible(page)
        keep(page, "admin-webhook-test")
        page.get_by_role("button", name="Send a test message").click()
        expect(page.locator(".messagelist")).to_contain_text("It said: what the receiver has to say")
        assert len(receiver.requests) == 2
    finally:
        receiver.close()
