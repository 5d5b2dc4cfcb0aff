"""Statuses that the middleware answers: the same responses as those of the view, and the same checks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.db import OperationalError
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from profiles.models import RunnerProfile
from runners.api import status_middleware
from runners.models import ApiToken, RunnerRun
from runners.services.access import forget_view_rules

pytestmark = pytest.mark.django_db

PATH = "/v4/runners/command/get-runner-run-status"
SECRET = "the Autosubmit API signs with it, of the test"
CONFIG = {"runner_type": "LOCAL", "module_loader_type": "NO_MODULE", "modules": [], "ssh": None}
MIDDLEWARE = "runners.api.status_middleware.StatusMiddleware"


@pytest.fixture(autouse=True)
def protection(settings: Any) -> None:
    settings.PROTECTION_LEVEL = "ALL"
    settings.AS_API_JWT_SECRET = SECRET
    cache.clear()
    forget_view_rules()


@pytest.fixture
def ana() -> User:
    return User.objects.create_user("ana")


@pytest.fixture
def token(ana: User) -> str:
    return ApiToken.issue(user=ana, scope="read")[1]


@pytest.fixture(autouse=True)
def run() -> RunnerRun:
    return RunnerRun.objects.create(
        expid="a001", config=CONFIG, runner="LOCAL", module_loader="NO_MODULE", status="COMPLETED", detail="é" * 20
    )


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return, for each request that the middleware has tried to answer, whether it did."""
    found: list[bool] = []
    answer = status_middleware._answer

    def recorded(request: Any) -> HttpResponse | None:
        response = answer(request)
        found.append(response is not None)
        return response

    monkeypatch.setattr(status_middleware, "_answer", recorded)
    return found


def ask(token: str = "", body: bytes = b'{"expid": "a001"}', **more: Any) -> Any:
    content_type, path = more.pop("content_type", "application/json"), more.pop("path", PATH)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return Client().post(path, body, content_type, headers={**headers, **more.pop("headers", {})}, **more)


def both(settings: Any, *args: Any, **more: Any) -> Any:
    """Send a request with and without the middleware. Return the response, which must be the same."""
    ours = ask(*args, **more)
    before = settings.MIDDLEWARE
    settings.MIDDLEWARE = [each for each in before if each != MIDDLEWARE]
    theirs = ask(*args, **more)
    settings.MIDDLEWARE = before
    varying = {"X-Request-ID"}
    assert ours.status_code == theirs.status_code
    assert ours.content == theirs.content
    assert {k: v for k, v in ours.items() if k not in varying} == {k: v for k, v in theirs.items() if k not in varying}
    return ours


def test_a_status_is_answered_as_by_the_view(settings: Any, token: str, answered: list[bool]) -> None:
    response = both(settings, token)
    assert response.status_code == 200
    assert response.json()["status"] == "COMPLETED"
    assert response.resolver_match.route.endswith("get-runner-run-status")
    assert answered == [True]


def test_a_login_of_the_autosubmit_api_is_accepted(settings: Any, answered: list[bool]) -> None:
    expiry = timezone.now() + timedelta(minutes=5)
    assert both(settings, jwt.encode({"exp": expiry, "user_id": "ana"}, SECRET)).status_code == 200
    assert answered == [True]


def test_a_long_status_is_compressed(settings: Any, token: str, run: RunnerRun, answered: list[bool]) -> None:
    RunnerRun.objects.filter(pk=run.pk).update(detail="x" * 3000)
    ours = ask(token, headers={"Accept-Encoding": "gzip"})
    assert ours["Content-Encoding"] == "gzip"
    assert int(ours["Content-Length"]) == len(ours.content) < 2000
    assert both(settings, token)["Vary"] == "Accept-Encoding"
    assert answered == [True, True]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"expid": "b001"}', 404),
        (b'{"expid": "A001"}', 400),
        (b'{"expid": "a001", "expid": "a001"}', 400),
        (b'{"expid": "a001", "x": 1}', 400),
        (b'{"expid": "a001"} {}', 400),
        (b'{"expid": "a' + b"0" * 30 + b'"}', 400),
        (b'{"expid": "a001\\u0000"}', 400),
        (b'["a001"]', 400),
        (b'{"expid":\x0c"a001"}', 400),
        (b"\xff", 400),
        (b"", 400),
        (b'{"expid": "a001", "profile_name": null}', 200),
        (b'{"expid": "\\u0061001"}', 200),
    ],
)
def test_the_view_parses_every_other_body(
    settings: Any, token: str, answered: list[bool], body: bytes, status: int
) -> None:
    assert both(settings, token, body).status_code == status
    assert True not in answered


def test_the_view_rejects_wrong_credentials(settings: Any, ana: User, answered: list[bool]) -> None:
    _, text = ApiToken.issue(user=ana)
    for header in ("", text[:-1] + "x", text + " x", "eyJ.x.y"):
        assert both(settings, header).status_code == 401, header
    assert ask(headers={"Authorization": "Basic YTpi"}).status_code == 401
    assert ask(text).status_code == 200
    ana.is_active = False
    ana.save()
    assert both(settings, text).status_code == 401
    assert answered.count(True) == 1


def test_a_token_ends_with_its_revocation_and_its_expiry(settings: Any, ana: User) -> None:
    row, text = ApiToken.issue(user=ana)
    assert ask(text).status_code == 200
    ApiToken.objects.update(expiry=timezone.now() - timedelta(days=1))
    assert both(settings, text).status_code == 401
    ApiToken.objects.update(expiry=None)
    assert ask(text).status_code == 200
    row.delete()
    assert both(settings, text).status_code == 401


def test_a_hidden_run_is_not_shown(settings: Any, token: str, run: RunnerRun) -> None:
    profile = RunnerProfile.objects.create(name="SECRET")
    group = Group.objects.create(name="few")
    profile.view_groups.add(group)
    RunnerRun.objects.filter(pk=run.pk).update(profile_id=profile.pk, profile_name="SECRET")
    forget_view_rules()
    assert both(settings, token).status_code == 404
    User.objects.get(username="ana").groups.add(group)
    assert both(settings, token).status_code == 200


def test_another_request_reaches_the_view(settings: Any, token: str, answered: list[bool]) -> None:
    assert both(settings, token, content_type="text/plain").status_code == 415
    assert both(settings, token, path=PATH + "/").status_code == 200
    assert Client().get(PATH, headers={"Authorization": f"Bearer {token}"}).status_code == 405
    settings.PROTECTION_LEVEL = "NONE"
    assert both(settings, "asr_wrong").status_code == 200
    settings.PROTECTION_LEVEL = "ALL"
    settings.THROTTLE_READS = "1/min"
    assert [ask(token).status_code for _ in range(2)] == [200, 429]
    assert answered in ([], [True])  # the path with a slash is made plain before


def test_a_wrong_host_is_rejected(settings: Any, token: str) -> None:
    settings.ALLOWED_HOSTS = ["runners.example.org"]
    assert both(settings, token, headers={"Host": "evil.example.org"}).status_code == 400
    assert both(settings, token, headers={"Host": "runners.example.org"}).status_code == 200


def test_without_a_database_the_view_says_so(settings: Any, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(type(ApiToken.objects.all()), "with_digest", fail)
    response = both(settings, token)
    assert response.status_code == 503
    assert response.json()["code"] == "database_unavailable"
