"""The documents as a site, in a browser: its search and its pages, with the policy of the service."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from wsgiref.headers import Headers

import pytest
from playwright.sync_api import Page, expect

from runners_project import guide
from tests.support.browser import check_accessible, keep
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE

pytestmark = pytest.mark.timeout(300)  # it builds the site


class Handler(SimpleHTTPRequestHandler):
    """Serves the site as the service does: with the policy of runners_project.guide."""

    def end_headers(self) -> None:
        headers = Headers([])
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            path = path / "index.html"
        guide.add_headers(headers, str(path), guide.PREFIX)
        for name, value in headers.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Build the site and serve it. Return its address."""
    folder = tmp_path_factory.mktemp("guide")
    argv = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(argv, cwd=ROOT, env=env, check=True, timeout=100 * PATIENCE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_search_finds_an_error_code_and_leads_to_its_entry(page: Page, address: str) -> None:
    page.goto(address, wait_until="networkidle")  # the script of the search misses what is typed before
    page.get_by_role("textbox", name="Search").press_sequentially("host_key_unknown")  # it listens to keys
    found = page.locator(".md-search-result__item a").filter(has_text="host_key_unknown").first
    expect(found).to_be_visible()
    keep(page, "guide-search", full=False)
    found.click()
    expect(page.locator("main")).to_contain_text("trust-host")


PAGES = ["", "guides/scientist/", "guides/admin/", "guides/moving/", "concepts/", "troubleshooting/", "sdk/"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible_and_fit_on_a_phone(new_page: Callable[..., Page], address: str, scheme: str) -> None:
    page = new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    for path in PAGES:
        page.goto(address + path)
        check_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    keep(page, f"guide-{scheme}", full=False)
