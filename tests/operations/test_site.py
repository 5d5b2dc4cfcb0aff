"""The guides for sites of several machines, executed as they are written on machines of their own (support/site.py).

The steps are one story, in the order of the file: a service with SQLite moves to PostgreSQL, gets a standby, a second
node and a proxy, and then loses them. They are one test, because parallel processes share out tests one by one.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.postgres import find_postgres
from tests.support.processes import PATIENCE, wait_for
from tests.support.requirements import need
from tests.support.site import Machine, Site, site

pytestmark = pytest.mark.faults
OPERATIONS = ROOT / "docs" / "operations"
POSTGRESQL = OPERATIONS / "postgresql.md"
NODES = OPERATIONS / "nodes.md"
MACHINES = OPERATIONS / "machines.md"
DISASTERS = OPERATIONS / "disasters.md"
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
DATABASE_STATEMENT_TIMEOUT=6
END
chmod 0600 /etc/autosubmit-runners/environment
"""


def move_from_sqlite(service: Service) -> None:
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


def failover_to_a_standby(service: Service) -> None:
    """The primary vanishes while runs are started: fast errors, and then each run exists once."""
    machines, login = service.site, service.site["login"]
    machines["db2"].start()
    machines["db2"](NEW_CLUSTER)
    machines.follow(POSTGRESQL, "A standby")
    expids = [f"b{number:03d}" for number in range(6)]
    for expid in expids:
        experiment(login, "ana", expid, 600)
    before = service.run("b000", "THERE")

    def start_run(expid: str) -> tuple[int, Any, float]:
        return service.command("run-experiment", expid, "THERE", headers=(f"Idempotency-Key: {expid}",))

    with ThreadPoolExecutor() as threads:
        pending = [threads.submit(start_run, expid) for expid in expids[1:4]]
        machines["db1"].kill()
        for each in pending:
            each.result()
    start_run("b004")  # the processes notice now that their connections are dead
    for _ in range(4):
        status, answer, seconds = start_run("b004")
        assert (status, answer["code"]) == (503, "database_unavailable"), answer
        assert seconds < 12 * PATIENCE, "a request waits for no longer than the time-outs of both servers"
    assert service.call("GET", "/readyz")[0] == 503

    machines.follow(POSTGRESQL, "Failover")
    for expid in expids[1:]:
        wait_for(lambda expid=expid: start_run(expid)[0] == 200, 60, what=f"a retry for {expid}", interval=1)
    assert service.status("b000")["runner_id"] == before["runner_id"]
    for expid in expids:
        assert service.status(expid)["status"] == "ACTIVE"
        assert starts(login, "ana", expid) == 1
        count = machines["db2"](f"runuser -u postgres -- psql -Atc {_quoted(COUNT % expid)} autosubmit_runners")
        assert (expid, count.strip()) == (expid, "1")
    _, answer, _ = service.command("run-experiment", "b001", "THERE")
    assert answer["code"] == "already_running"
    wait_for(lambda: service.call("GET", "/readyz")[1].get("warnings") == [], 90, what="the worker", interval=1)


COUNT = "SELECT count(*) FROM runners_runnerrun WHERE expid = '%s'"


def a_new_standby_and_the_service_without_it(service: Service) -> None:
    machines, exchange = service.site, ("db1", "db2")
    machines["db1"].start()
    machines["db1"](NEW_CLUSTER)
    machines.follow(POSTGRESQL, "A standby", exchange=exchange)
    service.wait_ready("node1")
    machines["db1"].kill()
    status, answer, seconds = service.command("run-experiment", "b000", "THERE")
    assert (status, answer["code"]) == (503, "database_unavailable"), answer  # the commit has no second copy
    assert seconds < 40 * PATIENCE
    machines.follow(POSTGRESQL, "Without the standby", exchange=exchange)
    experiment(machines["login"], "ana", "c000", 600)
    service.run("c000", "THERE")


def pgbouncer(service: Service) -> None:
    service.site.follow(POSTGRESQL, "pgbouncer")
    assert service.status("c000")["status"] == "ACTIVE"
    assert service.command("stop-experiment", "c000")[0] == 200
    wait_for(lambda: service.call("GET", "/readyz")[1].get("warnings") == [], 60, what="the worker", interval=1)
    service.site["node1"](BACK)


BACK = """
sed -i 's|@127.0.0.1:6432/|@db1,db2/|' /etc/autosubmit-runners/environment
systemctl restart autosubmit-runners autosubmit-runners-worker
"""


# --- several nodes ----------------------------------------------------------------------------------------------------

HTTPS = "https://runners.example.org"
CERTIFICATE = """
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=runners.example.org \\
  -addext subjectAltName=DNS:runners.example.org -keyout /etc/ssl/private/runners.example.org.key \\
  -out /etc/ssl/certs/runners.example.org.pem 2>/dev/null
rm -f /etc/nginx/sites-enabled/*
"""
TRUST = "cat /etc/ssl/certs/runners.example.org.pem"


def nodes_of_the_proxy(site: Site) -> set[str]:
    text = site["proxy"]("cat /etc/nginx/autosubmit-runners-upstream.conf")
    return {line.split()[1].partition(":")[0] for line in text.splitlines()}


def two_nodes_behind_a_proxy(service: Service) -> None:
    machines = service.site
    for name in ("node2", "proxy", "client"):
        machines[name].start()
    machines["proxy"](CERTIFICATE)
    machines.follow(
        NODES, "A second node", between={2: lambda: copy_file(machines, "node1", "node2", "/root/node.tar.gz")}
    )
    machines["proxy"](
        "cp /etc/ssl/certs/runners.example.org.pem /root/.curlrc.pem; echo cacert=/root/.curlrc.pem >/root/.curlrc"
    )
    machines.follow(NODES, "The proxy")
    certificate = machines["proxy"](TRUST)
    machines["client"](f"echo {_quoted(certificate)} >/root/ca.pem; echo cacert=/root/ca.pem >/root/.curlrc")
    ask = partial(service.call, at="client", url=HTTPS)
    assert nodes_of_the_proxy(machines) == {"node1", "node2"}

    # No session sticks to a node: a LOCAL run of one node is read and stopped through both.
    experiment(machines["node1"], "autosubmit-runners", "d000", 600)
    service.run("d000", "HERE")
    for _ in range(6):
        status, answer, _ = ask("POST", "/v4/runners/command/get-runner-run-status", {"expid": "d000"})
        assert (status, answer["status"], answer["reachable"]) == (200, "ACTIVE", True)
    number = answer["runner_id"]
    assert service.call("GET", f"/v4/runners/runs/{number}/log", at="node2")[0] == 200
    status, answer, _ = ask("POST", "/v4/runners/command/stop-experiment", {"expid": "d000"})
    assert status == 200, answer
    for node in ("node1", "node2"):
        assert "GET /livez" not in machines[node].logs()

    # A large upload reaches the service, and the address of a client is the real one.
    big = {"expid": "nope", "unknown": "x" * 100_000}
    status, answer, _ = ask("POST", "/v4/runners/command/run-experiment", big, headers=("X-Forwarded-For: 1.2.3.4",))
    assert (status, answer["code"]) == (400, "invalid_request"), answer
    found = database(machines, "SELECT DISTINCT address FROM runners_auditrecord WHERE address LIKE '%.%'")
    assert "1.2.3.4" not in found
    assert "10.20.0.51" in found
    assert ask("GET", "/readyz")[0] == 404  # of nginx: health is not for clients


def database(machines: Site, query: str) -> str:
    return machines["db2"](f"runuser -u postgres -- psql -At -c {_quoted(query)} autosubmit_runners").strip()


def copy_file(machines: Site, source: str, target: str, path: str) -> None:
    machines[target](f"base64 --decode >{path} <<'END'\n{machines[source](f'base64 {path}')}\nEND")


def a_node_that_is_not_ready_gets_no_requests(service: Service) -> None:
    machines = service.site
    ask = partial(service.call, "GET", "/v4/runners/configuration/profiles", at="client", url=HTTPS)
    # node2 answers and has no database: it is taken out within some seconds, and no client sees an error afterwards.
    machines["node2"](
        "cp -p /etc/hosts /etc/hosts.old; sed -i '/db[12]/d' /etc/hosts; echo '10.20.0.99 db1 db2' >>/etc/hosts"
    )
    machines["node2"]("systemctl restart autosubmit-runners")
    wait_for(lambda: nodes_of_the_proxy(machines) == {"node1"}, 60, what="node2 is taken out", interval=0.5)
    # nginx starts its new workers some time after the file is written. Its old ones would ask node2 each second time.
    wait_for(lambda: [ask()[0] for _ in range(6)] == [200] * 6, 20, what="nginx has read the file")
    assert [ask()[0] for _ in range(6)] == [200] * 6
    machines["node2"]("cp -p /etc/hosts.old /etc/hosts; systemctl restart autosubmit-runners")
    wait_for(lambda: len(nodes_of_the_proxy(machines)) == 2, 60, what="node2 is back", interval=0.5)
    # node2 is off the network: nginx asks the other node for each request, at once.
    machines["node2"].unplug()
    answers = [ask() for _ in range(6)]
    machines["node2"].plug()
    assert [status for status, _, _ in answers] == [200] * 6
    assert max(seconds for _, _, seconds in answers) < 8 * PATIENCE
    wait_for(lambda: len(nodes_of_the_proxy(machines)) == 2, 60, what="node2 is back", interval=0.5)


def take_a_node_out(service: Service) -> None:
    machines = service.site
    experiment(machines["node2"], "autosubmit-runners", "e000", 600)
    # node2 was off the network in the step before: its first connection to the database may fail, and nothing starts.
    start = partial(service.command, "run-experiment", "e000", "HERE", at="node2")
    wait_for(lambda: start()[0] == 200, 30, what="a start on node2", interval=1)

    def away() -> None:
        assert nodes_of_the_proxy(machines) == {"node1"}
        status = wait_for(
            lambda: (found := service.status("e000"))["reachable"] is False and found, 60, what="no worker", interval=1
        )
        assert status["status"] == "ACTIVE"
        assert service.command("stop-experiment", "e000")[0] == 502
        assert starts(machines["node2"], "autosubmit-runners", "e000") == 1

    machines.follow(NODES, "Take a node out", between={3: away})
    assert nodes_of_the_proxy(machines) == {"node1", "node2"}
    wait_for(lambda: service.status("e000")["reachable"], 60, what="the worker of node2", interval=1)


def a_node_is_lost_for_good(service: Service) -> None:
    machines, login = service.site, service.site["login"]
    experiment(login, "ana", "f000", 600)
    service.run("f000", "THERE", at="node2")
    machines["node2"].kill()
    refused = machines["node1"].command("runners-admin forget-node node2 --reason early")
    assert (refused.returncode, "was seen" in refused.stdout) == (1, True), refused.stdout
    assert service.status("f000")["reachable"] is True  # a run on a machine needs no certain node
    database(
        machines, "UPDATE runners_heartbeat SET seen = seen - interval '1 minute' WHERE node = 'node2'"
    )  # time passes
    wait_for(lambda: "node_missing" in str(service.call("GET", "/readyz")[1]), 30, what="node_missing", interval=1)
    output = machines.follow(NODES, "A node is lost for good")
    assert "1 active runs" in output
    answer = service.status("e000")
    assert (answer["status"], answer["reason"]) == ("TERMINATED", "abandoned")
    wait_for(lambda: service.call("GET", "/readyz")[1].get("warnings") == [], 60, what="no warning", interval=1)
    machines["node1"]("runners-admin clean-runs --days 0 --rows")  # the nightly command succeeds
    login("pkill -u ana -f f000 || true")


# --- machines and disasters -------------------------------------------------------------------------------------------


def maintenance_of_a_machine(service: Service) -> None:
    machines = service.site
    machines.variables = {"TOKEN": service.token, "BASE_URL": HTTPS}
    experiment(machines["login"], "ana", "f001", 600)

    def refused() -> None:
        status, answer, _ = service.command("run-experiment", "f001", "THERE")
        assert (status, answer["code"]) == (503, "machine_in_maintenance"), answer
        assert "New disks" in answer["detail"]
        assert service.status("b000")["status"] == "ACTIVE"

    output = machines.follow(MACHINES, "Maintenance of a machine", between={2: refused})
    assert "'login': " in output
    service.run("f001", "THERE")


def the_database_is_lost(service: Service) -> None:
    machines = service.site
    experiment(machines["login"], "ana", "g000", 600)
    known = service.status("f001")["runner_id"]
    after: list[int] = []

    def disaster() -> None:
        after.append(service.run("g000", "THERE")["runner_id"])
        machines["db2"]("runuser -u postgres -- psql -qc 'DROP DATABASE autosubmit_runners WITH (FORCE)'")
        status, answer, _ = service.command("get-runner-run-status", "f001")
        assert (status, answer["code"]) == (503, "database_unavailable"), answer

    output = machines.follow(DISASTERS, "The database is lost", between={2: disaster})
    assert "Adopted as" in output
    assert service.status("f001")["runner_id"] == known
    found = service.status("g000")
    assert (found["runner_id"], found["status"], found["reachable"]) == (after[0], "ACTIVE", True)
    assert starts(machines["login"], "ana", "g000") == 1
    assert service.command("stop-experiment", "g000")[0] == 200


def the_disk_of_the_database_is_full(service: Service) -> None:
    machines = service.site
    database_server = machines["db2"]
    query = "CREATE TABLE filler AS SELECT generate_series(1, 200000); DROP TABLE filler; SELECT pg_switch_wal()"

    def fill() -> None:
        database_server.fill_disk()

        def is_full() -> bool:
            database_server.command(f"runuser -u postgres -- psql -c '{query}' autosubmit_runners")
            status, answer, _ = service.command("run-experiment", "f001", "THERE")
            return status == 503 and answer["code"] == "database_unavailable"

        wait_for(is_full, 60, what="a full disk")
        assert service.call("GET", "/v4/runners/runs")[0] == 503 or "run" in str(service.status("f001"))

    machines.follow(DISASTERS, "The disk of the database is full", between={2: fill})
    database_server.grow_disk()
    wait_for(lambda: service.command("get-runner-run-status", "f001")[0] == 200, 60, what="the database", interval=1)
    assert service.status("f001")["status"] == "ACTIVE"


def the_disk_of_a_machine_is_full(service: Service) -> None:
    login = service.site["login"]
    for expid in ("b001", "b002", "b003"):
        assert service.command("stop-experiment", expid)[0] == 200
    experiment(login, "ana", "h000", 600)
    login.fill_disk()
    status, answer, _ = service.command("run-experiment", "h000", "THERE")
    assert status >= 500, answer
    assert "No space left on device" in str(answer)
    assert starts(login, "ana", "h000") == 0
    assert service.status("f001")["status"] == "ACTIVE"
    service.site.follow(DISASTERS, "The disk of a machine is full")
    service.run("h000", "THERE")
    login.grow_disk()


def a_key_has_leaked(service: Service) -> None:
    machines = service.site

    def copy() -> None:
        for name in ("leaked", "new"):
            copy_file(machines, "node1", "login", f"/root/{name}.pub")

    leaked = machines["login"]("cat ~ana/.ssh/authorized_keys").split()[1]
    machines.follow(DISASTERS, "A key has leaked", between={2: copy})
    assert leaked not in machines["login"]("cat ~ana/.ssh/authorized_keys")
    experiment(machines["login"], "ana", "k000", 600)
    wait_for(lambda: service.command("run-experiment", "k000", "THERE")[0] == 200, 60, what="the new key", interval=1)
    wait_for(lambda: service.status("f001")["reachable"], 60, what="a look with the new key", interval=1)


def a_clock_is_wrong(service: Service) -> None:
    output = service.site.follow(DISASTERS, "A clock is wrong")
    assert re.search(r"This node is -?[0-9] s ahead of the database", output), output


def a_machine_is_gone_for_good(service: Service) -> None:
    machines = service.site
    machines["login"].kill()
    passed = "last_answer = last_answer - interval '1 minute'"
    database(machines, f"UPDATE runners_machine SET {passed} WHERE name = 'login'")  # time passes
    output = machines.follow(MACHINES, "A machine is gone for good")
    assert "login is forgotten." in output
    answer = service.status("f001")
    assert (answer["status"], answer["reason"]) == ("TERMINATED", "abandoned")
    assert "replaced by login2" in str(answer)
    assert database(machines, "SELECT count(*) FROM runners_runnerrun WHERE status = 'ACTIVE'") == "0"


@pytest.mark.timeout(1800)
def test_the_guides_work_one_after_another(service: Service) -> None:
    for step in STEPS:
        sys.stdout.write(f"--- {step.__name__}\n")
        step(service)


STEPS = (
    move_from_sqlite,
    failover_to_a_standby,
    a_new_standby_and_the_service_without_it,
    pgbouncer,
    two_nodes_behind_a_proxy,
    a_node_that_is_not_ready_gets_no_requests,
    take_a_node_out,
    a_node_is_lost_for_good,
    maintenance_of_a_machine,
    the_database_is_lost,
    the_disk_of_the_database_is_full,
    the_disk_of_a_machine_is_full,
    a_key_has_leaked,
    a_clock_is_wrong,
    a_machine_is_gone_for_good,
)
