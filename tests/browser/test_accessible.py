"""Every page for people is accessible in light and dark. The list of URLs is walked, so new pages count.

A new argument of a path needs a value in SAMPLES. What is no page (no HTML, a redirect, an answer to POST only) is left
out by its response.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from playwright.sync_api import Page, expect

from tests.support.browser import check_accessible
from tests.support.environments import StubAccount
from tests.support.servers import AppServer

SignIn = Callable[..., None]
SAMPLES = {
    "pk": "1",
    "expid": "a001",
    "name": "run-experiment",
    "token": "no-such-token",
}
# Not pages for people, or pages that end the session. tests/browser/test_admin_pages.py checks the admin.
LEFT_OUT = re.compile("^/(v4/|logout|admin|runs/<int:pk>/log)")
SEED = """
from runners.models import RunnerRun, Operation, AuditRecord
config = {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": []}
common = {"expid": "a001", "config": config, "runner": "LOCAL", "module_loader": "NO_MODULE", "started_by": "root"}
for reason, code in (("failed", 1), ("stopped", 88)):
    RunnerRun.objects.create(**common, status="TERMINATED", reason=reason, exit_code=code, profile_name="THIS_MACHINE")
"""


def paths(patterns: list[URLPattern | URLResolver], begin: str = "/") -> Iterator[str]:
    for pattern in patterns:
        if LEFT_OUT.match(begin + _route(pattern)):
            continue
        text = begin + re.sub(r"<(?:\w+:)?(\w+)>", lambda found: SAMPLES[found[1]], _route(pattern))
        if isinstance(pattern, URLResolver):
            yield from paths(pattern.url_patterns, text)
        else:
            yield text


def _route(pattern: URLPattern | URLResolver) -> str:
    return str(pattern.pattern).strip("^$")


PAGES = sorted(set(paths(get_resolver().url_patterns)))
ALL = ("minor", "moderate", "serious", "critical")


@pytest.mark.timeout(600)
def test_every_page_is_accessible_in_light_and_dark(
    new_page: Callable[..., Page], stub_site: AppServer, account: StubAccount, sign_in: SignIn
) -> None:
    account.experiment("a001")
    stub_site.manage("shell", "-v0", "-c", SEED)
    page = new_page()
    page.watch.allow("^(4..|502) GET ")  # type: ignore[attr-defined]
    sign_in(page, stub_site, name="root")
    found, mistakes = 0, []
    for path in PAGES:
        answer = page.request.get(f"{stub_site.url}{path}", max_redirects=0)
        is_page = answer.headers.get("content-type", "").startswith("text/html") and "<html" in answer.text()
        assert answer.status in (502, 503) or answer.status < 500, path
        if not is_page:
            continue
        page.goto(f"{stub_site.url}{path}")
        found += 1
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            try:
                check_accessible(page, ALL)
            except AssertionError as error:
                mistakes.append(f"{scheme}: {error}")
    assert not mistakes, "\n".join(mistakes)
    assert found > 20
    expect(page.locator("body")).to_be_visible()
