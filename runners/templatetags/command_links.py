"""Template tags that list the commands whose pages a template links. The registry decides; no template names one."""

from __future__ import annotations

from django import template

from runners.commands.base import OneShotCommand
from runners.commands.registry import one_shot_commands

register = template.Library()


def ordered() -> list[OneShotCommand]:
    return sorted(one_shot_commands().values(), key=lambda command: command.page.order)


@register.simple_tag
def commands_of_menu() -> list[OneShotCommand]:
    """Return the commands that the menu of all pages shows."""
    return [command for command in ordered() if command.page.menu]


@register.simple_tag
def commands_of_experiment() -> list[OneShotCommand]:
    """Return the commands that the page of an experiment offers."""
    return [command for command in ordered() if command.needs_expid]
