"""Plugin of pytest: signal handlers, timeouts, and the order of the tests in several processes (pytest-xdist)."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.processes import PATIENCE


def pytest_configure() -> None:
    """Reset the signal handlers to those of a terminal.

    A background job and nohup ignore some signals, and all processes of the tests would inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Multiply each test's timeout by PATIENCE, and arrange the tests for several processes (pytest-xdist).

    Slow tests go first, so that all processes end at about the same time. A process gets the next test when it has
    ended one. The marker `xdist_group` has no effect with pytest 9.2 (pytest-xdist 3.8), so steps that follow each
    other are one test.
    """
    slow = set()
    for item in items:
        own = item.get_closest_marker("timeout")
        if own or item.get_closest_marker("real") or item.nodeid.startswith(SLOW):
            slow.add(item.nodeid)
        seconds = own.args[0] if own else float(config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(seconds * PATIENCE), append=False)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.nodeid not in slow)


SLOW = ("tests/browser/", "tests/compat/", "tests/faults/", "tests/sdk/")  # and tests with their own timeout
