"""The scripts of jobs that Autosubmit has generated: list them, and read one.

Only regular files in `tmp/` of the experiment are read, by the account of the profile. This module does not check
permissions: callers check them before they read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings

from runners.commands.installation import archived_sentence
from runners.commands.parameters import EXPID_PATTERN, SECTION
from runners.exceptions import CommandFailed, ExperimentNotFound, ScriptNotFound
from runners.printable import quoted
from runners.services.logs import LogPage
from runners.services.machines import answers, scripts
from runners.services.machines.answers import Unreadable
from runners.services.machines.probe import parse_log
from runners.services.machines.registry import get_module_loader
from runners.services.machines.runner import CommandResult, Runner

NAME_PATTERN = rf"{EXPID_PATTERN}_[{SECTION}]+\.cmd"
NAME_LIMIT = 255  # characters, and bytes on most file systems
MOST_LISTED = 500
MOST_SCRIPTS = 10_000_000

_NAME = re.compile(NAME_PATTERN)


@dataclass(frozen=True, slots=True)
class JobScript:
    """`size`: bytes. `modified`: None if the clock of the machine is wrong."""

    name: str
    size: int
    modified: datetime | None


@dataclass(frozen=True, slots=True)
class JobScripts:
    """Some of the scripts of an experiment, by name. `total`: how many there are."""

    scripts: list[JobScript]
    total: int
    read: int  # files that this page covers; those with other names than jobs have are not listed


def page(runner: Runner, expid: str, *, offset: int = 0, limit: int = MOST_LISTED) -> JobScripts:
    """Return at most `limit` scripts after the first `offset`.

    Raises ExperimentNotFound, CommandFailed for an answer that is not valid, and the errors of `Runner.execute`.
    """
    result = _ask(runner, expid, scripts.list_scripts(expid, offset=offset, limit=limit))
    try:
        return _parse(result.text, limit)
    except Unreadable as error:
        raise _not_valid(runner, error, result) from error


def read(runner: Runner, expid: str, name: str, *, offset: int, limit: int) -> LogPage:
    """Return at most `limit` bytes of a script from byte `offset`.

    Raises ScriptNotFound, also for a name that no script can have, ExperimentNotFound, CommandFailed, and the errors of
    `Runner.execute`.
    """
    if len(name) > NAME_LIMIT or not _NAME.fullmatch(name) or not name.startswith(f"{expid}_"):
        raise ScriptNotFound(
            f"{quoted(name)} is not the script of a job of {expid}. Their names are like {expid}_SIM.cmd."
        )
    result = _ask(runner, expid, scripts.read_script(expid, name, offset=offset, limit=limit))
    if result.exit_code == scripts.NO_LOG:
        raise ScriptNotFound(f"There is no script {name}. inspect-experiment generates the scripts of {expid}.")
    try:
        chunk = parse_log(result.stdout, offset=offset, limit=limit)
    except Unreadable as error:
        raise _not_valid(runner, error, result) from error
    return LogPage(chunk.offset, chunk.size, chunk.offset + len(chunk.data) >= chunk.size, chunk.data)


def _ask(runner: Runner, expid: str, script: str) -> CommandResult:
    result = runner.execute(script, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    if result.exit_code == scripts.NO_EXPERIMENT:  # the environment may name another configuration of Autosubmit
        steps = [*get_module_loader(runner.config).prelude(), f"{{\n{script}\n}}"]
        result = runner.execute(" && ".join(steps), login=True, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    if result.exit_code == scripts.NO_EXPERIMENT:
        raise ExperimentNotFound(
            archived_sentence(runner, expid) or f"The account at {runner.where} has no directory of experiment {expid}."
        )
    return result


def _parse(text: str, limit: int) -> JobScripts:
    lines = text.removesuffix("\n").split("\n")
    word, _, total = lines.pop().partition(" ")
    if word != "total" or len(lines) > limit:
        raise Unreadable("the number of scripts", word)
    found = []
    for line in lines:
        name, size, modified = (line.rsplit(" ", 2) + ["", ""])[:3]
        if len(name) <= NAME_LIMIT and _NAME.fullmatch(name):
            found.append(JobScript(name, answers.size(size), _moment(modified)))
    return JobScripts(found, answers.integer(total, 0, MOST_SCRIPTS, what="the number of scripts"), len(lines))


def _moment(word: str) -> datetime | None:
    seconds = answers.integer(word.partition(".")[0], -answers.EPOCH_MOST, 2**63 - 1, what="a time")
    if not answers.EPOCH_LEAST <= seconds <= answers.EPOCH_MOST:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _not_valid(runner: Runner, error: Unreadable, result: CommandResult) -> CommandFailed:
    return CommandFailed(
        f"The answer of {runner.where} to the request for job scripts is not valid: {error}.",
        exit_code=result.exit_code,
        output=result.last_words,
    )
