"""Find module loaders, runners and commands through Python entry points: the product's own, and those of a site.

A site package adds one with an entry point in a group below. The product's own arrive in the same way, from its
`pyproject.toml`. Beside a checkout that file itself is read, so that a deployment by `git clone` works without an
installation; otherwise the metadata of the installed distribution is read.

Source: https://packaging.python.org/en/latest/specifications/entry-points/
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, TypeVar

from django.core.exceptions import ImproperlyConfigured

PRODUCT = "autosubmit-runners"  # the name of the product's distribution
PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
# What the import of a module can raise, in practice.
IMPORT_ERRORS = (
    *(ImportError, SyntaxError, AttributeError, NameError, TypeError, ValueError, LookupError, OSError, RuntimeError),
    ImproperlyConfigured,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry point. `value`: `module:attribute`. `distribution`: the package that it belongs to, with its version.

    `is_own`: the entry is one of the product's.
    """

    group: str
    name: str
    value: str
    distribution: str
    is_own: bool = False

    def __str__(self) -> str:
        return f"the entry point {self.name} = {self.value!r} of the group {self.group} in {self.distribution}"

    def load(self) -> Any:
        """Import the object. Raises one of IMPORT_ERRORS."""
        module, _, attribute = self.value.partition(":")
        found: Any = import_module(module.strip())
        for name in attribute.strip().split("."):
            found = getattr(found, name)
        return found


def own_entries(group: str) -> list[Entry]:
    """Return the product's entries of a group, in their order. Raises ImproperlyConfigured if there are none."""
    try:
        project = tomllib.loads(PYPROJECT.read_text("utf-8")).get("project", {})
    except FileNotFoundError:
        project = {}
    except (OSError, ValueError) as error:
        raise ImproperlyConfigured(f"{PYPROJECT} cannot be read: {error}. Check the file out again.") from error
    if table := project.get("entry-points", {}).get(group):
        return [Entry(group, name, value, PRODUCT, is_own=True) for name, value in table.items()]
    for distribution in metadata.distributions(name=PRODUCT):
        # Another package on sys.path may bear the product's name. Only the one that this file belongs to counts.
        if Path(str(distribution.locate_file("profiles/extensions.py"))).resolve() == Path(__file__).resolve():
            points = distribution.entry_points.select(group=group)
            if own := [Entry(group, point.name, point.value, PRODUCT, is_own=True) for point in points]:
                return own
    raise ImproperlyConfigured(
        f"The entry points {group} of {PRODUCT} are not found: neither {PYPROJECT} nor an installed distribution has "
        "them. Install the product again, or check it out again."
    )


def site_entries(group: str) -> list[Entry]:
    """Return the entries that other installed distributions have in a group, ordered by distribution and name."""
    found = [
        Entry(group, point.name, point.value, f"{point.dist.name} {point.dist.version}" if point.dist else "a package")
        for point in metadata.entry_points(group=group)
        if not point.dist or _normalized(point.dist.name) != PRODUCT
    ]
    return sorted(found, key=lambda entry: (entry.distribution, entry.name))


def _normalized(name: str) -> str:
    """Return a distribution's name in its normal form. Source: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Registry(Mapping[str, T]):
    """The objects of one group by name: the product's in their order, then those of the site packages.

    `base`: the dotted name of the class that each object has to be a subclass of, or an instance of if
    `holds_instances`. It is text, because profiles must not import the packages that implement loaders and runners.
    `names`: a regular expression for valid names. Each object has its entry's name as its attribute `name`.

    Everything is imported at the first use, once. An invalid entry raises ImproperlyConfigured, whichever package it
    is in: a service without one of its loaders could not read its own rows. The product's names cannot be replaced.
    """

    def __init__(self, group: str, base: str, *, names: str, holds_instances: bool = False) -> None:
        self.group = group
        self.base = base
        self.names = re.compile(names)
        self.holds_instances = holds_instances

    @cached_property
    def _objects(self) -> dict[str, T]:
        objects, problems = self._load([*own_entries(self.group), *site_entries(self.group)])
        if problems:
            raise ImproperlyConfigured(" ".join(problems))
        return objects

    def _load(self, entries: Iterable[Entry]) -> tuple[dict[str, T], list[str]]:
        """Return the objects, and a sentence about each entry that is not valid."""
        module, _, name = self.base.rpartition(".")
        base: type = getattr(import_module(module), name)
        objects: dict[str, T] = {}
        problems: list[str] = []
        owners: dict[str, Entry] = {}
        for entry in entries:
            problem = self._problem_of_name(entry, owners)
            if not problem:
                try:
                    found = entry.load()
                except IMPORT_ERRORS as error:
                    problem = f"it cannot be imported ({type(error).__name__}: {error})"
                else:
                    problem = self._problem_of(found, entry, base)
            if problem:
                remedy = "Install the product again." if entry.is_own else "Correct or uninstall the package."
                problems.append(f"Cannot use {entry}: {problem}. {remedy}")
            else:
                objects[entry.name], owners[entry.name] = found, entry
        return objects, problems

    def _problem_of_name(self, entry: Entry, owners: Mapping[str, Entry]) -> str:
        if not self.names.fullmatch(entry.name):
            return f"the name has to match {self.names.pattern}"
        if entry.name in owners:
            return f"the name is taken by {owners[entry.name].distribution}"
        return ""

    def _problem_of(self, found: object, entry: Entry, base: type) -> str:
        if self.holds_instances:
            if not isinstance(found, base):
                return f"it has to be an instance of {self.base}"
        elif not isinstance(found, type) or not issubclass(found, base):
            return f"it has to be a subclass of {self.base}"
        elif inspect.isabstract(found):
            missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
            return f"the class lacks {missing}"
        name = getattr(found, "name", None)
        return "" if name == entry.name else f"its attribute `name` has to be {entry.name!r}, not {name!r}"

    def load(self) -> None:
        """Import all entries now. Raises ImproperlyConfigured, with a sentence about each entry that is not valid."""
        len(self)

    def __getitem__(self, name: str) -> T:
        return self._objects[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._objects)

    def __len__(self) -> int:
        return len(self._objects)
