"""`Idempotency-Key`: a request is executed once, however often the client retries it.

The unique constraint on (caller, key) lets exactly one process insert the record. That process links the operation or
run to the record before it starts it. So if the server is killed, a retry of the request finds the operation or run.
A request that was rejected, or whose machine was not reached, has done nothing: its key is deleted.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, IntegrityError, InterfaceError, transaction

from runners.commands.stop_experiment import STOP_EXPERIMENT
from runners.exceptions import IdempotencyInProgress, IdempotencyKeyReused, NotRunning
from runners.models import DetachedCommand, IdempotencyRecord, Operation, RunnerRun, RunStatus, new_run_key
from runners.services import own_process, probing
from runners.services.db_connection import LOST
from runners.services.later import LATER
from runners_project import clock

logger = logging.getLogger(__name__)

RETRY_AFTER = 2  # seconds
STOP = STOP_EXPERIMENT.name  # the endpoint whose records point to a run that existed before the request
ATTEMPTS = 3  # of a claim: the record may be deleted between the failed insert and the read


def hash_of(endpoint: str, body: dict[str, Any]) -> str:
    """Return a hash that is equal for requests that ask for the same."""
    text = json.dumps([endpoint, body], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def claimed(*, caller: str, key: str, endpoint: str, request_hash: str) -> Iterator[IdempotencyRecord]:
    """Yield the record of a key, as `claim` does. Release the key if the block raises an error."""
    record = claim(caller=caller, key=key, endpoint=endpoint, request_hash=request_hash)
    try:
        yield record
    except BaseException:
        if record.answer_status is None:
            release(record)
        raise


def claim(*, caller: str, key: str, endpoint: str, request_hash: str) -> IdempotencyRecord:
    """Return the record of a key. This caller has to answer it, unless `answer_status` says that it is answered.

    Raises IdempotencyKeyReused and IdempotencyInProgress.
    """
    for _ in range(ATTEMPTS):
        owner = own_process.owner()
        until = clock.now() + own_process.lease()
        try:
            with transaction.atomic():
                return IdempotencyRecord.objects.create(
                    caller=caller,
                    key=key,
                    endpoint=endpoint,
                    fingerprint=request_hash,
                    owner=owner,
                    owned_until=until,
                    run_key=new_run_key(),
                )
        except IntegrityError:
            record = IdempotencyRecord.objects.select_related("operation").filter(caller=caller, key=key).first()
        if record is None:
            continue
        if record.created < clock.now() - keep_for():
            record.delete()
            continue
        if record.fingerprint != request_hash:
            raise IdempotencyKeyReused(
                f"This Idempotency-Key was used for another request ({record.endpoint}). Use a new key for each "
                f"request, and send the same key only with the same body."
            )
        if record.answer_status is not None or _take_over(record, owner):
            record.is_repeated = True
            return record
        break
    raise IdempotencyInProgress(
        "The first request with this Idempotency-Key is still in progress. Retry it in a moment to get its response.",
        retry_after=RETRY_AFTER,
    )


def _take_over(record: IdempotencyRecord, owner: str) -> bool:
    """Become the owner of a record whose owner is gone or not needed. If several processes try, one succeeds."""
    if own_process.is_working(record.owner, record.owned_until) and (
        own_process.is_here(record.owner) or not _goes_on_alone(record)
    ):
        return False
    unanswered = IdempotencyRecord.objects.filter(pk=record.pk, owner=record.owner, answer_status=None)
    until = clock.now() + own_process.lease()
    if not unanswered.update(owner=owner, owned_until=until):
        return False
    record.owner, record.owned_until = owner, until
    return True


def _goes_on_alone(record: IdempotencyRecord) -> bool:
    """Return True if the command no longer depends on the process that started it, so that any process may answer.

    This matters after a container was replaced: the processes of the old container cannot be inspected, and nobody has
    to wait for the end of their leases.
    """
    if record.operation is not None:
        return True
    run = RunnerRun.objects.filter(key=record.run_key).first()
    if run is None:
        return False
    return not run.is_active or (run.identity is not None and record.endpoint != STOP)  # a stop has steps left


def bind_operation(record: IdempotencyRecord) -> Callable[[Operation], None]:
    """Return a callback for `operations.start(on_insert=...)`. It binds an operation to its key before it starts.

    The callback raises IdempotencyInProgress, so that nothing starts, if another process has taken the record over.
    """

    def on_insert(operation: Operation) -> None:
        _change(record, operation=operation)

    return on_insert


def bind_run(record: IdempotencyRecord, run: RunnerRun) -> None:
    """Bind the key of a stop to `run` before any signal is sent, so that a retry can never stop a later run.

    Raises NotRunning if the key is bound to another run. That run has ended, because an experiment has one ACTIVE run.
    Raises IdempotencyInProgress if another process has taken the record over.
    """
    first = RunnerRun.objects.filter(key=record.run_key).first()
    if first is not None and first.pk != run.pk:
        raise NotRunning(f"Run {first.pk} of {first.expid}, which this Idempotency-Key stops, has ended.", run=first)
    _change(record, run_key=run.key)


def stopped_run(record: IdempotencyRecord) -> RunnerRun | None:
    """Return the run that an earlier stop with this key was bound to, if that run has ended."""
    return RunnerRun.objects.filter(key=record.run_key).exclude(status=RunStatus.ACTIVE).first()


def never_started(row: DetachedCommand | None) -> bool:
    """Return True if a key has no run or operation, or one that certainly never began. Then a retry may start one."""
    return row is None or row.never_started


def run_of(record: IdempotencyRecord) -> RunnerRun | None:
    """Return the run that an earlier request with this key has started; None if it certainly started none.

    Raises IdempotencyInProgress while its machine cannot tell.
    """
    run = RunnerRun.objects.filter(key=record.run_key).first()
    if run is not None and run.is_active and run.identity is None:
        probing.probe([run])
        if run.is_active and run.identity is None:
            raise IdempotencyInProgress(
                f"Whether run {run.pk} was started is not known yet. Retry the request in {RETRY_AFTER} s.",
                retry_after=RETRY_AFTER,
            )
    return None if never_started(run) else run


def operation_of(record: IdempotencyRecord) -> Operation | None:
    """Return the operation that an earlier request with this key has, or may have, started; None if certainly none."""
    operation = record.operation
    if operation is not None and operation.is_active and operation.identity is None:
        probing.probe([operation])
    return None if never_started(operation) else operation


def answer(record: IdempotencyRecord, *, status: int, body: Any, headers: dict[str, str]) -> None:
    """Store the answer for every retry of the request.

    If the database is lost, the answer is stored later.
    """
    changes = {"answer_status": status, "answer_body": body, "answer_headers": headers, "owner": ""}
    _now_or_later(record, lambda: _own(record).update(**changes))


def release(record: IdempotencyRecord) -> None:
    """Release the key of a request that has no answer to store.

    If the request did nothing, delete the key. Otherwise the key stays bound to its run or operation. If the database
    is lost, the key is released later: its process lives, so until then a retry would wait for the end of the lease.
    """
    _now_or_later(record, lambda: _release(record))


def _now_or_later(record: IdempotencyRecord, store: Callable[[], object]) -> None:
    try:
        store()
    except LOST as error:
        logger.error("%s cannot be changed now (%s); it will be when the database is back.", record, error)
        LATER.add(str(record), store)
    except (DatabaseError, InterfaceError) as error:
        logger.error("%s was not changed: %s", record, error)


def _release(record: IdempotencyRecord) -> None:
    run = RunnerRun.objects.filter(key=record.run_key).first()
    if never_started(record.operation) and never_started(run):
        _own(record).delete()
    else:
        _own(record).update(owner="")


def forget_attempt(record: IdempotencyRecord) -> None:
    """Unbind the key from a run or operation that certainly never began, so that another attempt can start.

    Raises IdempotencyInProgress if another process has taken the record over.
    """
    _change(record, operation=None, run_key=new_run_key())


def clean() -> int:
    """Delete keys that are older than `keep_for`. Return how many."""
    return IdempotencyRecord.objects.filter(created__lt=clock.now() - keep_for()).delete()[0]


def keep_for() -> timedelta:
    return timedelta(hours=settings.RUNNERS_IDEMPOTENCY_HOURS)


def _change(record: IdempotencyRecord, **changes: Any) -> None:
    """Update the record.

    Raises IdempotencyInProgress, so that nothing starts, if another process has taken the record over.
    """
    if not _own(record).update(**changes):
        raise IdempotencyInProgress("Another process handles this Idempotency-Key.", retry_after=RETRY_AFTER)
    for name, value in changes.items():
        setattr(record, name, value)


def _own(record: IdempotencyRecord) -> Any:
    return IdempotencyRecord.objects.filter(pk=record.pk, owner=record.owner, answer_status=None)
