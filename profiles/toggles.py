"""The toggles: an admin's switches of commands. The registry of commands defines most of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from profiles.extensions import Registry


@dataclass(frozen=True, slots=True)
class Toggle:
    """A switch of one command or several. `name`: in YAML, in the API and in rows. `label`: for admins.

    `is_enabled`: its state until an admin has set it. Commands that destroy or edit start switched off.
    """

    name: str
    label: str
    is_enabled: bool = True


EDIT_CONFIGURATION = Toggle("EDIT_CONFIGURATION", "Edit the configuration files of experiments", is_enabled=False)
# What is no command of Autosubmit: the toggle, and the names in the audit log of what it switches.
OWN_TOGGLES = {EDIT_CONFIGURATION: ("write-configuration", "restore-configuration")}


class Switched(Protocol):
    """What this module has to know of a command."""

    name: str
    toggle: Toggle


COMMANDS: Registry[Switched] = Registry(
    "autosubmit_runners.commands",
    "runners.commands.base.Command",
    names="[a-z][a-z0-9-]{0,31}",  # columns of 32 characters hold them
    holds_instances=True,
)


def toggles() -> dict[str, Toggle]:
    """Return all toggles by name, in the order of their first commands."""
    found = {command.toggle.name: command.toggle for command in COMMANDS.values()}
    return found | {toggle.name: toggle for toggle in OWN_TOGGLES}


def choices() -> list[tuple[str, str]]:
    """Return the choices of a model field that holds the name of a toggle."""
    return [(toggle.name, toggle.label) for toggle in toggles().values()]


def commands_of(name: str) -> list[str]:
    """Return the names of the commands that a toggle switches."""
    own = [each for toggle, names in OWN_TOGGLES.items() if toggle.name == name for each in names]
    return own or [command.name for command in COMMANDS.values() if command.toggle.name == name]
