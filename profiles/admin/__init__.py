"""The configuration in the admin. Django imports this package; each module registers its models."""

from profiles.admin import profile as profile
