"""The jobs of an experiment, as the machine reads them from Autosubmit's own files: questions and strict parsers.

docs/jobs.md says which of Autosubmit's files is true at which time. scripts/read_jobs.py reads them on the machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from profiles.validators import MAX_PATH
from runners import printable
from runners.services.machines import answers, scripts
from runners.services.machines.answers import Unreadable
from runners.services.machines.probe import LogChunk

STATUSES = (
    "WAITING",
    "DELAYED",
    "PREPARED",
    "READY",
    "SUBMITTED",
    "QUEUING",
    "HELD",
    "RUNNING",
    "COMPLETED",
    "FAILED",
    "SUSPENDED",
    "SKIPPED",
    "UNKNOWN",
)
DONE = ("COMPLETED", "SKIPPED")
ORDERINGS = ("name", "status", "section", "date", "member", "chunk", "platform")
MOST_JOBS = 200_000
MOST_FAILED = 50  # names of failed jobs
MOST_FAILURES = 5  # failed jobs whose error logs are read
FAILURE_LIMIT = 2000  # bytes of such a log
MOST_ATTEMPTS = 50
MOST_SECTIONS = 200
MOST_TEXT = 255  # characters
LINE_LIMIT = 1024  # bytes of the line before a log

_STAMP = re.compile(r"[0-9]{1,20}\.[0-9]{1,20}\.[0-9]{1,20}")


MOST_DESCRIPTION = 1000  # characters


class Problem(Exception):
    """The machine has no answer. `code`: a word of read_jobs.py; `detail`: its sentence, which is not trusted."""

    def __init__(self, code: str, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(f"{code}: {detail}")


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many jobs have which status.

    `by_status`: only statuses that a job has. `failed_jobs`: at most MOST_FAILED names, in the order of the job list.
    `stamp`: changes whenever Autosubmit writes the job list.
    """

    total: int
    by_status: dict[str, int]
    failed_jobs: tuple[str, ...]
    stamp: str

    @property
    def done(self) -> int:
        return sum(self.by_status.get(status, 0) for status in DONE)

    @property
    def failed(self) -> int:
        return self.by_status.get("FAILED", 0)

    @property
    def running(self) -> int:
        return self.by_status.get("RUNNING", 0)

    @property
    def written(self) -> float:
        """The time of the last change of the job list, in epoch seconds by the clock of its file system."""
        return int(self.stamp.partition(".")[0]) / 1e9

    @property
    def left(self) -> int:
        """The number of jobs that a run would still start or wait for: neither done nor failed."""
        return self.total - self.done - self.failed


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed job, and the end of its last error log, as it is on the machine. Empty: not known, or nothing."""

    name: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One submission of a job. None: not known. `finished`: when Autosubmit recorded the end."""

    number: int
    status: str | None
    submitted: datetime | None
    started: datetime | None
    finished: datetime | None
    remote_id: int | None
    out: str | None
    err: str | None


@dataclass(frozen=True, slots=True)
class Job:
    """A job, and its attempts that Autosubmit knows, oldest first."""

    name: str
    section: str | None
    date: str | None
    member: str | None
    chunk: int | None
    split: int | None
    status: str
    platform: str | None
    attempts: tuple[Attempt, ...]

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs are wanted: all filters that are given have to match. `name` is a part of the name.

    `ordering`: one of ORDERINGS, with `-` in front to reverse it; empty: the order of the job list.
    """

    status: tuple[str, ...] = ()
    section: str | None = None
    member: str | None = None
    date: str | None = None
    chunk: int | None = None
    split: int | None = None
    platform: str | None = None
    name: str | None = None
    ordering: str = ""
    offset: int = 0
    limit: int = 100

    def as_dict(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in given.items() if value not in (None, "", ())}


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some of the jobs that match a query.

    `has_history`: Autosubmit's history of attempts was read. `place`: the folders of the experiments and of the
    history.
    """

    counts: JobCounts
    matching: int
    jobs: tuple[Job, ...]
    has_history: bool
    place: tuple[str, str]


@dataclass(frozen=True, slots=True)
class JobLog:
    """A part of a job's log. `is_over`: that attempt has ended, by Autosubmit's own record."""

    chunk: LogChunk
    attempt: int
    is_over: bool


@dataclass(frozen=True, slots=True)
class JobSelection:
    """Which jobs are selected: all filters have to match. None matches every value.

    `sections`: one entry for each filter with sections; an entry is pairs (section, splits). `chunks`: triples
    (date, member, chunks). Sections and members are in capital letters.
    """

    names: tuple[str, ...] | None = None
    statuses: tuple[str, ...] | None = None
    sections: tuple[tuple[tuple[str | None, tuple[int, ...] | None], ...], ...] = ()
    chunks: tuple[tuple[str | None, str | None, tuple[int, ...] | None], ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class SelectedJobs:
    """`counts`: of all jobs. `sections`: how many jobs each section has. `selected`: counts of the selected jobs.

    `jobs`: some of the selected jobs, each with its status.
    """

    counts: JobCounts
    sections: dict[str, int]
    selected: JobCounts
    jobs: tuple[tuple[str, str], ...]
    place: tuple[str, str]


def parse_counts(output: str, keys: Collection[str]) -> dict[str, JobCounts | None]:
    """Parse the lines of `scripts.job_counts` in an output, by the keys of the runs.

    None: the job list still has the stamp that was sent. A run is missing if its counts are not known: no job list, no
    Python, or an answer that is not valid. Other lines, and lines of other runs, are ignored.
    """
    found: dict[str, JobCounts | None] = {}
    for line in output.split("\n"):
        mark, _, rest = line.partition(" ")
        key, _, text = rest.partition(" ")
        if mark != scripts.JOBS or key not in keys:
            continue
        try:
            answer = _object(text)
            found[key] = None if answer.get("unchanged") is True else _counts(answer)
        except (Problem, Unreadable):
            found.pop(key, None)
    return found


def parse_failures(output: str, key: str) -> tuple[JobCounts, tuple[Failure, ...]] | None:
    """Parse the line of `scripts.job_failures` for the run `key`. None: it is not known, or the answer is not valid."""
    begin = f"{scripts.JOBS} {key} "
    lines = [line.removeprefix(begin) for line in output.split("\n") if line.startswith(begin)]
    try:
        answer = _object(lines[0] if len(lines) == 1 else "")
        return _counts(answer), tuple(_failure(each) for each in _list(answer, "failures", MOST_FAILURES))
    except (Problem, Unreadable):
        return None


def parse_page(output: str, query: JobQuery) -> JobPage:
    """Parse the answer of `scripts.jobs` to a request for a page. Raises Problem, Unreadable."""
    answer = _object(_only_line(output))
    jobs = _list(answer, "jobs", query.limit)
    matching = _integer(answer, "matching", 0, MOST_JOBS)
    page = tuple(_job(each) for each in jobs)
    return JobPage(_counts(answer), matching, page, answer.get("history") is True, _place(answer))


def parse_selection(output: str, limit: int) -> SelectedJobs:
    """Parse the answer of `scripts.jobs` to a request for a selection. Raises Problem, Unreadable."""
    answer = _object(_only_line(output))
    jobs = []
    for each in _list(answer, "jobs", limit):
        if not isinstance(each, list) or len(each) != 2 or each[1] not in STATUSES:
            raise Unreadable("a name and a status", str(each)[:100])
        jobs.append((_name(each[0]), str(each[1])))
    selected = answer.get("selected")
    if not isinstance(selected, dict):
        raise Unreadable("counts of the selected jobs", str(selected)[:100])
    sections = answer.get("sections")
    if not isinstance(sections, dict) or len(sections) > MOST_SECTIONS:
        raise Unreadable("counts of sections", str(sections)[:100])
    by_section = {_name(name): _integer(sections, name, 0, MOST_JOBS) for name in sections}
    return SelectedJobs(_counts(answer), by_section, _counts(selected), tuple(jobs), _place(answer))


def parse_log(output: bytes, *, offset: int, limit: int) -> JobLog:
    """Parse the answer of `scripts.jobs` to a request for a log. Raises Problem, Unreadable."""
    line, newline, data = output.partition(b"\n") if b"\n" in output[:LINE_LIMIT] else (output, b"", b"")
    answer = _object(_only_line(line[:LINE_LIMIT].decode("utf-8", "replace")))
    size, start = _integer(answer, "size", 0, answers.INT64_MOST), _integer(answer, "offset", 0, answers.INT64_MOST)
    if not newline or start != (offset if offset >= 0 else max(0, size + offset)):
        raise Unreadable("the part of the log that was asked for", str(start))
    if len(data) > limit:
        raise Unreadable(f"at most {limit} bytes of the log", f"{len(data)} bytes")
    attempt = _integer(answer, "attempt", 1, MOST_ATTEMPTS)
    chunk = LogChunk(offset=start, size=size, data=data[: max(0, size - start)])
    return JobLog(chunk, attempt, answer.get("over") is True)


def parse_description(output: str) -> str:
    """Parse the answer of `scripts.jobs` to a request for the description of an experiment, as one printable line.

    Raises Problem, Unreadable.
    """
    text = _object(_only_line(output)).get("description")
    if not isinstance(text, str):
        raise Unreadable("a description", output)
    return printable.line(" ".join(text.split()), MOST_DESCRIPTION)


def _only_line(output: str) -> str:
    lines = [line for line in output.split("\n") if line.startswith(f"{scripts.JOBS} ")]
    if len(lines) != 1:
        raise Unreadable("one answer about the jobs", output)
    return lines[0].split(" ", 2)[-1]


def _object(text: str) -> dict[str, Any]:
    """Parse a JSON object. Raises Problem if it is the machine's report that there is no answer; Unreadable."""
    try:
        answer = json.loads(text, parse_constant=_reject)
    except (ValueError, RecursionError) as error:
        raise Unreadable("a JSON object", text) from error
    if not isinstance(answer, dict):
        raise Unreadable("a JSON object", text)
    if "problem" in answer:
        code, detail = answer["problem"], answer.get("detail", "")
        if not isinstance(code, str) or not re.fullmatch("[a-z_]{1,40}", code) or not isinstance(detail, str):
            raise Unreadable("a problem", text)
        raise Problem(code, printable.line(detail))
    return answer


def _reject(word: str) -> None:
    raise ValueError(word)


def _counts(answer: Mapping[str, Any]) -> JobCounts:
    total, by_status = _integer(answer, "total", 0, MOST_JOBS), answer.get("by_status")
    if not isinstance(by_status, dict) or not by_status.keys() <= set(STATUSES):
        raise Unreadable("counts by status", str(by_status))
    counts = {status: _integer(by_status, status, 1, MOST_JOBS) for status in STATUSES if status in by_status}
    if sum(counts.values()) != total:
        raise Unreadable("counts that add up to the total", str(counts))
    names = _list(answer, "failed", MOST_FAILED)
    stamp = answer.get("stamp")
    if not isinstance(stamp, str) or not _STAMP.fullmatch(stamp):
        raise Unreadable("a stamp", str(stamp))
    return JobCounts(total, counts, tuple(_name(name) for name in names), stamp)


def _failure(answer: Any) -> Failure:
    if not isinstance(answer, dict):
        raise Unreadable("a failed job", str(answer))
    text = answer.get("text")
    if not isinstance(text, str) or len(text) > FAILURE_LIMIT:
        raise Unreadable(f"a text of at most {FAILURE_LIMIT} characters", str(text)[:100])
    return Failure(_name(answer.get("name")), text)


def _job(answer: Any) -> Job:
    if not isinstance(answer, dict):
        raise Unreadable("a job", str(answer))
    attempts = _list(answer, "attempts", MOST_ATTEMPTS)
    status = answer.get("status")
    if status not in STATUSES:
        raise Unreadable("a status", str(status))
    return Job(
        name=_name(answer.get("name")),
        section=_text(answer, "section"),
        date=_text(answer, "date"),
        member=_text(answer, "member"),
        chunk=_number(answer, "chunk"),
        split=_number(answer, "split"),
        status=status,
        platform=_text(answer, "platform"),
        attempts=tuple(_attempt(number, each) for number, each in enumerate(attempts, start=1)),
    )


def _attempt(number: int, answer: Any) -> Attempt:
    if not isinstance(answer, dict):
        raise Unreadable("an attempt", str(answer))
    return Attempt(
        number,
        _text(answer, "status"),
        _time(answer, "submit"),
        _time(answer, "start"),
        _time(answer, "finish"),
        _number(answer, "remote_id"),
        _text(answer, "out"),
        _text(answer, "err"),
    )


def _place(answer: Mapping[str, Any]) -> tuple[str, str]:
    place = _list(answer, "place", 2)
    for path in place:
        if not isinstance(path, str) or not path.startswith("/") or not path.isprintable() or len(path) > MAX_PATH:
            raise Unreadable("the path of the experiments", str(path))
    if len(place) != 2:
        raise Unreadable("two paths", str(place))
    return place[0], place[1]


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise Unreadable("a job's name", str(value))
    return printable.line(value)


def _text(answer: Mapping[str, Any], key: str) -> str | None:
    value = answer.get(key)
    return None if value is None else _name(value)


def _number(answer: Mapping[str, Any], key: str) -> int | None:
    return None if answer.get(key) is None else _integer(answer, key, 0, 10**15)


def _time(answer: Mapping[str, Any], key: str) -> datetime | None:
    seconds = _number(answer, key)
    if seconds is None or not answers.EPOCH_LEAST <= seconds <= answers.EPOCH_MOST:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _integer(answer: Mapping[str, Any], key: str, least: int, most: int) -> int:
    value = answer.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Unreadable(f"{key}, {least} to {most}", str(value)[:100])
    return value


def _list(answer: Mapping[str, Any], key: str, most: int) -> list[Any]:
    value = answer.get(key)
    if not isinstance(value, list) or len(value) > most:
        raise Unreadable(f"at most {most} {key}", str(value)[:100])
    return value
