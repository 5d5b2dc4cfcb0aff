"""The login of the command line with a browser: its codes, the page that asks, the token, and the limits."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import caches
from django.test import Client
from django.utils import timezone

from runners.models import ApiToken, AuditRecord, DeviceLogin
from runners.services import device_login
from runners.web.throttling import seconds_to_wait

pytestmark = pytest.mark.django_db

PATH = "/v4/runners/login"


def send(name: str, body: dict[str, Any], token: str = "", expect: int = 200) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    response = Client().post(f"{PATH}/{name}", json.dumps(body), "application/json", headers=headers)
    assert response.status_code == expect, response.content
    found: dict[str, Any] = response.json()
    return found


def start(**body: str) -> dict[str, Any]:
    return send("start", {"host": "login1", **body})


def poll(started: dict[str, Any]) -> dict[str, Any]:
    caches["login-polls"].clear()  # the interval between two polls
    return send("poll", {"device_code": started["device_code"]})


def decide(browser: Client, started: dict[str, Any], decision: str = "approve") -> Any:
    return browser.post("/device", {"code": started["user_code"], "decision": decision})


def test_an_approved_login_gives_an_ordinary_token_once(browser: Client, ada: User, settings: Any) -> None:
    settings.PROTECTION_LEVEL = "ALL"
    started = start()
    assert started["verification_uri_complete"].endswith(f"/device?code={started['user_code']}")
    assert poll(started)["status"] == "pending"
    page = browser.get("/device", {"code": started["user_code"].lower().replace("-", " ")}).content.decode()
    for words in ("login1", "127.0.0.1", "ada", started["user_code"], "run: read, and the commands", "90 days"):
        assert words in page
    assert "is logged in as ada" in decide(browser, started).content.decode()
    polled = poll(started)
    assert (polled["status"], polled["username"]) == ("approved", "ada")
    token = ApiToken.objects.get(user=ada)
    assert (token.name, token.scope) == ("asr on login1", "run")
    assert token.expiry and timedelta(days=89) < token.expiry - timezone.now() < timedelta(days=91)
    assert poll(started) == {"status": "expired", "token": "", "username": "", "facts": None}
    assert ApiToken.objects.count() == 1
    me = Client().get(f"{PATH}/whoami", headers={"Authorization": f"Bearer {polled['token']}"}).json()
    assert (me["username"], me["token"]["key"]) == ("ada", token.token_key)
    record = AuditRecord.objects.get(endpoint="device-login")
    assert (record.actor, record.detail) == ("ada", "Approved for login1 (127.0.0.1).")
    added = AuditRecord.objects.filter(actor="ada").exclude(pk=record.pk)
    assert added.count() == 1  # the new token is recorded as hers
    send("revoke", {}, polled["token"])
    assert not ApiToken.objects.exists()
    send("revoke", {}, polled["token"], expect=401)


def test_a_denied_login_gives_no_token(browser: Client) -> None:
    started = start()
    assert "It got no token" in decide(browser, started, "deny").content.decode()
    assert poll(started)["status"] == "denied"
    assert decide(browser, started).status_code == 400  # it was decided
    assert poll(started)["status"] == "denied"
    assert not ApiToken.objects.exists()


def test_only_a_signed_in_person_with_a_form_of_the_page_can_approve(ada: User) -> None:
    started = start()
    anonymous = Client().post("/device", {"code": started["user_code"], "decision": "approve"})
    assert anonymous["Location"].startswith("/login?next=")
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(ada)
    assert decide(strict, started).status_code == 403
    strict.get("/device", {"code": started["user_code"]})  # looking at it decides nothing
    assert poll(started)["status"] == "pending"


def test_codes_expire(browser: Client) -> None:
    started, approved = start(), start()
    decide(browser, approved)
    DeviceLogin.objects.update(expires=timezone.now() - timedelta(seconds=1))
    assert poll(started)["status"] == poll(approved)["status"] == "expired"
    assert "may have expired" in decide(browser, started).content.decode()
    DeviceLogin.objects.update(expires=timezone.now() - timedelta(hours=1))
    start()
    assert DeviceLogin.objects.count() == 1  # the old ones were removed
    assert not ApiToken.objects.exists()


def test_a_deactivated_person_gets_no_token(browser: Client, ada: User) -> None:
    started = start()
    decide(browser, started)
    User.objects.filter(pk=ada.pk).update(is_active=False)
    assert poll(started)["status"] == "denied"


def test_the_secret_codes_are_not_stored(browser: Client) -> None:
    started = start()
    decide(browser, started)
    token = poll(started)["token"]
    stored = str(list(DeviceLogin.objects.values())) + str(list(ApiToken.objects.values()))
    stored += str(list(AuditRecord.objects.values()))
    assert started["device_code"] not in stored
    assert token not in stored


def test_logins_codes_and_polls_are_limited(browser: Client) -> None:
    for _ in range(10):
        started = start()
    refused = send("start", {"host": "login1"}, expect=429)
    assert "Too many logins from this address" in refused["detail"]
    for _ in range(10):
        assert browser.get("/device", {"code": "BCDF-GHJK"}).status_code == 400
    page = browser.get("/device", {"code": started["user_code"]})
    assert page.status_code == 429
    assert page["Retry-After"]
    poll(started)
    assert send("poll", {"device_code": started["device_code"]}, expect=429)["code"] == "throttled"


def test_the_service_bounds_the_logins_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_login, "MOST_PENDING", 2)
    start()
    start()
    send("start", {"host": "login1"}, expect=429)


def test_a_hostile_host_name_is_shown_as_text(browser: Client) -> None:
    started = start(host="<b>\x1b[2Jlogin1\u202e</b>")
    page = browser.get("/device", {"code": started["user_code"]}).content.decode()
    assert "&lt;b&gt;\ufffd[2Jlogin1\ufffd&lt;/b&gt;" in page
    send("start", {"host": "x" * 101}, expect=400)
    send("start", {"host": "login1", "scope": "manage"}, expect=400)


def test_strange_codes_find_nothing(browser: Client) -> None:
    for code in ("\0", "AEIO-UYAE", "%00", "x" * 1000):
        assert browser.get("/device", {"code": code}).status_code == 400, code
    assert "Enter the code" in browser.get("/device").content.decode()


def test_polls_without_credentials_do_not_reset_the_rate_limit_of_a_person(ada: User, settings: Any) -> None:
    settings.PROTECTION_LEVEL, settings.THROTTLE_COMMANDS = "ALL", "2/min"
    _, token = ApiToken.issue(user=ada, expiry=timedelta(days=1), scope="run")

    def stop() -> int:
        headers = {"Authorization": f"Bearer {token}"}
        path = "/v4/runners/command/stop-experiment"
        return Client().post(path, {"expid": "zz99"}, "application/json", headers=headers).status_code

    assert [stop() for _ in range(3)] == [404, 404, 429]
    codes = [f"{number:064}" for number in range(400)]  # a cache of Django without MAX_ENTRIES has 300 entries
    for code in codes:
        send("poll", {"device_code": code})
    assert stop() == 429
    for code in codes:
        seconds_to_wait("commands", lambda code=code: code)  # other people
    assert stop() == 429
    assert send("poll", {"device_code": codes[-1]}, expect=429)["code"] == "throttled"
