"""Dry runs: the same configuration, argv and script as for a command, but nothing is executed or written."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from profiles.config import RunnerConfig
from runners.commands import autosubmit
from runners.exceptions import RunnerUnreachable
from runners.models import RunnerRun
from runners.services import active_runs, execute, lifecycle
from runners.services.machines import scripts
from runners.services.machines.registry import get_module_loader, get_runner

RUN_DIRECTORY = f'"$HOME"/{scripts.BASE}/RUN'  # each run gets its own directory, whose name nobody can guess


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command would do. A bash login shell of the account at `where` would evaluate `script`.

    `detached`: the script would be started in its own session and directory (`RUN` stands for the name) and outlive the
    request, as a run does.
    """

    profile: dict[str, Any]  # the resolved configuration, as RunnerConfig.as_dict
    where: str
    argv: list[str]
    script: str
    detached: bool = False
    warnings: list[str] = field(default_factory=list)  # side effects of the command

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan(config: RunnerConfig, argv: list[str], *, detached: bool = False) -> Plan:
    """Return the plan for executing `argv`, which a function of `autosubmit.py` has made."""
    loader = get_module_loader(config)
    if detached:
        text = " && ".join([scripts.surroundings(RUN_DIRECTORY), *loader.steps(argv), f"exec {shlex.join(argv)}"])
    else:
        text = loader.wrap(argv)
    return Plan(config.as_dict(), get_runner(config).where, argv, text, detached)


def run_experiment(*, expid: str, config: RunnerConfig) -> Plan:
    """Return the plan for a run. This does not check whether the experiment is running already."""
    return plan(config, autosubmit.run(expid), detached=True)


def stop_experiment(*, run: RunnerRun, force: bool = False, cancel_jobs: bool = False) -> Plan:
    """Return the plan for the first step of a stop, `autosubmit stop`.

    Signals follow only if that step does not end the run, or with `force`.
    """
    return plan(lifecycle.runner_of(run).config, autosubmit.stop(run.expid, force=force, cancel_jobs=cancel_jobs))


def set_job_status(*, expid: str, config: RunnerConfig, params: autosubmit.SetJobStatusParams) -> Plan:
    return plan(config, autosubmit.setstatus(expid, params))


def create_experiment(*, config: RunnerConfig, params: autosubmit.CreateExperimentParams) -> Plan:
    return plan(config, autosubmit.expid(params))


def create_job_list(*, expid: str, config: RunnerConfig, params: autosubmit.CreateJobListParams) -> Plan:
    """Return the plan for a new job list, with warnings about the progress that would be lost.

    For the warnings, Autosubmit is asked, without saving, which jobs are COMPLETED or active. Raises AlreadyRunning.
    """
    active_runs.require_idle(expid=expid, config=config)
    try:
        lost = execute.lost_progress(expid=expid, config=config, is_done=False)
    except RunnerUnreachable as error:
        lost = [f"{execute.PROGRESS_UNKNOWN} {error.detail}"]
    return replace(plan(config, autosubmit.create(expid, params)), warnings=lost)


def update_description(*, expid: str, config: RunnerConfig, description: str) -> Plan:
    return plan(config, autosubmit.updatedescrip(expid, description))
