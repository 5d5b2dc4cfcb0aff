"""The jobs of an experiment: counts, pages of the job list, and the jobs' logs.

The machine reads Autosubmit's own files (machines/jobs.py); Autosubmit is not started. All viewers in this process
share one read per question and freshness window. This module does not check permissions: callers check them before
they read.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from copy import copy
from typing import Any, TypeVar, cast

from django.conf import settings

from runners.exceptions import JobsNotFound, JobsUnreadable, LogNotFound, RunnerServiceError, RunnerUnreachable
from runners.models import RunnerRun
from runners.services import experiment_descriptions, lifecycle
from runners.services.logs import LogPage
from runners.services.machines import jobs, scripts
from runners.services.machines.answers import Unreadable
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.machines.jobs import (
    JobCounts,
    JobLog,
    JobPage,
    JobQuery,
    JobSelection,
    Problem,
    SelectedJobs,
)
from runners.services.machines.registry import get_module_loader
from runners.services.machines.runner import CommandResult, Runner
from runners_project.shared_calls import SharedCalls, StillUnderWay

T = TypeVar("T")
Answer = TypeVar("Answer", JobPage, SelectedJobs)

PATIENCE = 5.0  # seconds that a viewer waits for a read of another viewer's request
KEPT_ANSWERS = 64  # in this process; an answer has at most 1 MB
KEPT_MACHINES = 1000
LEARNED_FOR = 600.0  # seconds; a configuration of Autosubmit may be changed, or a Python installed
NO_PYTHON = "no_python"
NO_PYTHON_TEXT = (
    "No Python 3.6 or newer that can read the job list was found on the machine, neither the system's own nor in the "
    "environment of the profile."
)
# Problems of read_jobs.py that the environment of the profile can solve: its Python, and AUTOSUBMIT_CONFIGURATION.
_OF_ENVIRONMENT = (NO_PYTHON, "no_experiment")
_NOT_FOUND = ("no_experiment", "no_job_list")
_NO_LOG = ("no_job", "no_attempt", "no_log")

_lock = threading.Lock()
_answers: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
_reads = SharedCalls()
# What was learned of profiles, and when: which have a Python only in their environment, and where their experiments are
# (for requests without a run: the environment of the profile may name another configuration of Autosubmit).
_python_of_environment: OrderedDict[Hashable, float] = OrderedDict()
_places: OrderedDict[Hashable, tuple[float, tuple[str, str]]] = OrderedDict()


def counts_of(run: RunnerRun) -> JobCounts:
    """Return the counts of a run's jobs, as they are now: up to RUNNERS_STATUS_FRESHNESS seconds old.

    Raises JobsNotFound, JobsUnreadable, and the errors of `Runner.execute`.
    """
    with _lock:
        asked, answer = _answers.get((lifecycle.runner_of(run).target, ("counts", run.key)), (0.0, None))
    if isinstance(answer, JobCounts) and time.monotonic() - asked < settings.RUNNERS_STATUS_FRESHNESS:
        return answer
    return page_of(run, JobQuery(limit=0)).counts


def page_of(run: RunnerRun, query: JobQuery) -> JobPage:
    """Return some of the jobs of a run's experiment, as they are now: up to RUNNERS_STATUS_FRESHNESS seconds old.

    Raises JobsNotFound, also if the experiment of the run was deleted; JobsUnreadable; the errors of `Runner.execute`.
    """
    _check(run)
    runner = lifecycle.runner_of(run)
    try:
        return _page(runner, run.expid, query, key=run.key)
    except JobsNotFound:
        if node := lifecycle.runner_at_node(run, runner):  # the nodes of a login alias may have no shared home
            return _page(node, run.expid, query, key=run.key)
        raise


def page(runner: Runner, expid: str, query: JobQuery) -> JobPage:
    """Do the same for an experiment of a profile's account, which this service may never have run."""
    return _page(runner, expid, query, key="")


def _page(runner: Runner, expid: str, query: JobQuery, *, key: str) -> JobPage:
    request = {"ask": "page", "expid": expid, "key": key, "query": query.as_dict()}

    def ask() -> JobPage:
        if key:
            begin = time.monotonic()
            found = _ask(runner, request, lambda result: jobs.parse_page(_text(result), query))
            _keep(_answers, (runner.target, ("counts", key)), (begin, found.counts), KEPT_ANSWERS)
            return found
        return _ask_at_place(runner, request, lambda result: jobs.parse_page(_text(result), query))

    return _shared(runner, ("page", expid, key, *_profile_of(runner), query), ask)


def select(runner: Runner, expid: str, selection: JobSelection, *, limit: int) -> SelectedJobs:
    """Return the counts of the selected jobs of an experiment of a profile's account, and at most `limit` names.

    Raises JobsNotFound, JobsUnreadable, and the errors of `Runner.execute`.
    """
    request = {"ask": "selection", "expid": expid, "selection": selection.as_dict(), "limit": limit}

    def ask() -> SelectedJobs:
        return _ask_at_place(runner, request, lambda result: jobs.parse_selection(_text(result), limit))

    return _shared(runner, ("selection", expid, *_profile_of(runner), selection, limit), ask)


def _profile_of(runner: Runner) -> tuple[Hashable, ...]:
    return (runner.target, runner.config.module_loader_type, runner.config.modules)


def _ask_at_place(runner: Runner, request: Mapping[str, Any], parse: Callable[[CommandResult], Answer]) -> Answer:
    """Ask about an experiment without a run. The first answer tells where the experiments of the profile are.

    Ask the environment of the profile again if nothing is found there: the experiments may have moved.
    """
    begin = time.monotonic()
    with _lock:
        learned, place = _places.get(_profile_of(runner), (0.0, None))
    if place is not None and begin - learned < LEARNED_FOR:
        with suppress(JobsNotFound):
            return _ask(runner, {**request, "place": place}, parse)
    found = _ask(runner, {**request, "place": None}, parse, environment=True)
    _keep(_places, _profile_of(runner), (begin, found.place), KEPT_MACHINES)
    return found


def log_of(
    run: RunnerRun,
    name: str,
    *,
    stream: str,
    attempt: int | None = None,
    offset: int = 0,
    limit: int,
    tail: int | None = None,
) -> LogPage:
    """Return a part of the log of a job: at most `limit` bytes from byte `offset`, or the last `tail`.

    `stream`: out or err. `attempt`: its number, from 1; None: the last one. The file is always one in the folder of
    logs of the experiment. Raises LogNotFound, JobsNotFound, JobsUnreadable, and the errors of `Runner.execute`.
    """
    _check(run)
    most = min(limit if tail is None else tail, settings.RUNNERS_OUTPUT_LIMIT - jobs.LINE_LIMIT)
    start = offset if tail is None else -most
    runner = lifecycle.runner_of(run)
    request: dict[str, Any] = {"ask": "log", "expid": run.expid, "key": run.key, "name": name, "stream": stream}
    request |= {"attempt": attempt, "offset": start, "limit": most}

    def ask() -> JobLog:
        return _ask(runner, request, lambda result: jobs.parse_log(result.stdout, offset=start, limit=most))

    log = _shared(runner, tuple(request.values()), ask)
    chunk = log.chunk
    is_end = chunk.next_offset >= chunk.size and log.is_over
    page = LogPage(chunk.offset, chunk.size, is_end, chunk.data)
    return page if tail is None else page.from_whole_character()


def description_of(run: RunnerRun) -> str:
    """Return the description of a run's experiment in Autosubmit's database; empty if it has none that can be read.

    Raises JobsNotFound, JobsUnreadable, and the errors of `Runner.execute`.
    """
    _check(run)
    runner = lifecycle.runner_of(run)
    request = {"ask": "description", "expid": run.expid, "key": run.key}

    def ask() -> str:
        text = _ask(runner, request, lambda result: jobs.parse_description(_text(result)))
        place = experiment_descriptions.home_of_run(run)
        experiment_descriptions.learn(place, {run.expid: text}, limit=jobs.MOST_DESCRIPTION)
        return text

    return _shared(runner, tuple(request.values()), ask)


def _check(run: RunnerRun) -> None:
    if run.superseded:
        raise JobsNotFound(f"The experiment of run {run.pk} was deleted; a newer one has the id {run.expid} now.")


def _ask(
    runner: Runner, request: Mapping[str, Any], parse: Callable[[CommandResult], T], *, environment: bool = False
) -> T:
    """Ask the machine; load the environment of the profile only if `environment`, or if it does not work without."""
    if not environment:
        with _lock:
            learned = _python_of_environment.get(_profile_of(runner), -LEARNED_FOR)
        environment = time.monotonic() - learned < LEARNED_FOR
    try:
        return _asked(runner, request, parse, environment=environment)
    except Problem as problem:
        if environment or problem.code not in _OF_ENVIRONMENT:
            raise _error(problem, runner) from problem
        first = problem
    try:
        found = _asked(runner, request, parse, environment=True)
    except Problem as problem:
        raise _error(problem, runner) from problem
    if first.code == NO_PYTHON:
        _keep(_python_of_environment, _profile_of(runner), time.monotonic(), KEPT_MACHINES)
    return found


def _asked(runner: Runner, request: Mapping[str, Any], parse: Callable[[CommandResult], T], *, environment: bool) -> T:
    """Return the parsed answer. Raises Problem, JobsUnreadable, and the errors of `Runner.execute`."""
    result = _execute(runner, request, environment=environment)
    try:
        return parse(result)
    except Unreadable as error:
        raise JobsUnreadable(
            f"The answer of {runner.where} about the jobs is not valid: {error}. Its last output: "
            f"{result.last_words or 'no output'}"
        ) from error


def _execute(runner: Runner, request: Mapping[str, Any], *, environment: bool) -> CommandResult:
    script = scripts.jobs(request, environment=environment)
    if not environment:
        return runner.execute(script, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    lines = [scripts.surroundings("/"), *get_module_loader(runner.config).prelude(), script]
    return runner.execute(" && ".join(lines), login=True, timeout=settings.RUNNERS_LAUNCH_TIMEOUT)


def _error(problem: Problem, runner: Runner) -> RunnerServiceError:
    if problem.code in _NO_LOG:
        return LogNotFound(problem.detail)
    if problem.code in _NOT_FOUND:
        return JobsNotFound(f"{problem.detail} ({runner.where})")
    return JobsUnreadable(f"{problem.detail or NO_PYTHON_TEXT} ({runner.where})")


def _text(result: CommandResult) -> str:
    return result.stdout.decode("utf-8", "replace")


def _shared(runner: Runner, question: tuple[Hashable, ...], ask: Callable[[], T]) -> T:
    """Return the answer to a question, which all callers of this process share during the freshness window."""
    key = (runner.target, question)
    with _lock:
        asked, answer = _answers.get(key, (0.0, None))
    if answer is not None and time.monotonic() - asked < settings.RUNNERS_STATUS_FRESHNESS:
        return cast(T, _value(answer))

    def ask_and_keep() -> T:
        begin = time.monotonic()
        try:
            found: T | RunnerServiceError = ask()
        except RunnerServiceError as error:
            found = error
        _keep(_answers, key, (begin, found), KEPT_ANSWERS)
        return cast(T, _value(found))

    try:
        with BULKHEADS.reading(runner.target, PATIENCE) as seconds:
            if seconds is None:
                raise BULKHEADS.busy(runner.target, runner.where)
            return _reads.call(key, ask_and_keep, seconds)
    except StillUnderWay:
        raise RunnerUnreachable(
            "Another request is reading these jobs, and the machine has not answered yet. Try again in some seconds."
        ) from None


def _value(answer: Any) -> Any:
    if isinstance(answer, RunnerServiceError):
        raise copy(answer)
    return answer


def _keep(kept: OrderedDict[Hashable, Any], key: Hashable, value: Any, most: int) -> None:
    with _lock:
        kept.pop(key, None)
        kept[key] = value
        while len(kept) > most:
            kept.popitem(last=False)


def drop_answers(runner: Runner) -> None:
    """Forget what is known of the jobs of an account, after a command has changed some."""
    with _lock:
        for key in [key for key in _answers if isinstance(key, tuple) and key[0] == runner.target]:
            del _answers[key]


def forget() -> None:
    """Clear what this process remembers, for tests that change a job list."""
    with _lock:
        for kept in (_answers, _python_of_environment, _places):
            kept.clear()
