"""The YAML format: its names, its limits, and the settings that a text contains. No rows and no files here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from profiles.limits import validate_patterns, validate_roots, validate_user_patterns
from profiles.parameter import Values

ROOT = "RUNNER_CONFIGURATION"
PROFILES, SSH_PUBLIC_KEYS, ENDPOINTS = "PROFILES", "SSH_PUBLIC_KEYS", "ENDPOINTS"
ACCOUNTS = "ACCOUNTS"  # ours: the accounts of each person
# Our additions to the parameters of a profile. They are exported only if they are not empty and not at their default.
ENABLED, DESCRIPTION, ACCESS, LIMITS = "ENABLED", "DESCRIPTION", "ACCESS", "LIMITS"
INSTALLATION = "INSTALLATION"
SILENT_AFTER = "SILENT_AFTER"
GROUPS = ("RUN_GROUPS", "STOP_GROUPS", "STATUS_GROUPS", "VIEW_GROUPS")
LIMIT_RULES: dict[str, Callable[[Sequence[str]], None]] = {
    "HOSTS": validate_patterns,
    "USERS": validate_user_patterns,
    "VENV_ROOTS": validate_roots,
}
MAX_GROUP_NAME = MAX_PERSON = 150  # of django.contrib.auth
MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 100
TOO_DEEP = "Not valid YAML: nested too deeply."
MAX_MEMBERS = 2_000  # profiles, keys, people: each is compared with a row
MAX_MISTAKES = 100


@dataclass(frozen=True, slots=True)
class Mistake:
    """An error in the text, with a path such as `RUNNER_CONFIGURATION.PROFILES.X.SSH.PORT`, and the line if known."""

    path: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        where = " ".join(filter(None, [self.path, f"(line {self.line})" if self.line else ""]))
        return f"{where}: {self.message}" if where else self.message


class InvalidConfiguration(Exception):
    """Raised with all mistakes of a text at once."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = mistakes
        super().__init__("\n".join(str(mistake) for mistake in mistakes))


@dataclass(frozen=True, slots=True)
class ProfileSettings:
    """One profile. None: the text does not have this member, so an existing row keeps its value.

    `access` has every name of GROUPS, each with sorted names of groups. Empty: everybody. `limits` has every name of
    LIMIT_RULES. Empty: everything. An empty `installation` is the default one. `silent_after`: seconds; 0: off.
    """

    values: Values
    enabled: bool | None = None
    description: str | None = None
    access: dict[str, tuple[str, ...]] | None = None
    limits: dict[str, tuple[str, ...]] | None = None
    installation: str | None = None
    silent_after: int | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """The section RUNNER_CONFIGURATION. None: the text does not have this part, so the rows stay as they are."""

    profiles: dict[str, ProfileSettings] | None = None
    ssh_public_keys: tuple[str, ...] | None = None
    accounts: dict[str, tuple[str, ...]] | None = None
    endpoints: dict[str, bool] | None = None
