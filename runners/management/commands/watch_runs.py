"""Update the state of all active runs from their machines."""

from __future__ import annotations

import logging
import signal
import threading
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, close_old_connections

from runners.models import DetachedCommand, Operation, RunnerRun
from runners.services import audit, health, idempotency, interrupted, lifecycle, restarting
from runners.services.watching import Watch
from runners.webhooks import delivery, mail

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Probe the machines of all active runs and operations, once or every --interval seconds."
    has_failed = False  # with a single look: it was not complete

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--interval", type=float, help="Seconds between two rounds; without it, one round.")

    def handle(self, *args: Any, **options: Any) -> None:
        interval = options["interval"]
        watch = Watch(self.report, self.stdout.write, self.complain)
        if interval is None:
            once: list[Callable[[], object]] = [watch.look, partial(watch.close, cancel=False), self.count_unreadable]
            once += [*self.duties, partial(restarting.restart_due, self.say), delivery.deliver_due, mail.deliver_due]
            for step in once:
                self.patiently(step)
            if self.has_failed:
                raise CommandError("The round is not complete, see above.")
            return
        heartbeat = health.Beat(health.WATCH, interval)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self.stdout.write(f"Watching active runs every {interval:g} s.")
        # In threads, so that a receiver or a mail server that does not answer cannot delay the watch of runs.
        for name, deliver in (("webhooks", delivery.deliver_due), ("mail", mail.deliver_due)):
            threading.Thread(
                target=delivery.deliver_until, args=(stop, interval, deliver), name=name, daemon=True
            ).start()
        # In a thread, too, so that a launch on a slow machine cannot delay the watch of other machines.
        threading.Thread(
            target=restarting.restart_until, args=(stop, interval, self.say), name="restarts", daemon=True
        ).start()
        while not stop.is_set():
            for step in (heartbeat.beat, watch.look, *self.duties):
                self.patiently(step)
            close_old_connections()
            stop.wait(interval)
        watch.close()
        self.patiently(heartbeat.end)

    def patiently(self, step: Callable[[], object]) -> None:
        """Execute a step. Report its errors and do not raise them, so that the watch continues with the next step."""
        try:
            step()
        except (DatabaseError, InterfaceError) as error:  # the database may come back; the runs continue meanwhile
            self.complain(f"The database is unavailable: {error}")
        except Exception:  # a bug; it must not stop the watch of all other runs
            self.has_failed = True
            logger.exception("A round of the watch was aborted. The watch continues.")

    @property
    def duties(self) -> tuple[Callable[[], object], ...]:
        """Return the steps after each look."""
        return interrupted.mark_all, audit.mark_interrupted, idempotency.clean

    def count_unreadable(self) -> None:
        """Mark the look as failed if there are active rows with a configuration that cannot be read."""
        rows: list[DetachedCommand] = [*RunnerRun.objects.active(), *Operation.objects.active()]
        if not all(map(lifecycle.is_readable, rows)):
            self.has_failed = True

    def say(self, words: str) -> None:
        self.stdout.write(words)

    def complain(self, words: str) -> None:
        self.has_failed = True
        self.stderr.write(words)

    def report(self, row: DetachedCommand) -> None:
        """Report a row that has ended."""
        if isinstance(row, Operation):
            self.stdout.write(f"operation {row.pk} ({row.kind} {row.expid}) has {row.status}")
        elif isinstance(row, RunnerRun):
            ending = f"{row.reason}, exit code {row.exit_code}" if row.reason else "exit code 0"
            self.stdout.write(f"{row.expid}: run {row.pk} is {row.status} ({ending})")
