"""People and their accounts on the machines, for profiles that leave SSH.USER open."""

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
    """The requester. `username` is "" if nobody is signed in. `accounts` reads the admin's map only when needed.

    `is_admin`: an admin who may change the profile and tests it. Placeholders then stand for any account.
    """

    username: str = ""
    accounts: Callable[[], Sequence[str]] = field(default=no_accounts, compare=False)
    is_admin: bool = False


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
