"""Write the YAML format: settings to text. No rows and no files here."""

from __future__ import annotations

from typing import Any

import yaml

from profiles import parameters
from profiles.yaml.format import (
    ACCESS,
    ACCOUNTS,
    DESCRIPTION,
    ENABLED,
    ENDPOINTS,
    INSTALLATION,
    LIMITS,
    PROFILES,
    ROOT,
    SILENT_AFTER,
    SSH_PUBLIC_KEYS,
    Configuration,
    ProfileSettings,
)


def dump(configuration: Configuration) -> str:
    """Return YAML that `parse` reads back as the same configuration.

    Profiles are sorted by name; parameters have the order of the documentation. A part that is `None` is omitted: an
    empty part would mean that it has no members.
    """
    tree: dict[str, Any] = {}
    if configuration.profiles is not None:
        tree[PROFILES] = {name: _profile_tree(found) for name, found in sorted(configuration.profiles.items())}
    if configuration.ssh_public_keys is not None:
        tree[SSH_PUBLIC_KEYS] = list(configuration.ssh_public_keys)
    if configuration.accounts:
        tree[ACCOUNTS] = {person: list(accounts) for person, accounts in sorted(configuration.accounts.items())}
    if configuration.endpoints is not None:
        tree[ENDPOINTS] = {str(name): {ENABLED: enabled} for name, enabled in configuration.endpoints.items()}
    return yaml.safe_dump({ROOT: tree}, sort_keys=False, allow_unicode=True, width=1_000_000)


def _profile_tree(profile: ProfileSettings) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    if profile.enabled is False:
        tree[ENABLED] = False
    if profile.description:
        tree[DESCRIPTION] = profile.description
    if profile.installation:
        tree[INSTALLATION] = profile.installation
    if profile.silent_after:
        tree[SILENT_AFTER] = profile.silent_after
    for section, members in ((ACCESS, profile.access), (LIMITS, profile.limits)):
        if said := {name: list(items) for name, items in (members or {}).items() if items}:
            tree[section] = said
    for path in parameters.table():
        if path in profile.values:
            head, _, leaf = path.partition(".")
            value = _as_plain(profile.values[path])
            if leaf:
                tree.setdefault(head, {})[leaf] = value
            else:
                tree[head] = value
    return tree


def _as_plain(value: object) -> Any:
    """Return a value as people write it: one module as a text, several as a list."""
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 else list(value)
    return value if isinstance(value, int) else str(value)
