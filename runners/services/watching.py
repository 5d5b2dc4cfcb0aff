"""Watch all active runs and operations: each machine at its own pace, each row on its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from django.db import DatabaseError, InterfaceError, connection

from runners.models import RunnerRun
from runners.models_operations import Operation
from runners.services import lifecycle

logger = logging.getLogger(__name__)

MACHINES_AT_ONCE = 32
Row = RunnerRun | Operation


class Watch:
    """Looks at the machines side by side, in threads.

    A machine that is still being asked is left out of the next looks. So one that is slow, or never answers, delays
    its own rows only, as long as there are fewer than MACHINES_AT_ONCE of them. `report` is called with each row after
    its machine was asked; `complain` with a sentence when the database cannot be used. Both are called in threads.
    """

    def __init__(self, report: Callable[[Row], None], complain: Callable[[str], None]) -> None:
        self._report, self._complain = report, complain
        self._pool = ThreadPoolExecutor(MACHINES_AT_ONCE, thread_name_prefix="watch")
        self._asked: dict[tuple[Any, ...], Future[None]] = {}
        self._printing = threading.Lock()

    def look(self) -> None:
        """Begin to ask every machine that is not being asked already. Raises DatabaseError, InterfaceError."""
        self._asked = {key: future for key, future in self._asked.items() if not future.done()}
        rows_of: dict[str, list[Any]] = {
            "runs": list(RunnerRun.objects.active()),
            "operations": list(Operation.objects.active()),
        }
        for kind, rows in rows_of.items():
            for target, group in lifecycle.by_target(rows).items():
                if (kind, *target) not in self._asked:
                    self._asked[(kind, *target)] = self._pool.submit(self._look_at_machine, group)

    def close(self) -> None:
        """Returns when the machines that are being asked have answered."""
        self._pool.shutdown(cancel_futures=True)

    def _look_at_machine(self, rows: list[Any]) -> None:
        try:
            lifecycle.refresh(rows)
            with self._printing:
                for row in rows:
                    self._report(row)
        except (DatabaseError, InterfaceError) as error:  # it may come back; the runs go on
            with self._printing:
                self._complain(f"The database cannot be asked now: {error}")
        except Exception:  # a bug, told with its traceback: it must not blind the watch for all other machines
            logger.exception("A look at %s rows of one machine was broken off; the watch goes on.", len(rows))
        finally:
            connection.close()
