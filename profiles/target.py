"""Where a runner executes commands, and as which account."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any, ClassVar, Self


class Target:
    """Where a runner executes commands, and as which account. Each subclass is a frozen dataclass.

    A subclass that is stored and sent as the member `section` of a configuration has one field for each of the
    member's own members: `host` for `HOST`.
    """

    __slots__ = ()
    section: ClassVar[str] = ""  # such as SSH; empty: no member of its own
    user: str  # the account that runs the commands
    host: str  # the machine as the configuration names it; empty: the machine on which this service runs

    @property
    def machine(self) -> str:
        """The value of `{host}` in the name of an installation: the machine by its own name, in lower case."""
        return self.host.lower()

    def describe(self) -> str:
        """Return the account and the machine, for messages."""
        return f"{self.user}@{self.host}"

    @property
    def place(self) -> Target:
        """The target without the way to log in: equal for all targets in the same account of the same machine."""
        return self

    @property
    def uses_person(self) -> bool:
        """True if the machine is told for whom the service logs in. The account has to be mapped to this person."""
        return False

    @property
    def lacks_person(self) -> bool:
        """True if nobody can log in with this target, because it needs a person and has none."""
        return False

    def for_person(self, person: str) -> Self:
        """Return the target for a person who has a mapping to its account. `person`: empty if nobody has one."""
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return the wire form, such as `{"SSH": {"HOST": ...}}`, without the members that have their default."""
        if not self.section:
            return {}
        values = {item.name.upper(): getattr(self, item.name) for item in _stored(self)}
        defaults = {item.name.upper(): item.default for item in _stored(self)}
        return {self.section: {name: value for name, value in values.items() if value != defaults[name]}}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the target of a configuration that `as_dict` made. The values are not validated.

        Raises KeyError or TypeError for other data.
        """
        if not cls.section:
            return cls()
        given = data[cls.section]
        names = [item.name for item in _stored(cls) if item.default is MISSING or item.name.upper() in given]
        return cls(**{name: given[name.upper()] for name in names})


def _stored(target: Target | type[Target]) -> list[Field[Any]]:
    """Return the fields that a configuration stores: all but those with the metadata `is_stored` False."""
    return [item for item in fields(target) if item.metadata.get("is_stored", True)]  # type: ignore[arg-type]
