"""A reverse proxy that signs people in with a header."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.support.servers import ROOT

PROXY_SECRET = "that the proxy of the tests sends, 0123456789"


def named(name: str, secret: str = PROXY_SECRET) -> dict[str, str]:
    """Return the headers that the proxy sends."""
    return {"X-Remote-User": name, "X-Remote-User-Secret": secret}


@pytest.fixture
def behind_proxy(settings: Any) -> None:
    settings.RUNNERS_REMOTE_USER_HEADER = "X-Remote-User"
    settings.RUNNERS_REMOTE_USER_CREATE = True
    settings.RUNNERS_REMOTE_USER_SECRET = PROXY_SECRET
    place = settings.MIDDLEWARE.index("django.contrib.auth.middleware.AuthenticationMiddleware") + 1
    proxy = "runners.pages.remote_user.ProxyUserMiddleware"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE[:place], proxy, *settings.MIDDLEWARE[place:]]
    settings.AUTHENTICATION_BACKENDS = [
        "runners.pages.remote_user.ProxyUserBackend",
        "django.contrib.auth.backends.ModelBackend",
    ]


def test_a_proxy_header_signs_users_in_and_creates_an_account_without_permissions(
    client: Client, behind_proxy: None, db: None
) -> None:
    assert "grace" in client.get("/", headers=named("grace")).content.decode()
    user = User.objects.get(username="grace")
    assert not user.is_staff
    assert not user.has_usable_password()


@pytest.mark.parametrize("name", ["ADA", "ad\uff41", "a b", "x" * 151, "a;b", "a/b"])
def test_an_invalid_or_lookalike_name_of_a_proxy_header_is_not_signed_in(
    client: Client, behind_proxy: None, ada: User, name: str
) -> None:
    as_sent = name.encode().decode("latin-1")  # how WSGI passes bytes
    for _ in range(2):
        page = client.get("/", headers=named(as_sent))
        client.force_login(ada)  # in the next request, the name ends her session
    assert page.status_code == 200 and "Sign in" in page.content.decode()
    assert User.objects.count() == 1


def test_the_user_name_of_a_proxy_header_is_read_as_utf8(client: Client, behind_proxy: None, db: None) -> None:
    for _ in range(2):
        assert "josé" in client.get("/", headers=named("josé".encode().decode("latin-1"))).content.decode()
    assert User.objects.get().username == "josé"


def test_another_user_in_the_header_ends_the_session(client: Client, behind_proxy: None, db: None) -> None:
    client.get("/", headers=named("grace"))
    assert "ada" in client.get("/", headers=named("ada")).content.decode()
    assert "Sign in" in client.get("/").content.decode()


def test_unknown_and_inactive_users_are_not_signed_in_without_account_creation(
    client: Client, behind_proxy: None, settings: Any, ada: User
) -> None:
    settings.RUNNERS_REMOTE_USER_CREATE = False
    assert "Sign in" in client.get("/", headers=named("mallory")).content.decode()
    assert not User.objects.filter(username="mallory").exists()
    User.objects.filter(pk=ada.pk).update(is_active=False)
    assert "Sign in" in client.get("/", headers=named("ada")).content.decode()


@pytest.mark.parametrize("secret", ["", "wrong", PROXY_SECRET[:-1], PROXY_SECRET + "x", "\u00e9"])
def test_a_header_without_the_secret_of_the_proxy_is_ignored(
    client: Client, behind_proxy: None, ada: User, secret: str
) -> None:
    assert "Sign in" in client.get("/", headers=named("ada", secret)).content.decode()
    assert "Sign in" in client.get("/", headers={"X-Remote-User": "ada"}).content.decode()
    assert "ada" in client.get("/", headers=named("ada")).content.decode()


def test_the_remote_user_header_is_accepted_only_from_the_unix_socket(
    client: Client, behind_proxy: None, settings: Any, ada: User
) -> None:
    settings.RUNNERS_REMOTE_USER_SECRET, settings.RUNNERS_REMOTE_USER_SOCKET = "", True
    assert "Sign in" in client.get("/", headers={"X-Remote-User": "ada"}).content.decode()  # from 127.0.0.1
    assert "ada" in client.get("/", headers={"X-Remote-User": "ada"}, REMOTE_ADDR="").content.decode()


def test_the_remote_user_header_without_a_proof_prevents_the_start() -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "SECRET_KEY": PROXY_SECRET,
        "RUNNERS_REMOTE_USER_HEADER": "X-Remote-User",
    }
    environment["DATABASE_URL"] = "sqlite:///:memory:"
    argv = [sys.executable, "manage.py", "check"]
    refused = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode and "RUNNERS_REMOTE_USER_SECRET" in refused.stderr and "SOCKET=1" in refused.stderr
    for proof in ({"RUNNERS_REMOTE_USER_SECRET": PROXY_SECRET}, {"RUNNERS_REMOTE_USER_SOCKET": "1"}):
        assert not subprocess.run(argv, cwd=ROOT, env=environment | proof, capture_output=True, check=False).returncode


def test_the_remote_user_header_is_ignored_without_the_setting(client: Client, db: None) -> None:
    for name in ("X-Remote-User", "Remote-User"):
        assert "Sign in" in client.get("/", headers={name: "root"}).content.decode()
    assert not User.objects.exists()
