"""Run an experiment again from a run that has ended: same profile, account and options, after an optional first step.

The first step is a command of the registry, executed by the same code as a request for it. Each part may be repeated:
jobs that are WAITING already are not changed, and one experiment has at most one active run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from profiles import parameters
from profiles.accounts import person_of
from profiles.config import RunnerConfig
from profiles.exceptions import InvalidProfile
from profiles.models import EndpointToggle, RunnerProfile
from runners.commands.base import CommandOutcome, OneShotCommand
from runners.commands.output import listed
from runners.commands.parameters import InvalidParams, Params
from runners.commands.registry import one_shot_commands
from runners.commands.run_experiment import RUN_EXPERIMENT
from runners.commands.set_job_status import SET_JOB_STATUS, WHILE_RUNNING
from runners.exceptions import (
    AlreadyRunning,
    EndpointDisabled,
    ExperimentNotFound,
    InvalidRequest,
    NothingToRun,
    ProfileNotFound,
    RunnerServiceError,
)
from runners.models import AuditRecord, RunnerRun
from runners.services import access, execute, jobs, maintenance, probing, run_options, runs, starting
from runners.services.audit import audited, begin
from runners.services.execute import Plan
from runners.services.machines.jobs import JobCounts
from runners.services.machines.registry import get_runner

RUN_AGAIN = "run-again"  # the name of this use case in the audit log
RECOVER = "recover-experiment"


class First(StrEnum):
    """What is done before the run."""

    NOTHING = ""
    FAILED_TO_WAITING = "failed_to_waiting"
    RECOVER = "recover"

    @property
    def command(self) -> OneShotCommand | None:
        """The command of the registry. Raises InvalidRequest if this service does not have it."""
        if self == First.NOTHING:
            return None
        found = SET_JOB_STATUS if self == First.FAILED_TO_WAITING else one_shot_commands().get(RECOVER)
        if found is None:
            raise InvalidRequest(
                f"first: this service has no command {RECOVER}.", {"first": [f"This service has no command {RECOVER}."]}
            )
        return found

    @property
    def params(self) -> dict[str, Any]:
        if self == First.FAILED_TO_WAITING:
            return {"final_status": "WAITING", "filter_status": ("FAILED",)}
        return {}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done. `answer`: the members of the command's answer, such as `changed`."""

    command: str
    message: str
    warnings: list[str]
    answer: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        # The experiment is idle here, so that set-job-status has nothing to tell about `while_running`.
        told = {name: value for name, value in self.answer.items() if name != WHILE_RUNNING}
        return {"command": self.command, "message": self.message, "warnings": self.warnings, **told}


@dataclass(frozen=True, slots=True)
class Preview:
    """What would happen: the plan of the run, and the first step, which Autosubmit was asked about without saving."""

    plan: Plan
    steps: list[Step]


@dataclass(frozen=True, slots=True)
class RunAgain:
    """A request that was checked: it may be executed or previewed. `params`: the options of the new run."""

    run: RunnerRun
    config: RunnerConfig
    profile_name: str
    first: First
    params: Params
    warnings: list[str]

    def preview(self, audit: AuditRecord) -> Preview:
        """Ask the machine what would change. Nothing is saved or started. Raises the errors of `execute.preview`."""
        steps = []
        if command := self.first.command:
            given: dict[str, Any] = {"expid": self.run.expid, "config": self.config, "params": self.first.params}
            if command.preview_name:
                steps.append(self._step(command, lambda: execute.preview(command, audit=audit, **given)))
            else:
                warnings = execute.plan(command, **given).warnings
                steps.append(Step(command.name, command.summary, warnings))
        plan = execute.check_run(expid=self.run.expid, config=self.config, params=self.params)
        plan.warnings.extend(self.warnings)
        return Preview(plan, steps)

    def execute(self, audit: AuditRecord, *, key: str = "") -> tuple[RunnerRun, list[Step]]:
        """Do the first step, then start the run. `key`: name of the run directory.

        Raises the errors of `execute.execute` and `starting.run_experiment`. If the first step was done and the run
        did not start, the error says so, and its fact `steps` has what was done.
        """
        steps = self._first_step(audit)
        if steps:
            jobs.drop_answers(get_runner(self.config))
        try:
            if self.first == First.RECOVER:
                _require_something_to_run(self.run, self.first, is_after=True)
            run = starting.run_experiment(
                expid=self.run.expid,
                config=self.config,
                profile_name=self.profile_name,
                audit=audit,
                key=key,
                params=self.params,
                restart=self.run.restart or None,
                previous_run=self.run.pk,
            )
        except RunnerServiceError as error:
            if steps:
                done = " ".join(step.message for step in steps)
                error.detail = f"{error.detail} Before that, the first step succeeded and was not undone: {done}"
                error.facts["steps"] = [step.as_dict() for step in steps]
            raise
        return run, steps

    def _first_step(self, audit: AuditRecord) -> list[Step]:
        command = self.first.command
        if command is None:
            return []
        # The step has an audit record of its own, as if it had been requested alone.
        given: dict[str, Any] = {"expid": self.run.expid, "config": self.config, "params": self.first.params}

        def do() -> CommandOutcome:
            with audited(
                endpoint=command.name,
                actor=audit.actor,
                token=audit.token,
                address=audit.address,
                expid=self.run.expid,
                profile_name=self.profile_name,
                worded=access.detail_for_everybody,
            ) as record:
                return execute.execute(command, audit=record, **given)

        return [self._step(command, do)]

    def _step(self, command: OneShotCommand, do: Callable[[], CommandOutcome]) -> Step:
        """Return what was done. Autosubmit's error that no job is FAILED is a step without a change: it is repeatable.

        Raises the errors of `do`.
        """
        try:
            outcome = do()
        except InvalidRequest as error:
            if self.first != First.FAILED_TO_WAITING or "command_params.filter_status" not in error.errors:
                raise
            return Step(command.name, "No job is FAILED, so no status was changed.", [])
        return Step(command.name, command.message_of(outcome), outcome.warnings, command.answer(outcome))


def prepare(
    *, pk: int, user: Any, first: First = First.NOTHING, params: Params | None = None, audit: AuditRecord
) -> RunAgain:
    """Check a request to run again the experiment of run `pk`. Only the audit record is stored.

    `params`: options of the new run; None: those of the run, without the ones that it waited for.

    Raises RunNotFound; ExperimentNotFound if the experiment was deleted; AlreadyRunning; MachineInMaintenance;
    ProfileNotFound, ProfileForbidden and InvalidProfile; EndpointDisabled; NothingToRun if the machine says that no job
    would be started; InvalidRequest if the machine cannot obey an option. What the machine cannot tell is no error.
    """
    run = _ended_run(pk, user, audit)
    profile = _profile_of(run)
    for command in (RUN_EXPERIMENT, first.command):
        if command is None:
            continue
        if not EndpointToggle.is_enabled(command.toggle.name):
            raise EndpointDisabled(f"The {command.name} endpoint is currently disabled.")
        access.require(user, profile, command.action)
    config = _config_of(run, profile, user)
    maintenance.require_none(config)
    begin(audit)
    counts = _require_something_to_run(run, first)
    if params is None:
        params = options_of(run)
    try:
        RUN_EXPERIMENT.validate_for(run.expid, params)
    except InvalidParams as error:
        errors = {f"command_params.{name}": [text] for name, text in error.errors.items()}
        raise InvalidRequest(str(error), errors) from None
    run_options.require_valid(get_runner(config), run.expid, params)  # before the first step
    return RunAgain(run, config, profile.name, first, params, _warnings(counts, first))


def options_of(run: RunnerRun) -> dict[str, Any]:
    """Return the options of a run, without those that it waited for."""
    return RUN_EXPERIMENT.params_of_restart(run.command_params or {})


def _ended_run(pk: int, user: Any, audit: AuditRecord) -> RunnerRun:
    run = runs.get(pk=pk, viewer=user)
    audit.expid, audit.profile_name = run.expid, run.profile_name
    if run.superseded:
        raise ExperimentNotFound(
            f"The experiment of run {run.pk} was deleted; a newer one has the id {run.expid} now. Start that one with "
            f"run-experiment."
        )
    if run.is_active:
        probing.refresh_now(run)
    if run.is_active:
        raise AlreadyRunning(f"Run {run.pk} of {run.expid} has not ended. Stop it first, or wait for its end.", run=run)
    return run


def _profile_of(run: RunnerRun) -> RunnerProfile:
    profile = RunnerProfile.objects.filter(pk=run.profile_id or 0, enabled=True).first()
    if profile is None:
        raise ProfileNotFound(
            f"The profile {run.profile_name or 'of the run'} was deleted or disabled. Start {run.expid} with another "
            f"profile: run-experiment."
        )
    return profile


def _config_of(run: RunnerRun, profile: RunnerProfile, user: Any) -> RunnerConfig:
    """Return the configuration of the run, as the profile gives it now with the parameters of the run.

    Raises InvalidProfile if the profile has changed so that it does not allow them, or leads to another account.
    """
    fixed = profile.values()
    config = run.config if isinstance(run.config, dict) else {}
    values, _ = parameters.parse({name: value for name, value in config.items() if name in _wire_names()})
    given: dict[str, Any] = {}
    for path, value in values.items():
        if path not in fixed and parameters.table()[path].is_open:
            section, _, name = path.rpartition(".")
            (given.setdefault(section, {}) if section else given)[name] = list(value) if path == "MODULES" else value
    found = profile.resolve(given, person_of(user))
    if (found.target.place, found.installation) != (_target_of(run), run.installation):
        raise InvalidProfile(
            {
                "profile_name": [
                    f"The profile {profile.name} was changed: it leads to {found.target.describe()} (installation "
                    f"{found.installation}) now, not to the account of run {run.pk}. Use run-experiment."
                ]
            }
        )
    return found


def _wire_names() -> list[str]:
    return [*(parameter.path for parameter in parameters.CORE), *parameters.sections()]


def _target_of(run: RunnerRun) -> Any:
    try:
        return run.runner_config.target.place
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


# --- what is left to run ----------------------------------------------------------------------------------------------


def _require_something_to_run(run: RunnerRun, first: First, *, is_after: bool = False) -> JobCounts | None:
    """Return the counts of the jobs; None if they are not known. Raises NothingToRun if no job would be started.

    A recovery may find more jobs to run, so nothing is certain before it (`is_after`: it was done).
    """
    try:
        counts = jobs.counts_of(run)
    except RunnerServiceError:
        return None
    suspended = counts.by_status.get("SUSPENDED", 0)
    left = counts.left - suspended
    if left or (first == First.FAILED_TO_WAITING and counts.failed) or (first == First.RECOVER and not is_after):
        return counts
    facts = {"counts": {"total": counts.total, **counts.by_status}}
    if not counts.total:
        raise NothingToRun(
            f"The job list of {run.expid} is empty. Check its configuration, and create the job list: create-job-list.",
            **facts,
        )
    done = f"{counts.done} of {counts.total} jobs are COMPLETED"
    rest = [f"{counts.failed} FAILED"] if counts.failed else []
    rest += [f"{suspended} SUSPENDED"] if suspended else []
    words = f"Nothing is left to run in {run.expid}: {', '.join([done, *rest])}."
    if counts.failed and first == First.NOTHING:
        names = listed(list(counts.failed_jobs), counts.failed)
        words += f" To execute the failed jobs again ({names}), send `first: {First.FAILED_TO_WAITING.value}`."
    elif suspended:
        words += " To execute the suspended jobs, set them to WAITING: set-job-status."
    else:
        words += " To execute it once more from the beginning, create a new job list: create-job-list."
    raise NothingToRun(words, **facts)


def _warnings(counts: JobCounts | None, first: First) -> list[str]:
    if counts is None or first != First.NOTHING or not counts.failed:
        return []
    one = counts.failed == 1
    return [
        f"{'1 job is' if one else f'{counts.failed} jobs are'} FAILED "
        f"({listed(list(counts.failed_jobs), counts.failed)}). Autosubmit does not execute {'it' if one else 'them'} "
        f"again, nor the jobs that depend on {'it' if one else 'them'}. `first: {First.FAILED_TO_WAITING.value}` sets "
        f"{'it' if one else 'them'} to WAITING."
    ]
