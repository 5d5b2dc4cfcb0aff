"""Commands that run detached from their request. They are launched like runs, and any process can find their outcome.

Success and failure have the same output as for a command inside a request (`runners/commands/`). It is read from
the log in the operation's directory after the operation's process has ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import transaction

from profiles.config import RunnerConfig
from runners.commands.base import CommandOutcome, OneShotCommand
from runners.commands.parameters import Params
from runners.commands.registry import one_shot_commands
from runners.exceptions import (
    AccountBusy,
    AlreadyRunning,
    AuthenticationFailed,
    CommandFailed,
    CommandTimedOut,
    ExperimentNotFound,
    HostKeyChanged,
    HostKeyUnknown,
    InvalidRequest,
    MachineBusy,
    OperationNotFound,
    OutcomeUnknown,
    ProfileForbidden,
    RunnerServiceError,
    RunnerUnreachable,
    TooManyCommands,
)
from runners.models import AuditRecord, Operation, OperationStatus, RunnerRun, new_run_key
from runners.services import access, execute, experiment_descriptions, labels, lifecycle, maintenance, outbox, probing
from runners.services.active_runs import forget_earlier_runs, require_idle
from runners.services.audit import begin
from runners.services.db_connection import LOST, drop_lost_connection
from runners.services.execute import notes_of
from runners.services.machines import scripts
from runners.services.machines.probe import LogChunk, Probe
from runners.services.machines.registry import get_module_loader, get_runner
from runners.services.machines.runner import CommandResult, Runner
from runners_project import clock

logger = logging.getLogger(__name__)

WAIT_GRACE = 30  # seconds to wait beyond the command's own timeout, until its end is confirmed

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0  # seconds between two looks while waiting
DEADLINE_CODES = (124, 128 + 9)  # exit codes of `timeout` at the deadline; a command killed earlier has them, too
CLOCK_SLACK = 2  # seconds: the machine reports the end in whole seconds, and its clock may differ a little from ours
READABLE = 4096  # a log is read up to RUNNERS_OUTPUT_LIMIT minus these bytes, because the answer has a header


UNREACHABLE = (RunnerUnreachable, HostKeyUnknown, HostKeyChanged, AuthenticationFailed)
BUSY = (MachineBusy, AccountBusy, TooManyCommands)
ERRORS: dict[str, type[RunnerServiceError]] = {
    error.code: error
    for error in (
        *(AlreadyRunning, CommandFailed, CommandTimedOut, ExperimentNotFound, InvalidRequest, OutcomeUnknown),
        *(ProfileForbidden, *UNREACHABLE, *BUSY),
    )
}


def start(
    *,
    command: OneShotCommand,
    params: Params,
    config: RunnerConfig,
    profile_name: str,
    expid: str = "",
    timeout: int,
    audit: AuditRecord,
    is_patient: bool = False,
    on_insert: Callable[[Operation], None] = lambda operation: None,
) -> Operation:
    """Start a command detached and return its row. The command is ended on its machine after `timeout` seconds.

    The row is inserted before anything starts; `on_insert` runs in the transaction that inserts it. Raises
    MachineInMaintenance, AlreadyRunning, RunnerUnreachable, CommandFailed or ProfileForbidden if the command certainly
    did not start. If it is unknown whether it started, the row is returned, and the next probe finds out. `is_patient`:
    no request waits for the command, so it may wait longer for others of its kind.
    """
    argv = audit.argv = command.argv(expid, params, is_detached=is_patient)
    maintenance.require_none(config)
    get_runner(config).admit()
    begin(audit)
    if command.needs_idle:
        require_idle(expid=expid, config=config)
    operation = Operation(
        key=new_run_key(),
        kind=command.name,
        expid=expid,
        installation=config.installation,
        profile_name=profile_name,
        profile_id=config.profile_id,
        config=config.as_dict(),
        argv=argv,
        timeout=timeout,
        started_by=audit.actor,
        notes=notes_of(command, expid=expid, config=config, params=params, is_done=True),
    )
    with transaction.atomic():
        operation.save(force_insert=True)
        on_insert(operation)
    _launch(operation, command)
    return operation


def _launch(operation: Operation, command: OneShotCommand) -> None:
    config = operation.runner_config
    bounded = ["timeout", f"--kill-after={scripts.KILL_AFTER}", str(operation.timeout), *operation.argv]
    # Commands inside a request run in the parent directory. Run there, too, so that both use the same locks.
    checks = command.checks(operation.expid)
    text = " && ".join(["cd ..", *checks, scripts.replaced_by(bounded)])
    loader = get_module_loader(config)
    try:
        identity = get_runner(config).launch(
            operation.key,
            text,
            prelude=loader.steps(operation.argv),
            timeout=settings.RUNNERS_LAUNCH_TIMEOUT,
            label=labels.of(operation),
        )
    except (OutcomeUnknown, CommandTimedOut):
        return
    except (RunnerUnreachable, CommandFailed) as error:
        explained = loader.explain(error)
        finish_operation(operation, status=OperationStatus.FAILED, error=explained)
        raise explained from error
    lifecycle.confirm_running(operation, identity)


def get(*, pk: int, viewer: Any) -> Operation:
    """Return an operation that `viewer` may see. Raises OperationNotFound.

    If its state was not confirmed just now, its machine is asked first.
    """
    operation = Operation.objects.filter(pk=pk).first()
    if operation is None or not access.may_see(viewer, operation):
        raise OperationNotFound(f"Operation {pk} does not exist.")
    probing.refresh_if_stale(operation)
    return operation


def wait(operation: Operation, *, seconds: float) -> None:
    """Look at an operation until it is over, for at most `seconds`.

    Stop earlier if its machine has given no answer for twice RUNNERS_CONNECT_TIMEOUT, because it is unknown when it
    will. The operation does not need the database, so the wait also continues while the database is unavailable.
    """
    deadline = time.monotonic() + seconds
    answered = time.monotonic()
    pause = FIRST_PAUSE
    while operation.is_active:
        now = time.monotonic()
        left = deadline - now
        if operation.reachable:
            answered = now
        if left <= 0 or now - answered > 2 * settings.RUNNERS_CONNECT_TIMEOUT:
            return
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)
        try:
            probing.probe([operation])
        except LOST as error:
            logger.warning("%s cannot be probed now: %s", operation, error)
            drop_lost_connection()


def outcome(operation: Operation) -> CommandOutcome:
    """Return the outcome of a finished operation. Raises the error that the command itself would have raised."""
    if operation.result is not None:
        warnings, changes = _stored_result(operation)
        return CommandOutcome(operation.expid, warnings, changes)
    raise error_of(operation) or OutcomeUnknown(
        f"Operation {operation.pk} is not finished. Ask again later.", operation_id=operation.pk
    )


def _stored_result(operation: Operation) -> tuple[list[str], Any]:
    """Return the stored warnings and changes. If the stored result is not valid, return a warning instead."""
    command = command_of(operation)
    match operation.result:
        case {"warnings": list(warnings), "changes": changes} if all(isinstance(each, str) for each in warnings):
            try:
                return warnings, command.restored(changes) if command else None
            except ValueError:
                pass
    return [f"The stored result of operation {operation.pk} cannot be read."], None


def command_of(operation: Operation) -> OneShotCommand | None:
    """Return the command of an operation; None if the package that has it was removed."""
    return one_shot_commands().get(operation.kind)


def body_of(operation: Operation) -> dict[str, Any]:
    """Return the members of the answer to the command of an operation that has succeeded."""
    found, command = outcome(operation), command_of(operation)
    if command is None:
        return {"message": f"{operation.kind} has succeeded.", "warnings": found.warnings}
    return execute.body_of(command, found)


def error_of(operation: Operation) -> RunnerServiceError | None:
    """Return why the operation failed, or why its outcome is unknown; None if it has succeeded or still runs.

    If the stored error is not valid, the outcome is unknown.
    """
    match operation.error:
        case None:
            return None
        case {"code": str(code), "detail": str(detail), "facts": dict(facts)} if code in ERRORS:
            known = {name: fact for name, fact in facts.items() if name not in ("detail", "self", "run")}
            if code == AlreadyRunning.code and "run_id" in known:
                # The text describes the run. Callers ask `access` what of it the person may see.
                number = known["run_id"]
                known["run"] = RunnerRun.objects.filter(pk=number).first() if isinstance(number, int) else None
                if known["run"] is None:  # the row was deleted, and with it the answer to who may see it
                    detail = access.in_hidden_run(operation.expid)
                    del known["run_id"]
            if isinstance(known.get("errors", {}), dict):
                return ERRORS[code](detail, **known)
    return OutcomeUnknown(f"The stored error of operation {operation.pk} cannot be read. Check the experiment.")


def finish_from_probe(operation: Operation, runner: Runner, probe: Probe) -> None:
    """Judge an operation whose process has ended. While its log cannot be read, its status does not change."""
    if probe.answer == Probe.NEVER_STARTED:
        finish_operation(
            operation,
            status=OperationStatus.FAILED,
            error=RunnerUnreachable(
                "The command does not exist on the machine: the service died or lost the connection before the "
                "launch. Nothing was started."
            ),
        )
        return
    try:
        chunk = _read_all(operation, runner)
    except RunnerServiceError as error:
        lifecycle.mark_unreachable(operation, error.detail)
        return
    command = command_of(operation)
    if command is None:
        finish_operation(
            operation,
            status=OperationStatus.UNKNOWN,
            error=OutcomeUnknown(
                f"The service has no command {operation.kind} any more, so it cannot read what the command did. Check "
                "the experiment."
            ),
        )
        return
    data = chunk.data if chunk else b""
    when = datetime.fromtimestamp(probe.finished, UTC) if probe.finished else None
    duration = ((when or clock.now()) - operation.created).total_seconds()
    is_cut = chunk is not None and chunk.offset > 0
    result = CommandResult(probe.exit_code if probe.exit_code is not None else -1, data, b"", duration, is_cut)
    if command.is_success(result.exit_code, result.text):
        done = _outcome(command, operation, result)
        finish_operation(
            operation,
            status=OperationStatus.SUCCEEDED,
            expid=done.expid,
            result={"warnings": done.warnings, "changes": command.stored(done.changes)},
            exit_code=probe.exit_code,
            finished=when,
        )
    elif probe.answer != Probe.ENDED:
        why = "the machine was rebooted" if probe.answer == Probe.REBOOTED else "its process is gone"
        finish_operation(
            operation,
            status=OperationStatus.UNKNOWN,
            error=OutcomeUnknown(
                f"The command on {runner.where} was aborted: {why}. It may have been executed partly. Check the "
                f"experiment before you retry it.",
                output=result.last_words,
            ),
        )
    else:
        finish_operation(
            operation,
            status=OperationStatus.FAILED,
            error=_failure(command, operation, runner, result),
            exit_code=probe.exit_code,
            finished=when,
        )


def _outcome(command: OneShotCommand, operation: Operation, result: CommandResult) -> CommandOutcome:
    """Return the outcome of a command that has succeeded."""
    config = operation.runner_config
    notes = [str(note) for note in operation.notes] if isinstance(operation.notes, list) else []
    done = execute.outcome_of(command, config, operation.argv, result, expid=operation.expid, notes=notes)
    if not command.needs_expid:
        forget_earlier_runs(expid=done.expid, config=config, before=operation.created)
    experiment_descriptions.note_success(command, config, done.expid, operation.argv)
    return done


def _read_all(operation: Operation, runner: Runner) -> LogChunk | None:
    limit = settings.RUNNERS_OUTPUT_LIMIT - READABLE
    return runner.read_log(operation.key, offset=-limit, limit=limit, timeout=settings.RUNNERS_PROBE_TIMEOUT)


def _failure(
    command: OneShotCommand, operation: Operation, runner: Runner, result: CommandResult
) -> RunnerServiceError:
    if result.exit_code in DEADLINE_CODES and result.duration >= operation.timeout - CLOCK_SLACK:
        return CommandTimedOut(
            f"The command on {runner.where} was ended after {operation.timeout} s.", output=result.last_words
        )
    return execute.failure(command, operation.runner_config, operation.argv, result, expid=operation.expid)


def finish_operation(
    operation: Operation,
    *,
    status: OperationStatus,
    expid: str = "",
    result: dict[str, Any] | None = None,
    error: RunnerServiceError | None = None,
    exit_code: int | None = None,
    finished: datetime | None = None,
) -> bool:
    """Store the end of an operation. Return False if another process stored it first."""
    if error is None:
        stored = None
    else:
        members: dict[str, Any] = {}
        if isinstance(error, InvalidRequest | ProfileForbidden):
            members["errors"] = error.errors
        elif isinstance(error, AlreadyRunning) and error.run:
            members["run_id"] = error.run.pk
        facts = dict(error.facts)
        if not isinstance(error, AccountBusy):
            facts.pop("retry_after", None)  # it is the remaining time of a remembered failure, so it would be stale
        stored = {"code": error.code, "detail": error.detail, "facts": facts | members}
    with transaction.atomic():
        is_first = operation.finish(
            status=status,
            expid=expid or operation.expid,
            result=result,
            error=stored,
            exit_code=exit_code,
            finished=finished,
        )
        if is_first and status != OperationStatus.SUCCEEDED:
            outbox.operation_failed(operation)
    return is_first
