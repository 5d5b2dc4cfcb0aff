"""Announcements of maintenance on pages that start commands."""

from __future__ import annotations

from typing import Any

from django import template

from runners.services import machine_list

register = template.Library()


@register.inclusion_tag("pages/_maintenance_notes.html", takes_context=True)
def maintenance_notes(context: dict[str, Any]) -> dict[str, Any]:
    """Show the announced maintenance of the machines that the person may see."""
    return {"announced": machine_list.announced_for(context["user"])}
