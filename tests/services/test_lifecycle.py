"""How the rows of runs change with the answers of machines."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from runners.services import lifecycle
from tests.support.rows import unsaved_run


@pytest.mark.parametrize(
    ("seconds", "is_late"),
    [(-1, False), (1, False), (lifecycle.LAUNCH_GRACE - 1, False), (lifecycle.LAUNCH_GRACE + 1, True)],
)
def test_a_launch_may_be_claimed_only_after_its_timeout_and_the_grace(seconds: float, is_late: bool) -> None:
    age = timedelta(seconds=settings.RUNNERS_LAUNCH_TIMEOUT + seconds)
    assert lifecycle.target_of(unsaved_run(created=timezone.now() - age)).claim is is_late
