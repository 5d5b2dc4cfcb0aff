"""Stop a run: the safe way first, then harder, each step verified on the machine.

1. `autosubmit stop`, which sends an INT, bounded; left out when it would hit another home's run of the same name.
2. INT to the run's own processes: the first one is lost when it comes while Autosubmit is still importing.
3. TERM, then KILL, to the run's own processes.
"""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.utils import timezone

from runners.exceptions import (
    CommandTimedOut,
    NotRunning,
    OutcomeUnknown,
    RunnerServiceError,
    RunnerUnreachable,
    StopNotConfirmed,
)
from runners.models import AuditRecord, RunnerRun
from runners.services import autosubmit, lifecycle
from runners.services.module_loaders import get_module_loader
from runners.services.runners import Identity, Probe, get_runner

POLL = 0.5  # seconds between looks at a run that was signalled


class Stop:
    """One request to stop one run. `execute` returns its steps when the end was seen."""

    def __init__(self, run: RunnerRun, audit: AuditRecord, *, force: bool, cancel_jobs: bool) -> None:
        self.run = run
        self.audit = audit
        self.force = force
        self.cancel_jobs = cancel_jobs
        self.config = run.runner_config
        self.runner = get_runner(self.config)
        self.steps: list[dict[str, Any]] = []

    def execute(self) -> list[dict[str, Any]]:
        identity = self._require_running()
        if identity is None:
            self._note("look", "had already ended", 0.0)
            return self.steps
        self._request()
        self.audit.argv = autosubmit.stop(self.run.expid, force=self.force, cancel_jobs=self.cancel_jobs)
        if self._end(identity):
            if self.cancel_jobs:
                self._end_jobs(identity)
            return self.steps
        raise StopNotConfirmed(
            f"Experiment {self.run.expid} is still running on {self.runner.where} after every step of the stop. Its "
            "process may be waiting for a disk; stop it again later, or ask the machine's admins.",
            steps=self.steps,
            run_id=self.run.pk,
        )

    def _end(self, identity: Identity) -> bool:
        """Take one step after the other until the run's end was seen."""
        if (not self.force or self.cancel_jobs) and self._autosubmit_stop(identity):
            return True
        for name in ("KILL",) if self.force else ("INT", "TERM", "KILL"):
            wait = settings.RUNNERS_KILL_WAIT if name == "KILL" else settings.RUNNERS_TERM_WAIT
            if self._signal(identity, name, wait):
                return True
        return False

    def _end_jobs(self, identity: Identity) -> None:
        """End what is left of the jobs on the run's own machine, whichever step ended the run.

        Autosubmit sends them an INT, which they ignore, and calls them FAILED; and it sends nothing when its stop was
        left out or has hung. The run has ended already, so that what goes wrong here is told and no failure.
        """
        start = self._begin(action := "signal TERM to jobs")
        try:
            self.runner.signal(self.run.key, identity, "TERM", timeout=settings.RUNNERS_PROBE_TIMEOUT)
            outcome = "sent to what was left of the run's processes"
        except RunnerServiceError as error:
            outcome = f"jobs may go on: {error.detail}"
        self._note(action, outcome, time.monotonic() - start)

    def _require_running(self) -> Identity | None:
        """The identity of the running process; None when it has ended meanwhile. Raises when nobody can tell."""
        (probe,) = lifecycle.ask([self.run])
        if probe.answer == Probe.CANNOT_TELL:
            raise RunnerUnreachable(
                f"Experiment {self.run.expid} was not stopped: {probe.detail}. Its state is unchanged; try again when "
                f"{self.runner.where} can be reached.",
                run_id=self.run.pk,
            )
        if probe.answer == Probe.STARTING:
            raise NotRunning(f"Experiment {self.run.expid} is just being started; stop it in a moment.", run=self.run)
        return lifecycle.identity_of(self.run) if probe.answer == Probe.RUNNING else None

    def _request(self) -> None:
        """Remember that a stop was asked for, and by whom first, before anything is sent: it explains the end."""
        now = timezone.now()
        pending = RunnerRun.objects.active().filter(pk=self.run.pk, stop_requested_at=None)
        if pending.update(stop_requested_at=now, stopped_by=self.audit.actor, modified=now):
            self.run.stop_requested_at, self.run.stopped_by = now, self.audit.actor
        else:
            self.run.refresh_from_db()

    def _autosubmit_stop(self, identity: Identity) -> bool:
        start = self._begin("autosubmit stop")
        victim = self.runner.first_match(self.run.expid, timeout=settings.RUNNERS_PROBE_TIMEOUT)
        if victim not in (None, identity.pid):
            outcome = f"left out: it would stop process {victim}, another home's `autosubmit run {self.run.expid}`"
            if self.cancel_jobs:
                outcome += "; the jobs were not cancelled"
            self._note("autosubmit stop", outcome, time.monotonic() - start, is_over=False)
            return False
        text = get_module_loader(self.config).wrap(self.audit.argv)
        try:
            result = self.runner.execute(text, login=True, timeout=settings.RUNNERS_STOP_TIMEOUT)
            outcome = f"exit code {result.exit_code}"
            if result.exit_code:
                outcome += f": {autosubmit.complaint(result.text) or result.last_words}"
        except (CommandTimedOut, OutcomeUnknown) as error:
            outcome = error.detail
        except RunnerServiceError as error:
            self._note("autosubmit stop", error.detail, time.monotonic() - start)
            raise
        is_over = self._wait(1.0)
        self._note("autosubmit stop", outcome, time.monotonic() - start, is_over=is_over)
        return is_over

    def _signal(self, identity: Identity, name: str, wait: float) -> bool:
        start = self._begin(f"signal {name}")
        probe = self.runner.signal(self.run.key, identity, name, timeout=settings.RUNNERS_PROBE_TIMEOUT)
        lifecycle.apply(self.run, self.runner, probe)
        is_over = not self.run.is_active or self._wait(wait)
        self._note(f"signal {name}", "sent to the run's own processes", time.monotonic() - start, is_over=is_over)
        return is_over

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

    def _begin(self, action: str) -> float:
        """A step begins: people who look at the run see it at once. Returns when, for `_note`."""
        self._show([*self.steps, {"action": action, "outcome": "", "seconds": None, "ended": False}])
        return time.monotonic()

    def _note(self, action: str, outcome: str, seconds: float, *, is_over: bool = True) -> None:
        self.steps.append({"action": action, "outcome": outcome, "seconds": round(seconds, 1), "ended": is_over})
        self._show(self.steps)

    def _show(self, steps: list[dict[str, Any]]) -> None:
        """Into the row, in which other processes look; the answer of this request has them from `steps`."""
        RunnerRun.objects.filter(pk=self.run.pk).update(stop_steps=steps)
