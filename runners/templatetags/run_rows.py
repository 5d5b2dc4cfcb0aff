"""Template filters for lists of runs, which consist of cached rows of HTML (runners/pages/rows.py)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from runners.models import RunnerRun
from runners.pages import rows
from runners.templatetags.formatting import exact_time

register = template.Library()


@register.filter
def run_rows(runs: Iterable[RunnerRun]) -> SafeString:
    """Return the rows of runs, for the table of pages/_run_rows.html."""
    return rows.with_ages("".join(map(rows.html_of, runs)))


@register.filter
def age(value: datetime | None) -> str | SafeString:
    """Format an age like `ago` of the library `pages`, for cached HTML: `rows.with_ages` fills in the words."""
    if value is None:
        return ""
    place = mark_safe(rows.AGE.format(round(value.timestamp())))  # noqa: S308
    exact = value.isoformat(timespec="seconds")
    return format_html('<time datetime="{}" title="{}" data-ago>{}</time>', exact, exact_time(value), place)
