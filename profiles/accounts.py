"""The accounts on machines that an admin has mapped to people."""

from __future__ import annotations

from typing import Any

from profiles.limits import lines
from profiles.models import AccountMap
from profiles.people import Person


def person_of(user: Any) -> Person:
    """Return the person of a Django user. An anonymous or inactive user has no accounts."""
    if not (user and user.is_authenticated and user.is_active):
        return Person()
    name = user.get_username()
    return Person(name, lambda: accounts_of(name))


def accounts_of(username: str) -> tuple[str, ...]:
    """Return the accounts that an admin has mapped to a person."""
    row = AccountMap.of(username)
    return lines(row.accounts) if row else ()
