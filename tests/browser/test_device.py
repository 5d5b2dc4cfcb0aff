"""The page that approves a login of the command line, in a browser: by keyboard, on a phone, in dark mode."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from tests.support.browser import check_accessible, keep
from tests.support.servers import AppServer

SignIn = Callable[..., None]
LONG = "login-node-with-a-name-of-one-hundred-characters-" + "x" * 34 + ".hpc.example.org"


def send(site: AppServer, name: str, body: dict[str, str]) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{site.url}/v4/runners/login/{name}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def test_a_login_is_approved_by_keyboard(new_page: Callable[..., Page], stub_site: AppServer, sign_in: SignIn) -> None:
    for number, (width, scheme) in enumerate(((1440, "light"), (390, "dark"))):
        page = new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        started = send(stub_site, "start", {"host": LONG[:100]})
        page.goto(f"{stub_site.url}/device")  # a person who is not signed in comes back after the sign-in
        sign_in(page, stub_site)
        page.goto(f"{stub_site.url}/device")
        expect(page.get_by_text("./asr login --url")).to_be_visible()
        check_accessible(page)
        keep(page, f"device-{scheme}-{width}-form")
        page.get_by_label("Code").fill(started["user_code"].lower())
        page.keyboard.press("Enter")
        expect(page.get_by_text(started["user_code"])).to_be_visible()
        expect(page.get_by_text(LONG[:60])).to_be_visible()
        check_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        keep(page, f"device-{scheme}-{width}-ask")
        page.get_by_role("button", name=("Approve", "Deny")[number]).focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").filter(has_text=("is logged in as", "was denied")[number])).to_be_visible()
        keep(page, f"device-{scheme}-{width}-done")
        assert (
            send(stub_site, "poll", {"device_code": started["device_code"]})["status"] == ("approved", "denied")[number]
        )
