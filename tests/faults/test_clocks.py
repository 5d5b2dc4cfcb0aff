"""Two nodes whose clocks differ by twenty minutes, on one PostgreSQL: real servers and workers under faketime.

Promise: nobody's launch is withdrawn, nothing is started or sent twice, no lease is taken early, no worker counts as
dead, and tokens are valid as long as they should be.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.environments import StubAccount
from tests.support.faults import COMMAND, EXPID, MakeGate, in_background, profile_of, run_processes, sessions
from tests.support.nodes import Nodes
from tests.support.postgres import Postgres
from tests.support.processes import PATIENCE, kill_all, wait_for
from tests.support.servers import AppServer, SSHServer
from tests.support.webhooks import Receiver

pytestmark = pytest.mark.timeout(300)
ISSUE = """
from datetime import timedelta
from django.contrib.auth.models import User
from runners.models import ApiToken
user, _ = User.objects.get_or_create(username="ana")
print(ApiToken.issue(user=user, expiry=timedelta(seconds={seconds}))[1])
"""


@pytest.fixture(params=[(600, -600), (-600, 600)], ids=["one-ahead", "two-ahead"])
def nodes(
    request: pytest.FixtureRequest,
    make_app: Callable[..., AppServer],
    account: StubAccount,
    sshd: SSHServer,
    postgres: Postgres,
) -> Iterator[Nodes]:
    account.experiment(EXPID)
    account.control("run", EXPID, SLEEP=600)
    database = postgres.create(f"clocks_{secrets.token_hex(4)}", template="template_of_tests").rpartition("/")[2]
    found = Nodes(make_app, account, sshd, postgres, database, clocks=request.param)
    yield found
    found.close()


def warnings(app: AppServer) -> list[str]:
    return [each["code"] for each in app.get("/readyz").body["warnings"]]


def test_wrong_clocks_of_nodes_do_no_harm(
    nodes: Nodes, account: StubAccount, sshd: SSHServer, make_gate: MakeGate, receiver: Receiver
) -> None:
    one, two = nodes.one, nodes.two
    shown = [float(nodes.shell(node, "import time; print(time.time())")) - time.time() for node in ("one", "two")]
    assert sorted(round(each / 600) for each in shown) == [-1, 1]  # the clocks of the processes are wrong
    nodes.shell("one", f"from runners.models import Webhook; Webhook.objects.create(name='a', url={receiver.url!r})")
    for node in ("one", "two"):
        nodes.work(node)
    wait_for(lambda: nodes.has_worker("one") and nodes.has_worker("two"), 40, what="the workers")

    # A launch of node one hangs. Node two and both workers look at it, and must neither end nor repeat it.
    gate = make_gate()
    profile = account.home / ".bash_profile"
    before = profile.read_text()
    profile.write_text(gate.text + before)
    body = {"expid": EXPID, **profile_of(sshd)}
    try:
        gate.arm()
        key = {"Idempotency-Key": "one-run"}
        answer = in_background(lambda: one.post(COMMAND + "run-experiment", body, **key))
        gate.wait_held()
        retried = two.post(COMMAND + "run-experiment", body, **key)
        assert (retried.status, retried.body["code"]) == (409, "idempotency_in_progress"), retried.body
        begin = time.monotonic()
        while time.monotonic() < begin + 4:
            status = two.post(COMMAND + "get-runner-run-status", {"expid": EXPID}).body
            assert status["status"] == "ACTIVE", status
            assert two.post(COMMAND + "run-experiment", body).body["code"] == "already_running"
            time.sleep(0.5)
        audit = "SELECT outcome FROM runners_auditrecord WHERE endpoint = 'run-experiment' ORDER BY id LIMIT 1"
        assert nodes.sql(audit) == "under_way"
    finally:
        profile.write_text(before)
        gate.release()
    started = answer.result(60 * PATIENCE)
    assert started.status == 200, started.body
    wait_for(lambda: len(run_processes(account)) == 1, what="one run")
    assert two.post(COMMAND + "run-experiment", body, **key).body["pid"] == started.body["pid"]
    assert nodes.sql(audit) == "ok"
    assert all("clock_differs" in warnings(each) for each in (one, two))

    # A look of one node hangs: its lease ends soon, by the clock of the database, and no other node takes it.
    with sshd.frozen():
        lease = "SELECT extract(epoch FROM probing_until - clock_timestamp()) FROM runners_runnerrun"
        seconds = float(wait_for(lambda: nodes.sql(lease), what="a look that hangs"))
        assert -1 < seconds < 5
    wait_for(lambda: sessions(sshd) > 0, what="the machine")

    # A token is valid for as long as it was issued, on each node.
    for issuer, user in (("one", two), ("two", one)):
        token = nodes.shell(issuer, ISSUE.format(seconds=300))
        short = nodes.shell(issuer, ISSUE.format(seconds=0.001))
        whoami = "/v4/runners/login/whoami"
        assert user.get(whoami, Authorization=f"Bearer {token}").status == 200
        assert user.get(whoami, Authorization=f"Bearer {short}").status == 404  # nobody: the token has expired

    # The end of the run is one message. While the receiver is slow, no other worker sends it again.
    receiver.hold.clear()
    kill_all([started.body["pid"]])
    wait_for(lambda: receiver.requests, 40, what="the message")
    held = time.monotonic()
    wait_for(lambda: time.monotonic() > held + 4, 10, what="several sweeps")
    receiver.hold.set()
    sent = "SELECT count(*) FROM runners_webhookdelivery WHERE delivered_at IS NOT NULL AND attempts = 1"
    wait_for(lambda: nodes.sql(sent) == "1", 30, what="the delivery")
    assert len(receiver.requests) == 1
    assert abs(int(receiver.requests[0][1]["webhook-timestamp"]) - time.time()) < 60 * PATIENCE
    assert account.calls("run") == [["run", EXPID]]

    # All times are those of the database.
    wrong = "created > modified OR finished < created OR finished > modified"
    assert nodes.sql(f"SELECT count(*) FROM runners_runnerrun WHERE {wrong}") == "0"
    for table in ("runnerrun", "auditrecord", "webhookdelivery", "heartbeat"):
        column = {"runnerrun": "modified", "heartbeat": "seen"}.get(table, "created")
        off = f"abs(extract(epoch FROM now() - {column})) > 300"
        assert nodes.sql(f"SELECT count(*) FROM runners_{table} WHERE {off}") == "0", table
    assert nodes.sql("SELECT count(*) FROM runners_auditrecord WHERE outcome = 'interrupted'") == "0"
