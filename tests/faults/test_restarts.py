"""Restarts of runs while watches are killed.

Promise: whatever happens to the watches, a run that is to be started again is started exactly once.
"""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from profiles.models import RunnerProfile
from runners.models import AuditRecord, RunnerRun
from runners.services import probing, restarting, starting
from runners.services.machines.runner import Runner
from tests.support.environments import StubAccount
from tests.support.faults import EXPID, run_processes
from tests.support.processes import kill_all, wait_for, with_environment
from tests.support.runs import restart_due

pytestmark = pytest.mark.django_db(transaction=True)
RESTART = {"on": ["lost"], "attempts": 3}


@pytest.fixture
def rebooted(account: StubAccount, settings: Any) -> RunnerRun:
    """Return a run whose machine was rebooted, and whose restart is due."""
    settings.RUNNERS_RESTART_DELAY = 0
    User.objects.create_user("ana")
    account.experiment(EXPID)
    account.control(f"run.{EXPID}", SLEEP=600)
    profile = RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    audit = AuditRecord(endpoint="run-experiment", actor="ana")
    run = starting.run_experiment(
        expid=EXPID, config=profile.resolve({}), profile_name="HERE", audit=audit, restart=RESTART
    )
    assert run.identity
    wait_for(lambda: with_environment("AUTOSUBMIT_RUNNERS_KEY", run.key), what="the run")
    kill_all([run.identity["supervisor_pid"], *with_environment("AUTOSUBMIT_RUNNERS_KEY", run.key)])
    wait_for(lambda: not run_processes(account), what="the end of the run")
    run.identity = {**run.identity, "boot_id": "0" * 32}
    run.save(update_fields=["identity"])
    probing.probe([run])
    assert run.restart_at
    return run


def watch_that_dies(at: str) -> int:
    """Fork a watch that is killed by KILL at a step: `claim` (before the insert), `insert` (after it) or `launch`."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        die = lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        if at == "claim":
            restarting._require_over = die
        elif at == "insert":
            Runner.launch = die  # type: ignore[method-assign]
        else:
            launch = Runner.launch

            def and_die(*args: Any, **options: Any) -> None:
                launch(*args, **options)
                die()

            Runner.launch = and_die  # type: ignore[assignment,method-assign]
        from django.db import connections

        connections.close_all()
        restart_due()
    finally:
        os._exit(1)


def make_due() -> None:
    RunnerRun.objects.filter(restart_at__isnull=False).update(restart_at=timezone.now())


@pytest.mark.parametrize("at", ["claim", "insert", "launch"])
def test_a_watch_that_is_killed_starts_the_run_once(rebooted: RunnerRun, account: StubAccount, at: str) -> None:
    status = watch_that_dies(at)
    assert os.WTERMSIG(status) == signal.SIGKILL
    # The launch deadline of a run that the dead watch has inserted passes.
    long_ago = timezone.now() - timedelta(hours=1)
    RunnerRun.objects.active().filter(identity__isnull=True).update(created=long_ago)

    def is_running() -> bool:
        """Be the other watch."""
        make_due()  # the lease of the dead watch ends
        restart_due()
        for run in RunnerRun.objects.active():
            probing.probe([run])
        return len(run_processes(account)) == 1

    wait_for(is_running, 40, what="the run", interval=0.3)
    make_due()
    restart_due()
    assert len(run_processes(account)) == 1
    active = RunnerRun.objects.active().get()
    rows = list(RunnerRun.objects.order_by("id"))
    assert [row.previous_run for row in rows] == [None, *(row.pk for row in rows[:-1])]  # one chain
    probing.probe([active])
    assert active.identity
    # One that was claimed and inserted, but never launched, is a link of the chain.
    assert len(rows) == (3 if at == "insert" else 2)
