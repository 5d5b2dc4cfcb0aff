"""What holds for every page: no database, and browser caches. tests/browser tests the pages in browsers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
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
