"""Parse what scripts/list_experiments.py prints: the experiments that an account can read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from runners import printable
from runners.services.machines import scripts
from runners.services.machines.answers import Unreadable

MOST_LISTED = 1000
MOST_TEXT = 100  # characters of a description
_EXPID = re.compile("[a-z][a-z0-9]{3,15}")


@dataclass(frozen=True, slots=True)
class Experiment:
    """`is_own`: its directory belongs to the account that was asked."""

    expid: str
    description: str
    is_own: bool


@dataclass(frozen=True, slots=True)
class Experiments:
    """The newest experiments, at most MOST_LISTED. `total`: how many there are."""

    listed: tuple[Experiment, ...]
    total: int


def parse(output: str) -> Experiments | None:
    """Parse the answer of `scripts.experiments`. None: the machine has no list. Raises Unreadable."""
    lines = [line for line in output.split("\n") if line.startswith(f"{scripts.EXPERIMENTS} - ")]
    if len(lines) != 1:
        raise Unreadable("one list of experiments", output)
    try:
        answer = json.loads(lines[0].removeprefix(f"{scripts.EXPERIMENTS} - "))
    except (ValueError, RecursionError) as error:
        raise Unreadable("a JSON object", lines[0]) from error
    if isinstance(answer, dict) and "problem" in answer:
        return None
    found, total = (answer.get("experiments"), answer.get("total")) if isinstance(answer, dict) else (None, None)
    if not isinstance(found, list) or len(found) > MOST_LISTED or type(total) is not int or total < len(found):
        raise Unreadable("a list of experiments", lines[0])
    return Experiments(tuple(_experiment(each) for each in found), total)


def _experiment(answer: object) -> Experiment:
    match answer:
        case [str(expid), str(text), bool(is_own)] if _EXPID.fullmatch(expid) and len(text) <= MOST_TEXT:
            return Experiment(expid, printable.line(text), is_own)
    raise Unreadable("an experiment", str(answer)[:200])
