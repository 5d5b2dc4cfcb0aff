"""Limits that an admin sets for the open parameters of a profile. No rows and no HTTP here.

Hosts and users are patterns (`*`, `?`, `[a-c]`). In a user pattern, `{username}` is the name of the person who makes
the request. The pattern `{accounts}` stands for the accounts that an admin has mapped to that person. An environment
given as a path must lie within one of the roots by its *real* path. Only the machine knows that path, so the
RunnerConfig carries the roots, and they are checked where the command runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from glob import escape

from django.core.exceptions import ValidationError

from profiles import parameters, validators
from profiles.config import RunnerConfig
from profiles.exceptions import ForbiddenParameter
from profiles.parameter import Values
from profiles.people import Person
from profiles.rules import MODULE_LOADERS, RUNNERS
from profiles.validators import shown

MAX_PATTERNS = 100
USERNAME, ACCOUNTS = "{username}", "{accounts}"
_SETS = re.compile(r"\[[^\]]*\]")  # character sets of a pattern, such as [a-z]
BOUND = (USERNAME, ACCOUNTS)  # the user patterns of a profile that binds SSH.USER to the requester


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a profile. Empty: no limit."""

    hosts: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    venv_roots: tuple[str, ...] = ()

    def patterns(self, limit: str) -> tuple[str, ...]:
        """Return the patterns of a limit of `profiles.parameters`."""
        return {parameters.HOSTS: self.hosts, parameters.USERS: self.users}.get(limit, ())


def lines(text: str) -> tuple[str, ...]:
    """Return the items of a text, one per line. Empty lines and blanks around items are dropped."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def validate_patterns(items: Sequence[str]) -> None:
    """Validate patterns of host or user names. Raises ValidationError."""
    if len(items) > MAX_PATTERNS:
        raise ValidationError(f"Give at most {MAX_PATTERNS} patterns. {len(items)} were given.")
    for item in items:
        if len(item) > validators.MAX_HOST or not item.isascii() or not item.isprintable() or " " in item:
            raise ValidationError(
                f"{shown(item)} is not a valid pattern. Use names with * and ?, such as *.example.com."
            )


def validate_user_patterns(items: Sequence[str]) -> None:
    """Validate patterns of accounts, with or without placeholders. Raises ValidationError."""
    validate_patterns(items)
    for item in items:
        if item != ACCOUNTS and set("{}") & set(item.replace(USERNAME, "")):
            raise ValidationError(
                f"{shown(item)} is not a valid pattern of accounts. Use {USERNAME}, alone or within a name, "
                f"{ACCOUNTS} alone, or names with * and ?."
            )


def is_anybody(fixed: Values, limits: Limits) -> bool:
    """Return True if every user of a profile can act as any account of its machine: SSH.USER is open and unlimited."""
    if not any(parameter.limit == parameters.USERS for parameter in parameters.open_ones(fixed)):
        return False
    runner = RUNNERS.get(fixed.get(parameters.RUNNER_TYPE, ""))
    if runner and runner.requires_mapping(fixed):
        return False
    return not limits.users or any(map(_fits_anything, limits.users))


def _fits_anything(pattern: str) -> bool:
    """Return True if a pattern has only wildcards, such as * or [a-z]*."""
    wildcards = _SETS.sub("", pattern)
    return bool(wildcards) and not set(wildcards) - set("*?")


def is_mapped(account: str, limits: Limits, person: Person) -> bool:
    """Return True if an admin has mapped this very account to the person.

    The mapping is a row of *Accounts of people*, or `{username}` among the users of a profile, alone or within a name.
    Patterns with wildcards map no account to anybody. An admin needs a mapping, too.
    """
    if not person.username or not account:
        return False
    if any(USERNAME in each and each.replace(USERNAME, person.username) == account for each in limits.users):
        return True
    return account in person.accounts()


def accounts_for(patterns: Sequence[str], person: Person) -> list[str]:
    """Return the patterns of accounts for one person, with the placeholders replaced."""
    found: list[str] = []
    for pattern in patterns:
        if person.is_admin and (USERNAME in pattern or pattern == ACCOUNTS):
            found.append("*")
        elif pattern == ACCOUNTS:
            found += [escape(account) for account in person.accounts()]
        elif USERNAME not in pattern:
            found.append(pattern)
        elif person.username:
            found.append(pattern.replace(USERNAME, escape(person.username)))
    return found


def validate_roots(items: Sequence[str]) -> None:
    """Validate directories. Raises ValidationError."""
    if len(items) > MAX_PATTERNS:
        raise ValidationError(f"Give at most {MAX_PATTERNS} directories. {len(items)} were given.")
    for item in items:
        validators.validate_path(item)


def limit(profile_name: str, config: RunnerConfig, fixed: Values, limits: Limits, person: Person) -> RunnerConfig:
    """Return the configuration if the person may use the values that the profile leaves open.

    Raises ForbiddenParameter. The machine checks the paths of environments against the roots in the returned
    configuration.
    """
    errors: dict[str, list[str]] = {}
    hosts = [pattern.lower() for pattern in limits.hosts]
    for parameter in RUNNERS[config.runner_type].parameters:
        if parameter.path in fixed:
            continue
        if parameter.limit == parameters.HOSTS and hosts and not _fits(config.target.host.lower(), hosts):
            errors[parameter.path] = [_refusal(profile_name, config.target.host.lower(), hosts)]
        if parameter.limit == parameters.USERS and limits.users:
            users = accounts_for(limits.users, person)
            if not _fits(config.target.user, users):
                errors[parameter.path] = [_refusal(profile_name, config.target.user, users)]
    if config.target.uses_person and not errors:
        is_own = is_mapped(config.target.user, limits, person)
        config = replace(config, target=config.target.for_person(person.username if is_own else ""))
        if config.target.lacks_person:
            path = next(each.path for each in parameters.table().values() if each.limit == parameters.USERS)
            errors[path] = [_no_mapping(profile_name, config.target.user, person)]
    if errors:
        raise ForbiddenParameter(errors)
    if parameters.MODULES in fixed or not MODULE_LOADERS[config.module_loader_type].is_path(config.modules):
        return config
    return replace(config, venv_roots=limits.venv_roots)


def _fits(value: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)


def _refusal(profile_name: str, value: str, patterns: Sequence[str]) -> str:
    if not patterns:
        return f"The profile {profile_name} does not allow {shown(value)}: no account is mapped to you. Ask an admin."
    return f"The profile {profile_name} does not allow {shown(value)}, only {allowed_text(patterns)}."


def _no_mapping(profile_name: str, account: str, person: Person) -> str:
    why = f"The profile {profile_name} logs in with a certificate for one person and one account"
    if not person.username:
        return f"{why}, and nobody is signed in. Sign in, or use another profile."
    return (
        f"{why}, and the account {shown(account)} is not mapped to you. Ask an admin to add it to your accounts "
        f"(Accounts of people in the admin), or use an account of yours."
    )


def add_limits(requirements: list[parameters.Requirement], fixed: Values, limits: Limits) -> None:
    """Add what `limit` allows to the requirements of a profile."""
    is_open = parameters.MODULE_LOADER_TYPE not in fixed
    may_be_path = is_open or parameters.loader_of(fixed).may_be_path
    for item in requirements:
        parameter = parameters.table()[item["parameter"]]
        if parameter.limit == parameters.VENV_ROOTS:
            if may_be_path and limits.venv_roots:
                item["allowed_roots"] = list(limits.venv_roots)
        elif allowed := limits.patterns(parameter.limit):
            item["allowed_patterns"] = list(allowed)


def allowed_text(items: Sequence[str]) -> str:
    """Return the allowed items as text for an error message: at most 10 of them."""
    more = f" and {len(items) - 10} more" if len(items) > 10 else ""
    return ", ".join(items[:10]) + more


def validate_accounts(items: Sequence[str]) -> None:
    """Validate the accounts of one person. Raises ValidationError."""
    if len(items) > MAX_PATTERNS:
        raise ValidationError(f"Give at most {MAX_PATTERNS} accounts. {len(items)} were given.")
    for item in items:
        validators.validate_user(item)
