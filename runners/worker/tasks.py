"""The tasks of Procrastinate: one for each function of due.py. Only with PostgreSQL.

A task is a row of `procrastinate_jobs`. It has the key of its work as its lock (one at a time) and as its queueing lock
(one waiting), so it does not matter how many processes defer it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from procrastinate import App
from procrastinate.contrib.django import app
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException

from runners.services import nodes, outbox
from runners.worker import due
from runners.worker.due import Silent, Voice, Work
from runners_project import clock

logger = logging.getLogger(__name__)

REPEATED = ("look", "upkeep")  # each execution defers the next one; the others are deferred when something is due
LOST = (DatabaseError, InterfaceError, ConnectorException)


@dataclass
class Settings:
    """What the tasks of this process need to know."""

    voice: Voice
    interval: float = 10.0


SETTINGS = Settings(Silent())


def register(procrastinate: App) -> None:
    """Register the tasks. Procrastinate calls this when Django is ready."""
    for name in due.FUNCTIONS:
        procrastinate.task(name=name)(_task_of(name))
    outbox.inserted.connect(_prompt_delivery, dispatch_uid="prompt_delivery")
    nodes.inserted.connect(_prompt_node, dispatch_uid="prompt_node")


def _task_of(name: str) -> Callable[..., None]:
    def task(arguments: list[str], queue: str = due.SHARED, silences: int = 0, **_: object) -> None:
        # `**_`: what a newer version may add. The arguments that exist keep their meaning.
        _execute(Work(name, tuple(arguments), queue), silences)

    return task


def _execute(work: Work, silences: int) -> None:
    """Do the work, and defer the next execution of REPEATED work.

    All errors are reported here. What is still due afterwards is found again by `distributed.sweep`. The connection of
    the thread stays open for the next task, because opening one costs as much as a small look. Procrastinate checks it.
    """
    voice = SETTINGS.voice
    start = clock.now()
    try:
        with due.place(work) as has_place:
            if not has_place:
                defer(replace(work, queue=due.SILENT), silences=silences)
                return
            result = due.perform(work, voice)
        if work.name not in REPEATED or (work.name == "look" and result is None):
            return
        silences = silences + 1 if result else 0
        pause = SETTINGS.interval
        if silences:
            pause = max(pause, min(pause * 2 ** min(silences - 1, 8), settings.RUNNERS_RETRY_PAUSE_LONGEST))
        if work.name == "look":
            machine, node = work.arguments
            work = due.look_at(machine, node, is_silent=bool(result))
        defer(work, at=max(clock.now(), start + timedelta(seconds=pause)), silences=silences)
    except LOST as error:
        voice.complain(f"The database is unavailable: {error}")
    except Exception:  # a bug; it must not stop the other tasks
        logger.exception("Work was aborted by a bug: %s. The worker continues.", work.key)
        voice.complain(f"Work was aborted by a bug: {work.key}. The worker continues.")


def queue_of(queue: str, name: str) -> str:
    """Return the queue of Procrastinate. Each task has its own, so a worker never fetches one that only another version
    of the service knows: Procrastinate would delete it.
    """
    return f"{queue}/{name}"


def defer(work: Work, *, at: datetime | None = None, silences: int = 0) -> bool:
    """Store a task, unless one with the same key waits already. `at`: None means now.

    Return True if it was stored. Raises ConnectorException, DatabaseError, InterfaceError.
    """
    when: dict[str, Any] = {"schedule_at": at} if at else {}
    task = app.configure_task(
        work.name,
        queue=queue_of(work.queue, work.name),
        lock=work.key,
        queueing_lock=work.key,
        allow_unknown=False,
        **when,
    )
    try:
        task.defer(arguments=list(work.arguments), queue=work.queue, silences=silences)
    except AlreadyEnqueued:
        return False
    return True


def _prompt_node(number: int, node: str, **_: object) -> None:
    """Let the worker of another node execute a command. Without this, its next sweep finds the command."""
    try:
        defer(Work("node", (str(number),), due.node_queue(node)))
    except LOST as error:
        logger.warning("Command %s of node %s is not prompted: %s", number, node, error)


def _prompt_delivery(webhooks: list[int], **_: object) -> None:
    """Let a worker deliver new messages at once. Without this, the next sweep finds them."""
    for number in webhooks:
        try:
            defer(Work("deliver", (str(number),)))
        except LOST as error:
            logger.warning("The delivery of webhook %s is not prompted: %s", number, error)
