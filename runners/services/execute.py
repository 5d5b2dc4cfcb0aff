"""Execute any one-shot command of the registry, inside the request, as a preview or as a dry run.

The functions take keyword arguments only and raise `runners.exceptions`. They take the audit record of the command and
fill in what only they know. They call `audit.begin` before they send anything to a machine. operations.py executes the
same commands detached.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from django.conf import settings

from profiles.config import RunnerConfig
from runners.commands import output
from runners.commands.base import CommandOutcome, OneShotCommand, WouldFail
from runners.commands.installation import archived_sentence, installed_version
from runners.commands.output import UsageError
from runners.commands.parameters import Params
from runners.commands.remedies import remedy
from runners.commands.run_experiment import RUN_EXPERIMENT
from runners.commands.stop_experiment import STOP_EXPERIMENT
from runners.exceptions import (
    AccountBusy,
    AlreadyRunning,
    CommandFailed,
    ExperimentNotFound,
    InvalidRequest,
    RunnerServiceError,
    RunnerUnreachable,
)
from runners.models import AuditRecord, RunnerRun
from runners.services import experiment_descriptions, foreign_runs, lifecycle, maintenance, run_options, while_running
from runners.services.active_runs import forget_earlier_runs, in_use, require_idle, run_in_the_way
from runners.services.audit import begin
from runners.services.machines import scripts
from runners.services.machines.registry import get_module_loader, get_runner
from runners.services.machines.runner import CommandResult
from runners_project import clock

RUN = "RUN"  # in plans: each run gets its own directory, whose name nobody can guess


# --- inside the request -----------------------------------------------------------------------------------------------


def execute(
    command: OneShotCommand, *, config: RunnerConfig, params: Params, audit: AuditRecord, expid: str = ""
) -> CommandOutcome:
    """Execute a command and return its outcome. `expid`: empty for a command that creates an experiment.

    Raises InvalidRequest (Autosubmit rejects a parameter, nothing was changed), CommandFailed and the errors of
    `Runner.execute`; MachineInMaintenance; AlreadyRunning, ExperimentNotFound and AccountBusy for commands that can
    have them.
    """
    maintenance.require_none(config)
    if running := while_running.run_to_change(command, expid, config, params):
        return while_running.change(running, params, audit)
    argv = command.argv(expid, params)
    start = clock.now()
    _prepare(command, expid, config, audit)
    notes = notes_of(command, expid=expid, config=config, params=params, is_done=True)
    result = _execute(command, expid, config, argv, audit)
    if not command.is_success(result.exit_code, result.text):
        raise failure(command, config, argv, result, expid=expid)
    outcome = outcome_of(command, config, argv, result, expid=expid, notes=notes)
    if not command.needs_expid:
        audit.expid = outcome.expid
        forget_earlier_runs(expid=outcome.expid, config=config, before=start)
    experiment_descriptions.note_success(command, config, outcome.expid, argv)
    return outcome


def preview(
    command: OneShotCommand, *, expid: str, config: RunnerConfig, params: Params, audit: AuditRecord
) -> CommandOutcome:
    """Ask Autosubmit what `execute` would change; nothing is saved. Raises the errors of `execute`."""
    maintenance.require_none(config)
    if running := while_running.run_to_change(command, expid, config, params):
        return while_running.preview(running, params)
    argv = command.preview_argv(expid, params)
    _prepare(command, expid, config, audit)
    result = _execute(command, expid, config, argv, audit)
    if not command.is_preview_success(result.exit_code, result.text):
        raise failure(command, config, argv, result, expid=expid)
    return outcome_of(command, config, argv, result, expid=expid)


def _prepare(command: OneShotCommand, expid: str, config: RunnerConfig, audit: AuditRecord) -> None:
    audit.profile_id = config.profile_id
    if command.needs_idle:
        begin(audit)
        get_runner(config).admit()
        require_idle(expid=expid, config=config)


def _execute(
    command: OneShotCommand, expid: str, config: RunnerConfig, argv: list[str], audit: AuditRecord
) -> CommandResult:
    audit.argv = argv
    begin(audit)
    text = get_module_loader(config).wrap(argv, command.checks(expid))
    return get_runner(config).execute(text, login=True, timeout=settings.RUNNERS_COMMAND_TIMEOUT)


# --- dry runs ---------------------------------------------------------------------------------------------------------


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


def plan(
    command: OneShotCommand, *, config: RunnerConfig, params: Params, expid: str = "", with_notes: bool = True
) -> Plan:
    """Return what `execute` would do. Nothing is executed or written.

    Only a command with notes asks the machine, for the warnings; not without `with_notes`. Raises AlreadyRunning and
    the errors of `notes_of`.
    """
    warnings = maintenance.warnings_for(config)
    running = while_running.run_to_change(command, expid, config, params) if with_notes else None
    if running:
        warnings += while_running.plan_warnings(running, params)
    elif command.has_notes and with_notes:
        require_idle(expid=expid, config=config)
        try:
            warnings += notes_of(command, expid=expid, config=config, params=params, is_done=False)
        except RunnerUnreachable as error:
            warnings.append(f"{command.notes_unknown} {error.detail}")
    return replace(_plan(config, command.argv(expid, params), command.checks(expid)), warnings=warnings)


def plan_run(*, expid: str, config: RunnerConfig, params: Params | None = None, key: str = RUN) -> Plan:
    """Return the plan for a run. This does not check whether the experiment is running already.

    `key`: the name of the run's directory.
    """
    argv = RUN_EXPERIMENT.argv(expid, params)
    steps = [*get_module_loader(config).steps(argv), *RUN_EXPERIMENT.checks(expid)]
    directory = f"{scripts.base_directory(config.run_directory)}/{key}"
    text = " && ".join([scripts.surroundings(directory), *steps, f"exec {shlex.join(argv)}"])
    warnings = maintenance.warnings_for(config)
    return Plan(config.as_dict(), get_runner(config).where, argv, text, detached=True, warnings=warnings)


def check_run(*, expid: str, config: RunnerConfig, params: Params) -> Plan:
    """Return `plan_run`, after the machine was asked whether it can obey the options, if there are such options.

    Raises InvalidRequest. If the machine cannot be reached, a warning says so.
    """
    found = plan_run(expid=expid, config=config, params=params)
    try:
        run_options.require_valid(get_runner(config), expid, params)
    except RunnerUnreachable as error:
        unchecked = f"The options were not checked on the machine. {error.detail}"
        return replace(found, warnings=[*found.warnings, unchecked])
    return found


def plan_stop(*, run: RunnerRun, force: bool = False, cancel_jobs: bool = False) -> Plan:
    """Return the plan for the first step of a stop, `autosubmit stop`.

    Signals follow only if that step does not end the run, or with `force`.
    """
    argv = STOP_EXPERIMENT.argv(run.expid, force=force, cancel_jobs=cancel_jobs)
    return _plan(lifecycle.runner_of(run).config, argv)


def plan_foreign_stop(*, expid: str, place: foreign_runs.Place, force: bool = False) -> Plan:
    """Return the plan for the first step of a stop of a run that this service has not started. Asks the machine."""
    argv = foreign_runs.plan_argv(foreign_runs.find(expid, place)[0], force=force)
    return Plan(place.config.as_dict(), get_runner(place.config).where, argv, shlex.join(argv))


def _plan(config: RunnerConfig, argv: list[str], checks: Sequence[str] = ()) -> Plan:
    return Plan(config.as_dict(), get_runner(config).where, argv, get_module_loader(config).wrap(argv, checks))


# --- the result -------------------------------------------------------------------------------------------------------


def notes_of(command: OneShotCommand, *, expid: str, config: RunnerConfig, params: Params, is_done: bool) -> list[str]:
    """Return the warnings that have to be found before a command is executed.

    `is_done`: users read them after it was executed. Raises RunnerUnreachable, AlreadyRunning and ExperimentNotFound.
    """
    if not command.has_notes:
        return []
    try:
        return command.notes(get_runner(config), expid, params, is_done=is_done)
    except WouldFail as error:
        raise failure(command, config, error.argv, error.result, expid=expid) from error


def outcome_of(
    command: OneShotCommand,
    config: RunnerConfig,
    argv: list[str],
    result: CommandResult,
    *,
    expid: str,
    notes: list[str] | None = None,
) -> CommandOutcome:
    """Return the outcome of a command that has succeeded."""
    return command.outcome(get_runner(config), expid, argv, result, notes or [])


def body_of(command: OneShotCommand, outcome: CommandOutcome) -> dict[str, Any]:
    """Return the members of the answer for a command that has succeeded."""
    own = command.answer(outcome)
    first = {"expid": own.pop("expid")} if "expid" in own else {}
    return {**first, "message": command.message_of(outcome), "warnings": outcome.warnings, **own}


def failure(
    command: OneShotCommand, config: RunnerConfig, argv: list[str], result: CommandResult, *, expid: str = ""
) -> RunnerServiceError:
    """Return the error that Autosubmit, or the shell before it, reported.

    InvalidRequest: Autosubmit rejects a parameter and has changed nothing. ExperimentNotFound, AlreadyRunning and
    AccountBusy: as their names say. Everything else is CommandFailed.
    """
    runner = get_runner(config)
    if result.exit_code and (usage := command.usage_error(argv, result.all_text)):
        return _not_accepted(usage, installed_version(runner))
    if command.may_need_newer(argv, result.exit_code):
        version = installed_version(runner)
        if usage := command.needs_newer(argv, version):
            return _not_accepted(usage, version)
    if busy := command.busy(argv, result.exit_code, runner.where):
        return AccountBusy(busy.sentence, retry_after=busy.seconds)
    found = output.complaint(result.stdout, result.stderr)
    facts: dict[str, Any] = {
        "exit_code": result.exit_code,
        "error_code": found.code if found else None,
        "output": result.last_words,
    }
    if found:
        if output.is_locked(found):
            return _locked(config, expid, facts)
        if refusal := command.refusal(argv, found):
            paths = [f"command_params.{name}" for name in refusal.fields]
            what = "rejects it, and nothing was changed" if refusal.is_certain else "has changed nothing"
            detail = f"{' or '.join(paths)}: Autosubmit on {runner.where} {what}: {refusal.sentence}"
            return InvalidRequest(detail, {path: [refusal.sentence] for path in paths}, **facts)
        if command.needs_expid and output.is_experiment_missing(found):
            return ExperimentNotFound(
                archived_sentence(runner, expid)
                or f"Autosubmit on {runner.where} does not know the experiment {expid}.",
                **facts,
            )
    words = output.reason_of(result.stdout, result.stderr) or "no output"
    advice = remedy(words)
    error = CommandFailed(
        f"The command failed on {runner.where} with exit code {result.exit_code}: {words}"
        + (f"\n{advice}" if advice else ""),
        **facts,
    )
    return get_module_loader(config).explain(error)


def _not_accepted(usage: UsageError, version: str) -> InvalidRequest:
    """Return the error for parameters that `version` does not accept.

    Callers ask for the version only after such an error, because that takes as long as a command.
    """
    subject = f"Autosubmit {version}" if version else "The installed version of Autosubmit"
    errors = {f"command_params.{name}": [f"{subject} does not accept it: {usage.words}"] for name in usage.parameters}
    names = " with ".join(usage.parameters)
    return InvalidRequest(f"{subject} does not accept {names}: {usage.words}. Nothing was changed.", errors=errors)


def _locked(config: RunnerConfig, expid: str, facts: dict[str, Any]) -> AlreadyRunning:
    """Return the error for an experiment that another Autosubmit process holds: our run, or one started by hand."""
    if run := run_in_the_way(expid, config):
        return AlreadyRunning(in_use(run), run=run, **facts)
    return AlreadyRunning(
        f"Another Autosubmit process on {get_runner(config).where} has locked experiment {expid}, such as a run that "
        f"was started by hand. Nothing was changed. Wait for its end, or stop it there.",
        **facts,
    )
