"""The errors of the runners. No HTTP here: `runners.web.problems` has the only table of status codes.

RunnerServiceError
├─ InvalidRequest            a value that no profile or rule allows
├─ EndpointDisabled          an admin disabled the command
├─ NotPermitted              this person lacks the permission for an action of admins
├─ TooManyRequests           this person exceeds the rate limit of commands
├─ ProfileForbidden          the profile is not for this person, or not for this value
├─ ProfileNotFound
├─ ExperimentNotFound        Autosubmit does not know an experiment of this name there
├─ RunNotFound               this service never ran the experiment
├─ FileNotFound              the experiment has no such configuration file, or no such version of it
├─ FileRejected              the file is a link, too large, no text, or belongs to another account
├─ PreconditionRequired      a write without the digest of the content that it replaces
├─ PreconditionFailed        the file has changed since it was read
├─ LogNotFound               the run's directory does not have a log (any more)
├─ ScriptNotFound            the script of the job was not generated
├─ JobsNotFound              the experiment or its job list does not exist on the machine
├─ JobsUnreadable            the machine cannot read the job list
├─ OperationNotFound
├─ MachineNotFound           no profile and no run of the service leads to this machine
├─ MachineInUse              the machine has active runs, or a profile leads to it, so it cannot be forgotten
├─ MaintenanceNotFound
├─ IdempotencyKeyReused      another request came with this Idempotency-Key before
├─ IdempotencyInProgress     the first request with this Idempotency-Key is still under way
├─ AlreadyRunning            carries the active run, if this service has started it
│  └─ ForeignRun             a process of the account runs the experiment, and this service has not started it
├─ NotRunning                carries the last run
├─ NothingToRun              the job list has no job that a run would start
├─ AmbiguousRun              several installations run an experiment of this id, and the request does not name one
├─ StoppedDuringLaunch       carries the run; somebody stopped it while it was being started
├─ StillReachable            the machine answers, so the run may not be abandoned
├─ RunnerUnreachable         no connection; nothing was started
│  ├─ HostKeyUnknown
│  ├─ HostKeyChanged
│  ├─ AuthenticationFailed
│  ├─ MachineInMaintenance   an announced maintenance applies; the machine was not asked
│  ├─ MachineBusy            too many requests wait for the machine; it was not asked
│  ├─ AccountBusy            another experiment is being created in the account
│  └─ TooManyCommands        too many commands of this person are being carried out
├─ OutcomeUnknown            the connection was lost after the command may have started
├─ CommandFailed             the command ran and failed: exit code and its last lines
│  └─ RunDirectoryUnusable   the directory of runs is missing, full or not the account's; nothing was started
├─ CommandTimedOut           it was ended at its deadline
└─ StopNotConfirmed          every step of a stop was tried, and the run is still alive
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, ClassVar, Self

from runners import printable


class RunnerServiceError(Exception):
    """Base of all. `code` is stable and documented; `facts` are extra members of the answer, as JSON types.

    `detail` and `facts` may quote a machine, and are stored in rows and answers. So texts are cut to
    `printable.TEXT_LIMIT` printable characters.
    """

    code: ClassVar[str] = "runner_error"

    def __init__(self, detail: str, **facts: Any) -> None:
        self.detail = printable.text(detail)
        super().__init__(self.detail)
        self.facts: dict[str, Any] = {
            name: printable.text(fact) if isinstance(fact, str) else fact for name, fact in facts.items()
        }

    def __copy__(self) -> Self:
        """Return an equal error without a traceback, for callers that share one: each may add facts of its request."""
        error = type(self).__new__(type(self), *self.args)
        error.__dict__.update(self.__dict__, facts=deepcopy(self.facts))
        return error


class InvalidRequest(RunnerServiceError):
    """`errors` maps field names to sentences, as a serializer's errors do."""

    code = "invalid_request"

    def __init__(self, detail: str, errors: dict[str, list[str]] | None = None, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.errors = errors or {}


class EndpointDisabled(RunnerServiceError):
    code = "endpoint_disabled"


class NotPermitted(RunnerServiceError):
    code = "permission_denied"


class TooManyRequests(RunnerServiceError):
    """Fact: `retry_after`, seconds."""

    code = "throttled"


class ProfileForbidden(RunnerServiceError):
    """`errors` as in InvalidRequest, when a value is the reason."""

    code = "profile_forbidden"

    def __init__(self, detail: str, errors: dict[str, list[str]] | None = None, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.errors = errors or {}


class ProfileNotFound(RunnerServiceError):
    code = "profile_not_found"


class ExperimentNotFound(RunnerServiceError):
    """Same facts as CommandFailed."""

    code = "experiment_not_found"


class RunNotFound(RunnerServiceError):
    code = "run_not_found"


class FileNotFound(RunnerServiceError):
    code = "file_not_found"


class FileRejected(RunnerServiceError):
    code = "file_rejected"


class PreconditionRequired(RunnerServiceError):
    code = "precondition_required"


class PreconditionFailed(RunnerServiceError):
    """Fact: `etag`, of the present content."""

    code = "precondition_failed"


class LogNotFound(RunnerServiceError):
    code = "log_not_found"


class ScriptNotFound(RunnerServiceError):
    code = "script_not_found"


class JobsNotFound(RunnerServiceError):
    code = "jobs_not_found"


class JobsUnreadable(RunnerServiceError):
    """The job list is damaged or too large, or nothing on the machine can read it."""

    code = "jobs_unreadable"


class OperationNotFound(RunnerServiceError):
    code = "operation_not_found"


class MachineNotFound(RunnerServiceError):
    code = "machine_not_found"


class MachineInUse(RunnerServiceError):
    code = "machine_in_use"


class MaintenanceNotFound(RunnerServiceError):
    code = "maintenance_not_found"


class IdempotencyKeyReused(RunnerServiceError):
    code = "idempotency_key_reused"


class IdempotencyInProgress(RunnerServiceError):
    """Fact: `retry_after`, seconds."""

    code = "idempotency_in_progress"


class AlreadyRunning(RunnerServiceError):
    """`run` is the active RunnerRun; None when the experiment was started without this service."""

    code = "already_running"

    def __init__(self, detail: str, run: Any = None, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.run = run


class ForeignRun(AlreadyRunning):
    """Processes of the account run the experiment, and this service has not started them. Nothing was started.

    `processes`: `ForeignProcess` objects, at least one, the oldest first. Fact: `foreign`, the members of the first.
    `run`: None, or the last run of this service that the request found instead.
    """

    code = "foreign_run"

    def __init__(self, expid: str, where: str, processes: Sequence[Any], run: Any = None) -> None:
        first = processes[0]
        more = f" and {len(processes) - 1} more" if len(processes) > 1 else ""
        super().__init__(
            f"Experiment {expid} is already running on {where}: {first}{more}. It is no active run of this "
            f"service: {first.command}. Wait for its end, or end it with stop-experiment and foreign: true.",
            run=run,
            foreign=first.as_dict(),
        )
        self.processes = list(processes)


class NotRunning(RunnerServiceError):
    """`run` is the last RunnerRun."""

    code = "not_running"

    def __init__(self, detail: str, run: Any, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.run = run


class NothingToRun(RunnerServiceError):
    """The job list has no job that a run would start. Fact: `counts`, the jobs by status, and their `total`."""

    code = "nothing_to_run"


class AmbiguousRun(RunnerServiceError):
    """Fact: `choices`, a list of the runs that the caller may see, with the members that distinguish them."""

    code = "ambiguous"


class StoppedDuringLaunch(RunnerServiceError):
    """Somebody has stopped the run while it was being started. `run` is the RunnerRun."""

    code = "stopped_during_launch"

    def __init__(self, detail: str, run: Any, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.run = run


class StillReachable(RunnerServiceError):
    code = "still_reachable"


class RunnerUnreachable(RunnerServiceError):
    """The machine was not reached, so the command certainly did not start.

    `is_remembered`: the machine itself did not answer, or rejected the login. The service then does not ask it again
    for some seconds (services/machines/breaker.py). `is_silence`: there was no answer at all, as from a machine that
    hangs. Fact: `retry_after`, those seconds.
    """

    code = "runner_unreachable"
    is_remembered = False
    is_silence = False


class HostKeyUnknown(RunnerUnreachable):
    code = "host_key_unknown"


class HostKeyChanged(RunnerUnreachable):
    code = "host_key_changed"


class AuthenticationFailed(RunnerUnreachable):
    code = "authentication_failed"


class MachineInMaintenance(RunnerUnreachable):
    """An admin has announced a maintenance that applies now. The machine was not asked.

    Facts: `maintenance` (`machine`, `text`, `starts`, `ends`; the times in ISO 8601, `ends` may be None), and
    `retry_after` (seconds) if the end is announced.
    """

    code = "machine_in_maintenance"


class MachineBusy(RunnerUnreachable):
    """Too many requests wait for the machine or run on it, so this one was rejected at once.

    Facts: `retry_after` (seconds), `machine`, `requests` (how many occupy it), `profile_name` (the caller's), and how
    many of the requests are `of_your_profile` and `of_yours`. `run`: the RunnerRun whose log was requested, in its last
    known state.
    """

    code = "machine_busy"
    run: Any = None


class AccountBusy(RunnerUnreachable):
    """Another experiment is being created in the account; only one may be at a time. Fact: `retry_after`."""

    code = "account_busy"


class TooManyCommands(RunnerUnreachable):
    """This person has reached the limit of concurrent commands. Fact: `retry_after`."""

    code = "too_many_commands"


class OutcomeUnknown(RunnerServiceError):
    """The connection was lost after the command may have started and before it ended."""

    code = "outcome_unknown"


class CommandFailed(RunnerServiceError):
    """Facts: `exit_code` (int or None) and `output` (its last lines, colour codes removed)."""

    code = "command_failed"


class RunDirectoryUnusable(CommandFailed):
    """The directory of runs on the machine cannot be made or written to, so nothing was started."""

    code = "run_directory_unusable"


class CommandTimedOut(RunnerServiceError):
    code = "command_timed_out"


class StopNotConfirmed(RunnerServiceError):
    """Facts: `steps`, what was tried. The run stays ACTIVE."""

    code = "stop_not_confirmed"
