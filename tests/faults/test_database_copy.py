"""copy_database moves a service from SQLite to PostgreSQL: everything, or nothing and a remedy."""

from __future__ import annotations

import secrets
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.postgres import Postgres
from tests.support.processes import PATIENCE, wait_for
from tests.support.servers import AppServer

pytestmark = pytest.mark.timeout(400)

ROWS = """
import datetime
from django.contrib.auth.models import Group, User
from django.utils import timezone
from profiles.models import RunnerProfile
from runners.models import ApiToken, AuditRecord, Heartbeat, RunnerRun, Webhook, WebhookDelivery
ana = User.objects.create_user("ana", password="of the test, worth nothing")
group = Group.objects.create(name="climate")
ana.groups.add(group)
profile = RunnerProfile.objects.first()
profile.run_groups.add(group)
ApiToken.issue(user=ana, expiry=None, name="nightly")
strange = {"b": [1, 2.50, None, 1e3, True], "a": "tab\\tline\\nback\\\\slash \\u00e4 \\U0001F600", "": {}}
for number in range(5000):
    RunnerRun.objects.create(
        expid=f"b{number:03d}", config=strange, runner="LOCAL", module_loader="NO_MODULE", status="COMPLETED",
        finished=timezone.now(), detail="first\\\\N\\nsecond\\tthird", started_by="ana", profile_id=profile.pk)
RunnerRun.objects.order_by("pk").last().delete()
AuditRecord.objects.create(endpoint="x", actor="ana", changes=[{"a": 1}], created=datetime.datetime(
    2020, 2, 29, 0, 0, 0, tzinfo=datetime.UTC))
"""

CHECK = """
from django.contrib.auth import authenticate
from runners.models import ApiToken
print(authenticate(username="ana", password="of the test, worth nothing"), ApiToken.objects.count())
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, _migrated: Path) -> Path:
    """A SQLite database of the service with rows of many tables."""
    app = AppServer(tmp_path_factory.mktemp("filled"), template_db=_migrated)
    app.manage("shell", "-c", ROWS)
    return app.database


@pytest.fixture
def old(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(filled, tmp_path / "old.sqlite3"))


class Target:
    """A new PostgreSQL database with the migrations of the service."""

    def __init__(self, postgres: Postgres, template: str) -> None:
        self._postgres = postgres
        self.name = f"copy_{secrets.token_hex(4)}"
        self.url = postgres.create(self.name, template=template)

    def sql(self, statement: str) -> str:
        return str(self._postgres.sql(statement, self.name))

    @property
    def environment(self) -> dict[str, str]:
        env = {"PATH": "/usr/bin:/bin", "SECRET_KEY": "of the test run, signs nothing of value"}
        return env | {"DATABASE_URL": self.url, "RUNNERS_NODE": "here"}

    def command(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *argv],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100 * PATIENCE,
        )

    def copy(self, old: Path) -> subprocess.CompletedProcess[str]:
        return self.command("copy_database", "--from", f"sqlite:///{old}")

    def refuses(self, old: Path, *words: str) -> None:
        done = self.copy(old)
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stderr, done.stderr
        for word in words:
            assert word in done.stderr
        self.is_empty()

    def is_empty(self) -> None:
        assert self.sql("SELECT count(*) FROM runners_runnerrun") == "0"
        assert self.sql("SELECT count(*) FROM auth_user") == "0"
        assert self.sql("SELECT count(*) > 50 FROM auth_permission") == "t"


@pytest.fixture(scope="module")
def empty(_postgres: Postgres) -> str:
    """A migrated database without rows: the template of the targets."""
    name = f"empty_{secrets.token_hex(4)}"
    _postgres.create(name, template="template_of_tests")
    tables = "auth_user, profiles_runnerprofile, runners_auditrecord"
    _postgres.sql(f"TRUNCATE {tables} RESTART IDENTITY CASCADE", name)
    return name


@pytest.fixture
def target(postgres: Postgres, empty: str) -> Target:
    return Target(postgres, empty)


def rows_of(old: Path) -> dict[str, int]:
    with closing(sqlite3.connect(old)) as database:
        names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        tables = [name for (name,) in database.execute(names) if name != "django_migrations"]
        return {name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}


def test_everything_is_there_and_numbers_go_on(old: Path, target: Target) -> None:
    before = old.read_bytes()
    done = target.copy(old)
    assert done.returncode == 0, done.stderr
    counts = rows_of(old)
    assert f"{sum(counts.values())} rows copied" in done.stdout
    # The target has also a record of the copy, and the kinds of rows of Procrastinate with their permissions.
    more = {"runners_auditrecord": 1}
    for table, count in counts.items():
        if table not in ("auth_permission", "django_content_type"):
            assert (table, target.sql(f"SELECT count(*) FROM {table}")) == (table, str(count + more.get(table, 0)))
    query = "SELECT detail, config->>'a', config->'b' FROM runners_runnerrun ORDER BY id LIMIT 1"
    assert target.sql(query).startswith("first\\N\nsecond\tthird|tab\tline\nback\\slash ä 😀|[1, 2.5")
    query = "SELECT created AT TIME ZONE 'UTC' FROM runners_auditrecord WHERE endpoint = 'x'"
    assert target.sql(query) == "2020-02-29 00:00:00"
    # The highest number was given to a run that is deleted: it is not given again.
    last = int(target.sql("SELECT max(id) FROM runners_runnerrun"))
    assert target.sql("SELECT nextval(pg_get_serial_sequence('runners_runnerrun', 'id'))") == str(last + 2)
    assert old.read_bytes() == before
    checked = target.command("shell", "--verbosity=0", "-c", CHECK)
    assert checked.stdout.split() == ["ana", "1"], checked.stderr
    again = target.copy(old)
    assert again.returncode == 1
    assert "The target is not empty" in again.stderr


def test_a_used_source_is_refused(old: Path, target: Target) -> None:
    with closing(sqlite3.connect(old)) as user:
        user.execute("SELECT count(*) FROM auth_user").fetchone()
        target.refuses(old, "is in use: stop the service and its worker first")
        now = datetime.now(UTC).replace(tzinfo=None).isoformat(" ")
        row = ("watch_runs", "someone", "here", 10.0, now, now)
        user.execute(
            "INSERT INTO runners_heartbeat (kind, owner, node, interval, started, seen) VALUES (?, ?, ?, ?, ?, ?)", row
        )
        user.commit()
    target.refuses(old, "A worker used the source", "systemctl stop")


def change(old: Path, statement: str) -> None:
    with closing(sqlite3.connect(old)) as database, database:
        database.execute(statement)


REFUSED = {
    "older": (
        "DELETE FROM django_migrations WHERE app = 'runners' AND name LIKE '003%'",
        "The source lacks 10 migrations",
    ),
    "newer": ("INSERT INTO django_migrations (app, name, applied) VALUES ('runners', '9999_x', '')", "a newer version"),
    "table": ("CREATE TABLE extra AS SELECT 1 AS one", "in the table extra, which this installation does not know"),
    "column": ("ALTER TABLE auth_group ADD COLUMN extra integer", "auth_group differs in the column extra"),
    "nul": ("UPDATE runners_runnerrun SET detail = 'a' || char(0) WHERE expid = 'b777'", "contains a NUL character"),
    "length": ("UPDATE runners_runnerrun SET reason = 'much longer than sixteen characters'", "value too long"),
    "type": ("UPDATE runners_runnerrun SET profile_id = 'text'", "'text' is not a whole number"),
}
COPY_EACH = """
from pathlib import Path
from runners.services import database_copy
for name in {names!r}:
    try:
        database_copy.copy(Path({folder!r}) / name, lambda words: None)
    except database_copy.NotCopied as error:
        print(name, "->", error)
"""


def test_what_cannot_be_copied_is_refused(old: Path, target: Target, tmp_path: Path) -> None:
    for name, (statement, _) in REFUSED.items():
        change(Path(shutil.copy(old, tmp_path / name)), statement)
    script = COPY_EACH.format(names=list(REFUSED), folder=str(tmp_path))
    output = target.command("shell", "--verbosity=0", "-c", script).stdout
    for name, (_, words) in REFUSED.items():
        assert f"{name} -> " in output, output
        assert words in output.partition(f"{name} -> ")[2].partition(" -> ")[0]
    target.is_empty()


def test_a_row_that_the_database_changes_undoes_the_copy(old: Path, target: Target) -> None:
    target.sql(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.expid := ''zzz''; RETURN NEW; END'"
    )
    target.sql("CREATE TRIGGER spoil BEFORE INSERT ON runners_runnerrun FOR EACH ROW EXECUTE FUNCTION spoil()")
    target.refuses(old, "runners_runnerrun: the copy differs")


def test_a_source_that_is_no_database_is_refused(tmp_path: Path, target: Target) -> None:
    target.refuses(tmp_path / "missing", "does not exist")
    (tmp_path / "text").write_text("no database at all" * 100)
    target.refuses(tmp_path / "text", "is not a SQLite database")
    with closing(sqlite3.connect(tmp_path / "other")) as other, other:
        other.execute("CREATE TABLE a (b)")
    target.refuses(tmp_path / "other", "not a database of this service")
    done = target.command("copy_database", "--from", "postgres://localhost/x")
    assert "Only SQLite databases can be copied" in done.stderr


def test_a_copy_that_is_killed_leaves_nothing(old: Path, target: Target) -> None:
    argv = [sys.executable, str(ROOT / "manage.py"), "copy_database", "--from", f"sqlite:///{old}"]
    target.sql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); RETURN NEW; END'"
    )
    target.sql("CREATE TRIGGER wait BEFORE INSERT ON runners_runnerrun FOR EACH ROW EXECUTE FUNCTION wait()")
    copying = subprocess.Popen(argv, env=target.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%runnerrun%' AND datname = current_database()"
    try:
        wait_for(lambda: target.sql(waits) == "1", 60, what="the copy of the runs")
        assert "is in use" in target.copy(old).stderr  # a second copy at the same time
    finally:
        copying.kill()
        copying.wait()
    target.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%'")
    target.is_empty()
    target.sql("DROP TRIGGER wait ON runners_runnerrun")
    done = target.copy(old)
    assert done.returncode == 0, done.stderr


def test_the_number_of_a_run_that_is_made_again_is_not_given_again(target: Target) -> None:
    """After a restore. PostgreSQL does not count the numbers of rows that are inserted with one (SQLite does)."""
    code = """
from profiles.config import RunnerConfig
from runners.models import RunnerRun
from runners.services import found_runs
from runners.services.machines.probe import cannot_tell
def row(**values):
    return RunnerRun(config=RunnerConfig("LOCAL", "NO_MODULE").as_dict(), status="COMPLETED", **values)
assert found_runs.adopt(found_runs.Found(row(expid="a001", pk=2), cannot_tell("asked in a test")))
for number in (3, 4):
    new = row(expid="a002")
    new.save(force_insert=True)
    assert new.pk == number, new.pk
RunnerRun.objects.all().delete()  # as the retention does
assert found_runs.skip_numbers(10)["runners_runnerrun"] == 15
new = row(expid="a003")
new.save(force_insert=True)
assert new.pk == 15, new.pk
"""
    done = target.command("shell", "-v0", "-c", code)
    assert done.returncode == 0, done.stderr
