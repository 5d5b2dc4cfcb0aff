"""Two nodes on one PostgreSQL, each with a server and a worker that are killed at each step.

Promise: a run never starts twice, a command of another node is executed once, a waiting create loses nothing, and a
message comes twice only with the same webhook-id. Everything of a LOCAL run of another node can be read.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from tests.support.api import create_body
from tests.support.environments import StubAccount
from tests.support.faults import (
    COMMAND,
    EXPID,
    Gate,
    LaunchGates,
    MakeGate,
    add_control,
    in_background,
    profile_of,
    run_processes,
)
from tests.support.nodes import Nodes, unless_lost
from tests.support.postgres import Postgres
from tests.support.processes import PATIENCE, kill_all, wait_for, with_environment
from tests.support.servers import AppServer, SSHServer
from tests.support.webhooks import Receiver

pytestmark = pytest.mark.timeout(300)
STATE = "SELECT status, reason, count(*) OVER () FROM runners_runnerrun"
WORDS = "these are the words of the run"
SIGN_IN = """
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
user = User.objects.create_superuser("root")
session = SessionStore()
session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session.create()
print(session.session_key)
"""


@pytest.fixture
def nodes(
    launch_gates: LaunchGates,
    make_app: Callable[..., AppServer],
    account: StubAccount,
    make_sshd: Callable[..., SSHServer],
    postgres: Postgres,
) -> Iterator[Nodes]:
    account.experiment(EXPID)
    account.control("run", EXPID, SLEEP=600, PRINT=WORDS)
    sshd = make_sshd(account.home, env={"PATH": launch_gates.path})
    database = postgres.create(f"nodes_{secrets.token_hex(4)}", template="template_of_tests").rpartition("/")[2]
    found = Nodes(make_app, account, sshd, postgres, database)
    yield found
    found.close()


def at_autosubmit(account: StubAccount, command: str, gate: Gate) -> Gate:
    """Let the next `autosubmit COMMAND` wait at the gate before it does anything."""
    add_control(account, command, gate.text)
    return gate.arm()


def body_of(nodes: Nodes, runner_type: str) -> dict[str, object]:
    return {"expid": EXPID, **profile_of(nodes.sshd if runner_type == "SSH" else None)}


@pytest.mark.parametrize(
    ("runner_type", "step"), [("LOCAL", "before"), ("LOCAL", "login"), ("SSH", "after"), ("SSH", "login")]
)
def test_a_launch_whose_node_is_killed_starts_once(
    nodes: Nodes, launch_gates: LaunchGates, make_gate: MakeGate, account: StubAccount, runner_type: str, step: str
) -> None:
    """The server and the worker of the node die while the launch is before or after `mkdir`, or in the login shell."""
    for node in ("one", "two"):
        nodes.work(node)
    wait_for(lambda: nodes.has_worker("one") and nodes.has_worker("two"), 60, what="the workers")
    gate = make_gate() if step == "login" else getattr(launch_gates, step)
    profile = account.home / ".bash_profile"
    before, body = profile.read_text(), body_of(nodes, runner_type)
    try:
        if step == "login":
            profile.write_text(gate.text + before)
        gate.arm()
        key = {"Idempotency-Key": "the-run"}
        answer = in_background(lambda: unless_lost(lambda: nodes.one.post(COMMAND + "run-experiment", body, **key)))
        gate.wait_held(60)
        nodes.kill("one")
        assert answer.result(30 * PATIENCE) is None
        again = nodes.two.post(COMMAND + "run-experiment", body)
        assert (again.status, again.body["code"]) == (409, "already_running"), again.body
    finally:
        profile.write_text(before)
        gate.release()
    wait_for(lambda: len(run_processes(account)) == 1, 60, what="the run")
    nodes.start("one")
    found = wait_for(
        lambda: (status := nodes.two.post(COMMAND + "get-runner-run-status", body).body)["pid"] and status, 60
    )
    assert [found["pid"]] == run_processes(account)
    retried = nodes.two.post(COMMAND + "run-experiment", body, **key)  # a retry on the other node
    assert (retried.status, retried.body["pid"]) == (200, found["pid"]), retried.body
    assert account.calls("run") == [["run", EXPID]]
    assert nodes.sql(STATE) == "ACTIVE||1"


def test_a_restart_whose_worker_is_killed_in_the_launch_starts_once(
    nodes: Nodes, make_gate: MakeGate, account: StubAccount
) -> None:
    """The worker of the other node finds the run, and must not start it again."""
    body = body_of(nodes, "SSH") | {"restart": {"on": ["lost"], "attempts": 2}}
    assert nodes.one.post(COMMAND + "run-experiment", body).status == 200
    pids = with_environment("AUTOSUBMIT_RUNNERS_KEY", nodes.sql("SELECT key FROM runners_runnerrun"))
    kill_all([int(nodes.sql("SELECT identity->>'supervisor_pid' FROM runners_runnerrun")), *pids])
    wait_for(lambda: not run_processes(account), what="the end of the first run")
    boot = "UPDATE runners_runnerrun SET identity = jsonb_set(identity, '{boot_id}', to_jsonb(repeat('0', 32)))"
    nodes.sql(boot)  # the machine was rebooted
    gate, profile = make_gate(), account.home / ".bash_profile"
    before = profile.read_text()
    profile.write_text(gate.text + before)
    try:
        gate.arm()
        first = nodes.work("one")
        gate.wait_held(60)
        kill_all([first.pid])
        nodes.work("two")
        wait_for(lambda: nodes.has_worker("two"), 60, what="the other worker")
        nodes.sql("UPDATE runners_runnerrun SET restart_at = now() WHERE restart_at IS NOT NULL")  # the lease ends
    finally:
        profile.write_text(before)
        gate.release()
    wait_for(lambda: len(run_processes(account)) == 1, 60, what="the run")
    active = "SELECT pid FROM runners_runnerrun WHERE status = 'ACTIVE' AND pid IS NOT NULL"
    wait_for(lambda: nodes.sql(active) == str(run_processes(account)[0]), 60, what="its identity")
    assert account.calls("run") == [["run", EXPID]] * 2
    assert (
        nodes.sql("SELECT string_agg(coalesce(previous_run, 0)::text, ',' ORDER BY id) FROM runners_runnerrun") == "0,1"
    )


@pytest.mark.parametrize("victim", ["asking", "executing"])
def test_a_stop_on_another_node_is_executed_once_although_a_process_is_killed(
    nodes: Nodes, make_gate: MakeGate, account: StubAccount, victim: str
) -> None:
    """The server that asks, or the worker that executes, is killed while `autosubmit stop` of a LOCAL run waits."""
    worker = nodes.work("one")
    wait_for(lambda: nodes.has_worker("one"), 60, what="the worker")
    body = body_of(nodes, "LOCAL")
    started = nodes.one.post(COMMAND + "run-experiment", body)
    assert started.status == 200, started.body
    gate = at_autosubmit(account, "stop", make_gate())
    answer = in_background(lambda: unless_lost(lambda: nodes.two.post(COMMAND + "stop-experiment", {"expid": EXPID})))
    gate.wait_held(60)
    if victim == "asking":
        nodes.two.kill()
    else:
        kill_all([worker.pid])
        nodes.work("one")
        wait_for(lambda: nodes.sql("SELECT count(*) > 1 FROM runners_heartbeat") == "t", 60, what="the next worker")
    # The row of the command is still there. Nobody begins it again.
    begun = "SELECT count(*) FROM runners_nodecommand WHERE begun IS NOT NULL AND answer = ''"
    assert nodes.sql(begun) == "1"
    assert len(account.calls("stop")) == 1
    gate.release()
    if victim == "asking":
        nodes.two.start()
    else:
        answer.result(200)
    wait_for(
        lambda: (
            nodes.sql(STATE).startswith("TERMINATED")
            or nodes.two.post(COMMAND + "stop-experiment", {"expid": EXPID}).status == 200
        ),
        60,
        what="the end",
    )
    wait_for(lambda: not run_processes(account), what="the end of the run")
    assert wait_for(lambda: (row := nodes.sql(STATE)).startswith("TERMINATED") and row, 30) == "TERMINATED|stopped|1"
    assert account.calls("run") == [["run", EXPID]]


@pytest.mark.parametrize(("runner_type", "step"), [("LOCAL", "waiting"), ("SSH", "before"), ("SSH", "waiting")])
def test_a_waiting_create_loses_nothing_when_its_node_is_killed(
    nodes: Nodes, launch_gates: LaunchGates, make_gate: MakeGate, account: StubAccount, runner_type: str, step: str
) -> None:
    """The server and the worker die before the launch, or while `autosubmit expid` runs on the machine.

    The other node finds the end. For a LOCAL command it needs the worker of the node.
    """
    nodes.work("two")
    nodes.work("one")
    wait_for(lambda: nodes.has_worker("one") and nodes.has_worker("two"), 60, what="the workers")
    gate = launch_gates.before.arm() if step == "before" else at_autosubmit(account, "expid", make_gate())
    place = {key: value for key, value in body_of(nodes, runner_type).items() if key != "expid"}
    body, key = {**create_body(), **place}, {"Idempotency-Key": "the-create"}
    answer = in_background(lambda: unless_lost(lambda: nodes.one.post(COMMAND + "create-experiment", body, **key)))
    gate.wait_held(60)
    nodes.kill("one")
    assert answer.result(30 * PATIENCE) is None
    gate.release()
    if runner_type == "LOCAL":
        nodes.start("one")
    state = "SELECT status, expid, count(*) OVER () FROM runners_operation"
    wait_for(lambda: nodes.sql(state) == "succeeded|a000|1", 60, what="the end, seen by a worker")
    retried = nodes.two.post(COMMAND + "create-experiment", body, **key)
    assert (retried.status, retried.body["expid"]) == (200, "a000"), retried.body
    assert retried.headers["Idempotent-Replayed"] == "true"
    assert len(account.calls("expid")) == 1
    assert nodes.sql("SELECT count(*) FROM runners_webhookdelivery") == "0"


def test_a_message_whose_worker_is_killed_comes_again_with_the_same_id(
    nodes: Nodes, account: StubAccount, receiver: Receiver
) -> None:
    """The worker dies after the receiver has the message and before it is stored as delivered."""
    hook = f"from runners.models import Webhook; Webhook.objects.create(name='a', url={receiver.url!r})"
    nodes.shell("one", hook)
    first = nodes.work("one")
    wait_for(lambda: nodes.has_worker("one"), 60, what="the worker")
    started = nodes.one.post(COMMAND + "run-experiment", body_of(nodes, "SSH"))
    assert started.status == 200, started.body
    receiver.hold.clear()
    kill_all([started.body["pid"]])
    wait_for(lambda: receiver.requests, 60, what="the message")
    kill_all([first.pid])
    receiver.hold.set()
    nodes.work("two")
    attempt = "SELECT attempts, delivered_at IS NULL, count(*) OVER () FROM runners_webhookdelivery"
    wait_for(lambda: nodes.has_worker("two"), 60, what="the other worker")
    assert nodes.sql(attempt) == "1|t|1"
    assert len(receiver.requests) == 1
    nodes.sql("UPDATE runners_webhookdelivery SET next_attempt = now()")  # the lease of the dead worker ends
    wait_for(lambda: nodes.sql(attempt) == "2|f|1", 60, what="the delivery by the other worker")
    assert len(receiver.requests) == 2
    assert len({headers["webhook-id"] for _, headers, _ in receiver.requests}) == 1
    assert len({body for _, _, body in receiver.requests}) == 1


def test_everything_of_a_local_run_of_another_node_can_be_read(nodes: Nodes, account: StubAccount) -> None:
    """Log, search, tail, jobs and configuration, by API and pages of node two. The worker of node one reads them."""
    nodes.work("one")
    wait_for(lambda: nodes.has_worker("one"), 60, what="the worker")
    started = nodes.one.post(COMMAND + "run-experiment", body_of(nodes, "LOCAL"))
    assert started.status == 200, started.body
    number = nodes.sql("SELECT id FROM runners_runnerrun")
    cookie = f"sessionid={nodes.shell('two', SIGN_IN)}"

    def read(path: str) -> str:
        answer = nodes.two.get(path, Cookie=cookie)
        assert answer.status == 200, (path, answer.body)
        return str(answer.body)

    def asked() -> int:
        """Return how many commands the worker of node one has got."""
        return int(nodes.sql("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM runners_nodecommand_id_seq"))

    run, page = f"/v4/runners/runs/{number}", f"/runs/{number}"
    wait_for(lambda: WORDS in read(f"{run}/log"), 60, what="the log")
    before = asked()
    for path, words in (
        (f"{run}/log?tail=16", "v4.1.17.1"),
        (f"{run}/log?offset=0&limit=50", WORDS[:10]),
        (f"{run}/log/search?text=words", "'match': 'words'"),
        (page, EXPID),
        (f"{page}/log", WORDS),
        (f"{page}/log/search?text=words", "'matches': [{"),
        (f"{page}/log/raw", WORDS),
        (f"{page}/log/download", WORDS),
    ):
        assert words in read(path), path
    assert asked() - before >= 5  # not read from the disk of node two; parts that were just read are shared
    before = asked()
    jobs = nodes.two.get(f"{run}/jobs")
    assert asked() > before
    own = nodes.one.get(f"{run}/jobs")
    assert (jobs.status, jobs.body["code"]) == (own.status, own.body["code"])  # the stand-in has no job list
    # The configuration belongs to the experiment and not to a run: each node reads the home directory that they share.
    files = f"/v4/runners/experiments/{EXPID}/config?profile_name=HERE"
    assert nodes.two.get(files).body == nodes.one.get(files).body
    assert nodes.two.get(files).status == 200
    assert nodes.sql("SELECT count(*) FROM runners_nodecommand") == "0"
    assert account.calls("run") == [["run", EXPID]]
