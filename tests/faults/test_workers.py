"""Workers that share the work through PostgreSQL (runners/worker/distributed.py).

Promise: any number of workers look at each machine once per interval. The others replace a worker that dies within two
intervals, also if it dies within a look. Tasks that are lost or doubled do no harm. LOCAL runs belong to their node.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.environments import StubAccount
from tests.support.faults import COMMAND, EXPID, profile_of, sessions
from tests.support.postgres import Postgres
from tests.support.processes import end, kill_all, start, wait_for
from tests.support.servers import ROOT, AppServer, SSHServer
from tests.support.webhooks import Receiver

pytestmark = pytest.mark.faults
INTERVAL = 5.0  # seconds
Worker = subprocess.Popen[bytes]
COPY = """
from runners.models import RunnerRun, new_run_key
run = RunnerRun.objects.get()
for number in range({copies}):
    run.pk, run.key, run.expid = None, new_run_key(), f"x{{number:03}}"
    run.save(force_insert=True)
"""

SILENT = """
from runners.models import RunnerRun, new_run_key
run = RunnerRun.objects.get()
for number in range({accounts}):
    run.pk, run.key, run.expid = None, new_run_key(), f"x{{number:03}}"
    run.config["SSH"] |= {{"HOST": "127.0.0.2", "PORT": {port}, "USER": f"a{{number}}"}}
    run.name_machine()
    run.save(force_insert=True)
"""


@pytest.fixture
def database(postgres: Postgres) -> str:
    return postgres.create(f"workers_{secrets.token_hex(4)}", template="template_of_tests").rpartition("/")[2]


@pytest.fixture
def app(
    make_app: Callable[..., AppServer], account: StubAccount, sshd: SSHServer, postgres: Postgres, database: str
) -> AppServer:
    account.experiment(EXPID)
    account.control("run", EXPID, SLEEP=600)
    env = {
        "DATABASE_URL": postgres.url(database),
        "RUNNERS_NODE": "one",
        "RUNNERS_WEBHOOK_PRIVATE_TARGETS": "127.0.0.1",
    }
    return make_app(account=account, sshd=sshd, env=env)


@pytest.fixture
def work(app: AppServer) -> Iterator[Callable[..., Worker]]:
    """Yield a function that starts a worker on a node."""
    running: list[Worker] = []

    def begin(node: str, interval: float = INTERVAL) -> Worker:
        argv = [sys.executable, str(ROOT / "manage.py"), "watch_runs", f"--interval={interval}"]
        log = app.folder / f"worker-{node}.log"
        running.append(start(argv, log=log, env=app.environment | {"RUNNERS_NODE": node}, cwd=ROOT))
        return running[-1]

    yield begin
    for process in running:
        end(process)
    for log in app.folder.glob("worker-*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()


def start_run(app: AppServer, sshd: SSHServer | None) -> int:
    answer = app.post(COMMAND + "run-experiment", {"expid": EXPID, **profile_of(sshd)})
    assert answer.status == 200, answer.body
    return int(answer.body["pid"])


def test_two_workers_share_a_machine_and_one_replaces_the_other(
    app: AppServer, sshd: SSHServer, postgres: Postgres, database: str, work: Callable[..., Worker]
) -> None:
    def workers() -> set[str]:
        return set(str(postgres.sql("SELECT id FROM procrastinate_workers", database)).split())

    def busy() -> str:
        query = "SELECT worker_id FROM procrastinate_jobs WHERE status = 'doing' AND task_name = 'look'"
        found = str(postgres.sql(query, database))
        return "" if found == "True" else found

    pid = start_run(app, sshd)
    first = work("one")
    wait_for(lambda: len(workers() - {"True"}) == 2, 30, what="the first worker")  # its two queues
    of_first = workers()
    second = work("two")
    wait_for(lambda: len(workers()) == 4, 30, what="the second worker")
    before, begin = sessions(sshd), time.monotonic()
    wait_for(lambda: time.monotonic() > begin + 3 * INTERVAL, 60, what="three intervals")
    took = time.monotonic() - begin
    assert 2 <= sessions(sshd) - before <= took / INTERVAL + 1  # not twice as many
    with sshd.frozen():
        wait_for(busy, 4 * INTERVAL, what="a look that hangs")
        kill_all([first.pid if busy() in of_first else second.pid])
        kill_all([pid])
    begin = time.monotonic()
    query = "SELECT status FROM runners_runnerrun"
    wait_for(lambda: postgres.sql(query, database) == "TERMINATED", 60, what="the end, seen by the other worker")
    assert time.monotonic() - begin < 2 * INTERVAL


def test_a_worker_opens_no_connection_for_each_look_and_each_end(
    app: AppServer, sshd: SSHServer, postgres: Postgres, database: str, work: Callable[..., Worker]
) -> None:
    copies = 60
    pid = start_run(app, sshd)
    app.manage("shell", "-c", COPY.format(copies=copies))  # they end with the process
    work("one", 1)

    def opened() -> int:
        return int(str(postgres.sql(f"SELECT sessions FROM pg_stat_database WHERE datname = '{database}'")))

    def look_again(times: int) -> None:
        before = sessions(sshd)
        wait_for(lambda: sessions(sshd) >= before + times, 60, what=f"{times} looks")

    look_again(4)
    before = opened()
    look_again(6)
    assert opened() - before <= 2
    before = opened()
    kill_all([pid])
    query = f"SELECT count(*) = {copies + 1} FROM runners_runnerrun WHERE status = 'TERMINATED'"
    wait_for(lambda: postgres.sql(query, database) == "t", 60, interval=2, what="all ends")  # each query opens one, too
    assert opened() - before < copies


def test_a_silent_host_with_many_accounts_does_not_delay_the_others(
    app: AppServer, sshd: SSHServer, postgres: Postgres, database: str, work: Callable[..., Worker]
) -> None:
    accounts = 200
    pid = start_run(app, sshd)
    with socket.create_server(("127.0.0.2", 0), backlog=1000) as silent:  # the kernel accepts, and nobody answers
        app.manage("shell", "-c", SILENT.format(accounts=accounts, port=silent.getsockname()[1]))
        work("one", 1)
        query = f"SELECT count(*) >= {accounts} FROM procrastinate_jobs WHERE task_name = 'look'"
        wait_for(lambda: postgres.sql(query, database) == "t", 30, interval=0.2, what="a task for each account")
        kill_all([pid])
        begin = time.monotonic()
        ended = "SELECT count(*) FROM runners_runnerrun WHERE status = 'TERMINATED'"
        wait_for(lambda: postgres.sql(ended, database) == "1", 120, interval=0.2, what="the end on the other host")
        assert time.monotonic() - begin < 8  # in one queue, it is RUNNERS_CONNECT_TIMEOUT (10 s) or a multiple


def test_lost_and_doubled_tasks_do_no_harm(
    app: AppServer,
    sshd: SSHServer,
    postgres: Postgres,
    database: str,
    work: Callable[..., Worker],
    receiver: Receiver,
) -> None:
    script = f"from runners.models import Webhook; Webhook.objects.create(name='a', url={receiver.url!r})"
    app.manage("shell", "-c", script)
    pid = start_run(app, sshd)
    for node in ("one", "two"):
        work(node, 1)
    query = "SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'look'"
    wait_for(lambda: postgres.sql(query, database) == "1", 30, what="the task of the machine")
    postgres.sql("DELETE FROM procrastinate_jobs", database)  # lost
    machine = str(postgres.sql("SELECT machine FROM runners_runnerrun", database))
    receiver.hold.clear()
    kill_all([pid])
    wait_for(lambda: receiver.requests, 30, what="the message, although the task was lost")
    for name, arguments in (("look", [machine, ""]), ("deliver", ["1"]), ("upkeep", [])):
        values = json.dumps({"arguments": arguments})
        insert = (
            f"INSERT INTO procrastinate_jobs (queue_name, task_name, args) SELECT 'shared/{name}', '{name}', '{values}'"
        )
        postgres.sql(f"{insert} FROM generate_series(1, 10)", database)  # doubled, without locks
    doubled = "SELECT count(*) FROM procrastinate_jobs WHERE lock IS NULL"
    wait_for(lambda: postgres.sql(f"{doubled} AND status = 'todo'", database) == "0", 30, what="the doubled tasks")
    receiver.hold.set()
    wait_for(lambda: postgres.sql(doubled, database) == "0", 30, what="their ends")
    sent = "SELECT count(*) FROM runners_webhookdelivery WHERE delivered_at IS NOT NULL"
    wait_for(lambda: postgres.sql(sent, database) == "1", 30, what="the delivery")
    assert len(receiver.requests) == 1
    rows: Any = postgres.sql("SELECT count(*), min(reason) FROM runners_runnerrun", database)
    assert rows == "1|killed"


def test_tasks_of_another_version_are_left_to_it_and_removed_when_it_is_gone(
    app: AppServer, postgres: Postgres, database: str, work: Callable[..., Worker]
) -> None:
    """A task that this version does not know waits for a worker that knows it; a new argument is ignored.

    A task that waits long in a queue of this version keeps its place.
    """

    def insert(queue: str, name: str, age: str, args: str = '{"arguments": []}') -> None:
        columns = "queue_name, task_name, args, scheduled_at"
        values = f"'{queue}/{name}', '{name}', '{args}', now() - interval '{age}'"
        postgres.sql(f"INSERT INTO procrastinate_jobs ({columns}) VALUES ({values})", database)

    def waiting() -> set[str]:
        return set(str(postgres.sql("SELECT task_name FROM procrastinate_jobs WHERE lock IS NULL", database)).split())

    insert("shared", "newer", "5 minutes")
    insert("shared", "gone", "11 minutes")
    insert("node-gone", "restart", "11 minutes")
    insert("silent", "look", "11 minutes", '{"arguments": ["of no run", ""]}')
    sweep = "from runners.worker import distributed; distributed.remove_forgotten_tasks()"
    app.manage("shell", "-v0", "-c", sweep)
    assert waiting() == {"newer", "look"}
    insert("shared", "upkeep", "1 second", '{"arguments": [], "newer": 1}')
    work("one", 1)
    wait_for(lambda: waiting() == {"newer"}, 30, what="the tasks that this version knows, and those that nobody does")


def test_a_local_run_belongs_to_the_node_that_has_started_it(
    app: AppServer,
    make_app: Callable[..., AppServer],
    account: StubAccount,
    postgres: Postgres,
    database: str,
    work: Callable[..., Worker],
) -> None:
    """The other node names the node, and lets its worker read the log and stop the run."""
    other = make_app(account=account, env={"DATABASE_URL": postgres.url(database), "RUNNERS_NODE": "two"})
    start_run(app, None)
    number = str(postgres.sql("SELECT id FROM runners_runnerrun", database))
    body = {"expid": EXPID}
    refused = other.post(COMMAND + "stop-experiment", body)
    assert (refused.status, refused.body["code"]) == (502, "runner_unreachable"), refused.body
    assert "node one of this service, whose worker is not running" in refused.body["detail"]

    def is_unconfirmed() -> bool:
        status = other.post(COMMAND + "get-runner-run-status", body).body
        return (status["status"], status["reachable"]) == ("ACTIVE", False)

    wait_for(is_unconfirmed, 20, what="a status that is not confirmed")
    work("two", 1)

    def warnings() -> list[str]:
        return [each["code"] for each in other.get("/readyz").body["warnings"]]

    wait_for(lambda: warnings() == ["node_missing"], 30, what="the worker of the other node")
    work("one", 1)
    wait_for(lambda: warnings() == [], 30, what="the worker of the node")
    log = other.get(f"/v4/runners/runs/{number}/log")
    assert log.status == 200, log.body
    stopped = other.post(COMMAND + "stop-experiment", body)
    assert stopped.status == 200, stopped.body
    assert postgres.sql("SELECT status, reason FROM runners_runnerrun", database) == "TERMINATED|stopped"
    assert postgres.sql("SELECT count(*) FROM runners_nodecommand", database) == "0"


def test_a_worker_whose_connection_breaks_while_it_waits_opens_a_new_one(postgres: Postgres) -> None:
    name = f"waits_{secrets.token_hex(4)}"
    url = postgres.create(name)
    env = {**os.environ, "DATABASE_URL": url, "SECRET_KEY": secrets.token_urlsafe(50)}
    log = postgres.folder / f"{name}.log"
    watch = start([sys.executable, str(ROOT / "manage.py"), "watch_runs", "--interval=0.5"], log=log, env=env, cwd=ROOT)
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    try:
        wait_for(lambda: "The worker waits." in log.read_text(), 30, what="the worker waits")
        broken = postgres.sql(f"SELECT count(pg_terminate_backend(pid)) {others}", name)
        assert broken == "1"
        wait_for(lambda: "The database is unavailable" in log.read_text(), 30, what="the broken connection")
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=env, check=True)
        wait_for(lambda: "Watching" in log.read_text(), 30, what="the worker begins")
    finally:
        end(watch)


def test_a_server_process_tells_that_its_node_is_alive(
    app: AppServer, account: StubAccount, make_app: Callable[..., AppServer], postgres: Postgres, database: str
) -> None:
    """Also after the database was lost. Only workers count as workers."""
    other = make_app(account=account, env={"DATABASE_URL": postgres.url(database), "RUNNERS_NODE": "two"})
    beats = "SELECT count(*) FROM runners_heartbeat WHERE kind = 'serve' AND node = 'one'"
    wait_for(lambda: str(postgres.sql(beats, database)) >= "1", 30, what="the heartbeat of the server")
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    postgres.sql(f"SELECT count(pg_terminate_backend(pid)) {others}", database)
    postgres.sql("DELETE FROM runners_heartbeat", database)
    wait_for(lambda: str(postgres.sql(beats, database)) >= "1", 60, what="the next heartbeat")
    assert "no_watch" in [each["code"] for each in other.get("/readyz").body["warnings"]]
    app.kill()
    refused = subprocess.run(
        [sys.executable, "manage.py", "forget_node", "one", "--reason=its disk failed"],
        **{"cwd": ROOT, "env": other.environment, "capture_output": True, "text": True, "check": False},
    )
    assert "A server of the node one was seen" in refused.stderr
    postgres.sql("UPDATE runners_heartbeat SET seen = seen - interval '1 minute' WHERE node = 'one'", database)
    assert "one is forgotten" in other.manage("forget_node", "one", "--reason=its disk failed")
    assert postgres.sql(beats, database) == "0"
