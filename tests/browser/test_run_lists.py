"""The dashboard and the list of runs in a browser: long names, narrow screens, filters, keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import check_accessible, keep
from tests.support.servers import AppServer

SignIn = Callable[..., None]
WIDTHS = {"phone": 390, "laptop": 1100, "desktop": 1440}

# Ordinary, long and strange names. Nothing listens on the machines, and the active runs are leased for the next hour.
LEASE = 3600  # seconds
SEED = """
from datetime import timedelta
from django.utils import timezone
from runners.models import RunnerRun
now = timezone.now()
long = "operational-forecast-" + "x" * 79
mail = "a.very.long.name.of.a.person@climate-department.research-institute.example.org"
strange = "<b>&amp;\\u202e \\u00e4\\u00f6\\u00fc \\U0001f600 'quoted' \\"name\\""
common = {"config": {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": []}, "runner": "LOCAL",
          "module_loader": "NO_MODULE", "identity": {}, "probing_until": now + timedelta(seconds=LEASE)}
names = [("CLUSTER", "ada", "login1", "ada"), (long, mail, "login1." + "y" * 60 + ".example.org", mail),
         (strange, "grace", "h", "u")]
ends = [("stopped", 88), ("failed", 1), ("killed", 137), ("lost", None), ("never_started", None), ("abandoned", None)]
number = 0
def make(names, expid="", **fields):
    global number
    number += 1
    profile, person, host, account = names
    created = now - timedelta(hours=number)
    values = {"profile_name": profile, "started_by": person, "host": host, "user": account, "confirmed_at": now}
    RunnerRun.objects.create(**{**common, **values, "expid": expid or f"a{number:03}", "created": created, **fields})
def jobs(total, done, failed, running):
    return {"total": total, "done": done, "failed": failed, "running": running, "failed_jobs": []}
for each in names:
    for reason, code in ends:
        ended = now - timedelta(minutes=7 * number)
        make(each, status="TERMINATED", reason=reason, exit_code=code, finished=ended,
             signal="KILL" if reason == "killed" else "", stopped_by=each[1] if reason == "stopped" else "")
    make(each, status="COMPLETED", exit_code=0, finished=now)
    make(each, progress=jobs(1200, 431, 0, 17))
make(names[0], "silent0", silent_since=now - timedelta(hours=3), progress=jobs(12, 3, 1, 1))
trouble = "ada@down.example.org:22 cannot be reached: no answer within 10 s"
for each in range(4):
    make(names[1], f"gone{each}", host="down.example.org", reachable=False, unreachable_detail=trouble,
         confirmed_at=now - timedelta(hours=2))
from runners.services.experiment_descriptions import home_of_run, learn
texts = ["Sea ice of the north", strange + " \u05e0\u05d9\u05e1" + "x" * 900, "Coupled ocean and ice " * 45]
for run in RunnerRun.objects.exclude(pk__in=(1, 2)):
    learn(home_of_run(run), {run.expid: texts[run.pk % 3]})
""".replace("LEASE", str(LEASE))


@pytest.fixture
def long_names(make_stub_site: Callable[..., AppServer]) -> AppServer:
    server = make_stub_site(RUNNERS_PROBE_TIMEOUT=str(LEASE))  # a longer lease is ignored
    server.manage("shell", "-v0", "-c", SEED)
    return server


def too_wide(page: Page) -> list[str]:
    """Return the elements whose content is cut off or sticks out, and the page itself if it scrolls sideways."""
    return page.evaluate(
        """() => {
          const found = [];
          const wide = document.documentElement;
          if (wide.scrollWidth > wide.clientWidth) found.push(`page ${wide.scrollWidth} > ${wide.clientWidth}`);
          for (const element of document.querySelectorAll("td, .table-wrap, .alert, .chip, .empty"))
            if (element.scrollWidth > element.clientWidth + 1)
              found.push(`${element.className || element.tagName}: ${element.textContent.trim().slice(0, 60)}`);
          return found;
        }"""
    )


def test_long_and_strange_names_fit_every_list_on_every_screen(
    new_page: Callable[..., Page], long_names: AppServer, sign_in: SignIn
) -> None:
    for name, width in WIDTHS.items():
        page = new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if name == "laptop" else "light")
        sign_in(page, long_names)
        for label, path in {
            "dashboard": "/",
            "runs": "/runs?mine=0",
            "filtered": "/runs?mine=0&machine=login1&since=2020-01-01&reason=failed",
            "experiment": "/experiments/a010",
            "history": "/history?by=profile",
        }.items():
            page.goto(f"{long_names.url}{path}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            for details in page.locator("details.as-table").all():
                details.locator("summary").click()
            keep(page, f"lists-{name}-{label}", full=False)
            assert too_wide(page) == [], f"{path} at {width} px"
            if label == "runs":
                lines = page.locator("#runs .line")
                expect(lines).to_have_count(27)
                heights = lines.evaluate_all("found => found.map(each => each.getBoundingClientRect().height)")
                assert max(heights) < 30, heights  # one line each
            if label in ("dashboard", "filtered"):
                check_accessible(page)


def test_filters_are_in_the_address_and_work_by_keyboard(page: Page, long_names: AppServer, sign_in: SignIn) -> None:
    sign_in(page, long_names)
    page.get_by_role("link", name="Runs", exact=True).click()
    rows = page.locator("#runs tbody tr")
    expect(rows).to_have_count(29)
    page.get_by_role("link", name="Mine", exact=True).click()
    page.wait_for_url("**/runs?mine=1")
    expect(rows).to_have_count(9)
    page.goto(f"{long_names.url}/runs")
    page.wait_for_url("**/runs?mine=1")  # remembered
    page.get_by_role("link", name="Everybody's").click()
    page.get_by_role("searchbox").press_sequentially("gone")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs?mine=0&q=gone")
    expect(rows).to_have_count(4)
    page.get_by_role("link", name=re.compile("^Experiment")).click()
    page.wait_for_url("**/runs?q=gone&mine=0&sort=experiment")
    expect(page.get_by_role("columnheader", name=re.compile("^Experiment"))).to_have_attribute("aria-sort", "ascending")
    expect(page.locator("#runs a.strong").first).to_have_text("gone0")
    page.get_by_role("searchbox").fill("ICE of the North")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs?mine=0&q=ICE+of+the+North&sort=experiment")
    expect(rows).to_have_count(9)
    expect(page.locator("#runs .line").first).to_have_text("Sea ice of the north")
    page.get_by_text("More filters").click()
    page.get_by_role("link", name="Remove all filters").click()
    page.wait_for_url("**/runs?mine=0")
    expect(rows).to_have_count(29)
    with page.expect_response(lambda answer: "/runs?mine=0" in answer.url and answer.status == 304):
        pass  # the page refreshes itself
    change = "from runners.models import RunnerRun; RunnerRun.objects.filter(expid='gone0').update(started_by='hopper')"
    long_names.manage("shell", "-v0", "-c", change)
    expect(page.locator("#runs")).to_contain_text("hopper")
