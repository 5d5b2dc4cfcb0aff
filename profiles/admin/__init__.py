"""The configuration in the admin. Django imports this package; each module registers its models."""

from profiles.admin import accounts, groups, profile, ssh_keys, toggles

__all__ = ["accounts", "groups", "profile", "ssh_keys", "toggles"]
