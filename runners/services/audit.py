"""One audit row per command that was asked for, refused or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from profiles.exceptions import InvalidProfile
from runners.exceptions import RunnerServiceError
from runners.models import AuditRecord

DETAIL_LIMIT = 2000  # characters


@contextmanager
def audited(
    *,
    endpoint: str,
    actor: str = "",
    token: str = "",
    address: str = "",
    expid: str = "",
    profile_name: str = "",
    is_listed: Callable[[AuditRecord], bool] = lambda record: True,
) -> Iterator[AuditRecord]:
    """Record a command: yields the unsaved record, which a use case completes, and saves it at the end with its
    outcome.

    Exceptions pass through. A caller that turns one into an answer inside the block sets `outcome` and `detail`
    itself. `is_listed` is asked at the end: a record that is counted elsewhere is not saved.
    """
    record = AuditRecord(
        endpoint=endpoint, actor=actor, token=token, address=address, expid=expid[:16], profile_name=profile_name[:100]
    )
    start = time.monotonic()
    try:
        yield record
    except (RunnerServiceError, InvalidProfile) as error:
        record.outcome, record.detail = error.code, str(error)
        raise
    except BaseException:
        record.outcome = "error"
        raise
    finally:
        record.duration_ms = round((time.monotonic() - start) * 1000)
        record.detail = record.detail[:DETAIL_LIMIT]
        if is_listed(record):
            record.save()
