"""Plugin of pytest: fixtures of every test that keep tests apart. They clear caches, close sockets and set HOME."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress

import pytest
from django.db import connections

from runners.pages import run_lists
from runners.pages.views import runs
from runners.services import access, experiments, health, jobs, log_cache, run_progress
from runners.services.machines.breaker import BREAKER
from runners.services.machines.observed import OBSERVED
from runners_project import clock
from tests.support.processes import wait_for


@pytest.fixture(autouse=True)
def _nothing_of_another_test() -> None:
    """Clear what this process remembers: each test has other rows, accounts and files."""
    access.forget_view_rules()
    for memory in (run_lists, runs, log_cache, jobs, experiments, run_progress, health, clock, BREAKER):
        memory.forget()
    OBSERVED.taken()


def open_sockets() -> set[str]:
    """Return the sockets of this process, as the kernel names them: `socket:[INODE]`."""
    found = set()
    for entry in os.scandir("/proc/self/fd"):
        with suppress(OSError):  # closed after it was listed
            found.add(os.readlink(entry.path))
    return {name for name in found if name.startswith("socket:")}


@pytest.fixture(autouse=True)
def _no_lost_sockets() -> Iterator[None]:
    """Fail the test that left a socket open, not the one during which the garbage collector runs.

    pytest turns the ResourceWarning of a collected socket into an error of the current test. This fixture is set up
    first, so its teardown runs after those of all other fixtures of the test.
    """
    before = open_sockets()
    yield
    if open_sockets() - before:
        gc.collect()
        connections.close_all()  # a test may have opened this thread's connection to PostgreSQL
        wait_for(lambda: not open_sockets() - before, 10, what="closing of all sockets that the test has opened")


@pytest.fixture(scope="session", autouse=True)
def _sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set HOME to a temporary folder, so that tests never read or write the developer's own home."""
    home = tmp_path_factory.mktemp("nobody-home")
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(home)
    yield
    if before is not None:
        os.environ["HOME"] = before
    shutil.rmtree(home, ignore_errors=True)
