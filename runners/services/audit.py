"""One audit record per requested command, rejected or not.

A use case calls `begin` when it has decided to do something: this stores the record with the outcome `under_way`. The
end of `audited` completes the record. A rejection before `begin` is stored as one complete record. A record that is
never completed becomes `interrupted` as soon as it is certain that no process works on its command any more
(`mark_interrupted`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial

from django.db import DatabaseError, InterfaceError

from profiles.exceptions import InvalidProfile
from runners.exceptions import OutcomeUnknown, RunnerServiceError
from runners.models import AuditRecord
from runners.services import machine_states, own_process
from runners.services.db_connection import LOST, drop_lost_connection
from runners.services.later import LATER
from runners_project import clock, metrics, request_id

logger = logging.getLogger(__name__)
commands = logging.getLogger("runners.commands")  # one line per command, with its outcome

DETAIL_LIMIT = 2000  # characters
# The record of a command that changes the configuration. The changes are stored in it (services/changes.py).
RECORD_OF_CHANGES: ContextVar[AuditRecord | None] = ContextVar("record_of_changes", default=None)
SAFE_TO_RETRY = ("check-profile", "abandon-run")  # commands that are safe to retry
INTERRUPTED_DETAIL = (
    "The service ended, or lost its database, before the outcome was stored. The command may have been executed "
    "partly or completely."
)


@contextmanager
def audited(
    *,
    endpoint: str,
    actor: str = "",
    token: str = "",
    address: str = "",
    expid: str = "",
    profile_name: str = "",
    holds_changes: bool = False,
    is_listed: Callable[[AuditRecord], bool] = lambda record: True,
    worded: Callable[[RunnerServiceError], str] = str,
) -> Iterator[AuditRecord]:
    """Record a command: yield its record, which a use case fills in, and save it at the end with its outcome.

    Exceptions pass through; a lost database after `begin` becomes OutcomeUnknown. A caller that turns an exception into
    an answer inside the block sets `outcome` and `detail` itself. With `holds_changes`, the record holds the changes of
    the configuration that the block makes: it is saved in the transaction of each change, and the changes get no
    records of their own. `is_listed` is called at the end: if it returns False, the record is counted elsewhere and not
    saved. `worded` returns the text of an error for the caller, who may not see every run. A record that cannot be
    saved is logged and saved later; the answer does not fail because of it.
    """
    record = AuditRecord(
        endpoint=endpoint, actor=actor, token=token, address=address, expid=expid[:16], profile_name=profile_name[:100]
    )
    record.owner, record.request_id = own_process.owner(), request_id.current() or None
    start = time.monotonic()
    try:
        with _holding_changes(record) if holds_changes else nullcontext():
            yield record
    except RunnerServiceError as error:
        record.outcome, record.detail = error.code, worded(error)
        raise
    except InvalidProfile as error:
        record.outcome, record.detail = error.code, str(error)
        raise
    except LOST as error:
        known = as_outcome_unknown(error, record)
        record.outcome, record.detail = getattr(known, "code", "database_unavailable"), str(known)
        if known is error:
            raise
        raise known from error
    except BaseException:
        record.outcome = "error"
        raise
    finally:
        duration = time.monotonic() - start
        record.duration_ms = round(duration * 1000)
        metrics.COMMANDS.labels(record.endpoint, record.outcome).inc()
        metrics.COMMAND_SECONDS.labels(record.endpoint).observe(duration)
        record.detail = record.detail[:DETAIL_LIMIT]
        record.owner = record.owned_until = None
        if is_listed(record):
            commands.info("%s (run %s, %s ms)", record, record.run_id or "-", record.duration_ms)
            _complete(record)
        machine_states.store()


@contextmanager
def _holding_changes(record: AuditRecord) -> Iterator[None]:
    token = RECORD_OF_CHANGES.set(record)
    try:
        yield
    finally:
        RECORD_OF_CHANGES.reset(token)


def begin(record: AuditRecord) -> None:
    """Store the record of a command that is about to do something. Later calls do nothing.

    Raises DatabaseError, InterfaceError: then the command must do nothing. A record that does not come from `audited`
    is not stored here; its creator has to save it.
    """
    if not record._state.adding or not record.owner:
        return
    outcome, record.outcome = record.outcome, AuditRecord.UNDER_WAY
    record.owned_until = clock.now() + own_process.lease()
    record.detail = record.detail[:DETAIL_LIMIT]
    try:
        record.save(force_insert=True)
    finally:
        record.outcome = outcome


def as_outcome_unknown(error: Exception, record: AuditRecord) -> Exception:
    """Return the error for a command that lost its database: OutcomeUnknown if it had begun, else the same error."""
    if record._state.adding or record.endpoint in SAFE_TO_RETRY or not isinstance(error, LOST):
        return error
    what = f"run {record.run_id}" if record.run_id else f"experiment {record.expid}" if record.expid else "the command"
    return OutcomeUnknown(
        f"The service lost its database during the command, so the outcome could not be stored. Check the state of "
        f"{what} before you retry the request.",
        **({"run_id": record.run_id} if record.run_id else {}),
    )


def is_under_way(record: AuditRecord) -> bool:
    """Return True if the process of a command that has begun may still be executing it."""
    return own_process.is_working(record.owner or "", record.owned_until)


def mark_interrupted() -> int:
    """Mark commands as interrupted if their processes are certainly gone. Return how many.

    A process on this machine is inspected. A process that cannot be inspected from here (another node, another
    container) is certainly gone only when its lease has ended.
    """
    marked = 0
    for record in AuditRecord.objects.filter(outcome=AuditRecord.UNDER_WAY).iterator():
        if not is_under_way(record):
            detail = f"{record.detail} {INTERRUPTED_DETAIL}".strip()
            unfinished = AuditRecord.objects.filter(pk=record.pk, outcome=AuditRecord.UNDER_WAY)
            marked += unfinished.update(outcome=AuditRecord.INTERRUPTED, detail=detail)
    return marked


# --- Saving ----------------------------------------------------------------------------------------------------------


def _complete(record: AuditRecord) -> None:
    try:
        _save(record)
    except LOST as error:
        logger.error("An audit record cannot be saved now (%s): %s", error, record)
        LATER.add(str(record), partial(_save, record))
    except (DatabaseError, InterfaceError) as error:
        logger.error("An audit record was not saved (%s): %s", error, record)


def _save(record: AuditRecord) -> None:
    """Save the record, on a new connection if the current one was lost."""
    try:
        record.save()
    except LOST:
        if not drop_lost_connection():
            raise
        record.save()
