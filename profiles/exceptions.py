"""Errors of a profile or its parameters. No HTTP here; `runners.web.problems` maps them to responses."""

from __future__ import annotations


class InvalidProfile(Exception):
    """A profile and its parameters do not make a complete, allowed configuration.

    `errors` maps the parameter's path (`SSH.PORT`, `MODULES`) to sentences that say what is wrong and the remedy.
    """

    code = "invalid_profile"

    def __init__(self, errors: dict[str, list[str]]) -> None:
        self.errors = errors
        super().__init__(" ".join(f"{field}: {' '.join(texts)}" for field, texts in errors.items()))


class ForbiddenParameter(InvalidProfile):
    """The configuration is complete, but an admin does not allow a value that the profile leaves open."""

    code = "profile_forbidden"
