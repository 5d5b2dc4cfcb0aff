"""What the forms of the pages suggest: the profile and the open parameters that a person used last.

They are stored per person, not in a cookie or the session: they survive a sign-out, are the same in every browser, and
do not leave the service.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User

from runners.models import LastFormValues

MOST_PROFILES = 50  # of one person; the ones used last are kept
MOST_TEXT = 1000  # characters of a value; longer ones are not suggested


def last(user: Any) -> LastFormValues:
    """Return what `user` used last; empty values for somebody without any."""
    found = LastFormValues.objects.filter(user=user).first() if isinstance(user, User) else None
    return found or LastFormValues(values={})


def values_of(found: LastFormValues, profile_name: str) -> dict[str, str]:
    """Return the values of the open parameters that were used last with a profile, by path."""
    stored = found.values.get(profile_name) if isinstance(found.values, dict) else None
    return {str(path): str(value) for path, value in stored.items()} if isinstance(stored, dict) else {}


def remember(user: Any, profile_name: str, values: dict[str, Any]) -> None:
    """Store that `user` has just used a profile with these values. The request has been found valid."""
    if not isinstance(user, User):
        return
    found = last(user)
    given = {path: str(value) for path, value in values.items() if value and len(str(value)) <= MOST_TEXT}
    others = {name: kept for name, kept in found.values.items() if name != profile_name}
    kept = dict([*others.items(), (profile_name, given)][-MOST_PROFILES:])
    if found.profile_name == profile_name and found.values == kept:
        return
    LastFormValues.objects.update_or_create(user=user, defaults={"profile_name": profile_name, "values": kept})
