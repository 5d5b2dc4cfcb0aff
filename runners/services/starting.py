"""Start a run: insert its row, then launch `autosubmit run` on its machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from profiles.config import DEFAULT_INSTALLATION, RunnerConfig
from runners.commands.installation import archived_in
from runners.commands.parameters import Params
from runners.commands.run_experiment import RUN_EXPERIMENT
from runners.exceptions import (
    AlreadyRunning,
    CommandFailed,
    CommandTimedOut,
    ExperimentNotFound,
    ForeignRun,
    OutcomeUnknown,
    RunnerUnreachable,
    StoppedDuringLaunch,
)
from runners.models import AuditRecord, RunnerRun, RunReason, RunStatus, new_run_key
from runners.services import (
    access,
    foreign_runs,
    labels,
    lifecycle,
    maintenance,
    outbox,
    own_process,
    probing,
    run_options,
)
from runners.services.active_runs import is_same_environment, is_same_target
from runners.services.audit import begin
from runners.services.machines import scripts
from runners.services.machines.registry import get_module_loader, get_runner
from runners_project import clock


def run_experiment(
    *,
    expid: str,
    config: RunnerConfig,
    profile_name: str,
    audit: AuditRecord,
    key: str = "",
    params: Params | None = None,
    previous_run: int | None = None,
    restart: dict[str, Any] | None = None,
    restarts: int = 0,
    on_insert: Callable[[RunnerRun], None] = lambda run: None,
) -> RunnerRun:
    """Start `autosubmit run` detached. Returns the ACTIVE run once the command executes.

    `key`: name of the run directory. A caller that passes its own key can find the run by it, even if this call fails.
    `params`: options of `autosubmit run`. `previous_run`: the number of the run that this one continues.
    `restart`: when to start it again (restart_plans.py). `restarts`: how many restarts have led to it. `on_insert` is
    called in the transaction that inserts the run; if it raises, nothing is inserted or started.

    Raises MachineInMaintenance; InvalidRequest if the machine cannot obey an option; AlreadyRunning (ForeignRun if
    another process of the account runs the experiment); StoppedDuringLaunch if somebody stops the run meanwhile;
    RunnerUnreachable or CommandFailed if the run certainly did not start; OutcomeUnknown or CommandTimedOut if it may
    have started. In the last case the run stays ACTIVE, and the next probe tells whether it started.
    """
    params = params or {}
    argv = RUN_EXPERIMENT.argv(expid, params)
    audit.argv, audit.profile_id = argv, config.profile_id
    maintenance.require_none(config)
    _require_no_cancel(expid, config.installation)
    _require_not_renamed(expid, config)
    runner = get_runner(config)
    runner.admit()
    run_options.require_valid(runner, expid, params)
    run = RunnerRun(
        key=key or new_run_key(),
        expid=expid,
        installation=config.installation,
        profile_name=profile_name,
        profile_id=config.profile_id,
        config=config.as_dict(),
        runner=config.runner_type,
        module_loader=config.module_loader_type,
        modules="\n".join(config.modules),
        host=config.target.host,
        user=config.target.user,
        started_by=audit.actor,
        command_params=RUN_EXPERIMENT.given(params) or None,
        previous_run=previous_run,
        restart=restart,
        restarts=restarts,
    )
    _insert(run, config, audit, on_insert)
    loader = get_module_loader(config)
    try:
        identity = runner.launch(
            run.key,
            scripts.replaced_by(argv),
            prelude=[*loader.steps(argv), *RUN_EXPERIMENT.checks(expid)],
            timeout=settings.RUNNERS_LAUNCH_TIMEOUT,
            unless_runs=foreign_runs.search_of(expid, but=run),
            label=labels.of(run),
        )
    except ForeignRun as error:
        _withdraw(run, audit, error)
        foreign_runs.remember(expid, config, profile_name, error.processes)
        raise
    except (RunnerUnreachable, CommandFailed) as error:
        archived = archived_in(str(error.facts.get("output", "")))
        lifecycle.finish_run(run, reason=RunReason.NEVER_STARTED, detail=archived or error.detail, unless_stopped=True)
        _require_not_stopped(run)
        raise (ExperimentNotFound(archived) if archived else loader.explain(error)) from error
    except (OutcomeUnknown, CommandTimedOut) as error:
        run.refresh_from_db()
        _require_not_stopped(run)
        error.facts["run_id"] = run.pk
        raise
    lifecycle.confirm_running(run, identity)
    if run.reason == RunReason.STOPPED:
        _require_not_stopped(run)
    return run


def _withdraw(run: RunnerRun, audit: AuditRecord, error: ForeignRun) -> None:
    """Remove the row of a launch that the machine has rejected: the run of another process is no run of this service.

    If somebody has asked to stop the run meanwhile, the row is kept as never started, because the stop needs it.
    """
    with transaction.atomic():
        mine = RunnerRun.objects.active().filter(pk=run.pk, stop_requested_at=None, stop_owner="")
        is_mine = mine.update(status=RunStatus.TERMINATED, reason=RunReason.NEVER_STARTED, finished=clock.now())
        if is_mine:
            outbox.forget(run)
            RunnerRun.objects.filter(pk=run.pk).delete()
            audit.run_id = None
    if not is_mine:
        lifecycle.finish_run(run, reason=RunReason.NEVER_STARTED, detail=error.detail, unless_stopped=True)
        _require_not_stopped(run)


def _require_no_cancel(expid: str, installation: str) -> None:
    """Raise AlreadyRunning if a stop of the last run is still under way: it could cancel the jobs of a new run, too."""
    rows = RunnerRun.objects.filter(expid=expid, installation=installation).order_by("-id")
    last = rows.values_list("pk", "status", "stop_owner", "stop_until").first()
    if last and last[1] != RunStatus.ACTIVE and own_process.is_working(*last[2:]):
        run = RunnerRun.objects.get(pk=last[0])
        raise AlreadyRunning(
            f"A stop of experiment {expid} is still in progress: processes or jobs that {access.described(run)} has "
            f"left are being ended or cancelled. Start it after that.",
            run=run,
        )


def _require_not_renamed(expid: str, config: RunnerConfig) -> None:
    """Raise AlreadyRunning if an active run has the same account and environment, but another installation name.

    Such a run is a run of the same experiment. Without this check, a new installation name in a profile would let an
    experiment run twice.
    """
    for run in _found(RunnerRun.objects.active().filter(expid=expid).exclude(installation=config.installation)):
        if is_same_environment(run, config):
            probing.refresh_now(run)
            if run.is_active:
                raise AlreadyRunning(_already_running(run, config), run=run)


def _found(rows: QuerySet[RunnerRun]) -> list[RunnerRun]:
    """Return the rows. Usually there are none, and then only their primary keys are selected.

    Django takes as long to make the SQL of all columns as the database needs for the query.
    """
    numbers = list(rows.values_list("pk", flat=True))
    return list(rows.filter(pk__in=numbers)) if numbers else []


def _require_not_stopped(run: RunnerRun) -> None:
    """Raise StoppedDuringLaunch if a stop was requested during the launch.

    The stop ends the run and updates the row; the launch does not.
    """
    if run.stop_requested_at is None:
        return
    if run.is_active:
        probing.probe([run])
    by = f" by {run.stopped_by}" if run.stopped_by else ""
    raise StoppedDuringLaunch(
        f"Experiment {run.expid} was stopped{by} while it was being started ({access.described(run)}). To start it "
        f"again, send a new request with another Idempotency-Key.",
        run=run,
    )


def _insert(run: RunnerRun, config: RunnerConfig, audit: AuditRecord, on_insert: Callable[[RunnerRun], None]) -> None:
    """Insert the row before anything starts, and its audit record in the same transaction.

    The database allows one ACTIVE run per installation and expid. So the insert of a second request fails here, which
    raises AlreadyRunning.
    """
    for is_last in (False, True):
        try:
            with transaction.atomic():
                run.save(force_insert=True)
                on_insert(run)
                audit.run_id = run.pk
                begin(audit)
            return
        except IntegrityError:
            audit.run_id = None
            active = RunnerRun.objects.active().filter(expid=run.expid, installation=run.installation).first()
            if active is None:  # it ended between the insert and this query
                if is_last:
                    raise
                continue
            begin(audit)
            probing.refresh_now(active)
            if active.is_active or is_last:
                raise AlreadyRunning(_already_running(active, config), run=active) from None
    raise AssertionError("unreachable")


def _already_running(run: RunnerRun, config: RunnerConfig) -> str:
    words = (
        f"Experiment {run.expid} is already running, since {run.created:%Y-%m-%d %H:%M:%S %Z} "
        f"({access.described(run)})."
    )
    if (run.installation, config.installation) == (DEFAULT_INSTALLATION,) * 2 and not is_same_target(run, config):
        words += (
            " The profiles have no INSTALLATION, so they count as one Autosubmit database. If this is another "
            "experiment in another database, an admin has to set INSTALLATION in the profiles, such as {user}@{host}."
        )
    if run.is_active and not run.reachable:
        words += f" This is its last known state, because its machine cannot be probed now: {run.unreachable_detail}"
    return words
