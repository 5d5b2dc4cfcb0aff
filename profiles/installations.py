"""Installations: which Autosubmit database an expid belongs to.

An expid is unique within one Autosubmit database, not across databases. The name of an installation says which database
a profile uses. It may hold `{user}`, the account that runs the commands, and `{host}`, the machine.
"""

from __future__ import annotations

import re

from django.core.exceptions import ValidationError

from profiles.config import DEFAULT_INSTALLATION
from profiles.target import Target
from profiles.validators import MAX_HOST, MAX_USER, shown

USER, HOST = "{user}", "{host}"
MAX_PATTERN = 100
MAX_INSTALLATION = MAX_PATTERN + MAX_USER + MAX_HOST  # length of a name after its placeholders were replaced

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:+-]*")


def validate_installation(value: str) -> None:
    """Validate the name of an installation, with or without placeholders. Raises ValidationError."""
    plain = value if len(value) <= MAX_PATTERN else ""
    for placeholder in (USER, HOST):
        plain = plain.replace(placeholder, "x", 1)
    if _NAME.fullmatch(plain):
        return
    if "{username}" in value[:MAX_PATTERN]:
        remedy = (
            f"Use {USER}, the account that runs the commands. {{username}} is the person, and is valid in "
            f"LIMITS.USERS only."
        )
    elif "{" in value[:MAX_PATTERN] or "}" in value[:MAX_PATTERN]:
        remedy = f"The only placeholders are {USER} and {HOST}, each at most once."
    else:
        remedy = (
            f"Use 1 to {MAX_PATTERN} letters, digits and _ . @ : + -, beginning with a letter or digit, and "
            f"optionally {USER} and {HOST}, such as {USER}@{HOST}."
        )
    raise ValidationError(f"{shown(value)} is not a valid installation name. {remedy}")


def installation_of(pattern: str, target: Target) -> str:
    """Return the name for one account on one machine. An empty pattern: the default.

    The name and the machine are case-insensitive, so that a typo cannot let an experiment run twice. The account is
    case-sensitive, as on the machine.
    """
    name = (pattern or DEFAULT_INSTALLATION).lower()
    if HOST in name:
        name = name.replace(HOST, target.machine)
    return name.replace(USER, target.user)


def possible_installations(pattern: str, user: str, machine: str) -> re.Pattern[str]:
    """Return a pattern of the full names that a profile can give. An empty `user` or `machine` matches any value.

    Case as in `installation_of`.
    """
    text = re.escape((pattern or DEFAULT_INSTALLATION).lower())
    for placeholder, value in ((HOST, machine), (USER, user)):
        text = text.replace(re.escape(placeholder), re.escape(value) if value else ".+")
    return re.compile(text)
