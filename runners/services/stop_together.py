"""Stop several runs with one request. Each stop is a command of its own, with its own audit record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db import connection

from profiles.models import EndpointToggle
from runners.commands.stop_experiment import STOP_EXPERIMENT
from runners.exceptions import EndpointDisabled, NotRunning, RunnerServiceError
from runners.models import RunnerRun
from runners.services import access, lookup, stopping
from runners.services.audit import audited
from runners.services.machines.bulkheads import BULKHEADS

AT_ONCE = 4  # stops of one request that are executed concurrently
SECONDS = 120.0  # after which a request begins no further stop; a web server in front may wait 330 s for the answer
MOST_RUNS = 100  # of one request


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one run: the outcome of its stop, or the error."""

    run: RunnerRun
    outcome: stopping.StopOutcome | None = None
    error: RunnerServiceError | None = None


def stop_together(
    runs: Sequence[RunnerRun], *, user: Any, address: str, force: bool = False, cancel_jobs: bool = False
) -> list[Result]:
    """Stop runs as `user`, and return the results in the order of `runs`. No error of a run stops the others."""
    deadline = time.monotonic() + SECONDS
    do = partial(_stop, user=user, address=address, force=force, cancel_jobs=cancel_jobs, deadline=deadline)
    if connection.in_atomic_block:  # no other thread sees the rows of an open transaction
        return [do(run) for run in runs]
    with ThreadPoolExecutor(min(AT_ONCE, len(runs) or 1), thread_name_prefix="stops") as pool:
        return [future.result() for future in [pool.submit(copy_context().run, _in_thread, do, run) for run in runs]]


def _in_thread(do: Any, run: RunnerRun) -> Result:
    try:
        with BULKHEADS.background():  # the thread of the request waits for this one
            result: Result = do(run)
            return result
    finally:
        connection.close()


def _stop(run: RunnerRun, *, user: Any, address: str, force: bool, cancel_jobs: bool, deadline: float) -> Result:
    if time.monotonic() > deadline:
        words = f"Run {run.pk} was not stopped: the other stops took longer than {SECONDS:g} s. Stop it again."
        return Result(run, error=NotRunning(words, run=run))
    try:
        with audited(
            endpoint=STOP_EXPERIMENT.name,
            actor=user.get_username(),
            address=address,
            expid=run.expid,
            profile_name=run.profile_name,
            worded=partial(access.detail_for, user),
        ) as record:
            if not EndpointToggle.is_enabled(STOP_EXPERIMENT.toggle.name):
                raise EndpointDisabled(f"The {STOP_EXPERIMENT.name} endpoint is currently disabled.")
            outcome = stopping.stop_experiment(
                expid=run.expid,
                audit=record,
                viewer=user,
                scope=lookup.of_run(run),
                force=force,
                cancel_jobs=cancel_jobs,
                authorize=partial(access.require_stop_of, user, run),
            )
    except RunnerServiceError as error:
        return Result(run, error=error)
    return Result(run, outcome)
