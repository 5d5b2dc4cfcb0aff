"""Live `autosubmit run` processes of an account that this service has not started.

The scripts find them in /proc by their arguments. Processes of other accounts, of containers with a PID namespace of
their own, and of other nodes behind the same address are not visible. So "none was seen" does not mean "there is none".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings

from runners import printable
from runners.exceptions import OutcomeUnknown
from runners.services.machines import answers, scripts
from runners.services.machines.answers import Unreadable

if TYPE_CHECKING:
    from runners.services.machines.runner import Runner

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


class Answer:
    """The answers of `scripts.foreign_signal`."""

    ALIVE: ClassVar = "alive"
    GONE: ClassVar = "gone"
    CHANGED: ClassVar = "changed"  # the same process now executes something else


def parse_lines(output: str) -> list[ForeignProcess]:
    """Parse the lines of a search, the oldest process first. Raises Unreadable."""
    lines = output.strip("\n").split("\n")
    if len(lines) > SHOWN:
        raise Unreadable(f"at most {SHOWN} processes", f"{len(lines)} lines")
    return sorted(map(ForeignProcess.parse, lines), key=lambda each: (each.start, each.pid))


def look(runner: Runner, search: Search) -> list[ForeignProcess]:
    """Return the live runs of an experiment that this service has not started and that the machine can see.

    Raises OutcomeUnknown if the machine's answer is not valid, and the errors of `Runner.execute`.
    """
    script = scripts.foreign_look(search.expid, search.known)
    output = runner.execute(script, timeout=settings.RUNNERS_PROBE_TIMEOUT).stdout.decode("utf-8", "replace")
    body, _, end = output.strip("\n").rpartition("\n")
    try:
        if end != "end":
            raise Unreadable("the end of a list of processes", end)
        return parse_lines(body) if body else []
    except Unreadable as error:
        raise OutcomeUnknown(
            f"Whether another process runs experiment {search.expid} on {runner.where} is not known: {error}."
        ) from error


def signal(runner: Runner, process: ForeignProcess, expid: str, name: str = "") -> str:
    """Send a signal if the process is still the same and still executes the run. Empty `name`: only look.

    Return one of `Answer`, after the signal. Raises OutcomeUnknown if another machine answers or the answer is not
    valid, and the errors of `Runner.execute`.
    """
    script = scripts.foreign_signal(expid, process.words, name)
    result = runner.execute(script, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    answer = result.stdout.decode("utf-8", "replace").strip("\n")
    if answer in (Answer.ALIVE, Answer.GONE, Answer.CHANGED):
        return answer
    raise OutcomeUnknown(
        f"Whether process {process.pid} on {process.host} still runs is not known: another machine answered, or the "
        f"answer of {runner.where} is not valid: {printable.line(answer, 100) or 'no output'}."
    )


def described(processes: Iterable[ForeignProcess]) -> str:
    return "; ".join(map(str, processes))
