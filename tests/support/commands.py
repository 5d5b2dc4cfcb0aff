"""Command lines of Autosubmit, and the command of the registry that a command line belongs to."""

from __future__ import annotations

from typing import Any

from profiles.models import EndpointToggle
from profiles.toggles import toggles
from runners.commands.archive_experiment import ARCHIVE_EXPERIMENT, UNARCHIVE_EXPERIMENT
from runners.commands.base import OneShotCommand
from runners.commands.create_experiment import CREATE_EXPERIMENT
from runners.commands.create_job_list import CREATE_JOB_LIST
from runners.commands.delete_experiment import DELETE_EXPERIMENT
from runners.commands.inspect_experiment import INSPECT_EXPERIMENT
from runners.commands.recover_experiment import RECOVER_EXPERIMENT
from runners.commands.refresh_experiment import REFRESH_EXPERIMENT
from runners.commands.set_job_status import SET_JOB_STATUS
from runners.commands.update_description import UPDATE_DESCRIPTION

BY_WORD = {
    "setstatus": SET_JOB_STATUS,
    "expid": CREATE_EXPERIMENT,
    "create": CREATE_JOB_LIST,
    "updatedescrip": UPDATE_DESCRIPTION,
    "recovery": RECOVER_EXPERIMENT,
    "refresh": REFRESH_EXPERIMENT,
    "inspect": INSPECT_EXPERIMENT,
    "archive": ARCHIVE_EXPERIMENT,
    "unarchive": UNARCHIVE_EXPERIMENT,
    "delete": DELETE_EXPERIMENT,
}


def setstatus(expid: str, status: str, names: tuple[str, ...] = (), **filters: Any) -> list[str]:
    return SET_JOB_STATUS.argv(expid, {"final_status": status, "job_names_list": names, **filters})


def create(expid: str, **flags: bool) -> list[str]:
    return CREATE_JOB_LIST.argv(expid, flags)


def expid_command(description: str = "x", **params: Any) -> list[str]:
    return CREATE_EXPERIMENT.argv("", {"description": description, **params})


def switch_all_on() -> None:
    """Switch on the commands that are off until an admin enables them."""
    EndpointToggle.objects.bulk_create([EndpointToggle(name=name, enabled=True) for name in toggles()])


def smallest_body(command: OneShotCommand) -> dict[str, Any]:
    """Return a body that names an experiment and gives each parameter a harmless value, but no profile."""
    harmless: dict[str, Any] = {"flag": False, "text": "a text", "texts": [], "words": None}
    values = {each.name: harmless.get(each.kind, "READY") for each in command.parameters}
    own = {each.name: values.pop(each.name) for each in command.parameters if each.in_body}
    expid = {"expid": "a001"} if command.needs_expid else {}
    return {**expid, **own, **({"command_params": values} if values else {})}


def command_of(argv: list[str]) -> OneShotCommand:
    """Return the command whose word follows `autosubmit` in a command line."""
    return BY_WORD[argv[argv.index("autosubmit") + 1]]
