"""The clock of the database (runners_project/clock.py), measured by connections to PostgreSQL."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from django.db import OperationalError

from runners.services import health
from runners_project import clock
from tests.support.postgres import Postgres, find_postgres
from tests.support.processes import PATIENCE
from tests.support.requirements import need
from tests.support.servers import ROOT

SHOW = "from runners_project import clock; print(clock.now().timestamp())"


def ahead() -> float:
    """Return how many seconds the clock is ahead of this machine's."""
    return (clock.now() - datetime.now(UTC)).total_seconds()


def learn(seconds: float, *, trip: float = 0.0) -> None:
    """Measure a database that is ahead by `seconds`. Its answer took `trip` seconds."""
    here = datetime.now(UTC).timestamp()
    now = clock.uptime()
    clock.learn(here + seconds - trip / 2, now - trip, now)


def test_with_sqlite_it_is_the_clock_of_the_machine() -> None:
    assert abs(ahead()) < 1
    assert clock.now().tzinfo is not None


def test_a_node_whose_clock_differs_has_a_warning(db: None) -> None:
    for seconds, words in ((600, "is 600 s behind"), (-600, "is 600 s ahead of")):
        clock.forget()
        health.forget()
        learn(seconds)
        (found,) = [each for each in health.report().warnings if each.code == "clock_differs"]
        assert words in found.detail
    clock.forget()
    health.forget()
    assert "clock_differs" not in [each.code for each in health.report().warnings]


def test_the_most_precise_measurement_counts() -> None:
    learn(600, trip=0.010)
    assert 599.9 < ahead() < 600.1
    learn(602, trip=30)  # a slow answer, which does not contradict the quick one
    assert 599.9 < ahead() < 600.1
    learn(600.002, trip=0.001)
    assert 599.9 < ahead() < 600.1


def test_a_clock_that_was_set_is_followed_at_once() -> None:
    """A standby that was promoted has another clock."""
    learn(600, trip=0.010)
    learn(-600, trip=0.200)
    assert -600.2 < ahead() < -599.8


def test_an_old_measurement_is_replaced_by_any_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    learn(600, trip=0.001)
    later = clock.uptime() + clock.VALID_FOR + 1
    monkeypatch.setattr(clock, "uptime", lambda: later)
    clock.learn(datetime.now(UTC).timestamp() + 600.010, later - 1, later)
    assert clock._best is not None
    assert clock._best.error == 0.5


def test_a_database_that_was_never_reached_is_asked_only_sometimes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then the clock of this machine is used: there are no rows to compare with."""
    databases = {"default": {"ENGINE": "runners_project.postgresql"}}
    monkeypatch.setattr(clock, "settings", SimpleNamespace(DATABASES=databases))
    asked = []

    class Broken:
        def ensure_connection(self) -> None:
            asked.append(1)
            raise OperationalError("refused")

    monkeypatch.setattr(clock, "connection", Broken())
    assert abs(ahead()) < 1
    assert abs(ahead()) < 1
    assert len(asked) == 1
    monkeypatch.setattr(clock, "RETRY_AFTER", 0.0)
    assert abs(ahead()) < 1
    assert len(asked) == 2


@pytest.mark.parametrize("shift", [600, -600])
def test_a_process_with_a_wrong_clock_has_the_time_of_postgresql(shift: int) -> None:
    need(find_postgres(), "postgresql")
    faketime = shutil.which("faketime")
    need(faketime, "faketime")
    assert faketime
    with Postgres() as postgres:
        url = postgres.create("clock")
        argv = [faketime, "-f", f"{shift:+d}s", sys.executable, "manage.py", "shell", "-c", SHOW]
        environment = {"DATABASE_URL": url, "SECRET_KEY": secrets.token_urlsafe(50), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    shown = datetime.fromtimestamp(float(done.stdout.split()[-1]), UTC)
    assert abs(shown - datetime.now(UTC)) < timedelta(seconds=20 * PATIENCE)
