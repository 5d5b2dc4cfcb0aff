"""The worker for PostgreSQL: tasks of Procrastinate, shared by any number of processes on any number of nodes.

Each process also sweeps regularly: it defers what is due and has no task, and removes the tasks of workers that are
dead. So a lost task is replaced, and a worker that dies is replaced by the others.

The workers use Django's connection to the database, with its deadlines, and poll instead of LISTEN. So everything works
through pgbouncer in transaction mode, too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, LiteralString

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import close_old_connections, connection
from procrastinate.contrib.django import app
from procrastinate.contrib.django.django_connector import DjangoConnector
from procrastinate.contrib.django.models import ProcrastinateJob
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Status

from runners.worker import due, tasks
from runners.worker.due import SHARED, SILENT, Voice, Work
from runners_project import clock

logger = logging.getLogger(__name__)

AT_ONCE = 24  # tasks of one process; each may have a database connection
SILENT_AT_ONCE = 8
FORGOTTEN_AFTER = timedelta(minutes=10)
FORGOTTEN = """
    DELETE FROM procrastinate_jobs AS job WHERE status = 'todo' AND queue_name <> ALL(%s) AND %s > coalesce(
        scheduled_at, (SELECT max(at) FROM procrastinate_events WHERE job_id = job.id AND type = 'deferred'))
"""
POLL = 1.0  # seconds between two looks for tasks; less if the interval is shorter
DEATHS_POLL = 1.0  # seconds between two looks for workers that have died
Find = Callable[[], "list[Work]"]


class PollingConnector(DjangoConnector):
    """Procrastinate's connector for Django, also for workers. Django leaves the decoding of JSON to its fields."""

    def execute_query_one(self, query: LiteralString, **arguments: Any) -> dict[str, Any]:
        return _decoded(super().execute_query_one(query, **arguments))

    def execute_query_all(self, query: LiteralString, **arguments: Any) -> list[dict[str, Any]]:
        return [_decoded(row) for row in super().execute_query_all(query, **arguments)]


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"args": json.loads(row["args"])} if isinstance(row.get("args"), str) else row


def run(voice: Voice, stop: threading.Event, interval: float, beat: Callable[[], None], find: Find = due.find) -> None:
    """Work until `stop` is set. `beat` is called at each sweep. No error ends it."""
    tasks.SETTINGS.voice, tasks.SETTINGS.interval = voice, interval
    with app.replace_connector(PollingConnector()):
        asyncio.run(_run(voice, stop, interval, beat, find))


async def _run(voice: Voice, stop: threading.Event, interval: float, beat: Callable[[], None], find: Find) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(AT_ONCE + SILENT_AT_ONCE, thread_name_prefix="task"))
    loop.set_exception_handler(_log_error)
    while not stop.is_set():
        try:
            await _work(stop, interval, beat, find)
        except tasks.LOST as error:  # the database may come back; the rows wait
            voice.complain(f"The database is unavailable: {error}")
        except Exception:  # a bug; the worker starts again
            logger.exception("The worker was aborted. It starts again.")
        if not stop.is_set():
            await asyncio.sleep(min(interval, 1.0))


def _log_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what Procrastinate could not store after a task. A sweep repairs it."""
    error = context.get("exception")
    if isinstance(error, ConnectorException):
        logger.warning("The end of a task was not stored: %s", error)
    else:
        loop.default_exception_handler(context)


async def _work(stop: threading.Event, interval: float, beat: Callable[[], None], find: Find) -> None:
    """Work until `stop` is set or something fails. Raises the error."""
    await sync_to_async(close_old_connections)()
    poll = min(POLL, interval / 2)
    options: dict[str, Any] = {
        "fetch_job_polling_interval": poll,
        "abort_job_polling_interval": 3600.0,  # tasks are never aborted: each has its own deadlines
        "update_heartbeat_interval": heartbeat_interval(interval),
        "stalled_worker_timeout": dead_after(interval),
        "delete_jobs": "always",
        "listen_notify": False,
        "install_signal_handlers": False,
    }
    shared = queues(SHARED, due.node_queue(settings.RUNNERS_NODE))
    parts: list[asyncio.Task[Any]] = [
        asyncio.create_task(app.run_worker_async(queues=shared, concurrency=AT_ONCE, name="shared", **options)),
        asyncio.create_task(
            app.run_worker_async(queues=queues(SILENT), concurrency=SILENT_AT_ONCE, name="silent", **options)
        ),
        asyncio.create_task(_sweep_until_stopped(stop, interval, beat, find)),
    ]
    try:
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for part in parts:
            part.cancel()
        results = await asyncio.gather(*parts, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


def queues(*names: str) -> list[str]:
    """Return the queues of Procrastinate for the tasks that this version knows."""
    return [tasks.queue_of(queue, task) for queue in names for task in due.FUNCTIONS]


def heartbeat_interval(interval: float) -> float:
    return max(0.5, interval / 5)


def dead_after(interval: float) -> float:
    """Return the seconds without a heartbeat after which a worker counts as dead.

    If it lives nevertheless, its tasks are executed twice, which does no harm.
    """
    return max(3.0, 0.6 * interval)


async def _sweep_until_stopped(stop: threading.Event, interval: float, beat: Callable[[], None], find: Find) -> None:
    """Sweep each half interval, and at once when a worker has died, so that the others replace it soon."""
    next_sweep = 0.0  # by `time.monotonic`
    while not stop.is_set():
        has_removed = await remove_tasks_of_dead_workers(dead_after(interval))
        if has_removed or time.monotonic() >= next_sweep:
            next_sweep = time.monotonic() + interval / 2
            await sync_to_async(sweep)(find)
            await sync_to_async(beat)()
        end = min(next_sweep, time.monotonic() + DEATHS_POLL)
        while not stop.is_set() and (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.2))


async def remove_tasks_of_dead_workers(seconds: float) -> bool:
    """Remove the tasks that workers without a heartbeat in the last `seconds` have begun. `sweep` defers them again.

    Return True if some were removed.
    """
    removed = 0
    for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=seconds):
        try:
            await app.job_manager.finish_job(job, status=Status.FAILED, delete_job=True)
        except ConnectorException as error:  # another worker has removed it, or the database is lost
            logger.info("The task %s (%s) of a dead worker was not removed: %s", job.id, job.lock, error)
            break  # the next look continues; a database that does not answer costs one wait, and not one for each task
        else:
            logger.warning("The worker of task %s (%s) is dead. The task is repeated.", job.id, job.lock)
            removed += 1
    return removed > 0


def remove_forgotten_tasks() -> None:
    """Remove the tasks that nobody has begun for FORGOTTEN_AFTER: only another version or a node that is gone would.

    Work that is still due is deferred again. The tasks of this worker's own queues stay: in a long queue, they would
    lose their place before their turn.
    """
    own = queues(SHARED, SILENT, due.node_queue(settings.RUNNERS_NODE))
    with connection.cursor() as cursor:
        cursor.execute(FORGOTTEN, [own, clock.now() - FORGOTTEN_AFTER])


def sweep(find: Find = due.find) -> None:
    """Defer all work that is due and has no task. Raises ConnectorException, DatabaseError, InterfaceError."""
    close_old_connections()
    remove_forgotten_tasks()
    waiting = ProcrastinateJob._default_manager.filter(status__in=["todo", "doing"])
    known = set(waiting.values_list("queueing_lock", flat=True))
    for work in find():
        if work.key not in known:
            tasks.defer(work)
