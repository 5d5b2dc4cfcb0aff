"""`autosubmit run` and its options. services/starting.py launches it detached; run_log.py reads its log."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from profiles.toggles import Toggle
from runners.commands.base import Action, Command, Page
from runners.commands.parameters import (
    EXPID_LIMIT,
    EXPID_PATTERN,
    EXPID_RULE,
    SECTION,
    InvalidParams,
    InvalidValue,
    Params,
    Text,
    Words,
)
from runners.commands.set_job_status import UPDATE_VERSION
from runners.printable import quoted
from runners.services.machines import scripts

RUNNER_RUN = Toggle("RUNNER_RUN", "runner-run")  # also of stop-experiment
LONGEST_WAIT = timedelta(days=366)  # for start_time: a typing error in the year would make the run wait for decades
_TODAY, _ON_A_DAY = "%H:%M:%S", "%Y-%m-%d %H:%M:%S"  # the formats of `autosubmit run --start_time`


def normal_start_time(text: str) -> str:
    """Return a start time in Autosubmit's format: HH:MM:SS or YYYY-MM-DD HH:MM:SS. Raises InvalidValue."""
    text = text.replace("T", " ")
    text += ":00" if text.count(":") == 1 else ""
    try:
        datetime.strptime(text, _ON_A_DAY if " " in text else _TODAY)  # noqa: DTZ007  (the machine knows the zone)
    except ValueError:
        raise InvalidValue(f"{quoted(text)} is not a day and a time that exist.", "no_such_time") from None
    return text


def start_moment(text: str, clock: datetime) -> datetime:
    """Return the moment of a normal start time as Autosubmit reads it. `clock`: the time of the machine.

    HH:MM:SS is a time of the present day.
    """
    if " " in text:
        return datetime.strptime(text, _ON_A_DAY)  # noqa: DTZ007
    return datetime.combine(clock.date(), datetime.strptime(text, _TODAY).time())  # noqa: DTZ007


class RunExperiment(Command):
    """The values of options were measured on 4.0.105 to 4.1.17.1 (docs/autosubmit-versions.md).

    Autosubmit does not reject a start time that it cannot use: it starts the run at once. So this service rejects
    it, see services/run_options.py.
    """

    name = "run-experiment"
    toggle = RUNNER_RUN
    action = Action.RUN
    parameters = (
        Text(
            name="start_time",
            option="--start_time",
            max_length=40,
            pattern=r"([0-9]{4}-[0-9]{2}-[0-9]{2}[ T])?[0-9]{2}:[0-9]{2}(:[0-9]{2})?",
            rule="use YYYY-MM-DD HH:MM:SS, or HH:MM:SS for today, in the time zone of the machine.",
            check=normal_start_time,
            help="Wait until this time: YYYY-MM-DD HH:MM:SS, or HH:MM:SS for today, by the clock and in the time zone "
            "of the machine. It has to be in the future there. The run is ACTIVE while it waits.",
            label="Start at",
            hint="YYYY-MM-DD HH:MM:SS, or HH:MM:SS for today, in the time zone of the machine.",
            placeholder="2027-01-31 18:00:00",
            is_rare=True,
        ),
        Text(
            name="start_after",
            option="--start_after",
            max_length=EXPID_LIMIT,
            pattern=EXPID_PATTERN,
            rule=EXPID_RULE,
            help="Wait until this other experiment of the same installation has completed: all its jobs COMPLETED or "
            "SUSPENDED at the end of its last run. Autosubmit looks once per minute. The run is ACTIVE while it waits.",
            label="Start after the experiment",
            hint="Wait until all jobs of this other experiment are completed.",
            placeholder="a000",
            is_rare=True,
        ),
        Words(
            name="run_only_members",
            option="--run_only_members",
            pattern=rf"[{SECTION[:-1]}][{SECTION}]*",
            rule="use the names of members of the experiment, such as fc0 fc1.",
            help="Run the jobs of these members only, such as fc0 fc1. Jobs without a member run, too.",
            label="Only these members",
            hint="Names of members, with blanks between them. Jobs without a member run, too.",
            placeholder="fc0 fc1",
            is_rare=True,
        ),
        UPDATE_VERSION,
    )
    page = Page(
        title="Start a run",
        intro="Runs an experiment that has a job list, until its workflow ends or the run is stopped.",
        button="Start the run",
    )
    summary = "Start an experiment"
    description = (
        "Starts `autosubmit run` on the profile's machine and responds as soon as it executes. The run continues even "
        "if the client disconnects or this service restarts. A second request for a running experiment gets 409 with "
        "the active run. With `start_time` or `start_after` the run is ACTIVE while it waits, and can be stopped."
    )
    request_text = "Which experiment, how its machine is reached, and the options of the run."
    params_text = "Options of `autosubmit run`."

    def argv(self, expid: str, params: Params | None = None) -> list[str]:
        return ["autosubmit", "run", expid, *self.options(params or {})]

    def validate_for(self, expid: str, params: Params) -> None:
        if params.get("start_after") == expid:
            raise InvalidParams({"start_after": f"{expid} cannot wait for itself. Give another experiment."})

    def given(self, params: Params) -> dict[str, Any]:
        """Return the options that were given, as JSON."""
        found = {each.name: params.get(each.name) for each in self.parameters}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items() if value}

    def params_of_restart(self, given: Params) -> dict[str, Any]:
        """Return the options of a run that continues one with the options `given`: what that one waited for is over."""
        return {name: value for name, value in given.items() if name not in ("start_time", "start_after")}

    def checks(self, expid: str) -> list[str]:
        """An archived experiment has no directory: Autosubmit would say that it does not exist."""
        return [scripts.not_archived(expid)]


RUN_EXPERIMENT = RunExperiment()
