"""Names and leases of the processes of this service."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from runners.services import own_process


def test_a_lease_is_longer_than_the_longest_request(settings: Any) -> None:
    settings.RUNNERS_COMMAND_TIMEOUT = 3600.0
    settings.RUNNERS_LAUNCH_TIMEOUT = settings.RUNNERS_STOP_TIMEOUT = settings.RUNNERS_CANCEL_TIMEOUT = 100.0
    assert own_process.lease() >= timedelta(seconds=2 * 3900)
    settings.RUNNERS_COMMAND_TIMEOUT = 1.0
    assert own_process.lease() == timedelta(seconds=own_process.SHORTEST_LEASE)
