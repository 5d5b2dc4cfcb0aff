"""Search the log of a run or an operation on its machine, and count its lines there.

The log itself is not transferred, so a search of 300 MB costs the network some kilobytes. Callers check permissions.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from django.conf import settings

from runners import printable
from runners.commands.run_log import ERROR_TEXTS, failure_texts
from runners.exceptions import LogNotFound, RunnerUnreachable
from runners.models import DetachedCommand, RunnerRun
from runners.services import lifecycle, logs
from runners.services.log_cache import PATIENCE
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.machines.log_search import CONTEXT, END_OF_LOG, MOST_TEXTS, LogMatch, LogMatches, LogSearch
from runners.services.machines.output import plain_text
from runners.services.machines.runner import Runner
from runners_project.shared_calls import SharedCalls, StillUnderWay

QUOTED, SHORTEST = 80, 12  # characters of a line of an explanation that is searched for
KNOWN_COUNTS = 256  # numbers of lines that a process remembers

T = TypeVar("T")
_searches = SharedCalls()
_lock = threading.Lock()
_counts: OrderedDict[tuple[str, int], int] = OrderedDict()


def search(
    row: DetachedCommand,
    *,
    text: str = "",
    ignore_case: bool = False,
    offset: int = 0,
    before: int | None = None,
    limit: int = 20,
) -> LogMatches:
    """Return the first `limit` matches from byte `offset` on; or, with `before`, the last ones before this byte.

    `text`: a fixed text without line ends, or empty for what marks an error in Autosubmit's log. The machine searches
    for at most half of RUNNERS_PROBE_TIMEOUT: `resume` of the result says where to continue. Raises LogNotFound,
    MachineBusy, RunnerUnreachable and the other errors of `Runner.execute`.
    """
    wanted = LogSearch(
        (text,) if text else ERROR_TEXTS,
        ignore_case=ignore_case,
        begin=offset,
        end=END_OF_LOG if before is None else before,
        backward=before is not None,
        most=limit,
    )
    return _found(row, wanted)


def reason_of(run: RunnerRun) -> LogMatches:
    """Return the place in the log that tells why a run ended, as its only match; no match: the log does not tell.

    This is the last line about its first failed job, else the last line that is quoted in its explanation, else the
    last error. Raises the errors of `search`.
    """
    failed = run.jobs.get("failed_jobs") if isinstance(run.jobs, dict) else None
    groups = [failure_texts(str(failed[0])) if failed else (), _quoted(run.detail), ERROR_TEXTS]
    found = LogMatches(0, (), None)
    for group in filter(None, groups):
        found = _found(run, LogSearch(group, end=END_OF_LOG, backward=True, most=1))
        if found.matches:
            break
    return found


def offset_of_reason(run: RunnerRun) -> int | None:
    """Return the byte at which the line of `reason_of` is; None: the log does not tell. Raises the same errors."""
    found = reason_of(run).matches
    return found[0].offset if found else None


def _quoted(detail: str) -> tuple[str, ...]:
    """Return the beginnings of the lines of an explanation that may be those of the log."""
    lines = (line.strip() for line in detail.splitlines())
    return tuple(line[:QUOTED] for line in lines if len(line) >= SHORTEST and line.isprintable())[:MOST_TEXTS]


def match_fields(match: LogMatch) -> dict[str, Any]:
    """Return a match for people: without colours and control characters."""
    return {
        "offset": match.offset,
        "length": match.length,
        "line": match.line,
        "before": _plain(match.before),
        "match": _plain(match.match),
        "after": _plain(match.after),
    }


def _plain(data: bytes) -> str:
    return printable.line(plain_text(data).replace("\n", " "), 2 * CONTEXT)


def lines_before(row: DetachedCommand, offset: int) -> int | None:
    """Return how many line ends a log has before byte `offset`; None: they were not counted, to spare the machine.

    A log only grows, so a number is remembered. Raises the errors of `search`.
    """
    if offset <= 0:
        return 0
    place = (row.key, offset)
    with _lock:
        if place in _counts:
            return _counts[place]
    found = _on_machine(
        row,
        ("lines", *place),
        lambda runner: runner.count_lines(row.key, offset, timeout=settings.RUNNERS_PROBE_TIMEOUT),
    )
    if found is not None:
        with _lock:
            _counts[place] = found
            while len(_counts) > KNOWN_COUNTS:
                _counts.popitem(last=False)
    return found


def _found(row: DetachedCommand, wanted: LogSearch) -> LogMatches:
    found = _on_machine(
        row,
        (row.key, wanted),
        lambda runner: runner.search_log(row.key, wanted, timeout=settings.RUNNERS_PROBE_TIMEOUT),
    )
    if found is None:
        raise LogNotFound(logs.why_no_log(row))
    return found


def _on_machine(row: DetachedCommand, key: tuple[object, ...], ask: Callable[[Runner], T | None]) -> T | None:
    """Return the answer of the row's machine, or of the node of the run if the nodes have no shared home."""
    if row.cleaned_at is not None:
        return None

    def asked() -> T | None:
        runner = lifecycle.runner_of(row)
        answer = ask(runner)
        if answer is None and (node := lifecycle.runner_at_node(row, runner)):
            answer = ask(node)
        return answer

    runner = lifecycle.runner_of(row)
    try:
        with BULKHEADS.reading(runner.target, settings.RUNNERS_PROBE_TIMEOUT + PATIENCE) as seconds:
            if seconds is None:
                raise BULKHEADS.busy(runner.target, runner.where)
            return _searches.call(key, asked, seconds)
    except StillUnderWay:
        raise RunnerUnreachable(
            "Another request searches this log, and the machine has not answered yet. Try again in some seconds."
        ) from None
