"""How the service logs in as a person: the lines that accounts need, and the accounts that a person may use."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from profiles import parameters
from profiles.accounts import person_of
from profiles.limits import accounts_for
from profiles.models import PublishedSSHKey, RunnerProfile
from profiles.people import Person
from profiles.rules import RUNNERS
from runners.services.machines.ssh import keys, user_authority
from runners.services.machines.ssh.runner import AUTHENTICATION, HOST, USER, SSHRunner
from runners.services.machines.ssh.target import CERTIFICATE, KEY
from runners_project import bounded

logger = logging.getLogger(__name__)

MOST_SHOWN = 100  # profiles


@dataclass(frozen=True, slots=True)
class LoginLines:
    """The lines for `~/.ssh/authorized_keys` of an account, as far as the person's profiles need them.

    `keys`: the service's public keys. `authorities`: lines that accept certificates of the user CA. `ca_keys`: the same
    keys for the file of TrustedUserCAKeys, which the administrators of a machine have.
    """

    keys: list[str] = field(default_factory=list)
    authorities: list[str] = field(default_factory=list)
    ca_keys: list[str] = field(default_factory=list)
    needs_keys: bool = False  # a profile of the person logs in with the keys
    needs_authority: bool = False  # a profile of the person logs in with certificates


def lines_for(user: Any) -> LoginLines:
    """Return the lines that let the service log in to accounts with the profiles of `user`."""
    ways = {
        str(profile.values().get(AUTHENTICATION.path, KEY))
        for profile in RunnerProfile.usable_by(user)
        if profile.runner_type in ("", SSHRunner.name)
    }
    needs_keys, needs_authority = bool(ways - {CERTIFICATE}), bool(ways - {KEY})
    published = list(PublishedSSHKey.objects.values_list("line", flat=True)) if needs_keys else []
    signing = [key.line for key in _authorities()] if needs_authority else []
    return LoginLines(
        published,
        # Without `principals=`, sshd requires that a certificate names the account itself, as those of the service do.
        [f"cert-authority {line}" for line in signing],
        signing,
        needs_keys,
        needs_authority,
    )


def _authorities() -> list[keys.PublicKey]:
    try:
        return bounded.within_file_timeout(("user CA", str(keys.directory())), user_authority.authorities)
    except (OSError, ValueError) as error:
        logger.warning("The public half of the user CA cannot be read: %s", error)
        return []


@dataclass(frozen=True, slots=True)
class Place:
    """A profile of a person: where its commands run and as which account, in words. `way`: how the service logs in."""

    profile_name: str
    machine: str
    accounts: str
    way: str
    is_usable: bool = True  # False: the person has no account that the profile allows


def places_of(user: Any) -> list[Place]:
    """Return the profiles that a person may use, with the accounts that they allow to this person."""
    person = person_of(user)
    return [_place(profile, person) for profile in RunnerProfile.usable_by(user)[:MOST_SHOWN]]


def _place(profile: RunnerProfile, person: Person) -> Place:
    values = profile.values()
    runner = RUNNERS.get(values.get(parameters.RUNNER_TYPE, ""))
    if runner and runner.is_local:
        return Place(profile.name, "the machine of this service", "the account of the service", "no login")
    hosts = profile.limits.hosts
    machine = values.get(HOST.path) or (", ".join(hosts) if hosts else "any: you name it")
    way = {KEY: "with its key", CERTIFICATE: "with a certificate for you"}.get(
        values.get(AUTHENTICATION.path, KEY), "with a certificate for you, or its key"
    )
    if fixed := values.get(USER.path):
        return Place(profile.name, machine, fixed, way)
    if not profile.limits.users:
        return Place(profile.name, machine, "any: you name it", way)
    allowed = accounts_for(profile.limits.users, person)
    if not allowed:
        return Place(profile.name, machine, "none: no account is mapped to you. Ask an admin.", way, is_usable=False)
    return Place(profile.name, machine, ", ".join(allowed), way)
