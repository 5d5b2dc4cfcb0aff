"""The worker: update the states of active runs, deliver messages, restart runs, and tidy up."""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, connection

from runners.management import bounds
from runners.models import DetachedCommand, Operation, RunnerRun
from runners.services import health, lifecycle, nodes
from runners.worker import due, embedded
from runners.worker.due import Work
from runners.worker.embedded import EmbeddedWorker
from runners_project import memory

SHORTEST_INTERVAL, LONGEST_INTERVAL = 0.5, 3600  # seconds
MIGRATIONS_PAUSE = 2.0  # seconds between two looks for pending migrations


class Command(BaseCommand):
    help = (
        "Probe the machines of all active runs and operations, deliver webhooks and mail, and start runs again: once, "
        "or every --interval seconds. With PostgreSQL, any number of these processes share the work."
    )
    find: Callable[[], list[Work]] = staticmethod(due.find)
    greeting = "Watching active runs every {interval:g} s."
    has_failed = False  # with a single round: it was not complete
    _printing = threading.Lock()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--interval", type=float, help="Seconds between two rounds (0.5 to 3600); without it, one round."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        interval = options["interval"]
        if interval is None:
            if problem := health.pending_migrations():
                raise CommandError(problem)
            self.work_once()
            if self.has_failed:
                raise CommandError("The round is not complete, see above.")
            return
        bounds.require("--interval", interval, SHORTEST_INTERVAL, LONGEST_INTERVAL)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self.wait_for_migrations(stop)
        self.stdout.write(self.greeting.format(interval=interval))
        self.stdout.flush()
        beat = health.Beat(health.WATCH, interval)
        if nodes.has_tasks():
            from runners.worker import distributed  # its models exist with PostgreSQL only

            memory.freeze_startup()
            distributed.run(self, stop, interval, beat.beat, self.find)
        else:
            memory.freeze_startup()
            embedded.run(EmbeddedWorker(self, self.find), stop, interval, beat.beat, self)
        self.patiently(beat.end)

    def wait_for_migrations(self, stop: threading.Event) -> None:
        """Wait until the database has all migrations of this version."""
        told = ""
        while not stop.is_set():
            try:
                problem = health.pending_migrations()
            except (DatabaseError, InterfaceError) as error:
                problem, kind = f"The database is unavailable: {str(error).strip()}.", "database"
                with suppress(DatabaseError, InterfaceError):
                    connection.close()  # a broken connection is not opened again otherwise
            else:
                kind = problem
            if not problem:
                return
            if kind != told:
                self.complain(f"{problem} The worker waits.")
                told = kind
            stop.wait(MIGRATIONS_PAUSE)

    def work_once(self) -> None:
        """Look at the machines, and then do what is due after that."""
        for find in (partial(self.only, True), partial(self.only, False)):
            worker = EmbeddedWorker(self, find)
            self.patiently(worker.begin)
            worker.close(cancel=False)
        self.patiently(self.count_unreadable)

    def only(self, is_look: bool) -> list[Work]:
        return [work for work in self.find() if (work.name == "look") == is_look]

    def patiently(self, step: Callable[[], object]) -> None:
        """Execute a step, and report a lost database."""
        try:
            step()
        except (DatabaseError, InterfaceError) as error:
            self.complain(f"The database is unavailable: {error}")

    def count_unreadable(self) -> None:
        """Mark the round as failed if there are active rows with a configuration that cannot be read."""
        rows: list[DetachedCommand] = [*RunnerRun.objects.active(), *Operation.objects.active()]
        if not all(map(lifecycle.is_readable, rows)):
            self.has_failed = True

    # --- the voice of the worker, in any thread ---

    def say(self, words: str) -> None:
        with self._printing:
            self.stdout.write(words)
            self.stdout.flush()

    def complain(self, words: str) -> None:
        self.has_failed = True
        with self._printing:
            self.stderr.write(words)

    def report(self, row: DetachedCommand) -> None:
        """Report a row that has ended."""
        if isinstance(row, Operation):
            self.say(f"operation {row.pk} ({row.kind} {row.expid}) has {row.status}")
        elif isinstance(row, RunnerRun):
            ending = f"{row.reason}, exit code {row.exit_code}" if row.reason else "exit code 0"
            self.say(f"{row.expid}: run {row.pk} is {row.status} ({ending})")
