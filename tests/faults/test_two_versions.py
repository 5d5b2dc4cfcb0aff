"""Servers and workers of the last release and of this version share one PostgreSQL database, as during an upgrade.

The last release is the newest tag `v*` before this version. Versions before 0.9.0 have no tags. LAST_RELEASE names
another commit.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.environments import StubAccount
from tests.support.faults import COMMAND, EXPID, profile_of
from tests.support.postgres import Postgres
from tests.support.processes import end, kill_all, start, wait_for
from tests.support.servers import ROOT, AppServer, SSHServer
from tests.support.webhooks import Receiver

pytestmark = pytest.mark.timeout(300)  # four processes with two versions of the code start first
VERSION_0_3_0 = "fd221891e05ff7df2e4676e95898418335f3122f"
SET = {"final_status": "COMPLETED", "job_names_list": [f"{EXPID}_SIM"]}
NEXT_RELEASE = """
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT tablename FROM pg_tables WHERE tablename LIKE 'runners%' OR tablename LIKE 'profiles%' LOOP
    EXECUTE format('ALTER TABLE %I ADD COLUMN next_release integer NOT NULL DEFAULT 1', name);
    EXECUTE format('CREATE INDEX ON %I (next_release)', name);
  END LOOP;
END $$;
CREATE TABLE runners_nextrelease (id bigint PRIMARY KEY, run_id bigint REFERENCES runners_runnerrun);
INSERT INTO django_migrations (app, name, applied)
  VALUES ('runners', '9999_next_release', now()), ('profiles', '9999_next_release', now());
"""
SESSION = """
from django.contrib.auth import get_user_model, SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
person = get_user_model().objects.create_superuser("ana", password="a password of tests")
session = SessionStore()
session.update({SESSION_KEY: str(person.pk), HASH_SESSION_KEY: person.get_session_auth_hash(),
                BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend"})
session.create()
print("key", session.session_key)
"""


def git(*arguments: str) -> str:
    argv = ["git", "-c", f"safe.directory={ROOT}", *arguments]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def last_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkout of the last release. It runs with the packages of this version."""
    commit = (
        os.environ.get("LAST_RELEASE")
        or git("describe", "--tags", "--match=v*", "--abbrev=0", "HEAD^")
        or VERSION_0_3_0
    )
    if not git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"):
        pytest.skip(f"the history of the repository does not contain {commit}")
    folder = tmp_path_factory.mktemp("last-release")
    archive = folder / "code.tar"
    git("archive", f"--output={archive}", commit)
    with tarfile.open(archive) as code:
        code.extractall(folder, filter="data")
    return folder


@pytest.fixture
def database(postgres: Postgres) -> str:
    """Return a database with a migration of the next release, too: it adds a column to each table, and a table."""
    name = postgres.create(f"versions_{secrets.token_hex(4)}", template="template_of_tests").rpartition("/")[2]
    postgres.sql(NEXT_RELEASE, name)
    return name


@pytest.fixture
def apps(
    tmp_path: Path,
    account: StubAccount,
    sshd: SSHServer,
    postgres: Postgres,
    database: str,
    last_release: Path,
) -> Iterator[dict[str, AppServer]]:
    """Yield a server of the last release, "old", and one of this version, "new"."""
    account.experiment(EXPID)
    account.control("run", EXPID, SLEEP=600)
    env = {"HOME": str(account.home)} | sshd.environment
    env |= {"DATABASE_URL": postgres.url(database), "RUNNERS_WEBHOOK_PRIVATE_TARGETS": "127.0.0.1"}
    env |= {"RUNNERS_STATUS_FRESHNESS": "0.2"}
    found = {
        name: AppServer(tmp_path / name, env=env | {"RUNNERS_NODE": name}, workers=1, root=root)
        for name, root in (("old", last_release), ("new", ROOT))
    }
    for app in found.values():
        app.start()
    yield found
    for app in found.values():
        app.stop()
        assert "Traceback" not in app.log_text(), app.log_text()


@pytest.fixture
def work(apps: dict[str, AppServer]) -> Iterator[None]:
    """Run a worker of each version."""
    running = []
    for app in apps.values():
        argv = [sys.executable, str(app.root / "manage.py"), "watch_runs", "--interval=1"]
        running.append(start(argv, log=app.folder / "worker.log", env=app.environment, cwd=app.root))
    yield
    for process, app in zip(running, apps.values(), strict=True):
        end(process)
        assert "Traceback" not in (text := (app.folder / "worker.log").read_text()), text


def ok(app: AppServer, command: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = app.post(COMMAND + command, body, **headers)
    assert answer.status in (200, 202), (app.folder.name, command, answer.body)
    return dict(answer.body)


@pytest.mark.parametrize("first", ["old", "new"])
def test_each_version_works_with_what_the_other_has_begun(
    first: str,
    apps: dict[str, AppServer],
    sshd: SSHServer,
    postgres: Postgres,
    database: str,
    receiver: Receiver,
    work: None,
) -> None:
    def query(statement: str) -> str:
        return str(postgres.sql(statement, database))

    one, other = apps[first], apps["new" if first == "old" else "old"]
    for app in apps.values():
        wait_for(lambda app=app: app.get("/readyz").status == 200, 30, what=f"{app.folder.name} is ready")
    apps["new"].manage(
        "shell", "-c", f"from runners.models import Webhook; Webhook.objects.create(name='a', url={receiver.url!r})"
    )
    key = apps["new"].manage("shell", "-c", SESSION).split()[-1]
    there, here = profile_of(sshd), profile_of(None)

    # the commands that answer at once, by both
    for app in (one, other):
        created = ok(
            app,
            "create-experiment",
            {**there, "command_params": {"description": "Two versions", "dummy": True, "hpc": "local"}},
        )
        ok(app, "update-experiment-description", {"expid": created["expid"], "description": "Still two", **there})
        ok(app, "create-job-list", {"expid": created["expid"], **there})
        ok(app, "set-job-status", {"expid": EXPID, "command_params": SET, **there})

    # an operation of one version is read by the other
    operation = ok(one, "create-job-list", {"expid": EXPID, **there}, Prefer="respond-async")
    path = f"/v4/runners/operations/{operation['operation_id']}"
    wait_for(lambda: other.get(path).body["status"] == "succeeded", 30, what="the end of the operation")

    # a run over SSH, and a LOCAL one: started by one, seen and stopped by the other
    for profile in (there, here):
        started = ok(one, "run-experiment", {"expid": EXPID, **profile})
        for app in (one, other):
            status = ok(app, "get-runner-run-status", {"expid": EXPID})
            assert (status["status"], status["pid"]) == ("ACTIVE", started["pid"]), (app.folder.name, status)
        number = query("SELECT max(id) FROM runners_runnerrun")
        assert one.get(f"/v4/runners/runs/{number}/log").status == 200
        if profile is there:
            assert other.get(f"/v4/runners/runs/{number}/log").status == 200
        for page in ("/", f"/runs/{number}", "/history", "/admin/runners/runnerrun/"):
            for app in (one, other):
                answer = app.get(page, Cookie=f"sessionid={key}", Accept="text/html")
                assert answer.status == 200 and EXPID in str(answer.body) + "history", (app.folder.name, page)
        ok(other, "stop-experiment", {"expid": EXPID})
        assert query(f"SELECT status, reason FROM runners_runnerrun WHERE id = {number}") == "TERMINATED|stopped"

    # a run that ends by itself is seen by a worker of either version, and told once
    started = ok(one, "run-experiment", {"expid": EXPID, **there})
    kill_all([started["pid"]])
    newest = "SELECT reason FROM runners_runnerrun ORDER BY id DESC LIMIT 1"
    wait_for(lambda: query(newest) == "killed", 60, what="a worker sees the end")
    sent = "SELECT count(*) FROM runners_webhookdelivery WHERE delivered_at IS NOT NULL"
    wait_for(lambda: query(sent) == "3", 60, what="three messages")
    assert len({headers["webhook-id"] for _, headers, _ in receiver.requests}) == len(receiver.requests) == 3

    # one audit record for each command
    counts = query(
        "SELECT string_agg(endpoint || ' ' || n, ', ' ORDER BY endpoint) FROM (SELECT endpoint, count(*) AS n"
        " FROM runners_auditrecord WHERE endpoint <> 'change-configuration' GROUP BY endpoint) AS counted"
    )
    assert counts == (
        "create-experiment 2, create-job-list 3, run-experiment 3, set-job-status 2, stop-experiment 2, "
        "update-experiment-description 2"
    )
    assert query("SELECT count(*) FROM runners_auditrecord WHERE outcome <> 'ok'") == "0"
