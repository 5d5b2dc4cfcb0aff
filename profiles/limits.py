"""What an admin allows in the parameters that a profile leaves open. No rows and no HTTP here.

Hosts and users are patterns (`*`, `?`, `[a-c]`). Environments given by a path have to lie within roots by their *real*
path, which only the machine knows: the roots travel with the RunnerConfig and are checked where the command runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from django.core.exceptions import ValidationError

from profiles import parameters, validators
from profiles.config import ModuleLoaderType, RunnerConfig
from profiles.exceptions import ForbiddenParameter
from profiles.validators import shown

MAX_PATTERNS = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """Empty: no limit."""

    hosts: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    venv_roots: tuple[str, ...] = ()


def lines(text: str) -> tuple[str, ...]:
    """One item per line; empty lines and blanks around items count for nothing."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def validate_patterns(items: Sequence[str]) -> None:
    """Patterns of host or user names. Raises ValidationError."""
    if len(items) > MAX_PATTERNS:
        raise ValidationError(f"Give at most {MAX_PATTERNS} patterns. These are {len(items)}.")
    for item in items:
        if len(item) > validators.MAX_HOST or not item.isascii() or not item.isprintable() or " " in item:
            raise ValidationError(f"{shown(item)} is no pattern: use names with * and ?, such as *.example.com.")


def validate_roots(items: Sequence[str]) -> None:
    """Directories. Raises ValidationError."""
    if len(items) > MAX_PATTERNS:
        raise ValidationError(f"Give at most {MAX_PATTERNS} directories. These are {len(items)}.")
    for item in items:
        validators.validate_path(item)


def limit(profile_name: str, config: RunnerConfig, fixed: parameters.Values, limits: Limits) -> RunnerConfig:
    """The configuration, if what the profile does not fix is allowed. Raises ForbiddenParameter.

    The paths of environments are judged on the machine, by the roots in the returned configuration.
    """
    errors: dict[str, list[str]] = {}
    if config.ssh:
        checks = (
            (parameters.SSH_HOST, config.ssh.host.lower(), [pattern.lower() for pattern in limits.hosts]),
            (parameters.SSH_USER, config.ssh.user, limits.users),
        )
        for path, value, patterns in checks:
            if path not in fixed and patterns and not any(fnmatchcase(value, pattern) for pattern in patterns):
                errors[path] = [f"The profile {profile_name} does not allow {shown(value)}, only {in_words(patterns)}."]
    if errors:
        raise ForbiddenParameter(errors)
    if parameters.MODULES in fixed or not is_path(config):
        return config
    return replace(config, venv_roots=limits.venv_roots)


def describe(requirements: list[parameters.Requirement], fixed: parameters.Values, limits: Limits) -> None:
    """Say in the requirements of a profile what `limit` allows."""
    patterns = {parameters.SSH_HOST: limits.hosts, parameters.SSH_USER: limits.users}
    loader = fixed.get(parameters.MODULE_LOADER_TYPE)
    for item in requirements:
        if allowed := patterns.get(item["parameter"]):
            item["allowed_patterns"] = list(allowed)
        may_be_path = item["parameter"] == parameters.MODULES and loader != ModuleLoaderType.LMOD
        if may_be_path and limits.venv_roots:
            item["allowed_roots"] = list(limits.venv_roots)


def is_path(config: RunnerConfig) -> bool:
    """Whether the environment is given by its path: a virtual environment, or a conda environment that is no name."""
    loader = config.module_loader_type
    return loader == ModuleLoaderType.VENV or (loader == ModuleLoaderType.CONDA and config.modules[0].startswith("/"))


def in_words(items: Sequence[str]) -> str:
    """For an error: what is allowed, at reasonable length."""
    more = f" and {len(items) - 10} more" if len(items) > 10 else ""
    return ", ".join(items[:10]) + more
