"""`Idempotency-Key`: a retry of a request is not executed again, even if the first response was lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.client import RemoteDisconnected
from pathlib import Path
from typing import Any
from urllib.error import URLError
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from runners.exceptions import IdempotencyInProgress, IdempotencyKeyReused
from runners.models import RunnerRun
from runners.models.operation import IdempotencyRecord, Operation
from runners.services import idempotency
from tests.support.api import create_body, unused_expid
from tests.support.environments import StubAccount
from tests.support.faults import COMMAND
from tests.support.processes import PATIENCE, kill_all, wait_for
from tests.support.rows import CONFIG
from tests.support.servers import Answer, AppServer, SSHServer, servers_of

CREATE = COMMAND + "create-experiment"
ELSEWHERE = "another-boot pid:[1] 1 1 0123456789abcdef"  # a process on another machine, or in another container


@pytest.fixture
def app(module_app: AppServer) -> AppServer:
    return module_app


@pytest.fixture
def key() -> str:
    return str(uuid4())


def lose_answer(app: AppServer, path: str, body: dict[str, Any], key: str, until: Callable[[], object]) -> None:
    """Send a request, kill the server with SIGKILL once `until` is true, and start another server."""
    lost: list[BaseException] = []

    def send() -> None:
        try:
            app.post(path, body, Idempotency_Key=key)
        except (URLError, RemoteDisconnected, ConnectionError) as error:
            lost.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    wait_for(until, 30, what="the moment to kill the server")
    app.kill()
    thread.join(30 * PATIENCE)
    assert lost, "the answer came before the server was killed"
    app.start()


def test_a_retry_gets_the_first_answer(app: AppServer, account: StubAccount, key: str) -> None:
    first = app.post(CREATE, create_body(), Idempotency_Key=key)
    again = app.post(CREATE, create_body(), Idempotency_Key=key)
    assert (first.status, first.body["expid"]) == (200, "a000")
    assert "Idempotent-Replayed" not in first.headers
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(account.calls("expid")) == 1


def test_a_request_with_another_key_or_without_one_creates_another_experiment(app: AppServer, key: str) -> None:
    answers = [
        app.post(CREATE, create_body(), Idempotency_Key=key),
        app.post(CREATE, create_body(), Idempotency_Key=f'"{uuid4()}"'),
        app.post(CREATE, create_body()),
    ]
    assert [answer.body["expid"] for answer in answers] == ["a000", "a001", "a002"]


def test_a_key_in_quotes_is_the_same_key(app: AppServer, key: str) -> None:
    app.post(CREATE, create_body(), Idempotency_Key=key)
    assert app.post(CREATE, create_body(), Idempotency_Key=f'"{key}"').headers["Idempotent-Replayed"] == "true"


def test_a_key_with_another_request_is_rejected(app: AppServer, account: StubAccount, key: str) -> None:
    app.post(CREATE, create_body(), Idempotency_Key=key)
    for path, body in (
        (CREATE, create_body(dummy=True)),
        (COMMAND + "create-job-list", {"expid": "a000", "profile_name": "HERE"}),
    ):
        answer = app.post(path, body, Idempotency_Key=key)
        assert (answer.status, answer.body["code"]) == (422, "idempotency_key_reused")
    assert len(account.calls()) == 1


@pytest.mark.parametrize("bad", ["", "two words", "x" * 256, '"no end', "é"])
def test_a_malformed_key_is_rejected(app: AppServer, account: StubAccount, bad: str) -> None:
    answer = app.post(CREATE, create_body(), Idempotency_Key=bad)
    assert (answer.status, answer.body["code"]) == (400, "invalid_request")
    assert "Idempotency-Key" in answer.body["errors"]
    assert account.calls() == []


def test_one_of_many_simultaneous_requests_is_executed(app: AppServer, account: StubAccount, key: str) -> None:
    account.control("expid", SLEEP=1)

    def send(_: int) -> Answer:
        return app.post(CREATE, create_body(), Idempotency_Key=key)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(send, range(12)))
    assert len(account.calls("expid")) == 1
    assert {answer.status for answer in answers} <= {200, 409}
    refused = [answer for answer in answers if answer.status == 409]
    assert refused
    assert {answer.body["code"] for answer in refused} == {"idempotency_in_progress"}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert send(0).body["expid"] == "a000"


@pytest.mark.parametrize("profile", ["HERE", "THERE"])
def test_a_create_whose_answer_was_lost_is_found_and_not_repeated(
    app: AppServer, account: StubAccount, key: str, profile: str
) -> None:
    account.control("expid", SLEEP=5)
    lose_answer(app, CREATE, create_body(profile), key, until=lambda: account.calls("expid"))
    answer = app.post(CREATE, create_body(profile), Idempotency_Key=key)
    assert (answer.status, answer.body["expid"]) == (200, "a000"), answer.body
    assert answer.headers["Idempotent-Replayed"] == "true"
    assert app.post(CREATE, create_body(profile), Idempotency_Key=key).body == answer.body
    assert len(account.calls("expid")) == 1


def test_a_create_that_ended_before_the_retry_is_not_repeated(app: AppServer, account: StubAccount, key: str) -> None:
    account.control("expid", SLEEP=4)
    lose_answer(app, CREATE, create_body(), key, until=lambda: account.calls("expid"))
    wait_for(lambda: not account.processes(), 20, what="the end of the command")
    assert app.post(CREATE, create_body(), Idempotency_Key=key).body["expid"] == "a000"
    assert len(account.calls("expid")) == 1


def test_a_failure_whose_answer_was_lost_is_found(app: AppServer, account: StubAccount, key: str) -> None:
    account.control("expid", DELAY=5, FAIL="The database is corrupt", ECODE=7014)
    lose_answer(app, CREATE, create_body(), key, until=lambda: account.calls("expid"))
    answers = [app.post(CREATE, create_body(), Idempotency_Key=key) for _ in range(2)]
    assert [(answer.status, answer.body["code"]) for answer in answers] == [(502, "command_failed")] * 2
    assert "The database is corrupt" in answers[0].body["detail"]
    assert answers[1].body == answers[0].body
    for answer in answers:
        assert answer.headers["Idempotent-Replayed"] == "true"
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert len(account.calls("expid")) == 1


def test_a_retry_finds_the_answer_of_a_killed_worker(app: AppServer, account: StubAccount, key: str) -> None:
    """The master process survives and starts another worker. The service detects that the key's owner is dead."""
    account.control("expid", SLEEP=5)
    thread = ThreadPoolExecutor(1).submit(app.post, CREATE, create_body(), Idempotency_Key=key)
    wait_for(lambda: account.calls("expid"), 30, what="the call")
    kill_all(servers_of(app), signal.SIGKILL)
    assert isinstance(thread.exception(30 * PATIENCE), (URLError, RemoteDisconnected, ConnectionError))
    answer = app.post(CREATE, create_body(), Idempotency_Key=key)
    assert (answer.status, answer.body["expid"]) == (200, "a000")
    assert len(account.calls("expid")) == 1


@pytest.fixture
def began(account: StubAccount) -> Iterator[Path]:
    """A slow login shell that first creates this file. The launch was sent then, but its identity is not stored yet."""
    profile, file = account.home / ".bash_profile", account.home / "login-began"
    before = profile.read_text()
    profile.write_text(before + "\ntouch ~/login-began; sleep 2\n")
    yield file
    profile.write_text(before)
    file.unlink(missing_ok=True)


def test_a_run_whose_answer_was_lost_is_found(app: AppServer, account: StubAccount, key: str, began: Path) -> None:
    account.experiment("a001")
    account.control("run", "a001", SLEEP=60)
    path, body = COMMAND + "run-experiment", {"expid": "a001", "profile_name": "THERE"}
    lose_answer(app, path, body, key, until=began.exists)
    answer = wait_for(
        lambda: (found := app.post(path, body, Idempotency_Key=key)).status != 409 and found, 60, what="the answer"
    )
    assert answer.status == 200, answer.body
    assert answer.body["message"] == "Experiment a001 started successfully."
    assert (answer.body["runner_id"], answer.body["status"]) == (1, "ACTIVE")
    assert wait_for(lambda: account.calls("run"), 20, what="the call") == [["run", "a001"]]


@pytest.mark.parametrize("profile", ["HERE", "THERE"])
@pytest.mark.parametrize("command", ["run", "expid"])
def test_a_command_that_ended_before_its_identity_was_stored_is_not_repeated(
    app: AppServer, account: StubAccount, key: str, began: Path, command: str, profile: str
) -> None:
    """The server dies during the launch, and the command executes and ends. Only its exit code is left as evidence."""
    account.experiment("a001")
    path, body = {
        "run": (COMMAND + "run-experiment", {"expid": "a001", "profile_name": profile}),
        "expid": (CREATE, create_body(profile)),
    }[command]
    lose_answer(app, path, body, key, until=began.exists)
    wait_for(lambda: account.calls(command) and not account.processes(), 30, what="the end of the command")
    answers = [app.post(path, body, Idempotency_Key=key) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200], answers
    assert answers[0].body == answers[1].body
    assert answers[0].body.get("status", "COMPLETED") == "COMPLETED"
    assert answers[0].headers["Idempotent-Replayed"] == "true"
    assert len(account.calls(command)) == 1


def test_a_run_whose_launch_lost_its_connection_is_not_repeated(
    app: AppServer, account: StubAccount, sshd: SSHServer, key: str, began: Path
) -> None:
    """The server survives and responds that the outcome is unknown. A retry then returns the outcome."""
    account.experiment("a001")
    account.control("run", "a001", EXIT=3)
    path, body = COMMAND + "run-experiment", {"expid": "a001", "profile_name": "THERE"}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(app.post, path, body, Idempotency_Key=key)
        wait_for(began.exists, 30, what="the login shell")
        sshd.drop_connections()
    assert first.result().body["code"] == "outcome_unknown", first.result()
    wait_for(lambda: account.calls("run") and not account.processes(), 30, what="the end of the run")
    again = app.post(path, body, Idempotency_Key=key)
    assert (again.status, again.body["runner_id"], again.body["exit_code"]) == (200, first.result().body["run_id"], 3)
    assert len(account.calls("run")) == 1


def test_a_finished_run_is_not_started_again_with_its_key(app: AppServer, account: StubAccount, key: str) -> None:
    account.experiment("a001")
    body = {"expid": "a001", "profile_name": "HERE"}
    first = app.post(COMMAND + "run-experiment", body, Idempotency_Key=key)
    wait_for(lambda: app.post(COMMAND + "get-runner-run-status", {"expid": "a001"}).body["status"] == "COMPLETED", 20)
    again = app.post(COMMAND + "run-experiment", body, Idempotency_Key=key)
    assert (again.status, again.body) == (200, first.body)
    assert len(account.calls("run")) == 1


def test_a_stop_whose_answer_was_lost_is_a_success(app: AppServer, account: StubAccount, key: str) -> None:
    expid = account.experiment(unused_expid())
    account.control("run", expid, SLEEP=60)
    account.control("stop", expid, DELAY=5)
    app.post(COMMAND + "run-experiment", {"expid": expid, "profile_name": "HERE"})
    path, body = COMMAND + "stop-experiment", {"expid": expid}
    lose_answer(app, path, body, key, until=lambda: account.calls("stop"))
    wait_for(lambda: not account.processes(), 20, what="the end of the run")
    app.post(COMMAND + "get-runner-run-status", {"expid": expid})
    answer = app.post(path, body, Idempotency_Key=key)
    assert answer.status == 200, answer.body
    assert answer.body["reason"] == "stopped"
    assert len(account.calls("stop")) == 1


def test_a_stop_that_is_repeated_leaves_a_newer_run_alone(app: AppServer, account: StubAccount, key: str) -> None:
    expid = account.experiment(unused_expid())
    account.control("run", expid, SLEEP=60)
    account.control("stop", expid, DELAY=5)
    start, stop = COMMAND + "run-experiment", COMMAND + "stop-experiment"
    body = {"expid": expid, "profile_name": "HERE"}
    older = app.post(start, body).body["runner_id"]
    lose_answer(app, stop, {"expid": expid}, key, until=lambda: account.calls("stop"))
    wait_for(lambda: not account.processes(), 20, what="the end of the run")
    newer = app.post(start, body)
    assert newer.status == 200 and newer.body["runner_id"] > older, newer.body
    for _ in range(2):
        answer = app.post(stop, {"expid": expid}, Idempotency_Key=key)
        assert (answer.status, answer.body["runner_id"], answer.body["status"]) == (200, older, "TERMINATED")
        assert answer.headers["Idempotent-Replayed"] == "true"
    assert app.post(COMMAND + "get-runner-run-status", {"expid": expid}).body["status"] == "ACTIVE"
    assert len(account.calls("stop")) == 1


def test_a_stop_that_did_not_reach_its_machine_is_resumed(
    app: AppServer, account: StubAccount, sshd: SSHServer, key: str
) -> None:
    expid = account.experiment(unused_expid())
    account.control("run", expid, SLEEP=60)
    path, body = COMMAND + "stop-experiment", {"expid": expid}
    app.post(COMMAND + "run-experiment", {"expid": expid, "profile_name": "THERE"})
    sshd.stop()
    assert app.post(path, body, Idempotency_Key=key).body["code"] == "runner_unreachable"
    sshd.start()
    answer = app.post(path, body, Idempotency_Key=key)
    assert (answer.status, answer.body["reason"]) == (200, "stopped"), answer.body
    assert len(account.calls("stop")) == 1


def test_a_stop_without_a_running_run_releases_its_key(app: AppServer, account: StubAccount, key: str) -> None:
    expid = account.experiment(unused_expid())
    path, body = COMMAND + "stop-experiment", {"expid": expid}
    start = COMMAND + "run-experiment", {"expid": expid, "profile_name": "HERE"}
    app.post(*start)
    wait_for(lambda: app.post(COMMAND + "get-runner-run-status", body).body["status"] == "COMPLETED", 20)
    assert app.post(path, body, Idempotency_Key=key).body["code"] == "not_running"
    account.control("run", expid, SLEEP=60)
    second = app.post(*start).body["runner_id"]
    answer = app.post(path, body, Idempotency_Key=key)
    assert (answer.status, answer.body["runner_id"], answer.body["reason"]) == (200, second, "stopped"), answer.body


def test_a_new_container_answers_requests_of_the_replaced_one(app: AppServer, account: StubAccount, key: str) -> None:
    """The processes of the old container cannot be inspected.

    A retry does not wait until they are assumed to be gone.
    """
    account.control("expid", SLEEP=5)
    lose_answer(app, CREATE, create_body(), key, until=lambda: account.calls("expid"))
    app.manage("shell", "-c", f"from runners.models import *; IdempotencyRecord.objects.update(owner={ELSEWHERE!r})")
    answer = app.post(CREATE, create_body(), Idempotency_Key=key)
    assert (answer.status, answer.body["expid"]) == (200, "a000"), answer.body
    assert len(account.calls("expid")) == 1


def test_a_request_that_did_nothing_can_be_retried_with_its_key(
    app: AppServer, account: StubAccount, sshd: SSHServer, key: str
) -> None:
    sshd.stop()
    assert app.post(CREATE, create_body("THERE"), Idempotency_Key=key).body["code"] == "runner_unreachable"
    sshd.start()
    assert app.post(CREATE, create_body("THERE"), Idempotency_Key=key).body["expid"] == "a000"
    assert app.post(CREATE, {"profile_name": "HERE"}, Idempotency_Key=str(uuid4())).status == 400


def test_an_asynchronous_command_is_accepted_once(app: AppServer, account: StubAccount, key: str) -> None:
    account.control("expid", SLEEP=2)
    first, again = (app.post(CREATE, create_body(), Idempotency_Key=key, Prefer="respond-async") for _ in range(2))
    assert (first.status, again.status) == (202, 202)
    for name in ("Location", "Retry-After", "Preference-Applied"):
        assert first.headers[name] == again.headers[name]
    assert again.headers["Idempotent-Replayed"] == "true"
    wait_for(lambda: app.get(first.headers["Location"]).body["status"] == "succeeded", 20)
    assert len(account.calls("expid")) == 1


# --- keys and callers, without a server -----------------------------------------------------------------------------


def claim(
    key: str = "k", caller: str = "ana", mark: str = "m", endpoint: str = "create-experiment"
) -> IdempotencyRecord:
    return idempotency.claim(caller=caller, key=key, endpoint=endpoint, request_hash=mark)


@pytest.mark.django_db
def test_callers_do_not_see_each_others_keys() -> None:
    User.objects.create_user("ana")
    assert claim(caller="ana").pk != claim(caller="bob", mark="other").pk


@pytest.mark.django_db
def test_a_key_is_in_progress_while_its_process_lives() -> None:
    claim()
    with pytest.raises(IdempotencyInProgress):
        claim()
    with pytest.raises(IdempotencyKeyReused):
        claim(mark="other")


@pytest.mark.django_db
def test_a_process_of_another_machine_counts_as_alive_until_its_lease_ends() -> None:
    record = claim()
    IdempotencyRecord.objects.filter(pk=record.pk).update(owner=ELSEWHERE)
    with pytest.raises(IdempotencyInProgress):
        claim()
    IdempotencyRecord.objects.filter(pk=record.pk).update(owned_until=timezone.now() - timedelta(seconds=1))
    assert claim().is_repeated


def a_run(**values: Any) -> RunnerRun:
    return RunnerRun.objects.create(expid="a001", config={}, runner="LOCAL", module_loader="NO_MODULE", **values)


IDENTITY: dict[str, Any] = {"identity": {"pid": 1}}
OVER: dict[str, Any] = {"status": "TERMINATED", "reason": "lost"}


@pytest.mark.django_db
@pytest.mark.parametrize("owner", [ELSEWHERE, "its own"])
@pytest.mark.parametrize(
    ("endpoint", "values", "is_open"),
    [
        ("run-experiment", {}, False),  # the owner may be starting the run now
        ("run-experiment", IDENTITY, True),
        ("run-experiment", OVER, True),
        ("stop-experiment", IDENTITY, False),  # the stop has steps to take
        ("stop-experiment", {**IDENTITY, **OVER}, True),
    ],
)
def test_a_key_of_another_machine_can_be_taken_over_only_if_its_command_runs_alone(
    endpoint: str, values: dict[str, Any], is_open: bool, owner: str
) -> None:
    record = claim(endpoint=endpoint)
    a_run(key=record.run_key, **values)
    if owner == ELSEWHERE:
        IdempotencyRecord.objects.update(owner=ELSEWHERE)
    if owner == ELSEWHERE and is_open:
        assert claim(endpoint=endpoint).is_repeated
    else:  # wait for a living process that can be inspected
        with pytest.raises(IdempotencyInProgress):
            claim(endpoint=endpoint)


@pytest.mark.django_db
def test_a_key_can_be_taken_over_after_its_lease() -> None:
    """The request lost its thread, or the database when it should store the response. Its process is still alive."""
    record = claim()
    IdempotencyRecord.objects.filter(pk=record.pk).update(owned_until=timezone.now() - timedelta(seconds=1))
    assert claim().is_repeated


@pytest.mark.django_db
@pytest.mark.parametrize(("exit_code", "is_kept"), [(102, True), (None, False)])
def test_a_key_stays_bound_to_a_failure_whose_identity_was_never_stored(exit_code: int | None, is_kept: bool) -> None:
    """The exit code proves that the command began, so a retry must not execute it again."""
    record = claim()
    operation = Operation.objects.create(
        key=record.run_key, kind="create-experiment", config=CONFIG, timeout=10, status="failed", exit_code=exit_code
    )
    idempotency.bind_operation(record)(operation)
    assert (idempotency.operation_of(record) == operation) is is_kept
    idempotency.release(record)
    assert IdempotencyRecord.objects.filter(pk=record.pk).exists() is is_kept


@pytest.mark.django_db
def test_a_process_that_lost_its_key_starts_nothing() -> None:
    """The first request hangs, loses its key to a retry, and resumes. It does not insert the row of its operation."""
    first = claim()
    IdempotencyRecord.objects.filter(pk=first.pk).update(
        owner=ELSEWHERE, owned_until=timezone.now() - timedelta(seconds=1)
    )
    claim()
    with pytest.raises(IdempotencyInProgress):
        idempotency.bind_operation(first)(None)  # type: ignore[arg-type]  # it raises before it uses the row
    with pytest.raises(IdempotencyInProgress):
        idempotency.forget_attempt(first)
    with pytest.raises(IdempotencyInProgress):
        idempotency.bind_run(first, a_run())


@pytest.mark.django_db
def test_old_keys_are_forgotten(settings: Any) -> None:
    record = claim()
    old = timezone.now() - timedelta(hours=settings.RUNNERS_IDEMPOTENCY_HOURS, seconds=1)
    IdempotencyRecord.objects.filter(pk=record.pk).update(created=old)
    assert not claim(mark="other").is_repeated
    IdempotencyRecord.objects.update(created=old)
    assert idempotency.clean() == 1
