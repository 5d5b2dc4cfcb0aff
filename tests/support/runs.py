"""Runs that the use cases of this process start."""

from __future__ import annotations

from collections.abc import Callable

from profiles.config import RunnerConfig
from runners.models import AuditRecord, RunnerRun
from runners.services import probing, restarting, starting
from tests.support.environments import StubAccount
from tests.support.processes import wait_for


def start(account: StubAccount, config: RunnerConfig, expid: str = "a001", **control: str | float) -> RunnerRun:
    account.experiment(expid)
    account.control("run", expid, **control)
    return starting.run_experiment(
        expid=expid, config=config, profile_name="", audit=AuditRecord(endpoint="run-experiment")
    )


def end_of(run: RunnerRun) -> RunnerRun:
    def is_over() -> bool:
        probing.probe([run])
        return not run.is_active

    wait_for(is_over, 30, what="the end of the run")
    return run


def restart_due(report: Callable[[str], None] = lambda words: None) -> None:
    """Do what a worker does with all restarts that are due."""
    for run in restarting.due():
        restarting.restart(run.pk, report)
