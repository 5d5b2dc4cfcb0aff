"""The filters of set-job-status as they are typed: which jobs of the job list they select.

The preview of the command asks Autosubmit itself. This module only counts while somebody types. It follows `setstatus`
of Autosubmit 4.1.17.1 (`apply_job_filters`, `_filter_chunks` and `_filter_sections_splits`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from runners.commands.set_job_status import (
    ANY,
    CHUNK_FILTERS,
    JOB_NAMES,
    JOB_NAMES_LIMIT,
    STATUSES,
    split_sections,
)
from runners.services.machines.jobs import JobSelection

MOST_NUMBERS = 10_000  # chunks or splits of one filter
MOST_PAIRS = 200  # sections, or pairs of date and member
_TOKEN = re.compile(r"\s*(\[|\]|[^\s\[\]]+)")
_RANGE = re.compile(r"([0-9]{1,6})(?:[-:]([0-9]{1,6}))?")
_SECTION = re.compile(r"([^\s\[\]]{1,255})(?: \[(.*)\])?")


class CannotCount(Exception):
    """The filter is incomplete, or only Autosubmit can read it. The text says which."""


def selection_of(given: Mapping[str, str]) -> JobSelection | None:
    """Return the selection of the typed filters, by the names of the parameters; None if all are empty.

    Raises CannotCount.
    """
    names = tuple(given.get(JOB_NAMES, "").replace(",", " ").split())
    statuses = tuple(given.get("filter_status", "").upper().replace(",", " ").split())
    types = given.get("filter_type", "").strip()
    chunks = [given.get(name, "").strip() for name in CHUNK_FILTERS if given.get(name, "").strip()]
    if not (names or statuses or types or chunks):
        return None
    if sum(map(len, names)) > JOB_NAMES_LIMIT:
        raise CannotCount("There are too many names.")
    for status in statuses:
        if status not in (*STATUSES, ANY):
            raise CannotCount(f"No status begins or ends like this: {status[:40]}.")
    if len(chunks) > 1:
        raise CannotCount("Only one of the filters by chunk can be given.")
    sections = [_sections(split_sections(types))] if types and types.upper() != ANY else []
    formula = None
    if chunks:
        text, _, rest = chunks[0].partition(",")
        formula = _chunks(text)
        if rest.strip():
            sections.append(_sections(split_sections(rest)))
    return JobSelection(
        names=names or None,
        statuses=None if not statuses or statuses == (ANY,) else statuses,
        sections=tuple(sections),
        chunks=formula,
    )


def _sections(items: list[str]) -> tuple[tuple[str | None, tuple[int, ...] | None], ...]:
    found = []
    for item in items[:MOST_PAIRS]:
        match = _SECTION.fullmatch(item)
        if match is None:
            raise CannotCount("The sections are not complete.")
        found.append((_word(match[1]), _numbers((match[2] or "").split())))
    return tuple(found)


def _word(text: str) -> str | None:
    return None if text.upper() == ANY else text.upper()


def _numbers(words: list[str]) -> tuple[int, ...] | None:
    """Return the numbers of `1 2 4-6`; None, which matches all, for no words and for ANY."""
    if not words or [word.upper() for word in words] == [ANY]:
        return None
    found: set[int] = set()
    for word in words:
        match = _RANGE.fullmatch(word)
        if match is None:
            raise CannotCount(f"Only Autosubmit can read {word[:40]}.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first >= MOST_NUMBERS:
            raise CannotCount("The range is too long.")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def _chunks(text: str) -> tuple[tuple[str | None, str | None, tuple[int, ...] | None], ...]:
    """Return the triples of `[ DATE [ MEMBER [ CHUNKS ] ... ] ... ]`."""
    tokens = _TOKEN.findall(text)
    found = []
    place = _expect(tokens, 0, "[")
    while _at(tokens, place) != "]":
        date, place = _word(_at(tokens, place)), _expect(tokens, place + 1, "[")
        if date is not None and not re.fullmatch("[0-9]{8}", date):
            raise CannotCount("A date has eight digits, such as 20000101.")
        while _at(tokens, place) != "]":
            member, place = _word(_at(tokens, place)), _expect(tokens, place + 1, "[")
            words = []
            while _at(tokens, place) != "]":
                words.append(_at(tokens, place))
                place += 1
            place += 1
            found.append((date, member, _numbers(words)))
            if len(found) > MOST_PAIRS:
                raise CannotCount("There are too many dates and members.")
        place += 1
    if place + 1 != len(tokens) or not found:
        raise CannotCount(_INCOMPLETE)
    return tuple(found)


_INCOMPLETE = "The filter by chunk is not complete, as in [ 20000101 [ fc0 [1-2] ] ]."


def _at(tokens: list[str], place: int) -> str:
    if place >= len(tokens):
        raise CannotCount(_INCOMPLETE)
    return tokens[place]


def _expect(tokens: list[str], place: int, wanted: str) -> int:
    if _at(tokens, place) != wanted:
        raise CannotCount(_INCOMPLETE)
    return place + 1
