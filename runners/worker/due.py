"""The work that is due, and the functions that do it. Both workers call the same functions.

The rows of the database say what is due. A piece of work only names a function and a row or a machine, and each
function checks its rows again. So a piece of work that is lost or done twice does no harm: `find` finds the rest again,
and the functions claim their rows with a compare-and-set.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from django.conf import settings
from django.db import IntegrityError, transaction

from runners.models import DetachedCommand, Heartbeat
from runners.services import audit, idempotency, interrupted, nodes, restarting, retention, watching
from runners.services import mail as outbox_of_mail
from runners.webhooks import delivery, mail
from runners.worker import places
from runners_project import clock, metrics

logger = logging.getLogger(__name__)

SHARED = "shared"  # the queue of most work
SILENT = "silent"  # the queue of machines that do not answer, so that they do not delay the others
RETENTION = "retention"  # the kind of the heartbeat that tells when retention was begun
DAY = timedelta(days=1)


class Voice(Protocol):
    """Where a worker tells people what it has done. Its methods may be called in any thread."""

    def report(self, row: DetachedCommand) -> None: ...  # a row that has ended

    def say(self, words: str) -> None: ...

    def complain(self, words: str) -> None: ...


class Silent:
    """The voice of a process without an output of its own."""

    def report(self, row: DetachedCommand) -> None:
        logger.info("%s has ended", row)

    def say(self, words: str) -> None:
        logger.info("%s", words)

    def complain(self, words: str) -> None:
        logger.warning("%s", words)


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of work. `name`: a key of FUNCTIONS; `arguments`: those of the function.

    `queue`: SHARED, SILENT, or the queue of the node that has to do it.
    """

    name: str
    arguments: tuple[str, ...] = ()
    queue: str = SHARED

    @property
    def key(self) -> str:
        """Two pieces of work with the same key are never done at the same time."""
        return ":".join((self.name, *self.arguments))


def node_queue(node: str) -> str:
    """Return the queue of the work that only this node can do; an empty node means any node."""
    return f"node-{node}" if node else SHARED


def find() -> list[Work]:
    """Return all work that is due now. Raises DatabaseError, InterfaceError."""
    found = [Work("upkeep"), *find_machines(), *find_messages()]
    found += [Work("restart", (str(run.pk),), node_queue(run.node)) for run in restarting.due()]
    found += [Work("node", (str(number),), node_queue(settings.RUNNERS_NODE)) for number in nodes.waiting()]
    if is_retention_due():
        found.append(Work("retention"))
    return found


def find_machines() -> Iterable[Work]:
    for machine in watching.machines():
        yield look_at(machine.name, machine.node, is_silent=machine.is_silent)


def look_at(machine: str, node: str, *, is_silent: bool) -> Work:
    """Return the work of one look at a machine. A LOCAL machine is looked at by its own node."""
    return Work("look", (machine, node), SILENT if is_silent and not node else node_queue(node))


def find_messages() -> Iterable[Work]:
    for number in delivery.receivers():
        yield Work("deliver", (str(number),))
    if outbox_of_mail.is_on() and outbox_of_mail.due(clock.now()).exists():
        yield Work("mail")


def is_retention_due() -> bool:
    newest = Heartbeat.objects.filter(kind=RETENTION, seen__gt=clock.now() - DAY)
    return bool(settings.RUNNERS_RETENTION_DAYS) and not newest.exists()


# --- The functions ----------------------------------------------------------------------------------------------------


def _look(voice: Voice, machine: str, node: str) -> bool | None:
    """Probe the active rows of one machine. Return True if it is silent, and None if it has no active rows any more."""
    return watching.look(machine, node, voice.report, voice.say)


def _deliver(voice: Voice, webhook: str) -> None:
    delivery.deliver_to(int(webhook))


def _mail(voice: Voice) -> None:
    mail.deliver_due()


def _restart(voice: Voice, run: str) -> None:
    restarting.restart(int(run), voice.say)


def _upkeep(voice: Voice) -> None:
    """Mark stops and commands of processes that are gone, and delete old answers of retried requests."""
    interrupted.mark_all()
    audit.mark_interrupted()
    idempotency.clean()
    nodes.delete_old()


def _node(voice: Voice, number: str) -> None:
    """Execute a command for another node."""
    nodes.execute(int(number))


def _retention(voice: Voice) -> None:
    """Remove directories and rows of runs that ended long ago, once a day for all nodes."""
    now = clock.now()
    try:
        with transaction.atomic():
            beat, is_new = Heartbeat.objects.get_or_create(
                owner=RETENTION, defaults={"kind": RETENTION, "interval": DAY.total_seconds(), "seen": now}
            )
            mine = Heartbeat.objects.filter(pk=beat.pk, seen=beat.seen, seen__lte=now - DAY)
            if not is_new and not mine.update(seen=now):
                return
    except IntegrityError:  # another worker has inserted the heartbeat
        return
    before = now - timedelta(days=settings.RUNNERS_RETENTION_DAYS)
    for machine in retention.clean_directories(before):
        if machine.problem:
            voice.say(f"Retention: {machine.where}: {machine.problem}")
    for kind, number in retention.delete_rows(before).items():
        if number:
            voice.say(f"Retention: {number} {kind} deleted.")


FUNCTIONS: dict[str, Callable[..., bool | None]] = {
    "look": _look,
    "deliver": _deliver,
    "mail": _mail,
    "restart": _restart,
    "upkeep": _upkeep,
    "retention": _retention,
    "node": _node,
}


@contextmanager
def place(work: Work) -> Iterator[bool]:
    """Begin a piece of work. Yield False if it must be done in the queue SILENT instead, so it may not be done now.

    Raises DatabaseError, InterfaceError.
    """
    if work.name != "look" or work.queue != SHARED:
        yield True
        return
    with places.place(*work.arguments) as has_place:
        yield has_place


def perform(work: Work, voice: Voice) -> bool | None:
    """Do a piece of work, and count it. Return what the function returns.

    Raises DatabaseError, InterfaceError.
    """
    start, outcome = time.perf_counter(), "error"
    try:
        result = FUNCTIONS[work.name](voice, *work.arguments)
        outcome = "done"
        return result
    finally:
        metrics.TASKS.labels(work.name, outcome).inc()
        metrics.TASK_SECONDS.labels(work.name).observe(time.perf_counter() - start)
