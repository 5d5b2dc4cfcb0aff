"""/metrics: the counters of all processes, and the state of the database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from runners.models import Mail
from runners.models.webhook import Webhook, WebhookDelivery, WebhookEvent
from runners.services import health, monitoring
from runners_project import __version__
from runners_project.env import envtoken
from tests.support.rows import saved_run
from tests.support.servers import ROOT, AppServer

TOKEN = "metrics-3n5kQ0vTz8wXy1LrB7uHc2JdFg9PaSeM"


@pytest.fixture
def metrics_token(settings: Any) -> Iterator[None]:
    settings.METRICS_TOKEN = TOKEN
    health.forget()
    monitoring.STATE.forget()
    yield
    health.forget()
    monitoring.STATE.forget()


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Return the value of each sample, by its name and labels. The parser rejects malformed text."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found.get((f"autosubmit_runners_{name}", frozenset(labels.items())), 0.0)


def scrape(client: Client) -> Samples:
    response = client.get("/metrics", headers={"host": "10.1.2.3:8000", "authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    return samples(response.content.decode())


def test_without_a_token_there_is_no_such_page(client: Client) -> None:
    assert client.get("/metrics").status_code == 404


@pytest.mark.django_db
@pytest.mark.usefixtures("metrics_token")
@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xff"])
def test_another_token_is_rejected(client: Client, given: str) -> None:
    response = client.get("/metrics", headers={"authorization": given})
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Bearer")
    assert TOKEN not in response.content.decode()
    assert client.post("/metrics", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 405


@pytest.mark.django_db
@pytest.mark.usefixtures("metrics_token")
def test_the_state_of_the_database(client: Client) -> None:
    saved_run(host="node1", expid="a001")
    saved_run(host="node1", expid="a002", reachable=False)
    silent = saved_run(host="node2", expid="a003", reachable=False)
    saved_run(host="node3", expid="a004", status="COMPLETED")
    hook = Webhook.objects.create(name="H", url="https://example.com/hook")
    WebhookDelivery.objects.create(webhook=hook, run=silent, event=WebhookEvent.COMPLETED, payload={})
    Mail.objects.create(user=User.objects.create_user("ana"), event="run.completed", next_attempt=timezone.now())
    found = scrape(client)
    assert value(found, "active_runs", state="confirmed") == 1
    assert value(found, "active_runs", state="unconfirmed") == 2
    assert value(found, "machines", state="answering") == 1
    assert value(found, "machines", state="silent") == 1
    assert value(found, "webhooks_due") == 1
    assert value(found, "mails_due") == 1
    assert 0 <= value(found, "mails_oldest_due_seconds") < 60
    assert value(found, "ready") == 1
    assert value(found, "info", version=__version__) == 1
    assert not [name for name, labels in found if "node" in str(labels) or "a00" in str(labels)]


@pytest.mark.django_db
@pytest.mark.usefixtures("metrics_token")
def test_any_number_of_paths_and_methods_has_few_labels(client: Client) -> None:
    scrape(client)  # a scrape is counted, too
    before = scrape(client)
    for number in range(5):
        client.get(f"/no/such/page/{number}")
        client.generic(f"METHOD{number}", "/login")
        client.get(f"/v4/runners/runs/9999{number}")
    after = scrape(client)
    new = {labels for name, labels in after.keys() - before.keys() if name == "autosubmit_runners_requests_total"}
    assert len(new) <= 3
    unmatched = {"method": "GET", "route": "unmatched", "status": "404"}
    assert value(after, "requests_total", **unmatched) == value(before, "requests_total", **unmatched) + 5


def test_the_processes_of_a_server_add_up_their_counters(tmp_path: Path) -> None:
    shared = tmp_path / "metrics"
    shared.mkdir(mode=0o700)
    env = {"METRICS_TOKEN": TOKEN, "PROMETHEUS_MULTIPROC_DIR": str(shared), "PROTECTION_LEVEL": "NONE"}
    ended = subprocess.Popen(["true"])
    ended.wait()
    (shared / f"gauge_livesum_{ended.pid}.db").write_bytes(bytes(1024))  # of a process that has ended
    with AppServer(tmp_path / "app", env=env, workers=2) as app:
        for _ in range(40):
            assert app.get("/login").status == 200
        assert app.post("/v4/runners/command/stop-experiment", {"expid": "a000"}).status == 404
        answers = [app.get("/metrics", Authorization=f"Bearer {TOKEN}") for _ in range(4)]
    for answer in answers:  # from whichever process
        found = samples(answer.body)
        assert value(found, "requests_total", method="GET", route="login", status="200") == 40
        assert value(found, "commands_total", command="stop-experiment", outcome="run_not_found") == 1
        assert value(found, "command_seconds_count", command="stop-experiment") == 1
    assert not (shared / f"gauge_livesum_{ended.pid}.db").exists()
    assert {oct(file.stat().st_mode & 0o777) for file in shared.iterdir()} == {"0o600"}


@pytest.mark.parametrize("folder", [None, "absent"])
def test_a_token_without_a_shared_directory_stops_the_start(tmp_path: Path, folder: str | None) -> None:
    env = {**os.environ, "METRICS_TOKEN": TOKEN, "SECRET_KEY": "s8Vq2LmZx0Rk5TnYw7Bc4HdJf9GpAeUi3Xo"}
    env.pop("PROMETHEUS_MULTIPROC_DIR", None)
    if folder:
        env["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path / folder)
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "PROMETHEUS_MULTIPROC_DIR" in done.stderr


def test_a_token_that_is_easy_to_guess_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_TOKEN", "short")
    with pytest.raises(ImproperlyConfigured, match="METRICS_TOKEN"):
        envtoken("METRICS_TOKEN")
