"""The commands whose subcommands are derived: the product's own, in commands.json, and those that a site has added.

`GET commands` of the service describes all of them; commands.json is an excerpt of it (`make cli-commands`).
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from runners.cli.commands import PARAMETER, table
from runners.cli.service import Exit, Problem, Service, put

Command = dict[str, Any]  # with MEMBERS; its parameters have PARAMETER_MEMBERS
MEMBERS = ("name", "summary", "needs_expid", "is_long", "parameters")
PARAMETER_MEMBERS = ("name", "kind", "required", "in_body", "help")
BY_HAND = ("run-experiment", "stop-experiment")  # they have subcommands of their own
# How the command line names a command, and the parameters that it takes without the name of an option, if it says less
# than the service does.
SHORT_NAMES = {"create-experiment": "create", "set-job-status": "set-status"}
POSITIONAL = {"set-job-status": ("final_status", "job_names_list")}
# Options that each subcommand has. A parameter of the same name gets the prefix `command-`.
TAKEN = {"profile", "param", "dry-run", "idempotency-key", "interval", "json", "help"}


def bundled() -> list[Command]:
    """Return the product's own commands. No service is needed for them, so `--help` works offline."""
    with open(os.path.join(os.path.dirname(__file__), "commands.json"), encoding="utf-8") as file:
        found: list[Command] = json.load(file)
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


def add_arguments(parser: argparse.ArgumentParser, command: Command) -> None:
    """Add what the command takes: the experiment and its own parameters."""
    if command["needs_expid"]:
        parser.add_argument("expid")
    for parameter in command["parameters"]:
        name, several = parameter["name"], parameter["kind"] == "texts"
        how: dict[str, Any] = {"dest": PARAMETER + name, "help": parameter["help"].replace("%", "%%")}
        option = name.replace("_", "-")
        option = f"--{'command-' if option in TAKEN else ''}{option}"
        if parameter["kind"] == "flag":
            parser.add_argument(option, action="store_true", **how)
        elif name in POSITIONAL.get(command["name"], ()):
            parser.add_argument(metavar=name.upper(), nargs="*" if several else None, **how)
        else:
            nargs = "+" if several else None
            parser.add_argument(option, required=parameter["required"], metavar=name.upper(), nargs=nargs, **how)


def list_commands(service: Service, args: argparse.Namespace) -> Exit:
    """Print the names and summaries of the commands that the service describes."""
    found = of_service(service)
    if args.json:
        put(json.dumps(found, indent=2))
    else:
        table([(name_of(command), command["summary"]) for command in found])
    return Exit.OK
