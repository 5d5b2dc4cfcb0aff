"""LOCAL runs of other nodes of this service: their scripts are executed by the worker of the node that has the run.

Nodes share a database. A node that wants something of another node inserts a NodeCommand; the worker of that node
executes it as it executes its own. So stops, logs and probes need no other code. Only with PostgreSQL.

A command is signed together with its number, its node and the time until which it may begin. So a row that somebody
copies, renumbers, sends to another node or inserts again later is refused. An answer is signed with the same number.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import signing
from django.db import transaction
from django.dispatch import Signal

from profiles.config import RunnerConfig
from runners.exceptions import (
    CommandTimedOut,
    OutcomeUnknown,
    RunDirectoryUnusable,
    RunnerServiceError,
    RunnerUnreachable,
)
from runners.models import Heartbeat, NodeCommand
from runners.services.machines.breaker import BREAKER
from runners.services.machines.bulkheads import BULKHEADS, Wait
from runners.services.machines.local import LocalRunner
from runners.services.machines.runner import CLIENT_GRACE, CommandResult
from runners_project import clock

logger = logging.getLogger(__name__)

WORKER = "watch_runs"  # the kind of the heartbeats of workers
SALT = "runners.services.nodes"
TO_BEGIN = 5.0  # seconds that a worker has to begin a command; a worker looks for commands each second
EXPIRES = timedelta(seconds=TO_BEGIN + 2)  # later than the sender withdraws it
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.25  # seconds between two reads of the answer
KEPT = timedelta(hours=1)
inserted = Signal()  # after the insert of a command; `number`, `node`
# The errors of `Runner.execute`. Any other error leaves the outcome unknown.
ERRORS: dict[str, type[RunnerServiceError]] = {
    each.__name__: each for each in (RunDirectoryUnusable, RunnerUnreachable, CommandTimedOut, OutcomeUnknown)
}


def has_tasks() -> bool:
    """Return True if workers share their work as tasks in the database (PostgreSQL)."""
    return apps.is_installed("procrastinate.contrib.django")


def is_elsewhere(node: str) -> bool:
    """Return True if commands of this node run on the machine of another node. An empty node is everywhere."""
    return bool(node) and node != settings.RUNNERS_NODE and has_tasks()


class NodeRunner(LocalRunner):
    """The machine of another node of this service."""

    def __init__(self, config: RunnerConfig, node: str) -> None:
        super().__init__(config)
        self.node = node

    @property
    def where(self) -> str:
        return f"node {self.node} of this service"

    def execute(
        self, script: str, *, timeout: float, stdin: bytes = b"", login: bool = False, until: str = ""
    ) -> CommandResult:
        """Let the worker of the node execute the script. Raises the errors of `Runner.execute`, and MachineBusy."""
        self._require_worker()
        start = time.monotonic()
        request = {
            "config": self.config.as_dict(),
            "script": script,
            "timeout": timeout,
            "stdin": base64.b64encode(stdin).decode(),
            "login": login,
            "until": until,
        }
        # As for any machine: few threads wait for a worker that does not begin, and it is not asked again at once.
        with BREAKER.attempt(self.login), BULKHEADS.waiting(self.target, self.where) as wait:
            command = insert(self.node, request)
            inserted.send(NodeCommand, number=command.pk, node=self.node)
            try:
                return self._answer_of(command, start, timeout, wait)
            finally:
                NodeCommand.objects.filter(pk=command.pk).delete()

    def _require_worker(self) -> None:
        beats, now = list(Heartbeat.objects.filter(kind=WORKER, node=self.node).order_by("-seen")), clock.now()
        if all(beat.is_late(now) for beat in beats):
            seen = f"was last seen at {beats[0].seen:%Y-%m-%d %H:%M:%S} UTC" if beats else "is not running"
            raise RunnerUnreachable(
                f"This run is on node {self.node} of this service, whose worker {seen}. Nothing was executed there. "
                f"Start the worker of that node."
            )

    def _answer_of(self, command: NodeCommand, start: float, timeout: float, wait: Wait) -> CommandResult:
        mine = NodeCommand.objects.filter(pk=command.pk)
        pause, end = FIRST_PAUSE, start + timeout + CLIENT_GRACE
        to_begin = TO_BEGIN if wait.patience is None else min(wait.patience, TO_BEGIN)
        while True:
            row = mine.values("begun", "answer").first()
            if row and row["begun"] and not wait.is_answered:
                BREAKER.answered(self.login)
                BULKHEADS.heard(self.target, wait)
            if row and row["answer"]:
                return _result(self._verified(command, row["answer"]))
            now = time.monotonic()
            if row and row["begun"] is None and now > start + to_begin and mine.filter(begun=None).delete()[0]:
                if to_begin < TO_BEGIN:
                    raise BULKHEADS.busy(self.target, self.where)
                raise RunnerUnreachable(
                    f"This run is on node {self.node} of this service. The worker of that node did not begin within "
                    f"{TO_BEGIN:g} s; nothing was executed there. If this happens again: do all nodes have the same "
                    f"SECRET_KEY?"
                )
            if row is None or now > end:
                raise OutcomeUnknown(
                    f"This run is on node {self.node} of this service, whose worker did not answer in time. It may "
                    f"have executed the command."
                )
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _verified(self, command: NodeCommand, answer: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = signing.loads(answer, salt=_salt("answer", command))
        except signing.BadSignature:
            raise OutcomeUnknown(
                f"This run is on node {self.node} of this service. The answer of that node has no valid signature. Do "
                f"all nodes have the same SECRET_KEY? The node may have executed the command."
            ) from None
        return found


def insert(node: str, request: dict[str, Any]) -> NodeCommand:
    """Insert a command for a node, signed. Raises DatabaseError, InterfaceError."""
    with transaction.atomic():  # the number is known after the insert; workers see the row when it is signed
        command = NodeCommand.objects.create(node=node)
        until = (command.created + EXPIRES).timestamp()
        command.request = signing.dumps(request | {"until_begin": until}, salt=_salt("request", command), compress=True)
        command.save(update_fields=["request"])
    return command


def execute(number: int) -> None:
    """Execute a command for another node, unless it was begun before, is not signed, or has expired.

    Raises DatabaseError, InterfaceError.
    """
    command = NodeCommand.objects.filter(pk=number, node=settings.RUNNERS_NODE, begun=None).first()
    if command is None:
        return
    try:  # before it is begun: so its sender, which may have another SECRET_KEY, is certain that nothing was executed
        request = signing.loads(command.request, salt=_salt("request", command))
    except signing.BadSignature:
        logger.error("%s is not executed: its signature is not valid. Has its sender another SECRET_KEY?", command)
        return
    if not NodeCommand.objects.filter(pk=number, begun=None).update(begun=clock.now()):
        return
    if not _BEGUN.add(command.request.rpartition(":")[2], float(request["until_begin"])):
        logger.error("%s is not executed: it has expired, or was begun before.", command)
        return
    answer: dict[str, Any]
    try:
        result = LocalRunner(RunnerConfig.from_dict(request["config"])).execute(
            request["script"],
            timeout=request["timeout"],
            stdin=base64.b64decode(request["stdin"]),
            login=request["login"],
            until=request["until"],
        )
        answer = {
            "exit_code": result.exit_code,
            "stdout": base64.b64encode(result.stdout).decode(),
            "stderr": base64.b64encode(result.stderr).decode(),
            "duration": result.duration,
            "truncated": result.truncated,
        }
    except RunnerServiceError as error:
        known = next((name for name, kind in ERRORS.items() if isinstance(error, kind)), OutcomeUnknown.__name__)
        answer = {"error": known, "detail": error.detail, "facts": error.facts}
    signed = signing.dumps(answer, salt=_salt("answer", command), compress=True)
    NodeCommand.objects.filter(pk=number).update(answer=signed)


def delete_old() -> None:
    """Delete commands whose sender has died."""
    NodeCommand.objects.filter(created__lt=clock.now() - KEPT).delete()


def waiting() -> list[int]:
    """Return the numbers of this node's commands that nobody has begun, and that have not expired."""
    rows = NodeCommand.objects.filter(node=settings.RUNNERS_NODE, begun=None, created__gt=clock.now() - EXPIRES)
    return list(rows.values_list("pk", flat=True))


def _salt(what: str, command: NodeCommand) -> str:
    """Return the salt of a signature. It is valid for one command of one node only."""
    return f"{SALT}.{what}.{command.pk}.{command.node}"


class _Begun:
    """The signatures of commands that this process has begun and that have not expired.

    Somebody may insert such a row again, with the same number.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}

    def add(self, signature: str, until: float) -> bool:
        """Return False if the command has expired, or was begun before. `until`: seconds since 1970."""
        now = clock.now().timestamp()
        with self._lock:
            self._until = {known: end for known, end in self._until.items() if end >= now}
            if until < now or signature in self._until:
                return False
            self._until[signature] = until
        return True


_BEGUN = _Begun()


def _result(answer: dict[str, Any]) -> CommandResult:
    """Return the result in an answer, or raise its error."""
    if "error" in answer:
        raise ERRORS[answer["error"]](answer["detail"], **answer["facts"])
    return CommandResult(
        answer["exit_code"],
        base64.b64decode(answer["stdout"]),
        base64.b64decode(answer["stderr"]),
        answer["duration"],
        answer["truncated"],
    )
