"""What a profile needs before commands can succeed with it, as far as this machine knows. No network is used.

A connection test (`check.py`) asks the machine. This module reads only rows and the files of the service: the SSH
configuration, known_hosts files and keys. The import and the admin show what it finds (`profiles.readiness`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import Count, Q

from profiles import parameters, readiness, validators
from profiles.accounts import accounts_of
from profiles.limits import ACCOUNTS, USERNAME, is_mapped
from profiles.models import AccountMap, RunnerProfile
from profiles.parameter import Values
from profiles.people import Person
from profiles.readiness import Missing, Page
from profiles.rules import MODULE_LOADERS, RUNNERS
from runners.exceptions import RunnerServiceError
from runners.services import key_pairs
from runners.services.machines.ssh import authentication, connect, keys, known_hosts, user_authority
from runners.services.machines.ssh.config import DEFAULT_SSH_PORT
from runners.services.machines.ssh.runner import AUTHENTICATION, HOST, PORT, USER, SSHRunner
from runners.services.machines.ssh.target import CERTIFICATE, KEY, SSHTarget
from runners_project import bounded

MOST_HOSTS = 20  # host names of an open SSH.HOST that are looked up
SHOWN_NAMES = 5
KEYS_PAGE = Page("Service keys", "admin:service_keys")
ACCOUNTS_PAGE = Page("Accounts of people", "admin:profiles_accountmap_changelist")


def connect_finder() -> None:
    """Let the import and the admin show what profiles need. Called when the application is ready."""
    readiness.provide_finder(missing_of)


def missing_of(profile: RunnerProfile) -> list[Missing]:
    """Return what the stored profile needs and does not have, in the order of a connection.

    Only what is certain without the machine is named: an empty list does not prove that the profile works.
    """
    values = profile.values()
    page = Page("The profile", "admin:profiles_runnerprofile_change", (profile.pk,))
    found = [*_runner(profile, values, page)]
    if _may_use_ssh(profile, values):
        found += [*_hosts(profile, values), *_credentials(values), *_accounts(profile, values, page)]
    return [*found, *_environment(profile, values, page), *_people(profile, page)]


def _may_use_ssh(profile: RunnerProfile, values: Values) -> bool:
    """Return True if SSH is the fixed runner, or may be chosen."""
    return profile.runner_type in ("", SSHRunner.name) and SSHRunner.name in RUNNERS


def _runner(profile: RunnerProfile, values: Values, page: Page) -> Iterator[Missing]:
    name = profile.runner_type
    if name and name not in RUNNERS:
        detail = f"No installed package has the runner {name}. Install it, or choose another RUNNER_TYPE."
        yield Missing("runner", detail, page=page)
    elif name and RUNNERS[name].is_local and not settings.RUNNERS_ALLOW_LOCAL:
        detail = f"RUNNERS_ALLOW_LOCAL=0 forbids {name} commands. Set it to 1, or choose another RUNNER_TYPE."
        yield Missing("LOCAL commands", detail, page=page)


# --- SSH --------------------------------------------------------------------------------------------------------------


def _hosts(profile: RunnerProfile, values: Values) -> Iterator[Missing]:
    """Yield what is missing for the host of a profile, or for each whole host name that an open SSH.HOST may have."""
    names = [values[HOST.path]] if HOST.path in values else profile.limits.hosts
    seen: set[str] = set()
    for name in [each for each in names if not set("*?[") & set(each)][:MOST_HOSTS]:
        try:
            yield from _host(SSHTarget(name, *_port_and_user(name, values)), profile, seen)
        except RunnerServiceError as error:
            detail = f"The host keys of {name} cannot be looked up: {error.detail}"
            yield Missing("SSH configuration", detail, f"ssh -G {shlex.quote(name)}")


def _port_and_user(host: str, values: Values) -> tuple[int, str]:
    known = {**SSHRunner.defaults({**values, HOST.path: host}, {}), **values}
    return known.get(PORT.path, DEFAULT_SSH_PORT), known.get(USER.path, "")


def _host(target: SSHTarget, profile: RunnerProfile, seen: set[str]) -> Iterator[Missing]:
    """Yield the host keys that are missing for a host and its jump hosts. Raises RunnerUnreachable."""
    options = connect.options_of(target)
    if options.problem:
        yield Missing("SSH configuration", options.problem, f"ssh -G {shlex.quote(target.host)}")
        return
    for hop in [*connect.jump_targets(options), target]:
        known = known_hosts.load(connect.options_of(hop), hop.port)
        if known.trusted or known.authorities or known.name in seen:
            continue
        seen.add(known.name)
        role = "" if hop is target else f", a jump host of {target.host},"
        port = "" if hop.port == DEFAULT_SSH_PORT else f" --port {hop.port}"
        query = (("host", hop.host), ("port", str(hop.port)), ("profile", str(profile.pk)))
        yield Missing(
            "host key",
            f"No key of {known.name}{role} is trusted, and no certificate authority for it.",
            f"manage.py trust_host {shlex.quote(hop.host)}{port}",
            Page("Read the host keys of a machine", "admin:runners_trustedhostkey_scan", query=query),
        )


def _credentials(values: Values) -> Iterator[Missing]:
    """Yield what is missing of the service's key and of the user CA, whichever the profile uses."""
    way = values.get(AUTHENTICATION.path, KEY)
    try:
        if way != CERTIFICATE:
            yield from _service_key()
        if way != KEY and not user_authority.authorities():
            detail = "The service has no user CA to sign certificates with."
            yield Missing("user CA", detail, "manage.py create_ssh_ca", KEYS_PAGE)
    except OSError as error:
        detail = f"The SSH keys in {keys.directory()} cannot be read: {error.strerror}."
        yield Missing("service key", detail, page=KEYS_PAGE)


def _service_key() -> Iterator[Missing]:
    """Yield what is missing of the service's key. A key of ~/.ssh/config or of an ssh-agent also lets in."""
    own = keys.current()
    if own is None:
        if not _has_other_key():
            yield Missing(
                "service key", "The service has no SSH key to log in with.", "manage.py create_ssh_key", KEYS_PAGE
            )
    elif not key_pairs.is_published(own):
        detail = f"People cannot see the service's key ({own.fingerprint}), which their authorized_keys needs."
        yield Missing("published key", detail, "manage.py create_ssh_key --publish", KEYS_PAGE)


def _has_other_key() -> bool:
    options = connect.options_of(SSHTarget("localhost", DEFAULT_SSH_PORT, ""))
    files = connect.identity_files(options)
    exists = partial(any, (Path(name).is_file() for name in files))
    try:
        return bool(authentication.agent_path(options)) or bounded.within_file_timeout(("keys", *files), exists)
    except TimeoutError:
        return True  # cannot tell


def _accounts(profile: RunnerProfile, values: Values, page: Page) -> Iterator[Missing]:
    """Yield what is missing to say whose account a request uses."""
    if USER.path in values:
        if values.get(AUTHENTICATION.path) == CERTIFICATE:
            account = values[USER.path]
            people = [Person(name, partial(accounts_of, name)) for name in _people_of(profile)]
            yield from _unmapped(
                [person.username for person in people if not is_mapped(account, profile.limits, person)], account
            )
        return
    if profile.is_anybody:
        detail = "SSH.USER is open for every account: nothing binds it to the person who makes the request."
        yield Missing("account binding", detail, f"manage.py bind_profile {profile.name}", page)
        return
    users = profile.limits.users
    needs_map = ACCOUNTS in users or values.get(AUTHENTICATION.path) == CERTIFICATE
    if not needs_map or any(USERNAME in pattern for pattern in users):
        return
    mapped = {validators.canonical(name) for name in AccountMap.objects.values_list("person", flat=True)}
    names = [name for name in _people_of(profile) if validators.canonical(name) not in mapped]
    if names:
        yield from _unmapped(names)
    elif not mapped:
        yield Missing("account mapping", "No account is mapped to any person.", page=ACCOUNTS_PAGE)


def _unmapped(names: list[str], account: str = "") -> Iterator[Missing]:
    """Yield what is missing if these people have no mapping to the account; empty: to any account."""
    if names:
        shown = ", ".join(names[:SHOWN_NAMES]) + (
            f" and {len(names) - SHOWN_NAMES} more" if names[SHOWN_NAMES:] else ""
        )
        which = f"The account {account} is not" if account else "No account is"
        detail = f"{which} mapped to {shown}, who may use the profile. ACCOUNTS in the YAML maps several at once."
        yield Missing("account mapping", detail, page=ACCOUNTS_PAGE)


def _people_of(profile: RunnerProfile) -> list[str]:
    """Return the names of the active people who may start commands with the profile."""
    people = User.objects.filter(is_active=True)
    groups = list(profile.run_groups.all())
    if groups:
        people = people.filter(Q(groups__in=groups) | Q(is_superuser=True))
    return list(people.order_by("username").values_list("username", flat=True).distinct())


# --- the environment and the people -----------------------------------------------------------------------------------


def _environment(profile: RunnerProfile, values: Values, page: Page) -> Iterator[Missing]:
    name = profile.module_loader_type
    if name and name not in MODULE_LOADERS:
        detail = f"No installed package has the module loader {name}. Install it, or choose another MODULE_LOADER_TYPE."
        yield Missing("module loader", detail, page=page)
    modules: tuple[str, ...] = values.get(parameters.MODULES, ())
    loader = parameters.loader_of(values)
    if not modules or not loader.is_path(modules):
        return
    path = modules[0]
    roots = settings.RUNNERS_VENV_ROOTS
    if roots and not any(PurePosixPath(path).is_relative_to(root) for root in roots):
        detail = f"RUNNERS_VENV_ROOTS forbids the environment {path}. It allows {', '.join(roots)}. Change one of both."
        yield Missing("environment", detail, page=page)
    elif profile.runner_type in RUNNERS and RUNNERS[profile.runner_type].is_local and not _is_directory(path):
        yield Missing("environment", f"There is no directory {path} on this machine.", page=page)


def _is_directory(path: str) -> bool:
    try:
        return bounded.within_file_timeout(("environment", path), Path(path).is_dir)
    except TimeoutError:
        return True  # cannot tell
    except OSError:
        return False


def _people(profile: RunnerProfile, page: Page) -> Iterator[Missing]:
    """Yield the groups of RUN_GROUPS if none has an active member: an import creates groups without members."""
    members = Count("user", filter=Q(user__is_active=True))
    groups = {group.name: group.members for group in profile.run_groups.annotate(members=members)}
    if groups and not any(groups.values()):
        detail = f"RUN_GROUPS has no members ({', '.join(groups)}), so only superusers may use the profile."
        yield Missing("members of groups", detail, page=Page("Groups", "admin:auth_group_changelist"))
