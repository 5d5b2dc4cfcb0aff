"""Template tags of the header: links of the navigation, and the guide."""

from __future__ import annotations

from typing import Any

from django import template
from django.conf import settings
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from runners.commands.base import OneShotCommand
from runners.commands.registry import one_shot_commands
from runners_project.guide import PREFIX

register = template.Library()

# The keys that lead to pages, after `g`. shortcuts.js finds them in the links; the page of the shortcuts lists them.
GO_TO = {
    "pages:home": ("d", "Dashboard"),
    "pages:run-list": ("r", "Runs"),
    "pages:start": ("s", "Start a run"),
    "pages:machines": ("m", "Machines"),
    "pages:history": ("h", "History"),
    "pages:account": ("a", "Your account"),
}


def ordered() -> list[OneShotCommand]:
    return sorted(one_shot_commands().values(), key=lambda command: command.page.order)


@register.simple_tag
def commands_of_menu() -> list[OneShotCommand]:
    """Return all commands, for the menu of all pages. The registry decides; no template names one."""
    return ordered()


@register.simple_tag
def commands_of_experiment() -> list[OneShotCommand]:
    """Return the commands that the page of an experiment offers."""
    return [command for command in ordered() if command.needs_expid]


@register.simple_tag(takes_context=True)
def menu_link(context: template.Context, name: str, text: str) -> SafeString | str:
    """Return a link of the navigation to the page with the URL name `name`; "" if there is no such page.

    The link is marked as the current page on this page and on the pages below its path.
    """
    try:
        path = reverse(name)
    except NoReverseMatch:
        return ""
    request: Any = context.get("request")  # None in an error page without a request
    here = request.path if request is not None else ""
    is_current = here == path or (name.startswith("pages:") and here.startswith(f"{path}/"))
    current = mark_safe(' aria-current="page"') if is_current else ""
    key = format_html(' data-go="{}"', GO_TO[name][0]) if name in GO_TO else ""
    return format_html('<a href="{}"{}{}>{}</a>', path, current, key, text)


@register.simple_tag
def guide_url() -> str:
    """Return the address of the guide; "" if `make docs` has not built it."""
    return PREFIX if settings.GUIDE_ROOT.is_dir() else ""
