"""Check the options of a run on its machine, before anything starts.

Autosubmit itself does not reject a start time that is malformed or has passed: it starts the run at once. For an
experiment to wait for that does not exist, the run fails after its start (docs/autosubmit-versions.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from django.conf import settings

from runners.commands.parameters import Params
from runners.commands.run_experiment import LONGEST_WAIT, start_moment
from runners.exceptions import InvalidRequest, JobsNotFound, JobsUnreadable
from runners.printable import line, quoted
from runners.services import jobs
from runners.services.machines import scripts
from runners.services.machines.jobs import JobQuery
from runners.services.machines.runner import Runner

MOST_MEMBERS = 20  # that are looked up; Autosubmit itself rejects the others, before it starts a job
_CLOCK = re.compile(r"^clock (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4})$", re.MULTILINE | re.ASCII)
_OTHER = re.compile(r"^other (found|missing|never-ran)$", re.MULTILINE)
_FIELD = "command_params.{}"


def require_valid(runner: Runner, expid: str, params: Params) -> None:
    """Ask the machine whether it can obey the options; only if there is one that needs it.

    Raises InvalidRequest, which names the option, and the errors of `Runner.execute`. What the machine cannot tell is
    not an error.
    """
    _require_members(runner, expid, params.get("run_only_members") or ())
    start, other = params.get("start_time"), params.get("start_after")
    if not (start or other):
        return
    script = scripts.run_options(expid, other or "")
    # In a login shell, as the run itself: its start-up files may set the time zone.
    text = runner.execute(script, login=True, timeout=settings.RUNNERS_LAUNCH_TIMEOUT).text
    if start:
        _require_future(runner, start, text)
    found = _OTHER.search(text)
    if other and found and found[1] != "found":
        why = "does not exist" if found[1] == "missing" else "has no history: no job list was created, and it never ran"
        raise _invalid(
            "start_after",
            f"Experiment {other} on {runner.where} {why}, so Autosubmit cannot wait for it. Give an experiment that "
            f"runs or has run there, in the same installation.",
        )


def _require_future(runner: Runner, start: str, text: str) -> None:
    found = _CLOCK.search(text)
    try:
        clock = datetime.strptime(found[1], "%Y-%m-%dT%H:%M:%S%z") if found else None
    except ValueError:
        clock = None
    if clock is None:
        raise _invalid(
            "start_time",
            f"The clock of {runner.where} cannot be read, and Autosubmit would start a run whose time has passed at "
            f"once. `date` printed: {line(text, 80) or 'nothing'}.",
        )
    now = clock.replace(tzinfo=None)
    moment = start_moment(start, now)
    shown = f"it is {now:%Y-%m-%d %H:%M:%S} there (UTC{clock:%z})"
    if moment <= now:
        raise _invalid(
            "start_time",
            f"{moment:%Y-%m-%d %H:%M:%S} has passed on {runner.where}: {shown}. Autosubmit would start the run at "
            f"once. Give a time in the future, or leave start_time out.",
        )
    if moment - now > LONGEST_WAIT:
        raise _invalid("start_time", f"{moment:%Y-%m-%d} is more than {LONGEST_WAIT.days} days away: {shown}.")


def _require_members(runner: Runner, expid: str, members: Sequence[str]) -> None:
    """Check that the job list has jobs of each member, if it can be read: one round trip for each of the first ones."""
    for member in list(members)[:MOST_MEMBERS]:
        try:
            found = jobs.page(runner, expid, JobQuery(member=member, limit=0))
        except (JobsNotFound, JobsUnreadable):
            return
        if not found.matching:
            raise _invalid(
                "run_only_members",
                f"The job list of {expid} on {runner.where} has no job of a member {quoted(member)}. Give members of "
                f"the experiment, as GET experiments/{expid}/jobs lists them.",
            )


def _invalid(name: str, sentence: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: {sentence} Nothing was started.", {_FIELD.format(name): [sentence]})
