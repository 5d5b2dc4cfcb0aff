"""Compare all active runs with what their machines say."""

from __future__ import annotations

import logging
import signal
import threading
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError, InterfaceError, close_old_connections

from runners.models import RunnerRun
from runners.services import idempotency, lifecycle, operations, webhooks

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Ask the machines after all active runs and operations, once or every --interval seconds."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--interval", type=float, help="Seconds between two looks; without it, look once.")

    def handle(self, *args: Any, **options: Any) -> None:
        interval = options["interval"]
        if interval is None:
            for step in self.steps:
                step()
            webhooks.deliver_due()
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self.stdout.write(f"Watching active runs every {interval:g} s.")
        # In a thread: a receiver that does not answer delays no look at a run.
        threading.Thread(target=webhooks.deliver_until, args=(stop, interval), name="webhooks", daemon=True).start()
        while not stop.is_set():
            for step in self.steps:
                self.patiently(step)
            close_old_connections()
            stop.wait(interval)

    def patiently(self, step: Callable[[], object]) -> None:
        """Take a step; what goes wrong is told, and the next one is taken: nobody else watches meanwhile."""
        try:
            step()
        except (DatabaseError, InterfaceError) as error:  # it may come back; the runs go on
            self.stderr.write(f"The database cannot be asked now: {error}")
        except Exception:  # a bug, told with its traceback: it must not blind the watch for all other runs
            logger.exception("A look at the runs was broken off; the watch goes on.")

    @property
    def steps(self) -> tuple[Callable[[], object], ...]:
        return self.look_at_runs, self.look_at_operations, idempotency.clean

    def look_at_runs(self) -> None:
        runs = list(RunnerRun.objects.active())
        lifecycle.refresh(runs)
        for run in runs:
            if not run.is_active:
                ending = f"{run.reason}, exit code {run.exit_code}" if run.reason else "exit code 0"
                self.stdout.write(f"{run.expid}: run {run.pk} is {run.status} ({ending})")
            elif not run.reachable:
                self.stdout.write(f"{run.expid}: run {run.pk} cannot be confirmed: {run.unreachable_detail}")

    def look_at_operations(self) -> None:
        for operation in operations.refresh_all():
            self.stdout.write(f"operation {operation.pk} ({operation.kind} {operation.expid}) has {operation.status}")
