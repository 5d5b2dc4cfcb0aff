"""Where a runner executes commands, and as which account."""

from __future__ import annotations

from dataclasses import fields
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

    def as_dict(self) -> dict[str, Any]:
        """Return the wire form, such as `{"SSH": {"HOST": ...}}`."""
        if not self.section:
            return {}
        return {self.section: {item.name.upper(): getattr(self, item.name) for item in fields(self)}}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the target of a configuration that `as_dict` made. The values are not validated.

        Raises KeyError or TypeError for other data.
        """
        if not cls.section:
            return cls()
        return cls(**{item.name: data[cls.section][item.name.upper()] for item in fields(cls)})  # type: ignore[arg-type]
