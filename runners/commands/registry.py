"""The commands, found through entry points: the product's own, and those of site packages."""

from __future__ import annotations

from typing import cast

from profiles import toggles
from profiles.extensions import Registry
from runners.commands.base import Command, OneShotCommand

COMMANDS = cast("Registry[Command]", toggles.COMMANDS)


def one_shot_commands() -> dict[str, OneShotCommand]:
    """Return the commands that are executed, end, and tell their result by their output: all but runs and stops."""
    return {name: command for name, command in COMMANDS.items() if isinstance(command, OneShotCommand)}


def long_commands() -> dict[str, OneShotCommand]:
    """Return the commands that can be operations."""
    return {name: command for name, command in one_shot_commands().items() if command.is_long}


def operation_kinds() -> list[tuple[str, str]]:
    """Return the choices of the kind of an operation."""
    return [(name, name) for name in long_commands()]


def audit_names() -> list[str]:
    """Return the names of commands in the audit log."""
    previews = [command.preview_name for command in one_shot_commands().values() if command.preview_name]
    return [*COMMANDS, *previews]
