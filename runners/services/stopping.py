"""Stop a run: gently first, then with stronger signals. Each step is verified on the machine.

1. `autosubmit stop`, which sends an INT, with a timeout. It is skipped if it would stop a run of the same name in
   another home.
2. INT to the run's own processes: the first INT is lost if it arrives while Autosubmit is still importing.
3. TERM, then KILL, to the run's own processes.
4. After the end: TERM and KILL to the remaining processes of the run, except for jobs on the local platform. This is
   also done if the run had already ended, unless it had completed or an admin has declared its end.
5. With `cancel_jobs`: Autosubmit's own cancel, with its own timeout (cancelling.py), then the end of the local jobs.
   The run has to end first, because Autosubmit cancels no jobs before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q

from runners.commands import output, run_log
from runners.commands.stop_experiment import STOP_EXPERIMENT, STOP_STDIN
from runners.exceptions import (
    CommandTimedOut,
    NotRunning,
    OutcomeUnknown,
    RunnerServiceError,
    RunnerUnreachable,
    RunNotFound,
    StopNotConfirmed,
)
from runners.models import AuditRecord, RunnerRun, RunReason, RunStatus
from runners.services import (
    access,
    foreign_runs,
    interrupted,
    lifecycle,
    lookup,
    own_process,
    probing,
    restart_plans,
    run_end,
)
from runners.services.audit import begin
from runners.services.cancelling import Cancellation, cancel
from runners.services.lookup import Scope
from runners.services.machines import leftovers
from runners.services.machines.answers import Unreadable
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.machines.probe import Identity, Probe
from runners.services.machines.registry import get_module_loader
from runners_project import clock

POLL = 0.5  # seconds between two probes of a run that was signalled
RECENTLY = timedelta(minutes=1)  # if the run was seen alive within this time, its process group is searched, too
EARLIER_RUNS = 20  # earlier runs of the experiment whose jobs may still exist


Step = dict[str, Any]  # action, outcome, seconds (None: in progress), ended (a probe saw the end of the run)
HAD_ENDED: Step = {"action": "look", "outcome": "had already ended", "seconds": 0.0, "ended": True}


class Stop:
    """One request to stop one run. `execute` returns its steps after a probe has seen the end of the run.

    `cancellation`: with `cancel_jobs`, the result for the jobs. `had_ended`: the run had already ended.
    After something was sent, every error of `execute` has the fact `steps`: the steps that were taken. An unreachable
    machine then raises OutcomeUnknown, because RunnerUnreachable means that nothing was executed.
    """

    def __init__(self, run: RunnerRun, audit: AuditRecord, *, force: bool, cancel_jobs: bool) -> None:
        self.run = run
        self.audit = audit
        self.force = force
        self.cancel_jobs = cancel_jobs
        self.runner = lifecycle.runner_of(run)
        self.config = self.runner.config
        self.steps: list[Step] = []
        self.owner = audit.owner or own_process.owner()  # the same in both rows, so that interrupted.py finds both
        self.had_ended = False
        self.requested_at: datetime | None = None  # when this stop was stored in the row
        self.may_be_sent = False  # a step may have reached the machine
        self.ended_by = ""  # the signal that ended the run; empty if `autosubmit stop` did
        self.cancellation: Cancellation | None = None
        self.warnings: list[str] = []

    def execute(self) -> list[Step]:
        """Stop the run and return the steps.

        Raises RunnerUnreachable, NotRunning, OutcomeUnknown, StopNotConfirmed.
        """
        seen_alive = self.run.confirmed_at
        with self._owned():
            identity = self._require_running()
            if identity and not self._request():
                identity = None
            if identity is None:
                self.had_ended = True
                self.steps.append(HAD_ENDED)
                self._show()
                self._end_leftovers_of_ended(seen_alive)
            else:
                self.audit.argv = STOP_EXPERIMENT.argv(self.run.expid, force=self.force)
                try:
                    is_over = self._end(identity)
                except RunnerUnreachable:
                    self._withdraw()
                    raise
                if not is_over:
                    raise self._not_confirmed()
                self.had_ended = self.run.status == RunStatus.COMPLETED
                self._end_leftovers(identity, is_fresh=True)
            if self.cancel_jobs:
                self._cancel_jobs(identity or self._identity_of_ended())
            return self.steps

    def cancel_after_the_end(self) -> list[Step]:
        """Cancel the jobs of a run that has already ended. Raises RunnerUnreachable if nothing was cancelled."""
        self.had_ended = True
        with self._owned():
            self._cancel_jobs(self._identity_of_ended(), must_reach=True)
            return self.steps

    @contextmanager
    def _owned(self) -> Iterator[None]:
        """Mark the run as owned by this stop, so that other processes know of it, until the stop has an outcome."""
        interrupted.mark(self.run)
        row = RunnerRun.objects.filter(pk=self.run.pk)
        seconds = settings.RUNNERS_CANCEL_TIMEOUT + 10 * settings.RUNNERS_PROBE_TIMEOUT
        until = clock.now() + 2 * lifecycle.stop_window() + timedelta(seconds=seconds)
        row.update(stop_owner=self.owner, stop_until=until)
        try:
            yield
        finally:
            row.filter(stop_owner=self.owner).update(stop_owner="", stop_until=None)

    def _end(self, identity: Identity) -> bool:
        """Take one step after the other. Return True as soon as a probe sees the end of the run."""
        if not self.force and self._autosubmit_stop(identity):
            return True
        for name in ("KILL",) if self.force else ("INT", "TERM", "KILL"):
            wait = settings.RUNNERS_KILL_WAIT if name == "KILL" else settings.RUNNERS_TERM_WAIT
            if self._signal(identity, name, wait):
                self.ended_by = name
                return True
        return False

    def _not_confirmed(self) -> RunnerServiceError:
        """Return the error after the last step: the last probe saw the run alive, or had no answer."""
        if not self.run.reachable:
            return self._unknown("Every step of the stop was executed", self.run.unreachable_detail)
        return StopNotConfirmed(
            f"Experiment {self.run.expid} is still running on {self.runner.where} after every step of the stop. The "
            f"process may be blocked by a disk or a network file system. Stop it again later, "
            "or contact the administrators of the machine.",
            steps=self.steps,
            run_id=self.run.pk,
        )

    def _unknown(self, what: str, why: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"{what}, but whether experiment {self.run.expid} has ended is not known now: {why.rstrip('.?')}. Check "
            f"its status later, and stop it again if it is ACTIVE.",
            steps=self.steps,
            run_id=self.run.pk,
        )

    def _end_leftovers(self, identity: Identity, *, is_fresh: bool, jobs: bool = False) -> bool:
        """End the remaining processes of the run on its machine; with `jobs` also the jobs on the local platform.

        Return True if none of them remains. The run has already ended, so an error here becomes a warning and does not
        fail the stop. No step is added if no processes were left.
        """
        action = "end of the local jobs" if jobs else "end of what was left"
        whose = leftovers.Run(self.run.expid, identity, self._keys() if jobs else [self.run.key], group=is_fresh)
        start = time.monotonic()
        try:
            before, left = leftovers.end(self.runner, whose, jobs=jobs)
        except RunnerServiceError as error:
            before, left, outcome = [], None, f"not known: {error.detail}"
        if left is None or left:
            outcome = outcome if left is None else f"still there after a KILL: {leftovers.summary(left)}"
            self.warnings.append(f"Processes of the run may still be alive on {self.runner.where}: {outcome}")
        elif before:
            outcome = f"ended: {leftovers.summary(before)}"
        else:
            return True
        seconds = round(time.monotonic() - start, 1)
        self.steps.append({"action": action, "outcome": outcome, "seconds": seconds, "ended": True})
        self._show()
        return left == []

    def _end_leftovers_of_ended(self, seen_alive: datetime | None) -> None:
        """Do the same for a run that had ended before this stop. `seen_alive`: when its machine last confirmed it.

        A run whose end an admin has declared may live, and a stop would end it without an INT. What an ended run has
        left is known only after its machine has told the result, so an ACTIVE row is left alone.
        """
        identity = self._identity_of_ended()
        if identity and self.run.status == RunStatus.TERMINATED and self.run.reason != RunReason.ABANDONED:
            is_fresh = seen_alive is not None and abs(clock.now() - seen_alive) < RECENTLY
            self._end_leftovers(identity, is_fresh=is_fresh)

    def _identity_of_ended(self) -> Identity | None:
        """Return the stored identity of a run that has ended; None if there is none, or if it cannot be read.

        Its machine is then not searched for processes, so a warning says this if the identity cannot be read.
        """
        try:
            return lifecycle.identity_of(self.run)
        except Unreadable as error:
            warning = (
                f"Processes of the run, and its jobs on the local platform, may still be alive on {self.runner.where}. "
                f"They were not searched, because the stored identity of the run cannot be read: {error}"
            )
            if warning not in self.warnings:
                self.warnings.append(warning)
            return None

    def _keys(self) -> list[str]:
        """Return the keys of this run and of earlier ones.

        A run that continues after an earlier run was stopped takes over the jobs of that run.
        """
        runs = RunnerRun.objects.filter(
            expid=self.run.expid, installation=self.run.installation, pk__lte=self.run.pk, config=self.run.config
        )
        return list(runs.order_by("-pk").values_list("key", flat=True)[:EARLIER_RUNS])

    def _cancel_jobs(self, identity: Identity | None, *, must_reach: bool = False) -> None:
        """Execute Autosubmit's own cancel, then end the local jobs on the run's machine.

        Autosubmit only sends an INT to local jobs, which they ignore, and marks them as FAILED.
        """
        self.audit.argv = STOP_EXPERIMENT.argv(self.run.expid, cancel_jobs=True)
        with self._step(interrupted.CANCEL, ended=True) as step:
            try:
                self.cancellation = cancel(self.run.expid, self.runner)
            except RunnerUnreachable as error:
                if must_reach:
                    raise
                self.cancellation = Cancellation(failure=f"Nothing was cancelled: {error.detail}")
            step["outcome"] = f"{self.cancellation.outcome}: {self.cancellation.detail}"
        if identity and self._end_leftovers(identity, is_fresh=False, jobs=True):
            self.cancellation.local_jobs_ended()
        self._suspect_submissions()
        RunnerRun.objects.filter(pk=self.run.pk).update(cancel=self.cancellation.as_dict())

    def _suspect_submissions(self) -> None:
        """Warn of jobs that Autosubmit cannot cancel, because the run ended before it recorded them.

        This applies if the run was ended while it submitted jobs, by this stop or earlier. A repeated cancel does not
        know of more jobs than the first one.
        """
        assert self.cancellation
        self.run.refresh_from_db()
        signal = self.ended_by or self.run.signal
        if self.run.status == RunStatus.COMPLETED:
            return
        if signal in ("TERM", "KILL"):
            self.warnings.append(
                f"Autosubmit was ended by {signal}: if it was submitting a job, the job is not in the job list "
                f"and may still run. Check the platform."
            )
        else:
            try:
                is_suspect = run_log.was_submitting(run_end.end_of_log(self.run, self.runner))
            except RunnerServiceError:
                is_suspect = True
            if is_suspect:
                self.cancellation.reasons.append(
                    "The run was ended while it submitted jobs, or its log does not show whether it did: jobs that it "
                    "had not recorded yet may still run. Look for them on the platform."
                )

    def _require_running(self) -> Identity | None:
        """Return the identity of the running process; None if it has ended meanwhile.

        Raises RunnerUnreachable if the state cannot be determined, NotRunning if the run is still starting.
        """
        (probe,) = probing.probe([self.run])
        if probe.answer == Probe.CANNOT_TELL:
            raise RunnerUnreachable(
                f"Experiment {self.run.expid} was not stopped: {probe.detail.rstrip('.')}. "
                f"Its state is unchanged. Try again when {self.runner.where} is reachable.",
                run_id=self.run.pk,
                **({"retry_after": probe.retry_after} if probe.retry_after else {}),
            )
        if probe.answer == Probe.STARTING:
            raise NotRunning(f"Experiment {self.run.expid} is just being started. Stop it in a moment.", run=self.run)
        if probe.answer != Probe.RUNNING:
            return None
        identity = lifecycle.identity_of(self.run)
        if identity:  # `autosubmit stop` finds only processes of its own node
            self.runner = self.runner.at_node(identity.host)
        return identity

    def _request(self) -> bool:
        """Store in the row that a stop was requested, and by whom, before anything is sent. This explains the end.

        The request of an earlier stop is kept while that stop may be in progress; after the stop window this one
        replaces it. Return False if the run ended, or its launch failed, before the request could be stored.
        """
        now = clock.now()
        is_open = Q(stop_requested_at=None) | Q(stop_requested_at__lt=now - lifecycle.stop_window())
        pending = RunnerRun.objects.active().filter(is_open, pk=self.run.pk)
        if pending.update(stop_requested_at=now, stopped_by=self.audit.actor, modified=now):
            self.requested_at = now
            self.run.stop_requested_at, self.run.stopped_by = now, self.audit.actor
        else:
            self.run.refresh_from_db()
        return self.run.is_active

    def _withdraw(self) -> None:
        """Remove the request of this stop: nothing was sent, so it cannot explain an end.

        The request of another stop of the same run is kept.
        """
        if self.requested_at:
            mine = RunnerRun.objects.active().filter(pk=self.run.pk, stop_requested_at=self.requested_at)
            mine.filter(stop_owner=self.owner).update(stop_requested_at=None, stopped_by="")
            self.run.refresh_from_db()

    def _autosubmit_stop(self, identity: Identity) -> bool:
        with self._step("autosubmit stop") as step:
            try:
                victim = self.runner.first_match(self.run.expid, timeout=settings.RUNNERS_PROBE_TIMEOUT)
            except RunnerServiceError as error:  # continue with the signals, which reach only the run's own processes
                step["outcome"] = f"skipped: {error.detail}"
                return False
            if victim not in (None, identity.pid):
                others = f"another home's `autosubmit run {self.run.expid}`"
                step["outcome"] = f"skipped: it would stop process {victim}, {others}"
                return False
            text = get_module_loader(self.config).wrap(STOP_EXPERIMENT.argv(self.run.expid))
            try:
                result = self.runner.execute(text, stdin=STOP_STDIN, login=True, timeout=settings.RUNNERS_STOP_TIMEOUT)
                self.may_be_sent = True
                step["outcome"] = f"exit code {result.exit_code}"
                if result.exit_code:
                    step["outcome"] += f": {output.reason_of(result.stdout, result.stderr)}"
            except (CommandTimedOut, OutcomeUnknown) as error:
                self.may_be_sent = True
                step["outcome"] = error.detail
            except RunnerUnreachable as error:  # start-up files may block login shells; signals do not need one
                step["outcome"] = f"skipped: {error.detail}"
                return False
            step["ended"] = self._wait(1.0)
            return bool(step["ended"])

    def _signal(self, identity: Identity, name: str, wait: float) -> bool:
        with self._step(f"signal {name}") as step:
            try:
                probe = self.runner.signal(
                    self.run.key,
                    identity,
                    name,
                    timeout=settings.RUNNERS_PROBE_TIMEOUT,
                    spare_jobs_of="" if self.cancel_jobs else self.run.expid,
                )
                self.may_be_sent = True
                step["outcome"] = "sent to the run's own processes"
                lifecycle.apply(self.run, self.runner, probe)
            except (OutcomeUnknown, CommandTimedOut) as error:  # the following probes find out
                self.may_be_sent = True
                step["outcome"] = error.detail
            step["ended"] = not self.run.is_active or self._wait(wait)
            return bool(step["ended"])

    def _wait(self, seconds: float) -> bool:
        """Probe the run until it is over, for at most `seconds`. Return whether it is over."""
        deadline = time.monotonic() + seconds
        while True:
            probing.probe([self.run])
            if not self.run.is_active:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL)

    @contextmanager
    def _step(self, action: str, *, ended: bool = False) -> Iterator[Step]:
        """Record one step in the row when it begins and when it ends, so that viewers of the run see its progress.

        An error becomes the outcome of the step.
        """
        step: Step = {"action": action, "outcome": "", "seconds": None, "ended": ended}
        self.steps.append(step)
        self._show()
        start = time.monotonic()
        try:
            yield step
        except RunnerServiceError as error:
            step["outcome"] = error.detail
            if self.may_be_sent and isinstance(error, RunnerUnreachable):
                raise self._unknown("The stop had begun", error.detail) from error
            error.facts |= {"steps": self.steps, "run_id": self.run.pk}
            raise
        finally:
            step["seconds"] = round(time.monotonic() - start, 1)
            self._show()

    def _show(self) -> None:
        """Store the steps in the row for other processes. The response of this request uses `steps` directly."""
        RunnerRun.objects.filter(pk=self.run.pk).update(stop_steps=self.steps)


# --- the use case -----------------------------------------------------------------------------------------------------


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


def run_to_stop(
    *,
    expid: str,
    viewer: Any,
    cancel_jobs: bool = False,
    scope: Scope | None = None,
    place: foreign_runs.Place | None = None,
) -> RunnerRun:
    """Return the run to stop: the active one or, with `cancel_jobs`, the last one (`lookup.to_stop`).

    Raises RunNotFound, NotRunning, AmbiguousRun. Raises ForeignRun instead of the first two if the machine of `place`,
    or else of the last run, sees a run that this service has not started.
    """
    try:
        return _run_to_stop(expid, viewer, cancel_jobs, scope)
    except (RunNotFound, NotRunning) as error:
        last = getattr(error, "run", None)
        if found := place or (last and foreign_runs.place_of_run(last, viewer)):
            foreign_runs.require_none(expid, found)
        raise


def _run_to_stop(expid: str, viewer: Any, cancel_jobs: bool, scope: Scope | None) -> RunnerRun:
    run = lookup.to_stop(expid, viewer, scope)
    if run is None:
        raise RunNotFound(f"Experiment {expid} was never run here.")
    if not run.is_active and not cancel_jobs and not restart_plans.is_pending(run):
        raise NotRunning(
            f"Experiment {expid} is not running: its last run ({access.described(run)}) is {run.status}. To cancel "
            "jobs that it has left on their platforms, send cancel_jobs.",
            run=run,
        )
    return run


def stop_experiment(
    *,
    expid: str,
    audit: AuditRecord,
    viewer: Any,
    scope: Scope | None = None,
    place: foreign_runs.Place | None = None,
    force: bool = False,
    cancel_jobs: bool = False,
    authorize: Callable[[RunnerRun], None] = lambda run: None,
) -> StopOutcome:
    """Stop the active run of an experiment and return after the machine has confirmed its end.

    The steps are `autosubmit stop` with a time bound, then TERM, then KILL to the run's own processes. Each step is
    taken only while the identity matches, and each is verified. `force` sends KILL at once. `cancel_jobs` then cancels
    the experiment's jobs; if nothing runs, it cancels the jobs of the last run. A pending restart is cancelled. A run
    that has just ended by itself is not a failure. `authorize` gets the run that would be stopped and raises if the
    caller may not stop it. `place`: as in `run_to_stop`.
    Raises RunNotFound, NotRunning, ForeignRun, AmbiguousRun, RunnerUnreachable (state unchanged), StopNotConfirmed.
    """
    run = run_to_stop(expid=expid, viewer=viewer, cancel_jobs=cancel_jobs, scope=scope, place=place)
    audit.of_run(run)
    authorize(run)
    if restart_plans.is_pending(run) and restart_plans.cancel(run, audit) and not cancel_jobs:
        return StopOutcome(run, f"The restart of experiment {run.expid} was cancelled.")
    if not run.is_active and not cancel_jobs:  # it has just been started again
        raise NotRunning(f"Run {run.pk} of {run.expid} has ended, and was just started again.", run=run)
    stop = Stop(run, audit, force=force, cancel_jobs=cancel_jobs)
    BULKHEADS.admit(stop.runner.target, stop.runner.where)
    begin(audit)
    was_active = run.is_active
    steps = stop.execute() if was_active else stop.cancel_after_the_end()
    if restart_plans.is_pending(run):  # it had ended before the stop was requested
        restart_plans.cancel(run, audit)
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
