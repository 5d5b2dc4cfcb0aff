"""One audit record for each command that the API, the pages or the admin receives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.http import HttpRequest

from runners.exceptions import TooManyRequests
from runners.models import AuditRecord
from runners.services.access import detail_for
from runners.services.audit import audited
from runners.services.machines.bulkheads import BULKHEADS
from runners.web.client_address import AUDIT_LIMIT, client_address
from runners.web.throttling import seconds_to_wait, sender_of

EXPID_LIMIT, PROFILE_NAME_LIMIT = 16, 100  # characters


@contextmanager
def audit_command(
    request: HttpRequest,
    command: str,
    *,
    user: Any = None,
    expid: str = "",
    profile_name: str = "",
    holds_changes: bool = False,
    is_listed: Callable[[AuditRecord], bool] = lambda record: True,
) -> Iterator[AuditRecord]:
    """Audit a command, also if it is rejected. `command` is its name on the wire.

    `user` is the person who is signed in. The command then counts for the person's rate limit here: raises
    TooManyRequests. The API passes no `user`: it reads credentials later, calls `identify`, and lets DRF count.
    `holds_changes`, `is_listed`: as in `services.audit.audited`.
    """
    worded = partial(detail_for, user) if user else str  # other people can read the record on the experiment's page
    address = client_address(request)[:AUDIT_LIMIT]
    with (
        audited(
            endpoint=command, address=address, holds_changes=holds_changes, is_listed=is_listed, worded=worded
        ) as record,
        BULKHEADS.command(command),
    ):
        identify(record, actor=user.get_username() if user else "", expid=expid, profile_name=profile_name)
        if user and (wait := seconds_to_wait("commands", partial(sender_of, request))):
            raise TooManyRequests(f"Too many commands. Try again in {wait} s.", retry_after=wait)
        yield record


def identify(record: AuditRecord, *, actor: str = "", expid: object = None, profile_name: object = None) -> None:
    """Write into the record who sent a command, and what it names. `expid` and `profile_name` may be unvalidated."""
    if actor:
        record.actor = actor
    if expid is not None:
        record.expid = _storable(expid, EXPID_LIMIT)
    if profile_name is not None:
        record.profile_name = _storable(profile_name, PROFILE_NAME_LIMIT)
    BULKHEADS.identify(person=record.actor, profile_name=record.profile_name)


def _storable(value: object, limit: int) -> str:
    """Return an unvalidated name in a form that the database accepts: printable, at most `limit` characters.

    A value that is not a text gives "".
    """
    return "".join(c if c.isprintable() else "?" for c in value[:limit]) if isinstance(value, str) else ""
