"""Look for live `autosubmit run` processes of an account that this service has not started, and signal them.

The scripts find them in /proc by their arguments. Processes of other accounts, of containers with a PID namespace of
their own, and of other nodes behind the same address are not visible. So "none was seen" does not mean "there is none".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from django.conf import settings

from runners import printable
from runners.exceptions import OutcomeUnknown
from runners.services.machines import scripts
from runners.services.machines.answers import Unreadable
from runners.services.machines.foreign_process import ForeignProcess, Search, parse_lines
from runners.services.machines.runner import Runner


class Answer:
    """The answers of `scripts.foreign_signal`."""

    ALIVE: ClassVar = "alive"
    GONE: ClassVar = "gone"
    CHANGED: ClassVar = "changed"  # the same process now executes something else


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
