"""The additional checks of every browser test: errors, requests to other hosts, the policy, accessibility."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import axe_playwright_python
from playwright.sync_api import ConsoleMessage, Error, Page, Request, Response

from tests.support.paths import ROOT
from tests.support.servers import AppServer

ARTIFACTS = ROOT / ".artifacts"
# Use the script directly, because the package's wrapper only evaluates it, too.
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
ABORTED = ("htmx:sendAbort, ", "htmx:afterRequest, ")  # an answer of 400 or more is htmx:responseError


@dataclass
class Watch:
    """A collector of what must not happen on a page. `allow(pattern)` permits what a test does on purpose."""

    page: Page
    host: str
    troubles: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    documents: list[Response] = field(default_factory=list)
    _allowed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", self._on_page_error)
        self.page.on("console", self._on_console)
        self.page.on("request", self._on_request)
        self.page.on("response", self._on_response)

    def allow(self, pattern: str) -> None:
        """Permit problems that match a regular expression, such as `409 .*/start`."""
        self._allowed.append(pattern)

    def check(self) -> None:
        """Raise AssertionError with everything that happened and was not permitted."""
        found = [trouble for trouble in self.troubles if not any(re.search(each, trouble) for each in self._allowed)]
        assert not found, "\n".join(found)
        assert self.hosts <= {self.host}, f"requests to other hosts: {self.hosts - {self.host}}"
        for document in self.documents:
            policy = document.headers.get("content-security-policy", "")
            assert "default-src 'self'" in policy, f"{document.url} has the policy {policy!r}"
            assert "unsafe" not in policy, f"{document.url} has the policy {policy!r}"

    def _on_page_error(self, error: Error) -> None:
        self.troubles.append(f"JavaScript error on {self.page.url}: {error.message}")

    def _on_console(self, message: ConsoleMessage) -> None:
        # Chromium also reports responses of 400 and more here, but not which: `_on_response` handles them.
        # And htmx reports requests that end because the person leaves the page.
        is_known = "Failed to load resource" in message.text or message.text.startswith(ABORTED)
        if message.type == "error" and not is_known:
            self.troubles.append(f"console error on {self.page.url}: {message.text}")

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "about"):
            self.hosts.add(parts.netloc)

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self.troubles.append(f"{response.status} {response.request.method} {urlsplit(response.url).path}")
        if response.request.resource_type == "document" and response.status < 300:
            self.documents.append(response)


def check_accessible(page: Page, impacts: tuple[str, ...] = ("serious", "critical"), rules: list[str] = RULES) -> None:
    """Assert that axe-core finds nothing of these impacts on the current page. `rules`: tags of axe-core's rules."""
    page.evaluate(AXE)
    # No preload: axe would copy Django's style sheets that @import others into <style>, which our policy blocks.
    options = "{runOnly: {type: 'tag', values: tags}, resultTypes: ['violations'], preload: false}"
    result = page.evaluate(f"(tags) => axe.run(document, {options})", rules)
    bad = [
        f"{found['impact']}: {found['id']}: {found['help']}\n"
        + "\n".join(f"    {node['html']}" for node in found["nodes"])
        for found in result["violations"]
        if found["impact"] in impacts
    ]
    assert not bad, f"on {page.url}:\n" + "\n".join(bad)


def keep(page: Page, name: str, *, full: bool = True) -> Path:
    """Save a screenshot in the artefacts and return its path."""
    ARTIFACTS.mkdir(exist_ok=True)
    path = ARTIFACTS / f"{name}.png"
    page.screenshot(path=path, full_page=full)
    return path


PASSWORD = "correct horse battery staple"
PEOPLE = {"ada": False, "root": True}  # name: whether the user is an admin

SETUP = """
from django.contrib.auth.models import User
from profiles.models import RunnerProfile, UserSettings
for name, is_admin in {people!r}.items():
    user = User(username=name, is_staff=is_admin, is_superuser=is_admin)
    user.set_password({password!r})
    user.save()
UserSettings.objects.create(user=User.objects.get(username="ada"), preferred_username={preferred!r})
for fields in {profiles!r}:
    profile = RunnerProfile(**fields)
    profile.full_clean()
    profile.save()
"""


def populate(server: AppServer, profiles: list[dict[str, Any]], *, preferred: str = "ada_l") -> None:
    """Create users and profiles in one start of Django."""
    text = SETUP.format(people=PEOPLE, password=PASSWORD, profiles=profiles, preferred=preferred)
    server.manage("shell", "-v0", "-c", text)
