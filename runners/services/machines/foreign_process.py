"""The processes that `scripts.foreign_look` and a launch report: the values, and the strict parser for their lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runners import printable
from runners.services.machines import answers
from runners.services.machines.answers import Unreadable

SHOWN = 10  # processes that the scripts report
COMMAND_LIMIT = 200  # characters of a command line
_LINE = re.compile(r"foreign (\S+) (\S+) (\S+) ([0-9]+) ([0-9]+) (-?[0-9]+) (.*)")


@dataclass(frozen=True, slots=True)
class ForeignProcess:
    """A process that runs an experiment. Its pid alone is not enough to signal it: pids are reused."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    start: int  # clock ticks since boot, /proc/PID/stat
    since: datetime | None  # when it started, by the machine's clock; None: that clock is wrong
    command: str  # its command line, printable, COMMAND_LIMIT characters at most

    @classmethod
    def parse(cls, line: str) -> ForeignProcess:
        """Parse one line of `scripts.foreign_look`. Raises Unreadable."""
        found = _LINE.fullmatch(line) if len(line) <= 1000 else None
        if found is None:
            raise Unreadable("a process", line)
        host, boot_id, space, pid, start, since, command = found.groups()
        seconds = answers.integer(since, -answers.INT64_MOST, answers.INT64_MOST, what="a time")
        is_valid = answers.EPOCH_LEAST <= seconds <= answers.EPOCH_MOST
        return cls(
            answers.host_name(host),
            answers.boot_id(boot_id),
            answers.namespace(space),
            answers.pid(pid),
            answers.ticks(start),
            datetime.fromtimestamp(seconds, UTC) if is_valid else None,
            printable.line(command, COMMAND_LIMIT),
        )

    @property
    def words(self) -> list[str]:
        """The identity, for `scripts.foreign_signal`."""
        return [self.host, self.boot_id, self.pid_namespace, str(self.pid), str(self.start)]

    def as_dict(self) -> dict[str, Any]:
        """Return the facts for answers and rows, as JSON types."""
        since = self.since.isoformat(timespec="seconds") if self.since else None
        return {"pid": self.pid, "since": since, "host": self.host, "command": self.command}

    def __str__(self) -> str:
        since = f", since {self.since:%Y-%m-%d %H:%M:%S %Z}" if self.since else ""
        return f"process {self.pid} on {self.host}{since}"


@dataclass(frozen=True, slots=True)
class Search:
    """What to search for. `known`: runs of this service, which do not count: `PID.START`, or the key of a run."""

    expid: str
    known: tuple[str, ...] = ()


def parse_lines(output: str) -> list[ForeignProcess]:
    """Parse the lines of a search, the oldest process first. Raises Unreadable."""
    lines = output.strip("\n").split("\n")
    if len(lines) > SHOWN:
        raise Unreadable(f"at most {SHOWN} processes", f"{len(lines)} lines")
    return sorted(map(ForeignProcess.parse, lines), key=lambda each: (each.start, each.pid))
