"""Bounds of the numbers that operators give to management commands."""

from __future__ import annotations

from django.core.management.base import CommandError

MOST_DAYS = 36_500  # as for RUNNERS_RETENTION_DAYS: a date that is further away cannot be computed


def require(option: str, value: float, least: float, most: float) -> None:
    """Raise CommandError unless the value is from `least` to `most`. nan is not."""
    if not least <= value <= most:
        raise CommandError(f"{option}: give {least} to {most}.")
