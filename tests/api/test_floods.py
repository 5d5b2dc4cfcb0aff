"""Floods from unknown clients: bodies that are too large, requests without credentials, guessed passwords."""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from runners.models import AuditRecord, SignInAttempts
from runners.services import sign_in, strangers
from runners.web import login_throttling
from tests.support.api import Api
from tests.support.processes import PATIENCE, wait_for
from tests.support.servers import AppServer

COMMAND = "/v4/runners/command/run-experiment"


@pytest.fixture(autouse=True)
def _fresh(settings: Any) -> None:
    settings.PROTECTION_LEVEL = "ALL"
    cache.clear()
    strangers.STRANGERS._windows.clear()


# --- bodies -----------------------------------------------------------------------------------------------------------


def send(app: AppServer, path: str, headers: str, body: bytes = b"") -> str:
    """Send a hand-written request and return the first line of the response."""
    with socket.create_connection(("127.0.0.1", app.port), timeout=30 * PATIENCE) as connection:
        request = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\r\n\r\n"
        connection.sendall(request.encode() + body)
        return connection.makefile("rb").readline().decode()


def test_a_large_body_is_refused_by_its_length_before_it_is_read(
    make_app: Callable[..., AppServer], tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    app = make_app(env={"PROTECTION_LEVEL": "ALL", "TMPDIR": str(spool)})
    kind = "multipart/form-data; boundary=x"
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + b"a" * 3_000_000
    for path in ("/login", "/admin/login/", "/", "/experiments/create", COMMAND, "//v4/runners/runs"):
        # The test never sends the 400 MB, so a server that waits for them does not respond.
        assert " 413 " in send(app, path, f"Content-Type: {kind}\r\nContent-Length: 400000000")
        assert " 411 " in send(
            app, path, f"Content-Type: {kind}\r\nTransfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n"
        )
        if "/v4/" not in path:
            answer = send(app, path, f"Content-Type: {kind}\r\nContent-Length: {len(part)}", part)
            assert answer.startswith("HTTP/1.1 ") and " 5" not in answer[:12]
    assert " 413 " in send(app, COMMAND, "Content-Type: application/json\r\nContent-Length: 99999999999999999999999")
    assert not [each for each in spool.rglob("*") if each.stat().st_size]


def test_the_refusal_is_a_problem_of_the_api(client: Client, db: None, settings: Any) -> None:
    settings.API_MAX_BODY = 100
    answer = Api(client).raw("run-experiment", b"{" + b" " * 200 + b"}", expect=413)
    assert answer["code"] == "too_large"
    assert not AuditRecord.objects.exists()


# --- unknown clients --------------------------------------------------------------------------------------------------


def test_a_flood_without_credentials_is_counted_and_not_listed(client: Client, db: None, settings: Any) -> None:
    settings.THROTTLE_STRANGERS = "5/min"
    statuses = [client.post(COMMAND, b"{}", "application/json").status_code for _ in range(105)]
    assert statuses == [401] * 5 + [429] * 100
    assert AuditRecord.objects.filter(outcome="not_authenticated").count() == 5
    count = AuditRecord.objects.get(outcome="throttled")
    assert count.endpoint == "refused-requests" and count.address == "127.0.0.1"
    assert count.detail.startswith("64 requests")  # updated when the number has doubled
    answer = client.post(COMMAND, b"{}", "application/json")
    assert answer.json()["code"] == "throttled" and int(answer["Retry-After"]) >= 1
    other = client.post(COMMAND, b"{}", "application/json", REMOTE_ADDR="10.0.0.1")
    assert other.status_code == 401  # each address has its own count


def test_wrong_credentials_are_checked_and_only_counted_in_the_audit(client: Client, db: None, settings: Any) -> None:
    settings.THROTTLE_STRANGERS = "5/min"
    for number in range(50):
        Api(client, {"Authorization": f"Bearer asr_{number}"}).post("run-experiment", {}, expect=401)
    assert AuditRecord.objects.filter(outcome="invalid_credentials").count() == 5
    assert AuditRecord.objects.get(outcome="throttled").detail.startswith("32 requests")


def test_a_flood_does_not_lock_out_who_has_credentials(client: Client, db: None, settings: Any) -> None:
    from runners.models import ApiToken

    settings.THROTTLE_STRANGERS = "5/min"
    for _ in range(20):
        client.post(COMMAND, b"{}", "application/json")
    _, token = ApiToken.issue(user=User.objects.create_user("ana"), expiry=timedelta(days=1))
    Api(client, {"Authorization": f"Bearer {token}"}).post("run-experiment", {}, expect=400)


def test_the_count_of_the_last_period_is_completed(db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.THROTTLE_STRANGERS = "1/min"
    now = [1000.0]
    monkeypatch.setattr(strangers.time, "monotonic", lambda: now[0])
    counter = strangers.Strangers()
    assert counter.counts("a") and not counter.refuses("b")
    for _ in range(7):
        assert counter.refuses("a") == 60
    assert AuditRecord.objects.get().detail.startswith("4 requests")
    now[0] += 61
    assert counter.refuses("a") == 0
    assert AuditRecord.objects.get().detail.startswith("7 requests")


def test_the_addresses_that_are_remembered_are_bounded(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.THROTTLE_STRANGERS = "60/min"
    monkeypatch.setattr(strangers, "MOST_ADDRESSES", 10)
    counter = strangers.Strangers()
    for number in range(100):
        counter.counts(f"10.0.0.{number}")
    assert len(counter._windows) == 10


# --- passwords --------------------------------------------------------------------------------------------------------


def guess(name: str, password: str, address: str, path: str = "/login") -> int:
    return Client().post(path, {"username": name, "password": password}, REMOTE_ADDR=address).status_code


@pytest.mark.parametrize("path", ["/login", "/admin/login/"])
def test_failed_logins_of_one_account_are_throttled_across_addresses(db: None, settings: Any, path: str) -> None:
    settings.THROTTLE_ACCOUNT_LOGINS = "10/min"
    User.objects.create_user("ana", password="of ana", is_staff=True)
    names = ["ana", "Ana", "ａna", " ana "]  # all have the count of one account
    statuses = [guess(names[number % 4], "wrong", f"10.0.{number}.1", path) for number in range(30)]
    assert statuses == [200] * 10 + [429] * 20
    assert guess("ana", "of ana", "10.9.9.9", path) == 429  # a correct guess is not revealed, either
    assert guess("ben", "wrong", "10.0.0.1", path) == 200


def test_failed_logins_are_counted_across_server_processes(make_app: Callable[..., AppServer]) -> None:
    """Fifty clients behind a proxy, with fifty addresses, guess at the same time, in rounds.

    Only five guesses are checked.
    """
    limits = {"THROTTLE_ACCOUNT_LOGINS": "5/h", "RUNNERS_LOGINS_IN_FLIGHT": "50", "NUM_PROXIES": "1"}
    app = make_app(env=limits)
    wait_for(lambda: len(app.worker_pids) >= 2, what="two workers")
    form = http.client.HTTPConnection("127.0.0.1", app.port, timeout=30)
    form.request("GET", "/login")
    page = form.getresponse()
    text = page.read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', text)
    assert token
    cookie = (page.getheader("Set-Cookie") or "").partition(";")[0]
    form.close()

    def guess_from(number: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=60)
        body = urlencode({"csrfmiddlewaretoken": token[1], "username": "ana", "password": f"guess {number}"})
        headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/login", body, {**headers, "X-Forwarded-For": f"10.0.0.{number}"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    answers: list[int] = []
    with ThreadPoolExecutor(50) as pool:
        for _ in range(10):  # a process checks one guess of an account at a time
            is_last = answers.count(200) == 5
            answers += pool.map(guess_from, range(50))
            if is_last:
                break
    assert set(answers) == {200, 429}
    assert answers.count(200) == 5


def test_wrong_old_passwords_are_throttled_within_a_session(db: None, settings: Any) -> None:
    settings.THROTTLE_ACCOUNT_LOGINS = "3/min"
    client = Client()
    client.force_login(User.objects.create_user("ana", password="of ana", is_staff=True))
    guesses = {"old_password": "wrong", "new_password1": "a new one 123", "new_password2": "a new one 123"}
    statuses = [client.post("/admin/password_change/", guesses).status_code for _ in range(5)]
    assert statuses == [200] * 3 + [429] * 2
    assert guess("ana", "of ana", "10.0.0.1") == 429  # the count is the same


def test_attempts_are_forgotten_after_their_period(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_800_000_000.0]
    clock = SimpleNamespace(now=lambda: datetime.fromtimestamp(now[0], UTC))
    monkeypatch.setattr(sign_in, "clock", clock)
    waits = []
    for seconds in (0, 10, 20, 30, 11, 20, 1):
        now[0] += seconds
        waits.append(sign_in.seconds_to_wait("account", "ana", "2/min"))
    assert waits == [0, 0, 30, 0, 0, 29, 28]
    now[0] -= 5  # in another process, whose clock is behind
    assert sign_in.seconds_to_wait("account", "ana", "2/min") > 0
    assert sign_in.seconds_to_wait("address", "ana", "2/min") == 0
    SignInAttempts.objects.update(expires=timezone.now() - timedelta(seconds=1))
    sign_in.seconds_to_wait("account", "ben", "2/min")
    assert SignInAttempts.objects.count() == 1


def test_simultaneous_logins_are_verified_one_at_a_time(
    transactional_db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.THROTTLE_ACCOUNT_LOGINS = settings.THROTTLE_FAILED_LOGINS = ""
    settings.RUNNERS_LOGINS_IN_FLIGHT = 2
    going_on, most, lock, release = [0], [0], threading.Lock(), threading.Event()

    def slow(request: Any) -> Any:
        with lock:
            going_on[0] += 1
            most[0] = max(most[0], going_on[0])
        release.wait(20 * PATIENCE)
        with lock:
            going_on[0] -= 1
        from django.http import HttpResponse

        return HttpResponse()

    from django.test import RequestFactory

    view = login_throttling.throttle_login(slow)

    def ask(name: str) -> int:
        request = RequestFactory().post("/login", {"username": name})
        request.user = None  # type: ignore[assignment]  # the error page reads it
        return int(view(request).status_code)

    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(ask, name) for name in ["ana"] * 10 + [f"b{number}" for number in range(10)]]
        refused = [each for each in asked if _done(each)]
        release.set()
    answers = [each.result() for each in asked]
    assert most[0] <= 2 and answers.count(200) == 2 and answers.count(429) == 18
    assert len(refused) >= 1
    assert ask("ana") == 200  # there is capacity again
    assert not login_throttling._in_flight


def _done(future: Any) -> bool:
    from concurrent.futures import TimeoutError as Waiting

    try:
        future.result(timeout=0.5)
    except Waiting:
        return False
    return True
