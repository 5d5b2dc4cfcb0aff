"""The search of a log on its machine: what is searched for, and a strict parser of what the machine answers."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from runners.services.machines import answers, scripts
from runners.services.machines.answers import Unreadable

MOST_MATCHES = 100
MOST_TEXTS = 10
MOST_BYTES = 800  # of one text, as UTF-8
CONTEXT = 300  # bytes before and behind a match
END_OF_LOG = answers.INT64_MOST


@dataclass(frozen=True, slots=True)
class LogSearch:
    """Search for any of `texts`, which have no line ends, in the bytes `begin` to `end` of a log.

    `ignore_case`: of the letters A to Z. `backward`: the last `most` matches before `end`, else the first ones.
    """

    texts: tuple[str, ...]
    ignore_case: bool = False
    begin: int = 0
    end: int = END_OF_LOG
    backward: bool = False
    most: int = 20

    def __post_init__(self) -> None:
        if not (
            1 <= len(self.texts) <= MOST_TEXTS
            and all(text.isprintable() and 0 < len(text.encode()) <= MOST_BYTES for text in self.texts)
            and 0 <= self.begin <= END_OF_LOG
            and 0 <= self.end <= END_OF_LOG
            and 1 <= self.most <= MOST_MATCHES
        ):
            raise ValueError("This search has values beyond its bounds.")

    def script(self, key: str, *, seconds: int) -> str:
        return scripts.search_log(
            key,
            self.texts,
            ignore_case=self.ignore_case,
            begin=self.begin,
            end=self.end,
            backward=self.backward,
            most=self.most,
            context=CONTEXT,
            seconds=seconds,
        )


@dataclass(frozen=True, slots=True)
class LogMatch:
    """A match of `length` bytes at byte `offset`, with what its line has before and behind it, at most CONTEXT bytes.

    `line`: its number from 1; None: it was not counted.
    """

    offset: int
    line: int | None
    before: bytes = field(repr=False)
    match: bytes = field(repr=False)
    after: bytes = field(repr=False)

    @property
    def length(self) -> int:
        return len(self.match)


@dataclass(frozen=True, slots=True)
class LogMatches:
    """The matches, in ascending order. `size`: the bytes of the log.

    `resume`: where to continue, as `begin` or (backward) as `end`; None: everything was searched.
    """

    size: int
    matches: tuple[LogMatch, ...]
    resume: int | None


def parse_search(output: bytes, search: LogSearch) -> LogMatches:
    """Parse the answer of `scripts.search_log` to this search. Raises Unreadable."""
    lines = _lines(output)
    size = answers.size(_word(lines[0], "size")) if lines else -1
    if len(lines) < 2 or len(lines) > search.most + 2:
        raise Unreadable("the size, matches and the end of the search", f"{len(lines)} lines")
    matches = tuple(_match(line, size) for line in lines[1:-1])
    end = min(search.end, size)
    begin = min(search.begin, end)
    offsets = [match.offset for match in matches]
    if sorted(set(offsets)) != offsets or (offsets and not begin <= offsets[0] <= offsets[-1] < end):
        raise Unreadable("ascending matches in the searched part", str(offsets[:3]))
    until = answers.integer(_word(lines[-1], "until"), begin, end, what="where the search stopped")
    is_whole = until <= begin if search.backward else until >= end
    return LogMatches(size, matches, None if is_whole else until)


def parse_lines(output: bytes) -> int | None:
    """Parse the answer of `scripts.count_lines`: None if the lines were not counted. Raises Unreadable."""
    lines = _lines(output)
    if len(lines) != 1:
        raise Unreadable("a number of lines", f"{len(lines)} lines")
    return _count(_word(lines[0], "lines"))


def _lines(output: bytes) -> list[str]:
    *lines, end = output.decode("ascii", "replace").rstrip("\n").split("\n")
    if end != scripts.END:
        raise Unreadable(f"the line {scripts.END!r} at the end", end)
    return lines


def _word(line: str, name: str) -> str:
    head, _, word = line.partition(" ")
    if head != name:
        raise Unreadable(f"a line with {name!r}", line)
    return word


def _count(word: str) -> int | None:
    return None if word == "-" else answers.size(word)


def _match(line: str, size: int) -> LogMatch:
    words = _word(line, "match").split(" ")
    if len(words) != 5:
        raise Unreadable("a match", line)
    offset, lines, context = answers.size(words[0]), _count(words[2]), answers.integer(words[3], 0, CONTEXT)
    length = answers.integer(words[1], 1, MOST_BYTES, what="the length of a match")
    try:
        data = base64.b64decode(words[4], validate=True)
    except binascii.Error:
        raise Unreadable("the bytes of a match", words[4]) from None
    if context > offset or not context + length <= len(data) <= context + length + CONTEXT or offset + length > size:
        raise Unreadable("a match with its context", line)
    before, match, after = data[:context], data[context : context + length], data[context + length :]
    before, after = before.rpartition(b"\n")[2], after.partition(b"\n")[0]
    return LogMatch(offset, None if lines is None else lines + 1, before, match, after)
