"""The sign-in page: expired sessions, guessed passwords, forms of other origins."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client

from runners.models import SignInAttempts


def test_a_page_fragment_redirects_the_whole_page_to_the_login_after_the_session(client: Client, db: None) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://testserver/runs/3"}
    response = client.get("/runs/list", headers=headers)
    assert response.status_code == 204
    assert response["HX-Redirect"] == "/login?next=http%3A%2F%2Ftestserver%2Fruns%2F3"
    elsewhere = client.get("/runs/list", headers={**headers, "HX-Current-URL": "http://evil.example/"})
    assert elsewhere["HX-Redirect"] == "/login?next=%2F"


def test_the_sign_in_page_can_be_another_view(client: Client, settings: Any, db: None) -> None:
    settings.LOGIN_URL = "openapi"  # the recipe for OpenID Connect also names its own view here
    assert 'href="/openapi.json">Sign in' in client.get("/").content.decode()
    assert client.get("/start")["Location"] == "/openapi.json?next=/start"
    assert client.get("/runs/list", headers={"HX-Request": "true"})["HX-Redirect"] == "/openapi.json?next=%2F"


@pytest.mark.parametrize("path", ["/login", "/admin/login/"])
def test_failed_logins_are_throttled(client: Client, ada: User, settings: Any, path: str) -> None:
    settings.THROTTLE_FAILED_LOGINS = "3/min"
    User.objects.filter(pk=ada.pk).update(is_staff=True)
    wrong = {"username": "ada", "password": "guessed"}
    assert [client.post(path, wrong).status_code for _ in range(3)] == [200] * 3
    for body in (wrong, {"username": "ada", "password": "x"}):  # also after a correct guess
        refused = client.post(path, body)
        assert refused.status_code == 429
        assert 1 <= int(refused["Retry-After"]) <= 60
        assert "Too many attempts" in refused.content.decode()
    assert client.get(path).status_code == 200
    SignInAttempts.objects.all().delete()
    assert client.post(path, {"username": "ada", "password": "x"}).status_code == 302


def send_login(origin: str, **headers: str) -> HttpResponse:
    """Sign ada in with a form that contains its token."""
    browser = Client(enforce_csrf_checks=True, headers={"Host": "testserver", "Origin": origin, **headers})
    token = browser.get("/login").context["csrf_token"]
    return browser.post("/login", {"username": "ada", "password": "x", "csrfmiddlewaretoken": str(token)})


def test_a_tls_proxy_without_its_setting_is_named_as_the_cause(ada: User, settings: Any) -> None:
    refused = send_login("https://testserver")
    assert refused.status_code == 403
    words = refused.content.decode()
    assert "BEHIND_HTTPS_PROXY=1" in words
    assert "https://testserver" in words
    assert "http://testserver" in words
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert send_login("https://testserver", **{"X-Forwarded-Proto": "https"}).status_code == 302


def test_a_form_of_another_origin_and_an_expired_form_have_different_errors(ada: User) -> None:
    foreign = send_login("https://evil.example").content.decode()
    assert "https://evil.example" in foreign
    assert "CSRF_TRUSTED_ORIGINS" in foreign
    assert "BEHIND_HTTPS_PROXY" not in foreign
    expired = Client(enforce_csrf_checks=True).post("/login", {"username": "ada", "password": "x"})
    assert expired.status_code == 403
    assert "This form has expired" in expired.content.decode()
