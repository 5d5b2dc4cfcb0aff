"""The number of connections that the service may need is compared with what PostgreSQL admits."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from django.test import Client

from runners.models import Heartbeat
from runners.services import health, probing, sizing
from runners.services.sizing import Room, Size
from tests.support.paths import ROOT
from tests.support.postgres import Postgres, find_postgres
from tests.support.requirements import need


def test_the_connections_of_a_worker_are_those_of_its_threads() -> None:
    source = (ROOT / "runners/worker/distributed.py").read_text()  # it can be imported with PostgreSQL only
    tasks = sum(map(int, re.findall(r"^(?:SILENT_)?AT_ONCE = (\d+)", source, re.MULTILINE)))
    assert tasks + 2 + probing._HELPERS._initial_value == sizing.OF_WORKER  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("argv", "environment", "expected"),
    [
        (["gunicorn", "--workers", "3"], {}, 3),
        (["gunicorn", "--workers=4"], {}, 4),
        (["gunicorn", "-w", "5"], {"WEB_CONCURRENCY": "9"}, 5),
        (["gunicorn"], {"WEB_CONCURRENCY": "9"}, 9),
        (["gunicorn"], {"GUNICORN_CMD_ARGS": "--workers 7 --threads=2"}, 7),
        (["manage.py", "check"], {}, 2),
        (["gunicorn", "--workers", "many"], {}, 2),
    ],
)
def test_the_number_of_processes_comes_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], environment: dict[str, str], expected: int
) -> None:
    for name in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert sizing.processes_of(argv) == expected


def test_a_service_that_fits_has_no_warning() -> None:
    size = Size(nodes=1, processes=2, threads=8, workers=1)
    assert size.connections == 89
    assert not sizing.shortage(size, Room(89, "max_connections"))
    assert "89 connections; max_connections: 88" in sizing.shortage(size, Room(88, "max_connections"))
    assert not sizing.shortage(size, None)


@pytest.mark.django_db
def test_readyz_warns_and_names_the_remedy(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for node in ("one", "two"):
        Heartbeat.objects.create(kind=health.WATCH, owner=node, node=node, interval=10)
    monkeypatch.setattr(sizing, "room", lambda: Room(97, "max_connections"))
    health.forget()
    (warning,) = client.get("/readyz").json()["warnings"]
    health.forget()
    assert warning["code"] == "few_connections"
    assert "2 nodes x 2 processes" in warning["detail"] and "pgbouncer" in warning["detail"]


def test_the_command_asks_a_real_postgresql() -> None:
    need(find_postgres(), "PostgreSQL")
    with Postgres() as postgres:
        url = postgres.create("sizing")

        def run(*options: str) -> subprocess.CompletedProcess[str]:
            env = {**os.environ, "DATABASE_URL": url, "SECRET_KEY": "s8Vq2LmZx0Rk5TnYw7Bc4HdJf9GpAeUi3Xo"}
            env["DJANGO_SETTINGS_MODULE"] = "runners_project.settings"
            argv = [sys.executable, "manage.py", "sizing", *options]
            return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)

        fits = run()
        assert fits.returncode == 0 and "= 89 connections" in fits.stdout and "The database admits" in fits.stdout
        tight = run("--nodes=20", "--threads=64")
        assert tight.returncode == 1 and "pgbouncer" in tight.stderr
