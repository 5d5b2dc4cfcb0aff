"""Execute Autosubmit commands, but not runs and stops. Keyword-only functions that raise `runners.exceptions`.

Each use case takes the audit record of its command and fills in what only the use case knows. It calls `audit.begin`
before it sends anything to a machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.utils import timezone

from profiles.config import RunnerConfig
from runners.commands import autosubmit, reasons
from runners.exceptions import (
    AccountBusy,
    AlreadyRunning,
    CommandFailed,
    CommandTimedOut,
    ExperimentNotFound,
    InvalidRequest,
    OutcomeUnknown,
    RunnerServiceError,
)
from runners.models import AuditRecord
from runners.services.active_runs import forget_earlier_runs, in_use, require_idle, run_in_the_way
from runners.services.audit import begin
from runners.services.installation import has_empty_job_list, has_job_list_file, installed_version
from runners.services.machines.registry import get_module_loader, get_runner
from runners.services.machines.runner import CommandResult


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """The result of a finished command. `warnings`: problems that Autosubmit reported, but not as an error.

    `changes`: the changed jobs, for set-job-status only.
    """

    expid: str
    warnings: list[str] = field(default_factory=list)
    changes: reasons.Changes | None = None


def set_job_status(
    *, expid: str, config: RunnerConfig, params: autosubmit.SetJobStatusParams, audit: AuditRecord
) -> CommandOutcome:
    """Change the status of jobs and save it.

    Raises AlreadyRunning, InvalidRequest (Autosubmit rejects a parameter, nothing was changed), ExperimentNotFound,
    CommandFailed and the errors of `Runner.execute`.
    """
    begin(audit)
    get_runner(config).admit()
    require_idle(expid=expid, config=config)
    argv = autosubmit.setstatus(expid, params)
    result = _command(expid, config, argv, audit, autosubmit.is_job_list_saved)
    return job_status_outcome(expid, argv, result)


def job_status_outcome(expid: str, argv: list[str], result: CommandResult) -> CommandOutcome:
    """Return the result of a successful set-job-status, with a warning for sections that Autosubmit left out."""
    found = reasons.changes(result.stdout)
    told = reasons.warnings(result.stdout)
    if result.truncated:
        told.append(
            "Autosubmit's output is so long that only its end was read: more jobs were changed than `changed` and "
            "`counts` tell."
        )
    filter_type = next((word.partition("=")[2] for word in argv if word.startswith("--filter_type=")), "")
    for section in reasons.sections_left_out(found, autosubmit.sections_of(filter_type)):
        told.append(
            f"No job of section {section} was selected, so none was changed. Autosubmit leaves out sections without "
            "splits when filter_type names another section that has splits: send them one by one."
        )
    return CommandOutcome(expid, told, found)


def preview_job_status(
    *, expid: str, config: RunnerConfig, params: autosubmit.SetJobStatusParams, audit: AuditRecord
) -> CommandOutcome:
    """Return what `set_job_status` would change; nothing is saved. Raises the errors of `set_job_status`."""
    begin(audit)
    get_runner(config).admit()
    require_idle(expid=expid, config=config)
    argv = autosubmit.setstatus(expid, params, save=False)
    return job_status_outcome(expid, argv, _command(expid, config, argv, audit, autosubmit.is_job_list_shown))


def create_job_list(
    *, expid: str, config: RunnerConfig, params: autosubmit.CreateJobListParams, audit: AuditRecord
) -> CommandOutcome:
    """Create the job list of an experiment, and warn of the lost progress. Raises the errors of `set_job_status`."""
    begin(audit)
    get_runner(config).admit()
    require_idle(expid=expid, config=config)
    lost = lost_progress(expid=expid, config=config, is_done=True)
    result = _command(expid, config, autosubmit.create(expid, params), audit, autosubmit.is_job_list_created)
    return job_list_outcome(expid, config, result, lost)


def lost_progress(*, expid: str, config: RunnerConfig, is_done: bool) -> list[str]:
    """Return what a create-job-list loses: a sentence about COMPLETED jobs, and one about jobs still on platforms.

    A setstatus that saves nothing asks Autosubmit itself, because only Autosubmit can read the job list of each version
    and backend. That costs one command, and three more if jobs are active. If Autosubmit cannot tell, a sentence says
    so. `is_done`: users read the sentences after the new list is made. Raises RunnerUnreachable, AlreadyRunning and
    ExperimentNotFound.
    """
    end = time.monotonic() + settings.RUNNERS_LAUNCH_TIMEOUT
    argv = autosubmit.to_ready(expid, "COMPLETED")
    result = _asked(config, argv, end)
    if result is None:
        return [PROGRESS_UNKNOWN]
    told = []
    if autosubmit.is_job_list_shown(result.exit_code, result.text):
        told.append(reasons.lost_progress(reasons.changes(result.stdout), at_least=result.truncated))
    else:
        found = reasons.complaint(result.stdout, result.stderr)
        if found and (reasons.is_locked(found) or reasons.is_experiment_missing(argv, found)):
            raise failure(config, argv, result, expid=expid)  # the command would fail alike, after twice the time
        if found and reasons.has_no_job_list(found):  # Autosubmit reports the same for a list that it cannot read
            told.append(JOB_LIST_UNREADABLE if has_job_list_file(get_runner(config), expid) else "")
        elif not (found and reasons.refusal(argv, found)):  # else no job is COMPLETED
            told.append(PROGRESS_UNKNOWN)
    if autosubmit.has_active_jobs(result.text):
        told.append(reasons.active_jobs(_active_jobs(expid, config, end), is_done=is_done))
    return [words for words in told if words]


def _active_jobs(expid: str, config: RunnerConfig, end: float) -> dict[str, list[str]]:
    """Return the names of the jobs of each active status, as far as Autosubmit reports them until `end` (monotonic)."""
    found: dict[str, list[str]] = {}
    for status in autosubmit.ACTIVE:
        # Autosubmit rejects a status that no job has, so one command with all of them would be rejected.
        result = _asked(config, autosubmit.to_ready(expid, status), end)
        if result and (names := reasons.jobs_of_status(expid, result.stdout)):
            found[status] = names
    return found


def _asked(config: RunnerConfig, argv: list[str], end: float) -> CommandResult | None:
    """Return the result of a command that changes nothing; None if there is none by `end`. Raises RunnerUnreachable."""
    left = end - time.monotonic()
    if left <= 0:
        return None
    try:
        return get_runner(config).execute(get_module_loader(config).wrap(argv), login=True, timeout=left)
    except (CommandTimedOut, OutcomeUnknown):
        return None


JOB_LIST_UNREADABLE = (
    "The experiment has a job list that Autosubmit cannot read: its file may be damaged or the disk full. A new list "
    "begins anew: which jobs were COMPLETED is lost, and jobs that are queuing or running are executed a second time."
)
PROGRESS_UNKNOWN = (
    "Whether jobs are COMPLETED, or still on their platforms, could not be told. A new job list begins anew: COMPLETED "
    "jobs become READY or WAITING, and jobs that are queuing or running are executed a second time."
)


def job_list_outcome(
    expid: str, config: RunnerConfig, result: CommandResult, notes: Sequence[str] = ()
) -> CommandOutcome:
    """Return the result of a successful create-job-list, with a warning if the list has no job.

    `notes`: warnings that were known before.
    """
    told = [*notes, *reasons.warnings(result.stdout)]
    if has_empty_job_list(get_runner(config), expid):
        told.append(
            "The job list has no job. Does the experiment's configuration have JOBS, and does the installed version of "
            "Autosubmit know how they are written? (Before 4.1 each job needs FILE; SCRIPT is ignored.)"
        )
    return CommandOutcome(expid, told)


def update_description(*, expid: str, config: RunnerConfig, description: str, audit: AuditRecord) -> CommandOutcome:
    """Replace the description. Raises ExperimentNotFound, CommandFailed and the errors of `Runner.execute`."""
    _command(expid, config, autosubmit.updatedescrip(expid, description), audit, autosubmit.is_description_set)
    return CommandOutcome(expid)


def create_experiment(
    *, config: RunnerConfig, params: autosubmit.CreateExperimentParams, audit: AuditRecord
) -> CommandOutcome:
    """Create an experiment and return its id.

    Raises InvalidRequest, CommandFailed and the errors of `Runner.execute`.
    """
    argv = autosubmit.expid(params)
    start = timezone.now()
    result = _execute(config, argv, audit)
    expid = autosubmit.created_expid(result.text)
    if expid is None:
        raise failure(config, argv, result)
    audit.expid = expid
    forget_earlier_runs(expid=expid, config=config, before=start)
    return creation_outcome(expid, argv, result)


def creation_outcome(expid: str, argv: list[str], result: CommandResult) -> CommandOutcome:
    """Return the result of a successful create-experiment."""
    told = reasons.warnings(result.stdout)
    if any(word.startswith("--copy=") for word in argv):
        told.append(autosubmit.NOT_COPIED)
    return CommandOutcome(expid, told)


def _command(
    expid: str, config: RunnerConfig, argv: list[str], audit: AuditRecord, is_success: Callable[[int, str], bool]
) -> CommandResult:
    """Execute an Autosubmit command for an experiment and judge it by its exit code and its success line."""
    result = _execute(config, argv, audit)
    if not is_success(result.exit_code, result.text):
        raise failure(config, argv, result, expid=expid)
    return result


def _execute(config: RunnerConfig, argv: list[str], audit: AuditRecord) -> CommandResult:
    audit.argv = argv
    begin(audit)
    text = get_module_loader(config).wrap(argv)
    return get_runner(config).execute(text, login=True, timeout=settings.RUNNERS_COMMAND_TIMEOUT)


def failure(config: RunnerConfig, argv: list[str], result: CommandResult, *, expid: str = "") -> RunnerServiceError:
    """Return the error that Autosubmit, or the shell before it, reported.

    InvalidRequest: Autosubmit rejects a parameter and has changed nothing. ExperimentNotFound, AlreadyRunning and
    AccountBusy: as their names say. Everything else is CommandFailed.
    """
    if result.exit_code and (usage := autosubmit.usage_error(result.all_text, argv)):
        return _not_accepted(usage, installed_version(get_runner(config)))
    if result.exit_code == 1 and autosubmit.OPTIONS["evaluation"] in argv:
        version = installed_version(get_runner(config))
        if usage := autosubmit.needs_newer(argv, version):
            return _not_accepted(usage, version)
    runner = get_runner(config)
    if autosubmit.is_lock_busy(argv, result.exit_code):
        return AccountBusy(
            f"Another experiment is being created in the account on {runner.where}, and only one at a time can be. "
            f"Nothing was created. Try again in {autosubmit.LOCK_WAIT} s, or send `Prefer: respond-async`.",
            retry_after=autosubmit.LOCK_WAIT,
        )
    found = reasons.complaint(result.stdout, result.stderr)
    facts: dict[str, Any] = {
        "exit_code": result.exit_code,
        "error_code": found.code if found else None,
        "output": result.last_words,
    }
    if found:
        if reasons.is_locked(found):
            return _locked(config, expid, facts)
        if refusal := reasons.refusal(argv, found):
            paths = [f"command_params.{name}" for name in refusal.fields]
            what = "refuses it, and nothing was changed" if refusal.is_certain else "has changed nothing"
            detail = f"{' or '.join(paths)}: Autosubmit on {runner.where} {what}: {refusal.sentence}"
            return InvalidRequest(detail, {path: [refusal.sentence] for path in paths}, **facts)
        if reasons.is_experiment_missing(argv, found):
            return ExperimentNotFound(f"Autosubmit on {runner.where} knows no experiment {expid}.", **facts)
    words = reasons.reason_of(result.stdout, result.stderr) or autosubmit.silence(result.exit_code)
    remedy = reasons.remedy(words)
    error = CommandFailed(
        f"The command failed on {runner.where} with exit code {result.exit_code}: {words}"
        + (f"\n{remedy}" if remedy else ""),
        **facts,
    )
    return get_module_loader(config).explain(error)


def _not_accepted(usage: autosubmit.UsageError, version: str) -> InvalidRequest:
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
        f"Another Autosubmit process on {get_runner(config).where} holds experiment {expid}, such as a run that was "
        "started by hand, and nothing was changed. Wait for its end, or stop it there.",
        **facts,
    )
