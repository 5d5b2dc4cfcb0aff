"""The answers of a machine about runs: the values, and the parsers for the output of the scripts in `scripts/`.

A parser returns a value within bounds (see `answers.py`). For invalid output it raises `answers.Unreadable`; the
parsers of a probe return `Probe.CANNOT_TELL` instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from runners import printable
from runners.services.machines import answers, scripts
from runners.services.machines.answers import Unreadable

LOG_HEADER_LIMIT = 64  # bytes of the line before a log: two numbers of at most 19 digits


@dataclass(frozen=True, slots=True)
class Identity:
    """The process of a run. Its pid alone is not enough: pids are reused, machines reboot, login aliases rotate."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int  # 2 to 2^31 - 1; also the process group of the command
    start: int  # clock ticks since boot, /proc/PID/stat
    supervisor_pid: int  # this process is inspected but never signalled
    supervisor_start: int

    @classmethod
    def parse(cls, line: str) -> Identity:
        """Parse the line that the launch and probe scripts print. Raises Unreadable."""
        words = line.split(" ") if len(line) <= 1000 else []
        if len(words) != len(cls.__slots__):
            raise Unreadable("the identity of a process", line)
        host, boot_id, space, pid, start, supervisor_pid, supervisor_start = words
        return cls(
            answers.host_name(host),
            answers.boot_id(boot_id),
            answers.namespace(space),
            answers.pid(pid),
            answers.ticks(start),
            answers.pid(supervisor_pid, least=1),
            answers.ticks(supervisor_start),
        )

    @classmethod
    def from_dict(cls, stored: object) -> Identity:
        """Parse the value of a row. Raises Unreadable if the stored value is not valid."""
        if not isinstance(stored, dict) or stored.keys() != set(cls.__slots__):
            raise Unreadable("the identity of a process", str(stored)[: printable.LINE_LIMIT])
        return cls.parse(" ".join(str(stored[name]) for name in cls.__slots__))

    @property
    def words(self) -> list[str]:
        return [str(value) for value in self.as_dict().values()]

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """A run to probe. `claim`: its launch can no longer be in progress, so no trace means that it never started.

    `expid`: the experiment whose jobs to count; empty: none. `stamp`: that of the counts that are known, or empty.
    """

    key: str
    identity: Identity | None = None
    claim: bool = False
    expid: str = ""
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class LogState:
    """A log's size in bytes, and the seconds since its last change by the machine's clock. None: not known."""

    size: int
    age: int | None


@dataclass(frozen=True, slots=True)
class Probe:
    """The machine's answer about a run. Only `cannot_tell` means that the state of the run is unknown."""

    RUNNING: ClassVar = "running"
    ENDED: ClassVar = "ended"
    GONE: ClassVar = "gone"
    REBOOTED: ClassVar = "rebooted"
    NEVER_STARTED: ClassVar = "never_started"
    STARTING: ClassVar = "starting"
    CANNOT_TELL: ClassVar = "cannot_tell"

    answer: str
    identity: Identity | None = None
    exit_code: int | None = None
    signal: str = ""
    finished: float | None = None  # epoch seconds by the machine's clock; None: unknown, or the clock is wrong
    interrupted: bool = False  # it ended as Autosubmit ends after an INT: exit code 88, KeyboardInterrupt in its log
    detail: str = ""  # printable, at most printable.TEXT_LIMIT characters
    retry_after: int = 0  # seconds before the machine is asked again, if it could not be reached
    node: str = ""  # the machine that answered, if it is not the one on which the run was started
    was_asked: bool = True  # False: this process did not ask, because too many requests wait for the machine
    log: LogState | None = None  # None: there is no log, or its state cannot be read
    jobs: str = ""  # the line about the run's jobs, for `machines.jobs.parse_counts`; empty: not asked, or not known

    @property
    def is_over(self) -> bool:
        return self.answer in (self.ENDED, self.GONE, self.REBOOTED, self.NEVER_STARTED)


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes `offset` to `offset + len(data)` of a log that is `size` bytes long now."""

    offset: int
    size: int
    data: bytes = field(repr=False)

    @property
    def next_offset(self) -> int:
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class EndOfRun:
    """What explains the end of a run.

    `lines`: those of its log that were searched for. `is_whole`: these are all of them, else only the last ones, or
    none. `log`: the end of the log; None: there is no log. `jobs`: what the script part about the jobs printed.
    """

    lines: bytes = field(default=b"", repr=False)
    is_whole: bool = False
    log: LogChunk | None = None
    jobs: str = field(default="", repr=False)

    @property
    def tail(self) -> bytes:
        return self.log.data if self.log else b""


def cannot_tell(detail: str, *, retry_after: int = 0, was_asked: bool = True, node: str = "") -> Probe:
    return Probe(
        Probe.CANNOT_TELL, detail=printable.text(detail), retry_after=retry_after, was_asked=was_asked, node=node
    )


def parse_launch(output: str, ready: str) -> Identity:
    """Parse the answer of a launch: the line of the identity, then the line `ready`. Raises Unreadable."""
    line, newline, rest = output.strip("\n").partition("\n")
    if rest != ready:
        raise Unreadable(f"an identity and the line {ready!r}", output)
    return Identity.parse(line)


def parse_failed_launch(output: str, failed: str) -> tuple[int, str]:
    """Parse the answer of a launch that certainly has not started its command. Return its exit code and the log's end.

    Raises Unreadable for any other answer.
    """
    line, _, words = output.strip("\n").partition("\n")
    word, _, code = line.partition(" ")
    if word != failed:
        raise Unreadable(f"a line with {failed!r}", line)
    return answers.exit_code(code), words


def parse_probes(keys: Iterable[str], output: str, silence: str) -> dict[str, Probe]:
    """Parse the lines of the probe script and return one answer for each key.

    `silence`: the detail of the answer for a key without a line. Lines of other keys are ignored. A key with several
    lines gets the answer `cannot_tell`. A log's state that is not valid is left out, because the state of the run does
    not depend on it.
    """
    found: dict[str, list[str]] = {key: [] for key in keys}
    logs: dict[str, list[LogState | None]] = {key: [] for key in found}
    jobs: dict[str, str] = {}
    for line in output.split("\n"):
        key = line.split(" ", 1)[0]
        if key in found:
            found[key].append(line)
        elif key == "log":
            key, state = _parse_log_state(line)
            if key in logs:
                logs[key].append(state)
        elif key == scripts.JOBS:
            jobs[line[len(key) + 1 :].split(" ", 1)[0]] = line
    answered = {}
    for key, lines in found.items():
        if not lines:
            answered[key] = cannot_tell(silence)
        elif len(lines) > 1:
            answered[key] = cannot_tell("the machine gave several answers about one run")
        else:
            state = logs[key][0] if len(logs[key]) == 1 else None
            answered[key] = replace(parse_probe(lines[0]), log=state, jobs=jobs.get(key, ""))
    return answered


def _parse_log_state(line: str) -> tuple[str, LogState | None]:
    """Parse a line `log <clock> <key>/log <bytes> <changed>`. Return the key, and None if the rest is not valid."""
    words = line.split(" ") if len(line) <= printable.LINE_LIMIT else []
    if len(words) != 5:
        return "", None
    key = words[2].removesuffix("/log")
    try:
        clock, changed = answers.epoch(words[1]), answers.epoch(words[4])
        # The clock of a file server may be ahead of the machine's.
        age = None if clock is None or changed is None else max(0, clock - changed)
        return key, LogState(answers.size(words[3]), age)
    except Unreadable:
        return key, None


def parse_probe(line: str) -> Probe:
    """Parse one line of the probe script; see `scripts.probe` for the answers. Never raises."""
    try:
        return _parse_probe(line)
    except Unreadable as error:
        return cannot_tell(f"the run's directory has unexpected content: {error}")


def _parse_probe(line: str) -> Probe:
    _, _, rest = line.partition(" ")
    answer, _, facts = rest.partition(" ")
    if answer == Probe.ENDED:
        name, _, interrupted = facts.partition(" ")
        words = name.split(".") if len(name) <= printable.LINE_LIMIT else []
        if len(words) != 3 or interrupted not in ("-", "interrupted"):
            raise Unreadable("the end of a run", facts)
        return Probe(
            Probe.ENDED,
            exit_code=answers.exit_code(words[0]),
            signal=answers.signal_name(words[1]),
            finished=answers.epoch(words[2]),
            interrupted=interrupted == "interrupted",
        )
    if answer in (Probe.RUNNING, Probe.GONE, Probe.REBOOTED):
        return Probe(answer, identity=Identity.parse(facts))
    if answer in (Probe.STARTING, Probe.NEVER_STARTED):
        if facts:
            raise Unreadable("nothing more", facts)
        return Probe(answer)
    if answer == "elsewhere":
        host = answers.host_name(facts)
        return cannot_tell(f"another machine answered ({host}), which cannot see the run's process", node=host)
    if answer == "unknown":
        return cannot_tell(printable.line(facts) or "no answer")
    raise Unreadable("an answer", rest)


def parse_first_match(output: str) -> int | None:
    """Parse the answer of `scripts.first_match`: a pid, or an empty line. Raises Unreadable."""
    word = output.strip("\n")
    return answers.pid(word) if word else None


def parse_log(output: bytes, *, offset: int, limit: int) -> LogChunk:
    """Parse the answer of `scripts.read_log`: `<size> <start>` and a newline, then the bytes of the log.

    `offset` and `limit` are those of the request. The bytes must begin at `offset` (if negative, that many bytes before
    the end), and there must be at most `limit`. Bytes that were appended after the size was read are left for the next
    request. Raises Unreadable.
    """
    header, newline, data = output.partition(b"\n") if b"\n" in output[:LOG_HEADER_LIMIT] else (output, b"", b"")
    words = header[:LOG_HEADER_LIMIT].decode("ascii", "replace").split(" ")
    if not newline or len(words) != 2:
        raise Unreadable("the size of the log", header[:LOG_HEADER_LIMIT].decode("utf-8", "replace"))
    size, start = answers.size(words[0]), answers.size(words[1])
    if start != (offset if offset >= 0 else max(0, size + offset)):
        raise Unreadable("the part of the log that was asked for", words[1])
    if len(data) > limit:
        raise Unreadable(f"at most {limit} bytes of the log", f"{len(data)} bytes")
    return LogChunk(offset=start, size=size, data=data[: max(0, size - start)])


def parse_end(output: bytes, *, mark: str, lines: int, tail: int, has_log: bool) -> EndOfRun:
    """Parse the answer of `scripts.read_end` to a request with these limits. Raises Unreadable."""
    parts = output.split(f"\n{mark}".encode())
    if len(parts) != 3:
        raise Unreadable("three parts", f"{len(parts)} parts")
    found, middle, end = parts
    code, _, jobs = middle.removeprefix(b" ").partition(b"\n")
    is_whole = answers.exit_code(code[:3].decode("ascii", "replace")) in (0, 1) and len(found) < lines
    log = parse_log(end.removeprefix(b"\n"), offset=-tail, limit=tail) if has_log else None
    # A search that was ended has the first lines, and what matters is at the end.
    return EndOfRun(found if is_whole or len(found) == lines else b"", is_whole, log, jobs.decode("utf-8", "replace"))
