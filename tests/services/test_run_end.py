"""What is stored when a run has ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from profiles.config import RunnerConfig
from tests.support.environments import StubAccount
from tests.support.processes import wait_for
from tests.support.runs import end_of, start

pytestmark = pytest.mark.django_db


def test_a_run_that_was_interrupted_has_no_error_text(
    account: StubAccount, config_of: Callable[[str], RunnerConfig]
) -> None:
    run = start(account, config_of("NO_MODULE"), PRINT="[ERROR] no space left", SLEEP=600)
    log = account.home / ".autosubmit-runners" / run.key / "log"
    wait_for(lambda: "Autosubmit is running" in log.read_text(), what="the signal handlers of the run")
    assert run.pid
    os.kill(run.pid, signal.SIGINT)
    end_of(run)
    assert (run.status, run.reason, run.detail) == ("TERMINATED", "stopped", "")
