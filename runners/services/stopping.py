"""Stop a run: the safe way first, then harder, each step verified on the machine.

1. `autosubmit stop`, which sends an INT, bounded; left out when it would hit another home's run of the same name.
2. INT to the run's own processes: the first one is lost when it comes while Autosubmit is still importing.
3. TERM, then KILL, to the run's own processes.
4. After the end: TERM and KILL to what is left of the run, but for jobs of the local platform.
5. With `cancel_jobs`: Autosubmit's own cancel, with a time limit of its own (cancelling.py), and the end of the local
   jobs. A run has to be ended first: Autosubmit cancels nothing before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from runners.exceptions import (
    CommandTimedOut,
    NotRunning,
    OutcomeUnknown,
    RunnerServiceError,
    RunnerUnreachable,
    StopNotConfirmed,
)
from runners.models import AuditRecord, RunnerRun, RunStatus
from runners.services import autosubmit, interrupted, leftovers, lifecycle, own_process, reasons
from runners.services.cancelling import Cancellation, cancel
from runners.services.module_loaders import get_module_loader
from runners.services.probe import Identity, Probe

POLL = 0.5  # seconds between looks at a run that was signalled
EARLIER_RUNS = 20  # runs of the experiment whose jobs may still be there


Step = dict[str, Any]  # action, outcome, seconds (None: under way), ended (the end of the run was seen)
HAD_ENDED: Step = {"action": "look", "outcome": "had already ended", "seconds": 0.0, "ended": True}


class Stop:
    """One request to stop one run. `execute` returns its steps when the end was seen.

    `cancellation`: with `cancel_jobs`, what became of the jobs. `had_ended`: there was nothing to stop any more.
    Whatever `execute` raises once something was sent carries the steps so far, as the fact `steps`. From then on, a
    machine that goes away is OutcomeUnknown: RunnerUnreachable says that nothing was executed.
    """

    def __init__(self, run: RunnerRun, audit: AuditRecord, *, force: bool, cancel_jobs: bool) -> None:
        self.run = run
        self.audit = audit
        self.force = force
        self.cancel_jobs = cancel_jobs
        self.runner = lifecycle.runner_of(run)
        self.config = self.runner.config
        self.steps: list[Step] = []
        self.owner = audit.owner or own_process.owner()  # the same in both rows, so that `interrupted` finds both
        self.had_ended = False
        self.requested_at: datetime | None = None  # when this stop was written into the row
        self.may_be_sent = False  # a step may have reached the machine
        self.ended_by = ""  # the signal, when Autosubmit's own stop has not brought about the end
        self.cancellation: Cancellation | None = None
        self.warnings: list[str] = []

    def execute(self) -> list[Step]:
        """Raises RunnerUnreachable, NotRunning, OutcomeUnknown, StopNotConfirmed."""
        with self._owned():
            identity = self._require_running()
            if identity and not self._request():
                identity = None
            if identity is None:
                self.had_ended = True
                self.steps.append(HAD_ENDED)
                self._show()
            else:
                self.audit.argv = autosubmit.stop(self.run.expid, force=self.force)
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
                self._cancel_jobs(identity or lifecycle.identity_of(self.run))
            return self.steps

    def cancel_after_the_end(self) -> list[Step]:
        """Cancel the jobs of a run that has ended before. Raises RunnerUnreachable: nothing was cancelled."""
        self.had_ended = True
        with self._owned():
            self._cancel_jobs(lifecycle.identity_of(self.run), must_reach=True)
            return self.steps

    @contextmanager
    def _owned(self) -> Iterator[None]:
        """Tell other processes that this one carries out a stop, until it has an outcome."""
        interrupted.settle(self.run)
        row = RunnerRun.objects.filter(pk=self.run.pk)
        seconds = settings.RUNNERS_CANCEL_TIMEOUT + 10 * settings.RUNNERS_PROBE_TIMEOUT
        until = timezone.now() + 2 * lifecycle.stop_window() + timedelta(seconds=seconds)
        row.update(stop_owner=self.owner, stop_until=until)
        try:
            yield
        finally:
            row.filter(stop_owner=self.owner).update(stop_owner="", stop_until=None)

    def _end(self, identity: Identity) -> bool:
        """Take one step after the other until the run's end was seen."""
        if not self.force and self._autosubmit_stop(identity):
            return True
        for name in ("KILL",) if self.force else ("INT", "TERM", "KILL"):
            wait = settings.RUNNERS_KILL_WAIT if name == "KILL" else settings.RUNNERS_TERM_WAIT
            if self._signal(identity, name, wait):
                self.ended_by = name
                return True
        return False

    def _not_confirmed(self) -> RunnerServiceError:
        """Every step was taken, and the last look saw the run alive, or saw nothing."""
        if not self.run.reachable:
            return self._unknown("Every step of the stop was taken", self.run.unreachable_detail)
        return StopNotConfirmed(
            f"Experiment {self.run.expid} is still running on {self.runner.where} after every step of the stop. Its "
            "process may be waiting for a disk; stop it again later, or ask the machine's admins.",
            steps=self.steps,
            run_id=self.run.pk,
        )

    def _unknown(self, what: str, why: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"{what}, but whether experiment {self.run.expid} has ended cannot be told now: {why.rstrip('.')}. Ask for "
            "its status later, and stop it again if it is ACTIVE.",
            steps=self.steps,
            run_id=self.run.pk,
        )

    def _end_leftovers(self, identity: Identity, *, is_fresh: bool, jobs: bool = False) -> bool:
        """End what is left of the run on its machine, with `jobs` jobs of the local platform, too.

        True: nothing of that is left. The run has ended already, so what goes wrong here is told and no failure. There
        is no step when nothing was left.
        """
        action = "end of the local jobs" if jobs else "end of what was left"
        whose = leftovers.Run(self.run.expid, identity, self._keys() if jobs else [self.run.key], group=is_fresh)
        start = time.monotonic()
        try:
            before, left = leftovers.end(self.runner, whose, jobs=jobs)
        except RunnerServiceError as error:
            before, left, outcome = [], None, f"cannot be told: {error.detail}"
        if left is None or left:
            outcome = outcome if left is None else f"still there after a KILL: {leftovers.in_words(left)}"
            self.warnings.append(f"Processes of the run may live on {self.runner.where}: {outcome}")
        elif before:
            outcome = f"ended: {leftovers.in_words(before)}"
        else:
            return True
        seconds = round(time.monotonic() - start, 1)
        self.steps.append({"action": action, "outcome": outcome, "seconds": seconds, "ended": True})
        self._show()
        return left == []

    def _keys(self) -> list[str]:
        """The keys of this run and of earlier ones: a run that goes on where another was stopped keeps its jobs."""
        runs = RunnerRun.objects.filter(
            expid=self.run.expid, installation=self.run.installation, pk__lte=self.run.pk, config=self.run.config
        )
        return list(runs.order_by("-pk").values_list("key", flat=True)[:EARLIER_RUNS])

    def _cancel_jobs(self, identity: Identity | None, *, must_reach: bool = False) -> None:
        """Autosubmit's own cancel, and the end of the jobs on the run's own machine.

        To those Autosubmit sends an INT, which they ignore, and calls them FAILED.
        """
        self.audit.argv = autosubmit.stop(self.run.expid, cancel_jobs=True)
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
        """A run that was ended while it submitted jobs has not noted all of them: Autosubmit cannot cancel those.

        It may have been ended by this stop or before: a cancel that is asked for again knows no more than the first.
        """
        assert self.cancellation
        self.run.refresh_from_db()
        signal = self.ended_by or self.run.signal
        if self.run.status == RunStatus.COMPLETED:
            return
        if signal in ("TERM", "KILL"):
            self.warnings.append(
                f"Autosubmit was ended by {signal}: a job that it was just submitting is not in its list and "
                "may go on. Look for it on the platform."
            )
        else:
            try:
                is_suspect = autosubmit.was_submitting(lifecycle.end_of_log(self.run, self.runner))
            except RunnerServiceError:
                is_suspect = True
            if is_suspect:
                self.cancellation.reasons.append(
                    "The run was ended while it submitted jobs, or its log cannot tell: jobs that it had not noted yet "
                    "may go on. Look for them on the platform."
                )

    def _require_running(self) -> Identity | None:
        """The identity of the running process; None when it has ended meanwhile. Raises when nobody can tell."""
        (probe,) = lifecycle.ask([self.run])
        if probe.answer == Probe.CANNOT_TELL:
            raise RunnerUnreachable(
                f"Experiment {self.run.expid} was not stopped: {probe.detail.rstrip('.')}. Its state is unchanged; try "
                f"again when {self.runner.where} can be reached.",
                run_id=self.run.pk,
                **({"retry_after": probe.retry_after} if probe.retry_after else {}),
            )
        if probe.answer == Probe.STARTING:
            raise NotRunning(f"Experiment {self.run.expid} is just being started; stop it in a moment.", run=self.run)
        return lifecycle.identity_of(self.run) if probe.answer == Probe.RUNNING else None

    def _request(self) -> bool:
        """Remember that a stop was asked for, and by whom first, before anything is sent: it explains the end.

        A stop that can no longer be under way explains nothing any more: this one takes its place. False: the run has
        ended, or its launch has failed, before this could be remembered.
        """
        now = timezone.now()
        is_open = Q(stop_requested_at=None) | Q(stop_requested_at__lt=now - lifecycle.stop_window())
        pending = RunnerRun.objects.active().filter(is_open, pk=self.run.pk)
        if pending.update(stop_requested_at=now, stopped_by=self.audit.actor, modified=now):
            self.requested_at = now
            self.run.stop_requested_at, self.run.stopped_by = now, self.audit.actor
        else:
            self.run.refresh_from_db()
        return self.run.is_active

    def _withdraw(self) -> None:
        """Forget the request: nothing was sent, so it explains no end. Another stop of the run keeps its own."""
        if self.requested_at:
            mine = RunnerRun.objects.active().filter(pk=self.run.pk, stop_requested_at=self.requested_at)
            mine.filter(stop_owner=self.owner).update(stop_requested_at=None, stopped_by="")
            self.run.refresh_from_db()

    def _autosubmit_stop(self, identity: Identity) -> bool:
        with self._step("autosubmit stop") as step:
            try:
                victim = self.runner.first_match(self.run.expid, timeout=settings.RUNNERS_PROBE_TIMEOUT)
            except RunnerServiceError as error:  # the signals that follow reach the run's own processes only
                step["outcome"] = f"left out: {error.detail}"
                return False
            if victim not in (None, identity.pid):
                others = f"another home's `autosubmit run {self.run.expid}`"
                step["outcome"] = f"left out: it would stop process {victim}, {others}"
                return False
            text = get_module_loader(self.config).wrap(autosubmit.stop(self.run.expid))
            try:
                result = self.runner.execute(
                    text, stdin=autosubmit.STOP_STDIN, login=True, timeout=settings.RUNNERS_STOP_TIMEOUT
                )
                self.may_be_sent = True
                step["outcome"] = f"exit code {result.exit_code}"
                if result.exit_code:
                    step["outcome"] += f": {reasons.reason_of(result.stdout, result.stderr)}"
            except (CommandTimedOut, OutcomeUnknown) as error:
                self.may_be_sent = True
                step["outcome"] = error.detail
            except RunnerUnreachable as error:  # start-up files may block login shells only: signals need none
                step["outcome"] = f"left out: {error.detail}"
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
            except (OutcomeUnknown, CommandTimedOut) as error:  # the looks that follow tell
                self.may_be_sent = True
                step["outcome"] = error.detail
            step["ended"] = not self.run.is_active or self._wait(wait)
            return bool(step["ended"])

    def _wait(self, seconds: float) -> bool:
        """Look at the run until it is over, for `seconds` at most."""
        deadline = time.monotonic() + seconds
        while True:
            lifecycle.ask([self.run])
            if not self.run.is_active:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL)

    @contextmanager
    def _step(self, action: str, *, ended: bool = False) -> Iterator[Step]:
        """A step, which people who look at the run see as it begins and as it is over. An error is its outcome."""
        step: Step = {"action": action, "outcome": "", "seconds": None, "ended": ended}
        self.steps.append(step)
        self._show()
        start = time.monotonic()
        try:
            yield step
        except RunnerServiceError as error:
            step["outcome"] = f"{step['outcome']}: {error.detail}" if step["outcome"] else error.detail
            if self.may_be_sent and isinstance(error, RunnerUnreachable):
                raise self._unknown("The stop had begun", error.detail) from error
            error.facts |= {"steps": self.steps, "run_id": self.run.pk}
            raise
        finally:
            step["seconds"] = round(time.monotonic() - start, 1)
            self._show()

    def _show(self) -> None:
        """Into the row, in which other processes look; the answer of this request has them from `steps`."""
        RunnerRun.objects.filter(pk=self.run.pk).update(stop_steps=self.steps)
