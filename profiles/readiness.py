"""What a stored profile still needs before commands can succeed with it, for the import and the admin.

`profiles` reads no files and knows no host keys, so `runners.services.profile_readiness` finds it (`provide_finder`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.urls import reverse
from django.utils.http import urlencode

if TYPE_CHECKING:
    from profiles.models import RunnerProfile


@dataclass(frozen=True, slots=True)
class Page:
    """An admin page. `view`: the name of its URL with its positional `arguments`. `query`: of its form."""

    title: str
    view: str
    arguments: tuple[int, ...] = ()
    query: tuple[tuple[str, str], ...] = ()

    @property
    def url(self) -> str:
        query = f"?{urlencode(self.query)}" if self.query else ""
        return reverse(self.view, args=self.arguments) + query


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that a profile needs and does not have.

    `what`: a few words for lists, such as `host key`. `detail`: a sentence. `command`: a shell command that adds it.
    `page`: an admin page that adds it. At least one of both is given.
    """

    what: str
    detail: str
    command: str = ""
    page: Page | None = None

    def __str__(self) -> str:
        ways = [
            f"run `{self.command}`" if self.command else "",
            f"use the admin page {self.page.url}" if self.page else "",
        ]
        return f"{self.what}: {self.detail} To add it, {' or '.join(filter(None, ways))}."


Finder = Callable[["RunnerProfile"], list[Missing]]


def _nothing(profile: RunnerProfile) -> list[Missing]:
    return []


_finder: Finder = _nothing


def provide_finder(finder: Finder) -> None:
    """Set who knows what a profile needs. Called when the application is ready."""
    global _finder
    _finder = finder


def missing_of(profile: RunnerProfile) -> list[Missing]:
    """Return what a stored profile needs and does not have. This contacts no machine and does not raise."""
    return _finder(profile)


def summary(missing: Iterable[Missing]) -> str:
    """Return the names of what is missing, each once."""
    return ", ".join(dict.fromkeys(each.what for each in missing))
