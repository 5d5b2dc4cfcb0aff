"""After a machine failed to answer, no caller contacts it for some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from profiles.config import RunnerConfig
from runners.exceptions import AuthenticationFailed, CommandTimedOut, RunnerServiceError, RunnerUnreachable
from runners.models import RunnerRun
from runners.services import logs
from runners.services.check import check_profile
from runners.services.machines import breaker
from runners.services.machines.breaker import BREAKER
from runners.services.machines.registry import get_runner
from tests.support.environments import StubAccount
from tests.support.faults import look, set_status, start_run, stop_run
from tests.support.processes import wait_for
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db(transaction=True)

AT_ONCE = 0.5  # seconds


@pytest.fixture(autouse=True)
def pause(settings: Any) -> None:
    settings.RUNNERS_RETRY_PAUSE, settings.RUNNERS_RETRY_PAUSE_LONGEST = 60.0, 120.0


def seconds_until_error(call: Callable[[], Any], error: type[RunnerServiceError]) -> tuple[float, RunnerServiceError]:
    begin = time.monotonic()
    with pytest.raises(error) as raised:
        call()
    return time.monotonic() - begin, raised.value


def test_after_one_failure_all_requests_get_the_known_error_at_once(
    over_ssh: RunnerConfig, account: StubAccount, sshd: SSHServer, settings: Any
) -> None:
    """The first command finds a frozen pooled connection and cannot open a new one; both share one timeout."""
    account.control("run", SLEEP=600)
    run = start_run(over_ssh)
    settings.RUNNERS_CONNECT_TIMEOUT = 4
    with sshd.frozen():
        seconds, first = seconds_until_error(lambda: set_status(over_ssh), RunnerUnreachable)
        assert 2 < seconds < settings.RUNNERS_CONNECT_TIMEOUT + 1, seconds
        assert "no answer within" in first.detail
        assert first.facts["retry_after"] == 60
        for call in (
            lambda: set_status(over_ssh),
            lambda: start_run(over_ssh, "b000"),
            lambda: stop_run(),
            lambda: logs.read(run, limit=100),
        ):
            seconds, error = seconds_until_error(call, RunnerUnreachable)
            assert seconds < AT_ONCE
            assert first.detail.rstrip(".") in error.detail
            assert 50 < error.facts["retry_after"] <= 60
        begin = time.monotonic()
        assert not look().reachable
        stages = {stage.name: stage for stage in check_profile(over_ssh)}
        assert time.monotonic() - begin < 2 * AT_ONCE
        assert stages["connect"].ok is False
        assert "The service does not connect to the machine again before" in stages["connect"].remedy
    assert not RunnerRun.objects.filter(expid="b000").exists()
    assert account.calls("setstatus") == []


def test_after_the_pause_one_attempt_goes_through(over_ssh: RunnerConfig, sshd: SSHServer, settings: Any) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT = 1.5
    settings.RUNNERS_RETRY_PAUSE = 0.3
    runner = get_runner(over_ssh)

    def seconds(_: int) -> float:
        begin = time.monotonic()
        try:
            with pytest.raises(RunnerUnreachable):
                runner.execute("true", timeout=30)
        finally:
            connections.close_all()
        return time.monotonic() - begin

    with sshd.frozen():
        seconds(0)
        wait_for(lambda: BREAKER.known(runner.target) is None, 10, what="the end of the pause")
        with ThreadPoolExecutor(8) as pool:
            times = sorted(pool.map(seconds, range(8)))
        assert times[-2] < AT_ONCE, times
        assert times[-1] > 1, times
        known = BREAKER.known(runner.target)
        assert known  # the second pause is longer than the first
    wait_for(lambda: BREAKER.known(runner.target) is None, 10, what="the end of the second pause")
    assert runner.execute("echo back", timeout=30).stdout == b"back\n"
    assert runner.execute("echo again", timeout=30).stdout == b"again\n"


def test_a_rejected_login_is_remembered_per_account(over_ssh: RunnerConfig, sshd: SSHServer) -> None:
    sshd.authorized = False
    attempts = sshd.log.read_text(errors="replace").count("Connection from")
    for _ in range(3):
        with pytest.raises(AuthenticationFailed, match="authorized_keys") as raised:
            get_runner(over_ssh).execute("true", timeout=30)
        # What a caller adds to its error, as run-again and a stop do, is not told to the next one.
        assert (raised.value.facts.keys(), "mine" in raised.value.detail) == ({"retry_after"}, False)
        raised.value.detail += "mine"
        raised.value.facts["steps"] = ["mine"]
    assert sshd.log.read_text(errors="replace").count("Connection from") == attempts + 1


def test_the_log_has_one_line_for_many_failures_of_a_machine(
    over_ssh: RunnerConfig, sshd: SSHServer, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def lines() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.name == breaker.__name__]

    def fail() -> None:
        wait_for(lambda: BREAKER.known(runner.target) is None, 10, what="the end of the pause")
        with pytest.raises(AuthenticationFailed):
            runner.execute("true", timeout=30)

    caplog.set_level("INFO")
    settings.RUNNERS_RETRY_PAUSE = settings.RUNNERS_RETRY_PAUSE_LONGEST = 0.05
    runner = get_runner(over_ssh)
    sshd.authorized = False
    for _ in range(4):
        fail()
    assert len(lines()) == 1
    assert lines()[0].startswith(f"SSH {runner.where} cannot be reached: ")
    monkeypatch.setattr(breaker, "LOG_AGAIN", 0.0)
    fail()
    assert len(lines()) == 2
    assert "5 failures: " in lines()[1]
    sshd.authorized = True
    wait_for(lambda: BREAKER.known(runner.target) is None, 10, what="the end of the pause")
    for _ in range(2):
        assert runner.execute("true", timeout=30).exit_code == 0
    assert len(lines()) == 3
    assert "is reached again" in lines()[2]


def test_an_error_of_the_script_does_not_open_the_circuit_breaker(over_ssh: RunnerConfig) -> None:
    runner = get_runner(over_ssh)
    with pytest.raises(CommandTimedOut):
        runner.execute("sleep 30", timeout=0.5)
    assert runner.execute("exit 3", timeout=30).exit_code == 3
    assert BREAKER.known(runner.target) is None
