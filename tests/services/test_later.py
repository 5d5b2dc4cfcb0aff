"""Changes that wait for the database."""

from __future__ import annotations

import pytest

from runners.services.later import Later
from tests.support.processes import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_one_change_does_not_withhold_the_others() -> None:
    later, stored = Later(), []

    def bug() -> None:
        raise ZeroDivisionError

    later.add("a bug", bug)
    wait_for(lambda: not later._is_running, what="the end of the thread")
    later.add("a change", lambda: stored.append(1))
    wait_for(lambda: stored == [1], what="the change")
