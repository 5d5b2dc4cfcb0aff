"""Command lines of Autosubmit, and the command of the registry that a command line belongs to."""

from __future__ import annotations

from typing import Any

from runners.commands.base import OneShotCommand
from runners.commands.create_experiment import CREATE_EXPERIMENT
from runners.commands.create_job_list import CREATE_JOB_LIST
from runners.commands.set_job_status import SET_JOB_STATUS
from runners.commands.update_description import UPDATE_DESCRIPTION

BY_WORD = {
    "setstatus": SET_JOB_STATUS,
    "expid": CREATE_EXPERIMENT,
    "create": CREATE_JOB_LIST,
    "updatedescrip": UPDATE_DESCRIPTION,
}


def setstatus(expid: str, status: str, names: tuple[str, ...] = (), **filters: Any) -> list[str]:
    return SET_JOB_STATUS.argv(expid, {"final_status": status, "job_names_list": names, **filters})


def create(expid: str, **flags: bool) -> list[str]:
    return CREATE_JOB_LIST.argv(expid, flags)


def expid_command(description: str = "x", **params: Any) -> list[str]:
    return CREATE_EXPERIMENT.argv("", {"description": description, **params})


def command_of(argv: list[str]) -> OneShotCommand:
    """Return the command whose word follows `autosubmit` in a command line."""
    return BY_WORD[argv[argv.index("autosubmit") + 1]]
