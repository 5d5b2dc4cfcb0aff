"""Which runs belong to the same experiment as a command, and whether one of them prevents it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from profiles.config import DEFAULT_INSTALLATION, RunnerConfig
from runners.exceptions import AlreadyRunning
from runners.models import RunnerRun, RunStatus
from runners.services import access, lifecycle, probing
from runners.services.machines.probe import Probe


def require_idle(*, expid: str, config: RunnerConfig) -> None:
    """Raise AlreadyRunning if a run of this service holds the experiment.

    Autosubmit itself would answer only after 10 to 20 s. The machine of the run has to confirm it first, so a run that
    has just ended does not block the command. If the machine is unreachable, nothing is raised: the command itself then
    finds out.
    """
    run = run_in_the_way(expid, config)
    if run is None:
        return
    (probe,) = probing.probe([run])
    if run.is_active and probe.answer in (Probe.RUNNING, Probe.STARTING):
        raise AlreadyRunning(in_use(run), run=run)


def run_in_the_way(expid: str, config: RunnerConfig) -> RunnerRun | None:
    return next(iter(same_experiment(RunnerRun.objects.active().filter(expid=expid), config)), None)


def same_experiment(runs: Iterable[RunnerRun], config: RunnerConfig) -> list[RunnerRun]:
    """Return those runs, all of one expid, that belong to the same experiment as a command with `config`.

    A named installation is one database. The default installation only means that nobody has named it: accounts in it
    may have databases of their own, so only runs in the same account count. A run in the same environment also counts
    if its installation had another name then.
    """
    is_named = config.installation != DEFAULT_INSTALLATION
    return [
        run
        for run in runs
        if (run.installation == config.installation and (is_named or is_same_target(run, config)))
        or is_same_environment(run, config)
    ]


def is_same_environment(run: RunnerRun, config: RunnerConfig) -> bool:
    """Return True if a run has the same account, machine and environment, whatever the name of its installation."""
    if not lifecycle.is_readable(run):
        return False
    its = lifecycle.runner_of(run).config
    return replace(its, installation=config.installation, target=its.target.place) == replace(
        config, target=config.target.place
    )


def is_same_target(run: RunnerRun, config: RunnerConfig) -> bool:
    if not lifecycle.is_readable(run):
        return False
    its = lifecycle.runner_of(run).config
    return (its.runner_type, its.target.place) == (config.runner_type, config.target.place)


def in_use(run: RunnerRun) -> str:
    return (
        f"Experiment {run.expid} has been running since {run.created:%Y-%m-%d %H:%M:%S %Z} ({access.described(run)}). "
        f"Nothing was changed. Wait for its end, or stop it first."
    )


def forget_earlier_runs(*, expid: str, config: RunnerConfig, before: datetime) -> None:
    """Mark the ended runs of a deleted experiment whose id a new experiment has got: they stay in the history only.

    `before`: when the new experiment was requested.
    """
    ended = RunnerRun.objects.exclude(status=RunStatus.ACTIVE).filter(expid=expid, created__lt=before, superseded=False)
    earlier = [run.pk for run in same_experiment(ended, config)]
    RunnerRun.objects.filter(pk__in=earlier).update(superseded=True)
