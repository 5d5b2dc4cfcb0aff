"""Threads that share a call get its result, or an error of their own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from runners.exceptions import AlreadyRunning, RunnerServiceError
from runners.models import RunnerRun
from runners_project.shared_calls import SharedCalls
from tests.support.processes import PATIENCE, wait_for


def test_each_caller_gets_an_error_of_its_own() -> None:
    calls, asked, may_end = SharedCalls(), [], threading.Event()
    run = RunnerRun(expid="a001")

    def ask() -> None:
        asked.append(1)
        may_end.wait(20 * PATIENCE)
        raise AlreadyRunning("a001 runs.", run, steps=[])

    def call() -> RunnerServiceError:
        try:
            calls.call("one", ask, 20 * PATIENCE)
        except AlreadyRunning as error:
            error.facts["steps"].append("mine")
            return error
        raise AssertionError("no error")

    with ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(call) for _ in range(3)]
        wait_for(lambda: asked and all(each.running() for each in callers), what="the calls")
        may_end.set()
        errors = [each.result() for each in callers]
    assert len({id(each) for each in errors}) == 3
    for error in errors:
        assert (type(error), error.detail, error.facts) == (AlreadyRunning, "a001 runs.", {"steps": ["mine"]})
        assert isinstance(error, AlreadyRunning)
        assert error.run is run
