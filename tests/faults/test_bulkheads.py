"""One machine, person or account blocks no other: the number of threads and the waits are bounded.

The machines are real, and SIGSTOP of sshd and its sessions freezes them.
"""

from __future__ import annotations

import fcntl
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from profiles.config import RunnerConfig
from runners.exceptions import MachineBusy, OutcomeUnknown, RunnerUnreachable, TooManyCommands
from runners.models import RunnerRun
from runners.services.machines import bulkheads, scripts
from runners.services.machines.bulkheads import BULKHEADS, SIGN_OF_LIFE, threads_of
from runners.services.machines.registry import get_runner
from tests.support.environments import StubAccount
from tests.support.faults import COMMAND, EXPID, in_background, look, profile_of, set_status, start_run
from tests.support.processes import PATIENCE, wait_for
from tests.support.servers import Answer, AppServer, SSHServer

pytestmark = pytest.mark.django_db(transaction=True)

THREADS = 8
SHARE = 2


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat this process as a server with THREADS threads."""
    monkeypatch.setattr(BULKHEADS, "threads", THREADS)


# --- in a server ------------------------------------------------------------------------------------------------------


def status_body() -> dict[str, Any]:
    return {"expid": EXPID, "command_params": {"final_status": "READY", "job_names_list": [f"{EXPID}_ONE"]}}


def test_forty_requests_to_a_frozen_machine_do_not_block_others(
    account: StubAccount, sshd: SSHServer, make_app: Callable[..., AppServer]
) -> None:
    account.experiment(EXPID)
    account.control("run", SLEEP=600)
    env = {"RUNNERS_CONNECT_TIMEOUT": "5", "RUNNERS_RETRY_PAUSE": "5", "RUNNERS_STATUS_WAIT": "1"}
    app = make_app(account=account, sshd=sshd, env=env | {"RUNNERS_STATUS_FRESHNESS": "0"}, workers=1, threads=THREADS)
    there, here = profile_of(sshd), profile_of(None)
    run_id = app.post(COMMAND + "run-experiment", {"expid": EXPID, **there}).body["runner_id"]
    seen: list[tuple[str, float, Answer]] = []
    is_over = Event()
    presses: list[tuple[str, str, dict[str, Any] | None]] = [
        ("POST", COMMAND + "set-job-status", {**status_body(), **there}),
        ("POST", COMMAND + "run-experiment", {"expid": "b000", **there}),
        ("POST", COMMAND + "stop-experiment", {"expid": EXPID}),
        ("POST", COMMAND + "get-runner-run-status", {"expid": EXPID}),
        ("GET", f"/v4/runners/runs/{run_id}/log?tail=100", None),
    ]

    def press(number: int) -> None:
        while not is_over.wait(1 + number / 40):
            method, path, body = presses[number % len(presses)]
            begin = time.monotonic()
            answer = app.request(method, path, body)
            seen.append((path, time.monotonic() - begin, answer))

    others: list[float] = []
    with sshd.frozen(), ThreadPoolExecutor(40) as pool:
        for number in range(40):
            pool.submit(press, number)
        end = time.monotonic() + 12
        try:
            while time.monotonic() < end:
                for method, path, body in (
                    ("GET", "/v4/runners/configuration/profiles", None),
                    ("POST", COMMAND + "update-experiment-description", {"expid": EXPID, "description": "x", **here}),
                ):
                    begin = time.monotonic()
                    answer = app.request(method, path, body)
                    others.append(time.monotonic() - begin)
                    assert answer.status == 200, answer
                time.sleep(0.1)
        finally:
            is_over.set()
    others.sort()
    assert others[int(len(others) * 0.95)] < 2.5 * PATIENCE, others[-5:]  # one press holds a thread twice as long
    statuses = [seconds for path, seconds, _ in seen if path.endswith("status") and "runner-run" in path]
    # A thread becomes free when the commands beyond the share leave. Then a status waits for 1 s.
    assert max(statuses) < (SIGN_OF_LIFE + 1 + 1) * PATIENCE, sorted(statuses)[-5:]
    codes = Counter((answer.status, answer.body.get("code")) for path, _, answer in seen if answer.status != 200)
    # Eight of the users start the same experiment: one may meet the launch of another.
    expected = {(502, "runner_unreachable"), (503, "machine_busy"), (409, "already_running")}
    assert set(codes) <= expected, codes
    assert codes[502, "runner_unreachable"] > 40, codes  # the remembered error
    for _, seconds, answer in seen:
        if answer.status in (502, 503) and seconds > 1:
            continue  # the first requests waited, some of them beyond the share
        if answer.status in (502, 503):
            assert int(answer.headers["Retry-After"]) >= 1
    # A command waits for a free thread as long, and then for the connection, which has 5 s.
    assert max(seconds for _, seconds, _ in seen) < (SIGN_OF_LIFE + 5 + 1) * PATIENCE
    busy = next((answer for _, _, answer in seen if answer.status == 503), None)
    assert busy and "does not answer" in busy.body["detail"] and busy.body["requests"] >= 1, busy


def test_one_create_waits_for_another_for_two_seconds(
    account: StubAccount, sshd: SSHServer, make_app: Callable[..., AppServer]
) -> None:
    app = make_app(account=account, sshd=sshd, workers=1)
    body = {**profile_of(sshd), "command_params": {"description": "x"}}
    folder = account.home / ".autosubmit-runners"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / scripts.EXPID_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        begin = time.monotonic()
        for headers in ({}, {"Idempotency-Key": "one"}):
            answer = app.post(COMMAND + "create-experiment", body, **headers)
            assert (answer.status, answer.body["code"]) == (503, "account_busy"), answer
            assert int(answer.headers["Retry-After"]) >= 1
        assert time.monotonic() - begin < 2 * (2 + 4)
        accepted = app.post(COMMAND + "create-experiment", body, Prefer="respond-async")
        assert accepted.status == 202
        assert account.calls("expid") == []
    place = accepted.headers["Location"]
    wait_for(lambda: app.get(place).body["status"] == "succeeded", 40, what="the operation")
    assert app.post(COMMAND + "create-experiment", body, **{"Idempotency-Key": "one"}).status == 200
    assert len(account.calls("expid")) == 2


def test_waiting_for_an_operation_counts_as_waiting(
    account: StubAccount, sshd: SSHServer, make_app: Callable[..., AppServer]
) -> None:
    """Beyond the share, `Prefer: respond-async, wait=` gets the answer 202 at once."""
    account.experiment(EXPID)
    account.control("setstatus", SLEEP=6)
    app = make_app(account=account, sshd=sshd, workers=1, threads=THREADS)

    def status(_: int) -> int:
        body = {**status_body(), **profile_of(sshd)}
        return app.post(COMMAND + "set-job-status", body, Prefer="respond-async, wait=60").status

    with ThreadPoolExecutor(5) as pool:
        statuses = list(pool.map(status, range(5)))
    assert sorted(statuses) == [200] * SHARE + [202] * (5 - SHARE)


# --- in this process --------------------------------------------------------------------------------------------------


def test_a_status_waits_for_two_seconds_at_most_and_the_answer_is_stored(
    over_ssh: RunnerConfig, account: StubAccount, sshd: SSHServer, settings: Any
) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT, settings.RUNNERS_STATUS_WAIT = 20, 0.5
    account.control("run", SLEEP=600)
    run = start_run(over_ssh)
    asked = timezone.now()
    with sshd.frozen():
        begin = time.monotonic()
        shown = look()
        assert time.monotonic() - begin < 0.5 + 1
        assert shown.is_active and not shown.reachable
        assert "has no answer yet" in shown.unreachable_detail
    stored = wait_for(lambda: (found := RunnerRun.objects.get(pk=run.pk)).confirmed_at and found, what="the answer")
    assert stored.reachable and stored.confirmed_at >= asked


def test_the_end_of_a_run_is_stored_although_nobody_waits(
    over_ssh: RunnerConfig, account: StubAccount, sshd: SSHServer, settings: Any
) -> None:
    settings.RUNNERS_STATUS_WAIT = 0.001
    account.control("run", EXIT=3)
    run = start_run(over_ssh)
    wait_for(lambda: not look().is_active or not RunnerRun.objects.get(pk=run.pk).is_active, what="the end")
    stored = RunnerRun.objects.get(pk=run.pk)
    assert (stored.reason, stored.exit_code, stored.probing_until) == ("failed", 3, None)


def test_a_silent_machine_blocks_at_most_its_share_of_the_threads(
    bounded: None, over_ssh: RunnerConfig, account: StubAccount, sshd: SSHServer, settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings.RUNNERS_CONNECT_TIMEOUT = 6
    monkeypatch.setattr(bulkheads, "SIGN_OF_LIFE", 1.0)
    get_runner(over_ssh).execute("true", timeout=30)

    def press(number: int) -> tuple[float, str]:
        begin = time.monotonic()
        try:
            with BULKHEADS.command("set-job-status", person=f"person-{number}", profile_name="THERE"):
                set_status(over_ssh)
        except RunnerUnreachable as error:
            if error.code == "machine_busy":
                assert "person-" not in error.detail
                assert f"wait for {sshd.user}@127.0.0.1:{sshd.port}" in error.detail
                assert error.facts["retry_after"] >= 1
            return time.monotonic() - begin, error.code
        finally:
            connections.close_all()
        raise AssertionError("a frozen machine has answered")

    with sshd.frozen(), ThreadPoolExecutor(20) as pool:
        first = [pool.submit(press, number) for number in range(6)]
        wait_for(lambda: BULKHEADS.is_silent(get_runner(over_ssh).target), 10, what="silence")
        late = sorted(pool.map(press, range(6, 16)))
        assert late[-1][0] < 0.5 and {code for _, code in late} == {"machine_busy"}, late
        times = sorted(future.result() for future in first)
    assert [code for _, code in times].count("machine_busy") == 6 - SHARE, times
    assert all(seconds < 2.5 for seconds, code in times if code == "machine_busy"), times
    assert all(4 < seconds < 7 for seconds, code in times if code == "runner_unreachable"), times
    assert account.calls("setstatus") == []
    assert get_runner(over_ssh).execute("echo well", timeout=30).stdout == b"well\n"


def test_commands_beyond_the_share_leave_a_machine_that_freezes_meanwhile(
    bounded: None, over_ssh: RunnerConfig, account: StubAccount, sshd: SSHServer, settings: Any
) -> None:
    """These commands have begun, so their outcome is unknown. The commands within the share wait for their result."""
    settings.RUNNERS_CONNECT_TIMEOUT, settings.RUNNERS_RETRY_PAUSE = 2, 60.0
    runner, folder = get_runner(over_ssh), account.home / "frozen-commands"  # other modules use the same account
    folder.mkdir()
    script = f"touch {folder}/$$; until [ -e {folder}.go ]; do sleep 0.1; done; echo done"

    def carry_out() -> str:
        with BULKHEADS.command("create-job-list"):
            return runner.execute(script, timeout=60).text.strip()

    futures = [in_background(carry_out) for _ in range(5)]
    wait_for(lambda: len(list(folder.iterdir())) == 5, 20, what="the commands")
    try:
        with sshd.frozen():
            with BULKHEADS.background(), pytest.raises(RunnerUnreachable):
                runner.execute("true", timeout=30)
            wait_for(lambda: sum(each.done() for each in futures) == 5 - SHARE, 20, what="those that leave")
            for future in futures:
                if future.done():
                    with pytest.raises(OutcomeUnknown, match="stopped answering"):
                        future.result()
    finally:
        Path(f"{folder}.go").touch()
    left = [future for future in futures if not future.done()]
    assert [future.result(30 * PATIENCE) for future in left] == ["done"] * SHARE


def occupy(runner: Any, count: int, person: str = "") -> tuple[Any, list[Any]]:
    """Start `count` commands that run until the event is set."""
    go = Event()

    def carry_out() -> None:
        with BULKHEADS.command("run-experiment", person=person, profile_name="THERE"):
            runner.execute("true", timeout=30)
            go.wait(60 * PATIENCE)

    futures = [in_background(carry_out) for _ in range(count)]
    wait_for(lambda: len(BULKHEADS._commands) >= count or any(f.done() for f in futures), what="the commands")
    return go, futures


def test_a_healthy_machine_may_use_all_threads_but_the_reserve(bounded: None, there: RunnerConfig) -> None:
    runner = get_runner(there)
    go, futures = occupy(runner, BULKHEADS.most_commands)
    try:
        assert BULKHEADS.most_commands == 6
        with BULKHEADS.command("set-job-status"), pytest.raises(MachineBusy) as refused:
            runner.execute("true", timeout=30)
        assert refused.value.facts["retry_after"] >= 1
        assert "6 commands" in refused.value.detail
        assert runner.execute("echo read", timeout=30).stdout == b"read\n"  # a call that does not belong to a command
    finally:
        go.set()
    for future in futures:
        future.result(30 * PATIENCE)
    with BULKHEADS.command("set-job-status"):
        assert runner.execute("echo again", timeout=30).stdout == b"again\n"
    assert BULKHEADS._commands == [] and BULKHEADS._machines == {}


def test_a_person_and_an_account_have_bounds_of_their_own(bounded: None, there: RunnerConfig, settings: Any) -> None:
    runner = get_runner(there)
    settings.RUNNERS_COMMANDS_PER_PERSON, settings.RUNNERS_COMMANDS_PER_ACCOUNT = 2, 3
    go, futures = occupy(runner, 2, person="ana")
    try:
        with (
            BULKHEADS.command("stop-experiment", person="ana"),
            pytest.raises(TooManyCommands, match="of one person \\(2\\)"),
        ):
            runner.execute("true", timeout=30)
        with BULKHEADS.command("run-experiment", person="ben", profile_name="THERE"):
            runner.execute("true", timeout=30)
            runner.execute("true", timeout=30)  # a command keeps its slot
            with (
                BULKHEADS.command("run-experiment", person="eva", profile_name="THERE"),
                pytest.raises(MachineBusy) as refused,
            ):
                runner.admit()
        detail = refused.value.detail
        assert "3 requests wait for" in detail and "3 with the profile THERE" in detail
        assert not any(name in detail for name in ("ana", "ben"))
    finally:
        go.set()
    for future in futures:
        future.result(30 * PATIENCE)


@pytest.mark.parametrize(
    ("argv", "threads"),
    [
        (["gunicorn", "runners_project.wsgi", "--threads", "16"], 16),
        (["gunicorn", "--threads=4", "x"], 4),
        (["granian", "--blocking-threads", "12"], 12),
        (["waitress-serve", "--threads=x"], 0),
        (["manage.py", "runserver"], 0),
        (["gunicorn", "--threads"], 0),
    ],
)
def test_the_number_of_threads_is_read_from_the_command_line(argv: list[str], threads: int) -> None:
    assert threads_of(argv) == threads
