"""Fixtures of the tests in a real browser: Debian's chromium, driven by Playwright, with a server for each test.

    page            Playwright's page, watched. The test fails on a JavaScript error, an error in the console, an
                    unexpected response of 400 or more, a request to another host, or a page without our policy
    watch           the Watch of `page`; watch.allow("409 POST /start") permits what a test does on purpose
    new_page        new_page(viewport=..., color_scheme=...) -> another watched page, with its own cookies
    site            AppServer that runs real Autosubmit commands, with the users of `PEOPLE` and a profile
    stub_site       the same with the stand-in autosubmit and a real sshd: fast
    make_stub_site  make_stub_site(NAME="value") -> the same with more settings
    sign_in         sign_in(page, server, name="ada") through the login page

Every test that fails leaves a screenshot in .artifacts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support import processes
from tests.support.browser import PASSWORD, Watch, keep, populate
from tests.support.environments import AutosubmitAccount, StubAccount
from tests.support.requirements import need
from tests.support.servers import AppServer, SSHServer

CHROMIUM = Path("/usr/bin/chromium")
# The flags that prevent requests: without them chromium contacts its maker's hosts at every start.
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PATIENCE = 10_000 * processes.PATIENCE  # ms that an expectation waits


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser per module, not per session: while it is open, Django rejects database access in this thread."""
    need(CHROMIUM.exists(), "chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=FLAGS,
            env={**os.environ, "HOME": str(tmp_path_factory.mktemp("chromium"))},
        )
        yield browser
        browser.close()


@pytest.fixture
def new_page(
    browser: Browser, make_app: Callable[..., AppServer], request: pytest.FixtureRequest
) -> Iterator[Callable[..., Page]]:
    """`make_app` only sets the order of the teardown: pages are closed before their server is stopped."""
    contexts: list[Any] = []
    watches: list[Watch] = []

    def new(**options: Any) -> Page:
        options = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        contexts.append(context)
        watches.append(Watch(page, ""))
        page.watch = watches[-1]  # type: ignore[attr-defined]
        return page

    yield new
    failed = getattr(request.node, "has_failed", False)
    for number, (context, watch) in enumerate(zip(contexts, watches, strict=True)):
        watch.host = watch.host or urlsplit(watch.page.url).netloc
        if failed and not watch.page.is_closed():
            keep(watch.page, f"failed-{request.node.name}-{number}")
        context.close()
    if not failed:
        for watch in watches:
            watch.check()


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    return new_page()


@pytest.fixture
def watch(page: Page) -> Watch:
    return page.watch  # type: ignore[attr-defined,no-any-return]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.when == "call" and report.failed:
        item.has_failed = True  # type: ignore[attr-defined]
    return report


@pytest.fixture
def site(make_app: Callable[..., AppServer], autosubmit: AutosubmitAccount) -> AppServer:
    server = make_app(account=autosubmit, env=ENVIRONMENT)
    local = {"runner_type": "LOCAL", "module_loader_type": "VENV", "modules": str(autosubmit.venv)}
    populate(
        server, [{"name": "THIS_MACHINE", "description": "Autosubmit 4.1 on the machine of this service", **local}]
    )
    return server


@pytest.fixture
def make_stub_site(
    make_app: Callable[..., AppServer], account: StubAccount, sshd: SSHServer
) -> Callable[..., AppServer]:
    def make(**env: str) -> AppServer:
        server = make_app(account=account, sshd=sshd, env=ENVIRONMENT | env)
        ssh = {"runner_type": "SSH", "ssh_host": "127.0.0.1", "module_loader_type": "NO_MODULE"}
        profiles: list[dict[str, Any]] = [
            {"name": "CLUSTER", "description": "The cluster, with your own account", "ssh_port": sshd.port, **ssh},
            {"name": "THIS_MACHINE", "runner_type": "LOCAL", "module_loader_type": "NO_MODULE"},
            {"name": "YOURS", "description": "Everything is up to you"},
        ]
        populate(server, profiles, preferred=sshd.user)
        return server

    return make


@pytest.fixture
def stub_site(make_stub_site: Callable[..., AppServer]) -> AppServer:
    return make_stub_site()


ENVIRONMENT = {"PROTECTION_LEVEL": "ALL"}


@pytest.fixture
def sign_in() -> Callable[..., None]:
    def sign_in(page: Page, server: AppServer, name: str = "ada") -> None:
        page.goto(f"{server.url}/login")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{server.url}/")

    return sign_in
