"""The actor of the current request or process, for records of code that gets no actor from its caller."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from runners.services.machines.own_account import own_account

COMMAND_LINES = ("manage.py", "django-admin", "__main__.py")


@dataclass(frozen=True, slots=True)
class Actor:
    """`name` is empty when nobody is signed in. `token`: the public part of the token that was used."""

    name: str = ""
    token: str = ""
    address: str = ""


# Returns the actor of a request. It is a function because the person is known only after the credentials were checked.
OF_REQUEST: ContextVar[Callable[[], Actor] | None] = ContextVar("of_request", default=None)


def now() -> Actor:
    """Return the sender of the current request; without a request, the Unix account and its command."""
    of_request = OF_REQUEST.get()
    return of_request() if of_request else of_process(sys.argv)


@contextmanager
def as_actor(actor: Actor) -> Iterator[None]:
    """Name `actor` in the records of the block: a person who has approved something that another request does."""
    token = OF_REQUEST.set(lambda: actor)
    try:
        yield
    finally:
        OF_REQUEST.reset(token)


def of_process(argv: list[str]) -> Actor:
    """Return the actor of a process, such as `root (import_profiles)`."""
    program = Path(argv[0]).name if argv else ""
    command = argv[1] if program in COMMAND_LINES and len(argv) > 1 else program
    return Actor(f"{own_account().pw_name} ({command[:60] or 'python'})")
