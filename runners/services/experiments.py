"""The use cases: the only code that uses rows *and* runners. Keyword-only functions that raise `runners.exceptions`.

Each use case takes the audit record of its command and fills in what only the use case knows. It calls `audit.begin`
before it sends anything to a machine.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from profiles.config import DEFAULT_INSTALLATION, RunnerConfig
from profiles.installations import account_of
from runners.commands import autosubmit, reasons
from runners.exceptions import (
    AccountBusy,
    AlreadyRunning,
    CommandFailed,
    CommandTimedOut,
    ExperimentNotFound,
    InvalidRequest,
    NotRunning,
    OutcomeUnknown,
    RunnerServiceError,
    RunnerUnreachable,
    RunNotFound,
    StoppedDuringLaunch,
)
from runners.models import AuditRecord, RunnerRun, RunnerRunQuerySet, RunReason, RunStatus, new_run_key
from runners.models.operation import Operation
from runners.services import access, interrupted, lifecycle, lookup
from runners.services.audit import begin
from runners.services.cancelling import Cancellation
from runners.services.installation import has_empty_job_list, has_job_list_file, installed_version
from runners.services.lookup import Scope
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.machines.probe import Probe
from runners.services.machines.registry import get_module_loader, get_runner
from runners.services.machines.runner import CommandResult
from runners.services.stopping import Stop


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """The result of a finished command. `warnings`: problems that Autosubmit reported, but not as an error.

    `changes`: the changed jobs, for set-job-status only.
    """

    expid: str
    warnings: list[str] = field(default_factory=list)
    changes: reasons.Changes | None = None


def run_experiment(
    *, expid: str, config: RunnerConfig, profile_name: str, audit: AuditRecord, key: str = ""
) -> RunnerRun:
    """Start `autosubmit run` detached. Returns the ACTIVE run once the command executes.

    `key`: name of the run directory. A caller that passes its own key can find the run by it, even if this call fails.

    Raises AlreadyRunning; StoppedDuringLaunch if somebody stops the run meanwhile; RunnerUnreachable or CommandFailed
    if the run certainly did not start; OutcomeUnknown or CommandTimedOut if it may have started. In the last case the
    run stays ACTIVE, and the next probe tells whether it started.
    """
    argv = autosubmit.run(expid)
    audit.argv = argv
    _require_no_cancel(expid, config.installation)
    _require_not_renamed(expid, config)
    runner = get_runner(config)
    runner.admit()
    run = _claim(expid, config, profile_name, audit, key or new_run_key())
    loader = get_module_loader(config)
    try:
        identity = runner.launch(
            run.key, f"exec {shlex.join(argv)}", prelude=loader.steps(argv), timeout=settings.RUNNERS_LAUNCH_TIMEOUT
        )
    except (RunnerUnreachable, CommandFailed) as error:
        lifecycle.finish(run, reason=RunReason.NEVER_STARTED, detail=error.detail, unless_stopped=True)
        _require_not_stopped(run)
        raise loader.explain(error) from error
    except (OutcomeUnknown, CommandTimedOut) as error:
        run.refresh_from_db()
        _require_not_stopped(run)
        error.facts["run_id"] = run.pk
        raise
    lifecycle.confirm_running(run, identity)
    if run.reason == RunReason.STOPPED:
        _require_not_stopped(run)
    return run


def _require_no_cancel(expid: str, installation: str) -> None:
    """Raise AlreadyRunning if a stop of the last run is still under way: it could cancel the jobs of a new run, too."""
    last = RunnerRun.objects.filter(expid=expid, installation=installation).order_by("-id").first()
    if last and not last.is_active and interrupted.is_under_way(last):
        raise AlreadyRunning(
            f"A stop of experiment {expid} is still under way: what {access.described(last)} has left is being ended "
            "or cancelled. Start it when that is done.",
            run=last,
        )


def _require_not_renamed(expid: str, config: RunnerConfig) -> None:
    """Raise AlreadyRunning if an active run has the same account and environment, but another installation name.

    Such a run is a run of the same experiment. Without this check, a new installation name in a profile would let an
    experiment run twice.
    """
    for run in RunnerRun.objects.active().filter(expid=expid).exclude(installation=config.installation):
        if _is_same_environment(run, config):
            lifecycle.refresh_now(run)
            if run.is_active:
                raise AlreadyRunning(_already_running(run, config), run=run)


def _is_same_environment(run: RunnerRun, config: RunnerConfig) -> bool:
    """Return True if a run has the same account, machine and environment, whatever the name of its installation."""
    if not lifecycle.is_readable(run):
        return False
    return replace(lifecycle.runner_of(run).config, installation=config.installation) == config


def _require_not_stopped(run: RunnerRun) -> None:
    """Raise StoppedDuringLaunch if a stop was requested during the launch.

    The stop ends the run and updates the row; the launch does not.
    """
    if run.stop_requested_at is None:
        return
    if run.is_active:
        lifecycle.ask([run])
    by = f" by {run.stopped_by}" if run.stopped_by else ""
    raise StoppedDuringLaunch(
        f"Experiment {run.expid} was stopped{by} while it was being started ({access.described(run)}). To start it all "
        "the same, send a new request, with another Idempotency-Key.",
        run=run,
    )


def _claim(expid: str, config: RunnerConfig, profile_name: str, audit: AuditRecord, key: str) -> RunnerRun:
    """Insert the row before anything starts, and its audit record in the same transaction.

    The database allows one ACTIVE run per installation and expid. So the insert of a second request fails here, which
    raises AlreadyRunning.
    """
    ssh = config.ssh
    run = RunnerRun(
        key=key,
        expid=expid,
        installation=config.installation,
        profile_name=profile_name,
        profile_id=config.profile_id,
        config=config.as_dict(),
        runner=config.runner_type,
        module_loader=config.module_loader_type,
        modules="\n".join(config.modules),
        host=ssh.host if ssh else "",
        user=account_of(ssh),
        started_by=audit.actor,
    )
    for is_last in (False, True):
        try:
            with transaction.atomic():
                run.save(force_insert=True)
                audit.run_id = run.pk
                begin(audit)
            return run
        except IntegrityError:
            audit.run_id = None
            active = RunnerRun.objects.active().filter(expid=expid, installation=config.installation).first()
            if active is None:  # it ended between the insert and this query
                if is_last:
                    raise
                continue
            begin(audit)
            lifecycle.refresh_now(active)
            if active.is_active or is_last:
                raise AlreadyRunning(_already_running(active, config), run=active) from None
    raise AssertionError("unreachable")


def _already_running(run: RunnerRun, config: RunnerConfig) -> str:
    words = (
        f"Experiment {run.expid} is already running since {run.created:%Y-%m-%d %H:%M:%S %Z} ({access.described(run)})."
    )
    if (run.installation, config.installation) == (DEFAULT_INSTALLATION,) * 2 and not _is_same_target(run, config):
        words += (
            " The profiles name no installation, so all of them count as one Autosubmit database. If this is another "
            "experiment, in another database, an admin sets INSTALLATION in the profiles, such as {user}@{host}."
        )
    if run.is_active and not run.reachable:
        words += f" That is its last known state, because its machine cannot be asked now: {run.unreachable_detail}"
    return words


def get_run(*, expid: str, viewer: Any, scope: Scope | None = None) -> RunnerRun:
    """Return the run whose status is requested: see `lookup.last`.

    If its machine can be reached, the machine confirmed the state within the freshness window.

    Raises RunNotFound.
    """
    run = lookup.last(expid, viewer, scope)
    if run is None:
        raise RunNotFound(f"Experiment {expid} was never run here.")
    interrupted.settle(run)
    if run.is_active and not is_fresh(run):
        lifecycle.refresh([run], wait=settings.RUNNERS_STATUS_WAIT, patient=True)
    return run


def is_fresh(run: RunnerRun | Operation) -> bool:
    """Return True if the machine has confirmed the state recently. So many pollers cost one probe."""
    window = timedelta(seconds=settings.RUNNERS_STATUS_FRESHNESS)
    # A confirmation in the future was stored before the clock jumped.
    return run.reachable and run.confirmed_at is not None and abs(timezone.now() - run.confirmed_at) < window


def require_idle(*, expid: str, config: RunnerConfig) -> None:
    """Raise AlreadyRunning if a run of this service holds the experiment.

    Autosubmit itself would answer only after 10 to 20 s. The machine of the run has to confirm it first, so a run that
    has just ended does not block the command. If the machine cannot be asked, nothing is raised, and the command itself
    tells.
    """
    run = _run_in_the_way(expid, config)
    if run is None:
        return
    (probe,) = lifecycle.ask([run])
    if run.is_active and probe.answer in (Probe.RUNNING, Probe.STARTING):
        raise AlreadyRunning(_in_use(run), run=run)


def _run_in_the_way(expid: str, config: RunnerConfig) -> RunnerRun | None:
    return next(iter(_same_experiment(RunnerRun.objects.active().filter(expid=expid), config)), None)


def _same_experiment(runs: RunnerRunQuerySet, config: RunnerConfig) -> list[RunnerRun]:
    """Return those runs, all of one expid, that belong to the same experiment as a command with `config`.

    A named installation is one database. The default installation only means that nobody has named it: accounts in it
    may have databases of their own, so only runs in the same account count. A run in the same environment also counts
    if its installation had another name then.
    """
    is_named = config.installation != DEFAULT_INSTALLATION
    return [
        run
        for run in runs
        if (run.installation == config.installation and (is_named or _is_same_target(run, config)))
        or _is_same_environment(run, config)
    ]


def _is_same_target(run: RunnerRun, config: RunnerConfig) -> bool:
    return get_runner(config).target in lifecycle.by_target([run])


def _in_use(run: RunnerRun) -> str:
    return (
        f"Experiment {run.expid} is running since {run.created:%Y-%m-%d %H:%M:%S %Z} ({access.described(run)}), and "
        "nothing was changed. Wait for its end, or stop it first."
    )


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


def forget_earlier_runs(*, expid: str, config: RunnerConfig, before: datetime) -> None:
    """Mark the ended runs of a deleted experiment whose id a new experiment has got: they stay in the history only.

    `before`: when the new experiment was requested.
    """
    ended = RunnerRun.objects.exclude(status=RunStatus.ACTIVE).filter(expid=expid, created__lt=before, superseded=False)
    earlier = [run.pk for run in _same_experiment(ended, config)]
    RunnerRun.objects.filter(pk__in=earlier).update(superseded=True)


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
    if run := _run_in_the_way(expid, config):
        return AlreadyRunning(_in_use(run), run=run, **facts)
    return AlreadyRunning(
        f"Another Autosubmit process on {get_runner(config).where} holds experiment {expid}, such as a run that was "
        "started by hand, and nothing was changed. Wait for its end, or stop it there.",
        **facts,
    )


def run_to_stop(*, expid: str, viewer: Any, cancel_jobs: bool = False, scope: Scope | None = None) -> RunnerRun:
    """Return the run to stop: the active one or, with `cancel_jobs`, the last one (`lookup.to_stop`).

    Raises RunNotFound, NotRunning, AmbiguousRun.
    """
    run = lookup.to_stop(expid, viewer, scope)
    if run is None:
        raise RunNotFound(f"Experiment {expid} was never run here.")
    if not run.is_active and not cancel_jobs:
        raise NotRunning(
            f"Experiment {expid} is not running: its last run ({access.described(run)}) is {run.status}. To cancel "
            "jobs that it has left on their platforms, send cancel_jobs.",
            run=run,
        )
    return run


def abandon_run(*, pk: int, reason: str, audit: AuditRecord, authorize: Callable[[RunnerRun], None]) -> RunnerRun:
    """Declare that a run has ended whose machine cannot be reached any more. The machine is only probed.

    `reason` and the actor are stored with the run and in the audit log. `authorize`: as in `stop_experiment`.
    Raises RunNotFound, NotRunning, StillReachable.
    """
    run = RunnerRun.objects.filter(pk=pk).first()
    if run is None:
        raise RunNotFound(f"There is no run {pk}.")
    audit.of_run(run)
    audit.detail = reason
    authorize(run)
    begin(audit)
    lifecycle.abandon(run, note=f"{reason} ({audit.actor or 'nobody is signed in'})")
    return run


@dataclass(slots=True)
class StopOutcome:
    """The result of a stop. Each step: `action`, `outcome`, `seconds`. The machine has confirmed the end of the run.

    `cancellation`: the outcome of the jobs; None if cancelling was not requested. `warnings`: what may still be
    running, and what has to be done before the next run.
    """

    run: RunnerRun
    message: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    cancellation: Cancellation | None = None
    warnings: list[str] = field(default_factory=list)


def stop_experiment(
    *,
    expid: str,
    audit: AuditRecord,
    viewer: Any,
    scope: Scope | None = None,
    force: bool = False,
    cancel_jobs: bool = False,
    authorize: Callable[[RunnerRun], None] = lambda run: None,
) -> StopOutcome:
    """Stop the active run of an experiment and return after the machine has confirmed its end.

    The steps are `autosubmit stop` with a time bound, then TERM, then KILL to the run's own processes. Each step is
    taken only while the identity matches, and each is verified. `force` sends KILL at once. `cancel_jobs` then cancels
    the experiment's jobs; if nothing runs, it cancels the jobs of the last run. A run that has just ended by itself is
    not a failure. `authorize` gets the run that would be stopped and raises if the caller may not stop it.
    Raises RunNotFound, NotRunning, AmbiguousRun, RunnerUnreachable (state unchanged), StopNotConfirmed.
    """
    run = run_to_stop(expid=expid, viewer=viewer, cancel_jobs=cancel_jobs, scope=scope)
    audit.of_run(run)
    authorize(run)
    stop = Stop(run, audit, force=force, cancel_jobs=cancel_jobs)
    BULKHEADS.admit(stop.runner.target, stop.runner.where)
    begin(audit)
    was_active = run.is_active
    steps = stop.execute() if was_active else stop.cancel_after_the_end()
    cancellation = stop.cancellation
    warnings = [*(cancellation.warnings if cancellation else ()), *stop.warnings]
    message = _stop_message(run, stop, was_active)
    if cancellation and not cancellation.is_complete:
        audit.detail = f"{message} {cancellation.detail}"
    return StopOutcome(run, message, steps, cancellation, warnings)


def _stop_message(run: RunnerRun, stop: Stop, was_active: bool) -> str:
    """Return the fixed sentence for a full success, and another sentence for a partial one."""
    jobs = stop.cancellation
    who = f"Experiment {run.expid}"
    if not was_active:
        assert jobs
        if not jobs.is_complete:
            return f"{who} is not running, but its jobs may go on."
        if jobs.jobs:
            return f"{who} is not running; its jobs were cancelled."
        return f"{who} is not running and has no job to cancel."
    if stop.had_ended:
        how = "had already completed" if run.status == RunStatus.COMPLETED else "had already ended"
    else:
        how = "stopped"
    if jobs and not jobs.is_complete:
        return f"{who} {how}, but its jobs may go on."
    return f"{who} {how}." if stop.had_ended else f"{who} stopped successfully."
