"""Look and usability of the pages for everybody: on a phone, in dark mode, by keyboard, without JavaScript."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.template.loader import render_to_string
from playwright.sync_api import Page, expect

from tests.support.browser import Watch, check_accessible, keep
from tests.support.environments import StubAccount
from tests.support.servers import AppServer

SignIn = Callable[..., None]
PHONE = {"width": 390, "height": 844}

# Two weeks of runs of six experiments on three machines, with every outcome; some runs are active. Nothing listens on
# those machines, and the active runs are leased for the next hour, so the state that the pages show does not change.
LEASE = 3600  # seconds
SEED = """
from datetime import timedelta
from django.utils import timezone
from runners.models import RunnerRun
now = timezone.now()
hosts = ["cluster-login1", "cluster-login2", "workstation"]
ends = [("COMPLETED", "", 0, "")] * 4 + [("TERMINATED", "stopped", 88, ""), ("TERMINATED", "failed", 1, "")]
ends += [("TERMINATED", "killed", 137, "KILL"), ("TERMINATED", "lost", None, "")]
local = {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": []}
ssh = {"RUNNER_TYPE": "SSH", "MODULE_LOADER_TYPE": "LMOD", "MODULES": ["autosubmit/4.1"],
       "SSH": {"HOST": "127.0.0.1", "PORT": 1, "USER": "ada_l"}}
on_cluster = {"profile_name": "CLUSTER", "config": ssh, "runner": "SSH", "module_loader": "LMOD", "user": "ada_l"}
here = {"profile_name": "THIS_MACHINE", "config": local, "runner": "LOCAL", "module_loader": "NO_MODULE", "user": "asr"}
for i in range(46):
    begin = now - timedelta(hours=7.3 * (46 - i))
    status, reason, code, signal = ends[i * 5 % len(ends)]
    RunnerRun.objects.create(
        **(here if i % 3 == 2 else on_cluster), expid=f"a00{i % 6}", host=hosts[i % 3], identity={}, pid=4000 + i,
        status=status, reason=reason, exit_code=code, signal=signal, created=begin, modified=begin, confirmed_at=begin,
        finished=min(now, begin + timedelta(hours=1 + i * 7 % 31)), started_by=["ada", "grace"][i % 2],
        stopped_by="grace" if reason == "stopped" else "")
for i, trouble in enumerate(["", "ada_l@cluster-login2:22 cannot be reached: no answer within 10 s"]):
    RunnerRun.objects.create(
        **on_cluster, expid=f"b00{i}", host=hosts[i], pid=5000 + i, started_by="ada",
        identity={"host": hosts[i], "boot_id": "b", "pid_namespace": "pid:[1]", "pid": 5000 + i, "start": 1,
                  "supervisor_pid": 4999, "supervisor_start": 1},
        created=now - timedelta(hours=5 + 20 * i), confirmed_at=now - timedelta(minutes=12 * i, seconds=2),
        reachable=not trouble, unreachable_detail=trouble, probing_until=now + timedelta(seconds=LEASE))
""".replace("LEASE", str(LEASE))


TICKS = "ticks => ticks.map(tick => [tick.textContent.trim(), tick.querySelector('text').getAttribute('x')])"


@pytest.fixture
def busy_site(make_stub_site: Callable[..., AppServer]) -> AppServer:
    server = make_stub_site(RUNNERS_PROBE_TIMEOUT=str(LEASE))  # a longer lease is ignored
    server.manage("shell", "-v0", "-c", SEED)
    return server


def test_every_page_is_accessible_in_the_light_and_in_the_dark_and_fits_a_phone(
    new_page: Callable[..., Page], busy_site: AppServer, sign_in: SignIn
) -> None:
    paths = {
        "dashboard": "/",
        "start": "/start?profile_name=CLUSTER",
        "create": "/experiments/create?profile_name=THIS_MACHINE",
        "status": "/experiments/set-status?profile_name=THIS_MACHINE&expid=a001",
        "experiment": "/experiments/a001",
        "history": "/history?by=host&days=30",
        "run": "/runs/5",
        "stop": "/runs/47/stop",
        "job-list": "/experiments/job-list?profile_name=THIS_MACHINE&expid=a001",
        "description": "/experiments/description?profile_name=THIS_MACHINE&expid=a001",
        "no-experiment": "/experiments?expid=A+1",
        "never-run": "/experiments/zzzz",
        "not-found": "/nothing/here",
        "no-log": "/runs/3/log/download",
        "no-machine": "/runs/5/log/download",
        "errors": "/docs/errors",
    }
    for look, options in {
        "light": {},
        "dark": {"color_scheme": "dark"},
        "phone": {"viewport": PHONE, "has_touch": True},
    }.items():
        page = new_page(**options)
        page.watch.allow("^404 GET /(experiments|nothing/here|runs/3/log/download)$")  # type: ignore[attr-defined]
        page.watch.allow("^502 GET /runs/5/log/download$")  # type: ignore[attr-defined]
        sign_in(page, busy_site, name="root" if look == "dark" else "ada")
        for name, path in paths.items():
            page.goto(f"{busy_site.url}{path}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            keep(page, f"{look}-{name}", full=False)
            check_accessible(page)
            overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert overflow <= 0, f"{path} is {overflow} px too wide on {look}"


def test_times_are_shown_in_the_zone_of_the_reader_and_in_utc_without_javascript(
    new_page: Callable[..., Page], busy_site: AppServer, sign_in: SignIn
) -> None:
    page = new_page(timezone_id="Asia/Kolkata")  # 5 h 30 min before UTC
    sign_in(page, busy_site)
    page.goto(f"{busy_site.url}/runs/5")
    started = page.locator("dt:text-is('Started') + dd time[title]").last
    expect(started).to_have_text(re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$"))
    said = datetime.strptime(started.text_content() or "", "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    in_utc = datetime.strptime(started.get_attribute("title") or "", "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    assert said - in_utc == timedelta(hours=5, minutes=30)
    expect(page.locator(".zone")).to_have_text(re.compile("Times: Asia/(Kolkata|Calcutta)"))
    page.goto(f"{busy_site.url}/")
    expect(page.locator("#runs time[data-local]")).to_have_count(0)
    with page.expect_response(lambda answer: answer.url.endswith("/runs/list")):
        page.locator("#runs").evaluate("part => { part.dataset.etag = ''; htmx.trigger(part, 'wake'); }")
    expect(page.locator("#runs time[data-local]")).to_have_count(0)  # also in what htmx has fetched
    plain = new_page(java_script_enabled=False)
    sign_in(plain, busy_site)
    for days in ("1", "7", "30"):
        for each in (page, plain):
            each.goto(f"{busy_site.url}/history?days={days}")
        here, in_utc = (each.locator("[data-tick]").evaluate_all(TICKS) for each in (page, plain))
        assert 2 <= len(here) <= 8
        # Round times of the zone are 5 h 30 min before those in UTC, or a multiple of the distance of ticks later.
        labels = r"\d\d:00" if days == "1" else r"\d\d \w{3}"
        assert all(re.fullmatch(labels, label) for label, _ in here + in_utc)
        assert {x for _, x in here}.isdisjoint({x for _, x in in_utc})
        for part, pattern in (
            ("title[data-times]", r" \d\d:\d\d:\d\d$"),
            ("desc", r"^From [\d-]+ [\d:]+ to [\d-]+ [\d:]+\."),
        ):
            expect(page.locator(part).last).to_have_text(re.compile(pattern))
        expect(plain.locator("title[data-times]").last).to_have_text(re.compile(r"\d\d:\d\d:\d\d UTC$"))
    plain.goto(f"{busy_site.url}/runs/5")
    expect(plain.locator("dt:text-is('Started') + dd time").last).to_have_text(re.compile(" UTC$"))
    expect(plain.locator(".zone")).to_have_text("Times: UTC")


def test_the_header_is_one_line_on_a_laptop(
    new_page: Callable[..., Page], stub_site: AppServer, sign_in: SignIn
) -> None:
    rename = "from django.contrib.auth.models import User; User.objects.filter(username='root').update(username='{}')"
    name = "maria.magdalena.kowalska@climate.example.org"
    stub_site.manage("shell", "-v0", "-c", rename.format(name))
    page = new_page(viewport={"width": 1100, "height": 700})
    sign_in(page, stub_site, name=name)
    for width in (1100, 1200, 1230, 1280):
        page.set_viewport_size({"width": width, "height": 700})
        tops = page.locator(".top nav > *, .aside > *").evaluate_all(
            "parts => [...new Set(parts.map(part => Math.round(part.getBoundingClientRect().top / 8)))]"
        )
        assert len(tops) == 1, f"{width} px"
        keep(page, f"header-{width}", full=False)


def test_the_menus_open_and_close_with_the_keyboard_and_fit_a_phone(
    new_page: Callable[..., Page], stub_site: AppServer, sign_in: SignIn
) -> None:
    page = new_page(viewport=PHONE)
    sign_in(page, stub_site)
    commands = page.locator("nav .menu summary")
    commands.focus()
    page.keyboard.press("Enter")
    last = page.get_by_role("link", name="Delete the experiment")
    expect(last).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    page.keyboard.press("Escape")
    expect(last).to_be_hidden()
    expect(commands).to_be_focused()
    page.keyboard.press("Enter")
    page.locator("footer").click()
    expect(last).to_be_hidden()
    page.locator(".who").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_in_viewport()
    commands.press("Enter")
    expect(page.get_by_role("button", name="Sign out")).to_be_hidden()
    page.get_by_role("link", name="Create the job list").click()
    expect(page.locator("nav [aria-current=page]")).to_have_text("Create the job list")


def test_an_unchanged_dashboard_gets_empty_answers_and_keeps_its_content(
    page: Page, busy_site: AppServer, sign_in: SignIn
) -> None:
    sign_in(page, busy_site)
    page.goto(f"{busy_site.url}/")
    runs = page.locator("#runs")
    with page.expect_response(lambda answer: answer.url.endswith("/runs/list") and answer.status == 304):
        pass
    expect(runs.get_by_role("row")).to_have_count(32)
    expect(runs).to_contain_text("does not answer since")
    change = "from runners.models import RunnerRun; RunnerRun.objects.filter(expid='b001').update(started_by='hopper')"
    busy_site.manage("shell", "-v0", "-c", change)
    expect(runs).to_contain_text("hopper")


@pytest.mark.parametrize("name", ["400", "403", "403_csrf", "429", "500", "503"])
def test_every_error_is_a_page_that_is_accessible(page: Page, watch: Watch, stub_site: AppServer, name: str) -> None:
    """Show the error page as the service renders it, without causing the error. Other tests cause the errors."""
    context = {"wait": 7, "origin": "https://runners.example.org", "here": "http://runners.example.org"}
    body = render_to_string(f"{name}.html", {**context, "is_https_unknown": True})
    page.route("**/an-error", lambda route: route.fulfill(status=500, body=body, content_type="text/html"))
    watch.allow("^500 GET /an-error")
    page.goto(f"{stub_site.url}/an-error")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    check_accessible(page)
    keep(page, f"error-{name}", full=False)


def test_the_history_draws_each_run_in_the_colour_of_its_outcome_and_says_it_as_a_table(
    page: Page, busy_site: AppServer, sign_in: SignIn
) -> None:
    sign_in(page, busy_site)
    page.goto(f"{busy_site.url}/history?by=experiment&days=30")
    bars = page.locator("svg a")
    expect(bars).to_have_count(48)
    for tone, said in {"completed": "ended well", "stopped": "stopped by", "failed": "failed (exit"}.items():
        expect(page.locator(f"svg a .bar.{tone}")).to_have_count(page.locator(f"svg a[aria-label*='{said}']").count())
        expect(page.locator(f"svg a .bar.{tone} + .hatch[fill='url(#hatch-{tone})']")).not_to_have_count(0)
    lost = page.locator("svg a[aria-label*='its process is gone'], svg a[aria-label*='by signal KILL']")
    expect(page.locator("svg a .bar.other")).to_have_count(lost.count())
    expect(page.locator("svg a .bar.unsure")).to_have_count(1)
    expect(page.locator(".legend li")).to_have_count(6)
    page.get_by_text("The same as a table").click()
    expect(page.get_by_role("row")).to_have_count(49)
    page.get_by_label("One lane for each").select_option("host")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("svg .lane-name")).to_have_count(3)
    page.locator("svg a").first.click()
    page.wait_for_url(re.compile(r"/runs/\d+$"))


def test_a_run_is_started_and_stopped_with_the_keyboard_alone(
    page: Page, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    account.control("run", "a001", SLEEP=600)
    account.experiment("a001")
    sign_in(page, stub_site)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Start a run").first).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/start")
    page.get_by_label("CLUSTER").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("THIS_MACHINE")).to_be_checked()
    expect(page.locator("[name=expid]")).to_be_visible()
    expect(page.get_by_label("THIS_MACHINE")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("a001")
    start = page.get_by_role("button", name="Start the run")
    for _ in range(12):  # over the options
        page.keyboard.press("Tab")
        if start.evaluate("button => button === document.activeElement"):
            break
    expect(start).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/1")
    page.get_by_role("link", name="Stop this run").press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("link", name="Stop this run").press("Enter")
    page.get_by_role("dialog").get_by_label("Kill it immediately").press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_contain_text("stopped by ada", timeout=20_000)
    expect(page.locator("#state .steps")).to_contain_text("signal KILL")


def test_a_slow_stop_can_be_turned_into_a_kill(
    page: Page, watch: Watch, stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    watch.allow("console error .* htmx:(sendAbort|afterRequest)")  # the kill replaces the first request
    account.control("run", "a001", SLEEP=600, IGNORE="INT TERM")
    account.control("stop", "a001", DELAY=60)
    account.experiment("a001")
    sign_in(page, stub_site)
    page.goto(f"{stub_site.url}/start?profile_name=THIS_MACHINE&expid=a001")
    page.get_by_role("button", name="Start the run").click()
    page.wait_for_url("**/runs/1")
    page.get_by_role("link", name="Stop this run").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop the run").click()
    expect(page.locator("#actions")).to_contain_text("Stopping…")
    expect(page.locator("#state")).to_contain_text("under way")
    check_accessible(page)
    keep(page, "run-kill", full=False)
    page.get_by_role("link", name="Kill it now").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Kill it immediately")).to_be_checked()
    dialog.get_by_role("button", name="Stop the run").click()
    expect(page.locator("#state")).to_contain_text("STOPPED", timeout=15_000)  # long before the first stop times out
    expect(page.locator("#state")).to_contain_text("stopped by ada")


def test_everything_but_the_live_log_works_without_javascript(
    new_page: Callable[..., Page], stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    account.control("run", "a001", SLEEP=600)
    account.experiment("a001")
    page = new_page(java_script_enabled=False)
    sign_in(page, stub_site)
    page.get_by_role("link", name="Start a run").first.click()
    page.get_by_label("CLUSTER").check()
    page.get_by_role("button", name="Continue with this profile").click()
    page.locator("[name=expid]").fill("a001")
    page.get_by_role("button", name="Start the run").click()
    expect(page.locator("#state")).to_contain_text("ACTIVE")
    expect(page.locator(".log-section noscript p")).to_be_visible()
    page.get_by_role("link", name="Stop this run").click()
    page.get_by_label("Kill it immediately").check()
    page.get_by_role("button", name="Stop the run").click()
    expect(page.locator("#state")).to_contain_text("STOPPED")


def test_a_hidden_tab_does_not_poll_and_polls_at_once_when_it_is_shown(
    page: Page, stub_site: AppServer, sign_in: SignIn
) -> None:
    sign_in(page, stub_site)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_request("**/runs/list"):
        pass
    # Headless chromium hides no tab, so tell the page that it is hidden.
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    asked.clear()
    page.wait_for_timeout(7000)  # more than two rounds: only waiting can show that nothing happens
    assert asked == []
    page.evaluate("Object.defineProperty(document, 'hidden', {value: false, configurable: true})")
    with page.expect_request("**/runs/list", timeout=1500):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_the_api_documentation_and_the_admin_work_under_the_same_policy(
    page: Page, stub_site: AppServer, sign_in: SignIn
) -> None:
    sign_in(page, stub_site, name="root")
    page.goto(f"{stub_site.url}/docs")
    expect(page.get_by_text("/v4/runners/command/run-experiment")).to_be_visible(timeout=30_000)
    page.get_by_text("/v4/runners/command/run-experiment").click()
    expect(page.get_by_role("button", name="Execute").first).to_be_visible()
    keep(page, "docs", full=False)
    for path in ("/admin/", "/admin/profiles/runnerprofile/", "/admin/auth/user/add/", "/docs/errors"):
        page.goto(f"{stub_site.url}{path}")
        expect(page.get_by_role("heading", level=1).first).to_be_visible()
