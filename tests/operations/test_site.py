"""The guides for sites of several machines, executed as they are written on machines of their own (support/site.py).

The tests of this module are one story, in the order of the file: a service with SQLite moves to PostgreSQL, gets a
standby, a second node and a proxy, and then loses them.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.postgres import find_postgres
from tests.support.processes import wait_for
from tests.support.requirements import need
from tests.support.site import Machine, Site, site

pytestmark = [pytest.mark.timeout(400), pytest.mark.faults]
OPERATIONS = ROOT / "docs" / "operations"
POSTGRESQL = OPERATIONS / "postgresql.md"
PROFILES = """
RUNNER_CONFIGURATION:
  PROFILES:
    HERE: {RUNNER_TYPE: LOCAL, MODULE_LOADER_TYPE: NO_MODULE}
    THERE: {RUNNER_TYPE: SSH, MODULE_LOADER_TYPE: NO_MODULE, SSH: {HOST: login, PORT: 22, USER: ana}}
"""


class Service:
    """The service of the site, as a script uses it, and what the machines know of its runs."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.token = ""

    def call(
        self, method: str, path: str, body: object = None, *, at: str = "node1", url: str = "http://127.0.0.1:8000",
        headers: tuple[str, ...] = (),
    ) -> tuple[int, Any, float]:  # fmt: skip
        """Send a request from the machine `at`. Return the status, the body, and the seconds that it took."""
        words = ["curl", "--silent", "--max-time", "90", "--write-out", r"\n%{http_code} %{time_total}", "-X", method]
        for header in (f"Authorization: Bearer {self.token}", "Content-Type: application/json", *headers):
            words += ["--header", header]
        if body is not None:
            words += ["--data", json.dumps(body)]
        done = self.site[at].command(" ".join(map(_quoted, [*words, url + path])))
        text, _, numbers = done.stdout.rpartition("\n")
        status, seconds = numbers.split()
        try:
            return int(status), json.loads(text), float(seconds)
        except ValueError:
            return int(status), text, float(seconds)

    def command(self, name: str, expid: str, profile: str = "", **options: Any) -> tuple[int, Any, float]:
        body = {"expid": expid} | ({"profile_name": profile} if profile else {})
        return self.call("POST", f"/v4/runners/command/{name}", body, **options)

    def run(self, expid: str, profile: str, **options: Any) -> dict[str, Any]:
        status, answer, _ = self.command("run-experiment", expid, profile, **options)
        assert status == 200, answer
        return dict(answer)

    def status(self, expid: str, **options: Any) -> dict[str, Any]:
        status, answer, _ = self.command("get-runner-run-status", expid, **options)
        assert status == 200, answer
        return dict(answer)

    def wait_ready(self, node: str, address: str = "127.0.0.1") -> None:
        try:
            wait_for(partial(self.is_ready, node, address), 90, what=f"the service on {node}", interval=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.site[node].logs()}") from None

    def is_ready(self, node: str, address: str = "127.0.0.1") -> bool:
        return self.site[node].command(f"curl -sf -m 5 http://{address}:8000/readyz").returncode == 0


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def experiment(machine: Machine, account: str, expid: str, seconds: float) -> None:
    """Make an experiment whose run takes some seconds."""
    home = machine(f"getent passwd {account} | cut -d: -f6").strip()
    machine(
        f"mkdir -p {home}/autosubmit/{expid} {home}/.stub-autosubmit/control\n"
        f"echo SLEEP={seconds} >{home}/.stub-autosubmit/control/run.{expid}\n"
        f"chown -R {account}: {home}/autosubmit {home}/.stub-autosubmit"
    )


def starts(machine: Machine, account: str, expid: str) -> int:
    """Return how often the machine has started the run of an experiment, by its own journal."""
    home = machine(f"getent passwd {account} | cut -d: -f6").strip()
    calls = machine(f"cd {home}/.stub-autosubmit/calls 2>/dev/null && cat *.argv | tr '\\0' ' ' || true")
    return calls.count(f" run {expid}") + calls.count(f" run  {expid}")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    need(os.geteuid() == 0, "root")
    need(find_postgres(), "PostgreSQL")
    with site("db1", "node1", "login") as machines:
        made = Service(machines)
        machines["db1"](NEW_CLUSTER)
        machines["login"]("systemctl start ssh")
        node = machines["node1"]
        key = secrets.token_urlsafe(50)
        node(SETTINGS.replace("@key@", key))
        print_ = machines["login"]("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
        node(f"cat >/var/lib/autosubmit-runners/profiles.yml <<'YAML'\n{PROFILES}\nYAML")
        public, made.token = node(f"runners-admin shell --verbosity 0 -c {_quoted(SET_UP % print_)}").split("\n")[-3:-1]
        machines["login"](
            f"mkdir -p ~ana/.ssh; echo {_quoted(public)} >~ana/.ssh/authorized_keys; chown -R ana: ~ana/.ssh"
        )
        node("systemctl enable --now autosubmit-runners autosubmit-runners-worker")
        made.wait_ready("node1")
        yield made


SET_UP = """
from io import StringIO
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", verbosity=0)
User.objects.create_superuser("root")
call_command("trust_host", "login", fingerprint=["%s"], stdout=StringIO())
call_command("import_profiles", "/var/lib/autosubmit-runners/profiles.yml", stdout=StringIO())
for words in (["create_ssh_key"], ["create_token", "root", "--scope=manage"]):
    output = StringIO()
    call_command(*words, stdout=output, stderr=StringIO())
    print(output.getvalue().strip())
"""
NEW_CLUSTER = """
version=$(ls /usr/lib/postgresql | sort -n | tail -n 1)
pg_createcluster $version main >/dev/null
echo "fsync = off" >>/etc/postgresql/$version/main/postgresql.conf
systemctl start postgresql
"""
SETTINGS = """
mkdir --mode 0700 /etc/autosubmit-runners
cat >/etc/autosubmit-runners/environment <<'END'
SECRET_KEY=@key@
DATABASE_URL=sqlite:////var/lib/autosubmit-runners/db.sqlite3
ALLOWED_HOSTS=runners.example.org,127.0.0.1
RUNNERS_NODE=node1
RUNNERS_STATUS_FRESHNESS=0.2
END
chmod 0600 /etc/autosubmit-runners/environment
"""


def test_move_from_sqlite(service: Service) -> None:
    node, login = service.site["node1"], service.site["login"]
    experiment(login, "ana", "a001", 600)
    experiment(node, "autosubmit-runners", "a002", 600)
    first = service.run("a001", "THERE")
    service.run("a002", "HERE")
    output = service.site.follow(POSTGRESQL, "Move from SQLite")
    assert "Each table has the same rows in both databases." in output
    assert "runners_runnerrun: 2 rows, checksum" in output
    for expid in ("a001", "a002"):
        status = service.status(expid)
        assert (status["status"], status["reachable"]) == ("ACTIVE", True)
    assert service.status("a001")["runner_id"] == first["runner_id"]
    status, answer, _ = service.command("stop-experiment", "a002")
    assert status == 200, answer
    assert service.status("a002")["reason"] == "stopped"
