"""Whose accounts are whose: what a person may be on the machines where a profile leaves SSH.USER open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from profiles.limits import lines
from profiles.models import AccountMap


def no_accounts() -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. `username` is "" for somebody who is not signed in; `accounts` reads the admin's map when it counts.

    `is_admin`: somebody who may change the profile itself, and tries it: placeholders stand for any account.
    """

    username: str = ""
    accounts: Callable[[], Sequence[str]] = field(default=no_accounts, compare=False)
    is_admin: bool = False


def person_of(user: Any) -> Person:
    """The person behind a user of Django. Somebody not signed in, or switched off, has no accounts."""
    if not (user and user.is_authenticated and user.is_active):
        return Person()
    name = user.get_username()
    return Person(name, lambda: accounts_of(name))


def accounts_of(username: str) -> tuple[str, ...]:
    """The accounts that an admin has mapped to a person."""
    row = AccountMap.of(username)
    return lines(row.accounts) if row else ()
