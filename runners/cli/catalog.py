"""The commands whose subcommands are derived: the product's own, in commands.json, and those that a site has added.

`GET commands` of the service describes all of them; commands.json is an excerpt of it (`make cli-commands`).
"""

from __future__ import annotations

import argparse
import json
import pkgutil
from typing import Any, Dict

from runners.cli.commands import PARAMETER, table
from runners.cli.errors import Exit, Problem
from runners.cli.service import Service
from runners.cli.terminal import put_json

Command = Dict[str, Any]  # with MEMBERS; its parameters have PARAMETER_MEMBERS
MEMBERS = ("name", "summary", "needs_expid", "is_long", "parameters")
PARAMETER_MEMBERS = ("name", "kind", "required", "in_body", "help", "choices")
BY_HAND = ("run-experiment", "stop-experiment")  # they have subcommands of their own
# How the command line names a command, and the parameters that it takes without the name of an option, if it says less
# than the service does.
SHORT_NAMES = {
    "create-experiment": "create",
    "set-job-status": "set-status",
    "update-experiment-description": "describe",
    "recover-experiment": "recover",
    "refresh-experiment": "refresh",
    "inspect-experiment": "inspect",
    "archive-experiment": "archive",
    "unarchive-experiment": "unarchive",
    "delete-experiment": "delete",
}
POSITIONAL = {"set-job-status": {"final_status": "STATUS", "job_names_list": "JOB"}}
# Options that each subcommand has. A parameter of the same name gets the prefix `command-`.
TAKEN = {
    *("profile", "param", "dry-run", "idempotency-key", "interval", "json", "help", "url", "timeout", "patience"),
    *("preview", "yes"),
}


def bundled() -> list[Command]:
    """Return the product's own commands. No service is needed for them, so `--help` works offline."""
    found: list[Command] = json.loads(pkgutil.get_data("runners.cli", "commands.json") or b"[]")  # also from a zip file
    return found


def of_service(service: Service) -> list[Command]:
    """Return the commands of a service that have no subcommand by hand. Raises Problem if it does not answer."""
    try:
        found: list[Command] = service.get("commands")["commands"]
    except Problem as problem:
        if problem.code == Exit.NOT_THERE:  # an older service
            return []
        raise
    return [command for command in found if command["name"] not in BY_HAND]


def name_of(command: Command) -> str:
    """Return the name of the subcommand."""
    name: str = command["name"]
    return SHORT_NAMES.get(name, name)


def other_names_of(command: Command) -> list[str]:
    """Return the other names of the subcommand: the name of the service, if it has a short one."""
    return [command["name"]] if command["name"] in SHORT_NAMES else []


def add_arguments(parser: argparse.ArgumentParser, command: Command) -> None:
    """Add what the command takes: the experiment and its own parameters."""
    if command["needs_expid"]:
        parser.add_argument("expid", metavar="EXPID", help="the experiment")
    group = parser.add_argument_group("command")
    for parameter in command["parameters"]:
        name, several = parameter["name"], parameter["kind"] == "texts"
        how: dict[str, Any] = {"dest": PARAMETER + name, "help": help_of(parameter)}
        option = name.replace("_", "-")
        option = f"--{'command-' if option in TAKEN else ''}{option}"
        action: argparse.Action
        if parameter["kind"] == "flag":
            group.add_argument(option, action="store_true", **how)
        elif name in POSITIONAL.get(command["name"], {}):
            action = parser.add_argument(
                metavar=POSITIONAL[command["name"]][name], nargs="*" if several else None, **how
            )
            action.candidates = parameter.get("choices") or []  # type: ignore[attr-defined]  # for the completion
        else:
            nargs = "+" if several else None
            # The service checks the choices: it may know more than this program.
            required = parameter["required"]
            action = group.add_argument(option, required=required, metavar=name.upper(), nargs=nargs, **how)
            action.candidates = parameter.get("choices") or []  # type: ignore[attr-defined]


def help_of(parameter: dict[str, Any]) -> str:
    """Return the help of a parameter: its text in the words of the command line, and its choices."""
    text = str(parameter["help"])
    choices = parameter.get("choices") or []
    if choices:
        text = f"{text.rstrip()} {', '.join(choices)}."
    return text.replace("%", "%%")


def list_commands(service: Service, args: argparse.Namespace) -> Exit:
    """Print the names and summaries of the commands that the service describes."""
    found = of_service(service)
    if args.json:
        put_json(found)
    else:
        table([(name_of(command), command["summary"]) for command in found])
    return Exit.OK
