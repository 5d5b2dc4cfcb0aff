"""System checks of the configuration in the database, for `manage.py check --database default`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import DatabaseError

from profiles.models import RunnerProfile


@register(Tags.database)
def profiles_are_bound(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Return the warnings of all profiles, such as "anybody as anybody". None before the first migration."""
    try:
        rows = list(RunnerProfile.objects.all()) if databases else []
    except DatabaseError:
        return []
    return [Warning(text, obj=row, id="profiles.W001") for row in rows for text in row.warnings]
