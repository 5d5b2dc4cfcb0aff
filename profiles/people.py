"""The person who makes a request, for profiles that leave SSH.USER open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


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
