"""Watch all active runs and operations. Each machine is probed at its own pace, and each row is handled on its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from django.db import DatabaseError, InterfaceError, connection

from runners.models import DetachedCommand, Operation, RunnerRun
from runners.services import lifecycle, probing

logger = logging.getLogger(__name__)

MACHINES_AT_ONCE = 32
SILENT_AT_ONCE = 16  # machines that could not be reached at the last look
Row = DetachedCommand
Key = tuple[str, ...]  # kind of the rows, and the target


@dataclass
class _Machine:
    """The result of the last look at the rows of one kind on one machine."""

    future: Future[None] | None = None  # of a look that may still run
    is_silent: bool = False  # none of its rows could be confirmed
    unconfirmed: set[int] = field(default_factory=set)  # numbers of the rows that could not be confirmed


class Watch:
    """A watch that looks at the machines concurrently, in threads.

    A machine whose last look still runs is skipped. Machines that could not be reached have a thread pool of their own,
    until they answer. So a machine that is slow or down delays only its own rows. Any number of machines can be down,
    and up to MACHINES_AT_ONCE can be slow.

    `report` is called with each row that has ended; `tell` with a sentence for each change of reachability; `complain`
    with a sentence if the database cannot be used. All are called in threads, one at a time.
    """

    def __init__(
        self, report: Callable[[Row], None], tell: Callable[[str], None], complain: Callable[[str], None]
    ) -> None:
        self._report, self._tell, self._complain = report, tell, complain
        self._pool = ThreadPoolExecutor(MACHINES_AT_ONCE, thread_name_prefix="watch")
        self._silent_pool = ThreadPoolExecutor(SILENT_AT_ONCE, thread_name_prefix="watch-silent")
        self._machines: dict[Key, _Machine] = {}
        self._printing = threading.Lock()

    def look(self) -> None:
        """Start a look at every machine whose last look has ended. Raises DatabaseError, InterfaceError."""
        rows_of: dict[str, list[Any]] = {
            "runs": list(RunnerRun.objects.active()),
            "operations": list(Operation.objects.active()),
        }
        groups: dict[Key, list[Any]] = {
            (kind, *target): group
            for kind, rows in rows_of.items()
            for target, group in lifecycle.by_target(rows).items()
        }
        for key, machine in list(self._machines.items()):
            self._harvest(machine)
            if key not in groups and machine.future is None:
                del self._machines[key]
        for key, group in groups.items():
            machine = self._machines.setdefault(key, _Machine())
            if machine.future is None:
                pool = self._silent_pool if machine.is_silent else self._pool
                machine.future = pool.submit(self._look_at_machine, key, machine, group)

    def close(self, *, cancel: bool = True) -> None:
        """Wait until all running looks have ended. `cancel`: looks that have not started are cancelled."""
        for pool in (self._pool, self._silent_pool):
            pool.shutdown(wait=False, cancel_futures=cancel)
        for pool in (self._pool, self._silent_pool):
            pool.shutdown()
        for machine in self._machines.values():
            self._harvest(machine)

    def _harvest(self, machine: _Machine) -> None:
        """Handle the end of a look. An unexpected error is a bug; report it, but do not let it end the watch."""
        if machine.future and machine.future.done():
            error = None if machine.future.cancelled() else machine.future.exception()
            if error:
                logger.error("A probe of the rows of one machine was aborted.", exc_info=error)
                self._complain("A probe of the rows of one machine was aborted by a bug. The watch continues.")
            machine.future = None

    def _look_at_machine(self, key: Key, machine: _Machine, rows: list[Any]) -> None:
        try:
            probing.refresh(rows)
        except (DatabaseError, InterfaceError) as error:  # the database may come back; the runs continue
            with self._printing:
                self._complain(f"The database is unavailable: {error}")
        else:
            with self._printing:
                self._tell_changes(key, machine, rows)
        finally:
            connection.close()

    def _tell_changes(self, key: Key, machine: _Machine, rows: list[Any]) -> None:
        """Report the rows that have ended, and tell in one line if reachability has changed."""
        for row in rows:
            if not row.is_active:
                self._report(row)
        active = [row for row in rows if row.is_active]
        unconfirmed = [row for row in active if not row.reachable]
        was_silent, machine.is_silent = machine.is_silent, bool(active) and len(unconfirmed) == len(active)
        new = [row for row in unconfirmed if row.pk not in machine.unconfirmed]
        machine.unconfirmed = {row.pk for row in unconfirmed}
        kind, where = key[0], "this machine" if key[-1] == "LOCAL" else key[-1]
        if machine.is_silent and not was_silent:
            self._tell(f"{where} is unreachable; its {len(active)} {kind} stay active: {active[0].unreachable_detail}")
        elif was_silent and not machine.is_silent and active:
            self._tell(f"{where} is reachable again; {len(active) - len(unconfirmed)} {kind} were confirmed.")
        elif new and not machine.is_silent:
            names = ", ".join(f"{row.expid} ({row.pk})" for row in new[:10])
            self._tell(
                f"{len(new)} of the {len(active)} {kind} of {where} cannot be confirmed: {names}: "
                f"{new[0].unreachable_detail}"
            )
