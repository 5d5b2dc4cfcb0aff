"""/livez, /readyz, /version, and the heartbeat of the watch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from runners.models import Heartbeat
from runners.models.webhook import Webhook, WebhookDelivery, WebhookEvent
from runners.services import health
from runners_project import __version__
from tests.support.environments import StubAccount
from tests.support.processes import end, free_port, start, wait_for
from tests.support.rows import saved_run
from tests.support.servers import ROOT, AppServer


def ready(client: Client, *, expect: int = 200) -> dict[str, Any]:
    health.forget()
    response = client.get("/readyz", headers={"host": "10.1.2.3:8000"})
    assert response.status_code == expect
    assert response["Cache-Control"] == "no-store"
    answer: dict[str, Any] = response.json()
    return answer


def codes(answer: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in answer["warnings"]]


def test_a_load_balancer_may_call_by_address_and_without_https(client: Client, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    for path, body in (("/livez", {"status": "alive"}), ("/version", {"version": __version__})):
        response = client.get(path, headers={"host": "10.1.2.3:8000"})  # not in ALLOWED_HOSTS
        assert (response.status_code, response.json()) == (200, body)
        assert client.head(path).status_code == 200
        assert client.post(path).status_code == 405


@pytest.mark.django_db
def test_a_watch_that_is_missing_or_late_is_a_warning(client: Client) -> None:
    Heartbeat.objects.create(kind=health.SERVER, owner="server", interval=health.SERVER_INTERVAL)
    assert codes(ready(client)) == ["no_watch"]
    beat = health.Beat(health.WATCH, interval=10)
    beat.beat()
    answer = ready(client)
    assert (codes(answer), answer["status"]) == ([], "ready")
    assert 0 <= answer["watch_age"] < 10
    Heartbeat.objects.update(seen=timezone.now() - timedelta(seconds=59))  # three intervals and some slack
    assert codes(ready(client)) == []
    Heartbeat.objects.update(seen=timezone.now() - timedelta(seconds=70))
    assert "70 s ago" in ready(client)["warnings"][0]["detail"]
    beat.end()
    assert ready(client)["watch_age"] is None


@pytest.mark.django_db
def test_a_heartbeat_goes_on_if_the_answer_to_its_insert_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    beat = health.Beat(health.WATCH, interval=10)
    insert = Heartbeat.save

    def insert_and_lose(row: Heartbeat, **kwargs: Any) -> None:
        insert(row, **kwargs)
        row.pk, row._state.adding = None, True  # the process does not know that it was stored
        raise OperationalError("the connection was lost")

    monkeypatch.setattr(Heartbeat, "save", insert_and_lose)
    with pytest.raises(OperationalError):
        beat.beat()
    monkeypatch.undo()
    long_ago = timezone.now() - timedelta(days=2)
    Heartbeat.objects.update(seen=long_ago)
    beat.beat()
    assert Heartbeat.objects.get().seen > long_ago
    Heartbeat.objects.all().delete()  # another worker takes it for dead
    beat.beat()
    assert Heartbeat.objects.count() == 1


@pytest.mark.django_db
def test_webhooks_that_wait_are_a_warning(client: Client) -> None:
    health.Beat(health.WATCH, interval=10).beat()
    hook = Webhook.objects.create(name="H", url="https://example.com/hook")
    due = timezone.now() - timedelta(seconds=50)
    fields = {"run": saved_run(), "event": WebhookEvent.COMPLETED, "payload": {}}
    WebhookDelivery.objects.create(webhook=hook, next_attempt=due, **fields)
    assert codes(ready(client)) == []
    WebhookDelivery.objects.update(next_attempt=due - timedelta(seconds=20))
    answer = ready(client)
    assert (codes(answer), answer["webhook_backlog"]) == (["webhook_backlog"], 1)


@pytest.mark.django_db
def test_a_pending_migration_is_not_ready(client: Client) -> None:
    newest = MigrationRecorder.Migration.objects.filter(app="runners").latest("id")
    newest.delete()
    answer = ready(client, expect=503)
    assert answer["status"] == "unavailable"
    assert "manage.py migrate" in answer["detail"]


@pytest.mark.django_db
def test_requests_are_refused_while_a_migration_is_pending(settings: Any) -> None:
    place = settings.MIDDLEWARE.index("runners_project.health.HealthMiddleware") + 1
    settings.MIDDLEWARE = [*settings.MIDDLEWARE]
    settings.MIDDLEWARE.insert(place, "runners_project.health.MigrationsMiddleware")
    client = Client()
    newest = MigrationRecorder.Migration.objects.filter(app="runners").latest("id")
    name, applied = newest.name, newest.applied
    newest.delete()
    answer = client.get("/v4/runners/runs")
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert answer.json()["detail"].endswith("1 migration is pending: run `manage.py migrate`.")
    assert answer["Retry-After"]
    page = client.get("/login")
    assert (page.status_code, "1 migration is pending" in page.content.decode()) == (503, True)
    assert (client.get("/livez").status_code, ready(client, expect=503)["status"]) == (200, "unavailable")
    MigrationRecorder.Migration.objects.create(app="runners", name=name, applied=applied)
    health.forget()
    assert client.get("/v4/runners/runs").status_code == 401
    with CaptureQueriesContext(connection) as queries:
        client.get("/v4/runners/runs")
    assert not [query for query in queries if "django_migrations" in query["sql"]]


def test_without_a_database_the_requests_that_wait_ask_once_together(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def ask() -> str:
        asked.append(time.monotonic())
        time.sleep(1.2 * health.SHARED_FOR)  # a database that does not answer until the deadline of the connection
        raise OperationalError("no answer")

    monkeypatch.setattr(health, "pending_migrations", ask)
    threads = [threading.Thread(target=health.why_not_migrated) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1


@pytest.mark.django_db
def test_a_newer_migration_in_the_database_is_accepted(client: Client) -> None:
    MigrationRecorder.Migration.objects.create(app="runners", name="9999_of_a_newer_version", applied=timezone.now())
    assert ready(client)["status"] == "ready"


def test_a_missing_database_makes_the_service_not_ready_but_alive(tmp_path: Any) -> None:
    program = (
        "import django; django.setup()\n"
        "from django.test import Client\n"
        "print(Client().get('/livez').status_code, Client().get('/readyz').status_code, Client().get('/readyz').json())"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "SECRET_KEY": "a" * 10 + "bcdefghijklmnopqrstuvwxyz0123456789012345678",
        "DATABASE_URL": f"postgres://nobody:x@127.0.0.1:{free_port()}/none",
        "DJANGO_SETTINGS_MODULE": "runners_project.settings",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.startswith("200 503 {"), done.stderr
    assert "The database is unavailable." in done.stdout


@pytest.mark.django_db
def test_pages_show_that_no_worker_is_running(admin_client: Client, client: Client) -> None:
    for path in ("/", "/admin/"):
        health.forget()
        assert "No worker is running" in admin_client.get(path).content.decode(), path
    assert "No worker" not in client.get("/admin/", follow=True).content.decode()
    health.Beat(health.WATCH, interval=10).beat()
    for path in ("/", "/admin/"):
        health.forget()
        assert "No worker is running" not in admin_client.get(path).content.decode(), path


def test_the_worker_waits_for_pending_migrations(app: AppServer) -> None:
    app.manage("migrate", "runners", "0038", "--verbosity=0")
    argv = [sys.executable, str(ROOT / "manage.py"), "watch_runs", "--interval=0.5"]
    log = app.folder / "watch.log"
    watch = start(argv, log=log, env=app.environment, cwd=ROOT)
    try:
        wait_for(lambda: "The worker waits." in log.read_text(), 30, what="the worker waits")
        assert "Watching" not in log.read_text()
        app.manage("migrate", "--verbosity=0")
        wait_for(lambda: "Watching" in log.read_text(), 30, what="the worker begins")
    finally:
        end(watch)
    assert "Traceback" not in log.read_text()


def test_the_worker_waits_for_a_database_that_is_down_when_it_starts(app: AppServer) -> None:
    """It cannot know yet whether migrations are pending."""
    app.stop()
    aside = app.database.rename(app.database.with_suffix(".aside"))
    app.database.mkdir()  # SQLite cannot open it
    argv = [sys.executable, str(ROOT / "manage.py"), "watch_runs", "--interval=0.5"]
    log = app.folder / "watch.log"
    watch = start(argv, log=log, env=app.environment, cwd=ROOT)
    try:
        wait_for(lambda: "The worker waits." in log.read_text(), 30, what="the worker waits")
        assert "The database is unavailable" in log.read_text() and "Watching" not in log.read_text()
        app.database.rmdir()
        aside.rename(app.database)
        wait_for(lambda: "Watching" in log.read_text(), 30, what="the worker begins")
    finally:
        end(watch)
    assert "Traceback" not in log.read_text()


def test_watch_runs_records_that_it_lives_and_that_it_ends(app: AppServer) -> None:
    def answer() -> dict[str, Any]:
        return dict(app.get("/readyz").body)

    argv = [sys.executable, str(ROOT / "manage.py"), "watch_runs", "--interval=0.5"]
    watch = start(argv, log=app.folder / "watch.log", env=app.environment, cwd=ROOT)
    try:
        wait_for(lambda: not answer()["warnings"], 30, what="the heartbeat of the watch")
    finally:
        end(watch)
    wait_for(lambda: codes(answer()) == ["no_watch"], 30, what="the end of the watch")


# --- request ids ------------------------------------------------------------------------------------------------------

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-request-id": "nginx-4711.a:b_c"}, "nginx-4711.a:b_c"),
        ({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}, TRACE),
        ({"x-request-id": "given", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}, "given"),
        ({}, None),
        ({"x-request-id": "a b"}, None),
        ({"x-request-id": "a\nb"}, None),
        ({"x-request-id": "a" * 65}, None),
        ({"x-request-id": "\u202eabc"}, None),
        ({"x-request-id": "-x"}, None),
        ({"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"}, None),
        ({"traceparent": "00-" + "a" * 100_000}, None),
    ],
)
def test_each_answer_has_the_id_of_its_request(client: Client, headers: dict[str, str], expected: str | None) -> None:
    answered = client.get("/livez", headers=headers)["X-Request-ID"]
    if expected is None:
        assert re.fullmatch(r"[0-9a-f]{32}", answered)
    else:
        assert answered == expected


def test_the_log_and_the_audit_record_have_the_id(app: AppServer) -> None:
    body: dict[str, Any] = {"expid": "zzzz", "profile_name": "NONE"}
    app.post("/v4/runners/command/run-experiment", body, X_Request_ID="find-me-1")
    line = next(line for line in app.log_text().splitlines() if "run-experiment zzzz" in line)
    assert "[find-me-1]" in line and "runners.commands" in line
    script = "from runners.models import AuditRecord as A\nprint('ids', [row.request_id for row in A.objects.all()])"
    assert "ids ['find-me-1']" in app.manage("shell", "-c", script)


def test_logs_may_be_lines_of_json(make_app: Callable[..., AppServer], account: StubAccount) -> None:
    app = make_app(account=account, env={"LOG_FORMAT": "json"})
    body: dict[str, Any] = {"expid": "zzzz", "profile_name": "NONE"}
    app.post("/v4/runners/command/run-experiment", body, X_Request_ID="find-me-2")
    lines = [json.loads(line) for line in app.log_text().splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line["name"] == "runners.commands"]
    assert (line["request_id"], line["levelname"]) == ("find-me-2", "INFO")
    assert line["message"].startswith("run-experiment zzzz")
