"""What holds for every page: no database, and browser caches. tests/browser tests the pages in browsers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tests.support.servers import AppServer


def test_every_page_reports_a_database_that_does_not_answer(make_app: Callable[..., AppServer], tmp_path: Path) -> None:
    app = make_app(env={"DATABASE_URL": f"sqlite:///{tmp_path}/gone/db.sqlite3"}, workers=1)
    app.headers = {"Cookie": "sessionid=of-somebody-signed-in"}
    for path in ("/", "/runs/1", "/runs/list", "/start", "/history", "/admin/", "/admin/runners/runnerrun/", "/login"):
        answer = app.get(path)
        assert answer.status == 503, (path, answer.body)
        assert "The database is unavailable" in answer.body
        assert answer.headers["Retry-After"] == "5"
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/history", "/login", "/admin/", "/docs", "/openapi.json", "/no-such-page"])
def test_no_page_is_stored_by_a_browser(client: Client, ada: User, path: str) -> None:
    """After a sign-out, the browser's Back button must not show the page."""
    for _ in ("signed out", "signed in"):
        assert "no-store" in client.get(path).headers["Cache-Control"]
        client.force_login(ada)


def test_a_form_with_a_nul_is_refused(client: Client, ada: User) -> None:
    """PostgreSQL rejects such a text."""
    client.force_login(ada)
    for path in ("/account", "/start", "/device", "/runs/1/stop", "/machines/localhost", "/login", "/admin/login/"):
        for form in ({"action": "revoke-token", "token": "\0"}, {"a\0": "x"}, {"run": ["1", "2\0"]}):
            answer = client.post(path, form)
            assert answer.status_code == 400, path
            assert "This request is not valid" in answer.content.decode(), path


def test_the_content_of_a_file_may_have_a_nul(admin_client: Client) -> None:
    upload = SimpleUploadedFile("a.yml", b"A: \0")
    answer = admin_client.post("/admin/profiles/runnerprofile/import/", {"file": upload, "text": ""})
    assert answer.status_code == 200
    assert "Not valid YAML" in answer.content.decode()
