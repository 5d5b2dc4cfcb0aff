"""The machines that a person may see, with their states, runs and announced maintenance; ask one again; forget one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from django.conf import settings

from profiles import parameters
from profiles.accounts import person_of
from profiles.config import RunnerConfig
from profiles.exceptions import ForbiddenParameter, InvalidProfile
from profiles.models import RunnerProfile, UserSettings
from profiles.rules import RUNNERS
from runners.exceptions import InvalidRequest, MachineInUse, MachineNotFound
from runners.models import AuditRecord, DetachedCommand, Machine, Maintenance, RunnerRun
from runners.services import access, lifecycle, machine_states, maintenance, probing
from runners.services.audit import begin
from runners.services.machines.breaker import BREAKER
from runners.services.machines.registry import get_runner

LOCALHOST = "localhost"
MOST_ANNOUNCED_SHOWN = 10
MOST_SHOWN = 500  # machines of a list, and runs of a machine

ANSWERS, NO_ANSWER, LOGIN_FAILS, UNKNOWN = "answers", "no_answer", "login_fails", "unknown"

# What the last error of a machine means, in words for people.
ERROR_WORDS = {
    "runner_unreachable": "It could not be reached",
    "authentication_failed": "It rejected the login of the service",
    "host_key_unknown": "Its host key is not trusted yet",
    "host_key_changed": "Its host key has changed",
}


@dataclass(slots=True)
class SeenMachine:
    """A machine as one person may see it: with the profiles that this person may use, and the runs that they see."""

    name: str
    row: Machine
    profiles: list[str] = field(default_factory=list)
    runs: list[RunnerRun] = field(default_factory=list)  # active ones
    maintenance: list[Maintenance] = field(default_factory=list)  # not over, the first to start first

    @property
    def state(self) -> str:
        """One of ANSWERS, NO_ANSWER, LOGIN_FAILS and UNKNOWN."""
        row = self.row
        error_is_last = bool(row.last_error_at and (row.last_answer is None or row.last_error_at > row.last_answer))
        if error_is_last and row.last_error_code == "authentication_failed":
            return LOGIN_FAILS
        if row.is_answering is None:
            return UNKNOWN
        return ANSWERS if row.is_answering else NO_ANSWER

    @property
    def since(self) -> datetime | None:
        """Return since when it is in this state."""
        return self.row.last_error_at if self.state == LOGIN_FAILS else self.row.since

    @property
    def error_words(self) -> str:
        """Return what the last error means; empty if there was none."""
        code = self.row.last_error_code
        return ERROR_WORDS.get(code, "It could not be used") if code else ""

    @property
    def current(self) -> Maintenance | None:
        """Return the maintenance that applies now."""
        return next((each for each in self.maintenance if each.applies), None)


def machine_of(run: DetachedCommand) -> str:
    """Return the name of the machine of a run; empty if its stored configuration cannot be read."""
    try:
        return run.runner_config.target.machine
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""


def machines_for(user: Any) -> list[SeenMachine]:
    """Return the machines that `user` may see, by name.

    These are the machines of profiles that the user may use and of active runs that the user sees; for staff, all that
    the service knows. If a profile leaves the machine open, its allowed patterns say which known machines it reaches.
    """
    rows = {row.name: row for row in Machine.objects.order_by("name")[: machine_states.MOST_STORED]}
    found: dict[str, SeenMachine] = {}

    def seen(name: str) -> SeenMachine:
        return found.setdefault(name, SeenMachine(name, rows.get(name) or Machine(name=name)))

    for profile in _profiles_of(user):
        for name in _machines_of(profile, rows):
            seen(name).profiles.append(profile.name)
    active = access.visible(RunnerRun.objects.active(), user).order_by("-id")
    for run in active:
        if name := machine_of(run):
            seen(name).runs.append(run)
    if is_admin(user):
        for name in rows:
            seen(name)
    for name, announced in maintenance.announced(None if is_admin(user) else found).items():
        seen(name).maintenance = announced
    return [found[name] for name in sorted(found)][:MOST_SHOWN]


def machine_for(user: Any, name: str) -> SeenMachine:
    """Return one machine that `user` may see. Raises MachineNotFound."""
    for each in machines_for(user):
        if each.name == name:
            return each
    raise MachineNotFound(f"{name}: no profile that you may use and no run that you see leads to this machine.")


def announced_for(user: Any) -> list[tuple[Maintenance, str]]:
    """Return the announcements for machines that `user` may see, each with the name to show. One query if none."""
    announced = maintenance.announced()
    if not announced:
        return []
    return [
        (each, "this machine" if machine.name == LOCALHOST else machine.name)
        for machine in machines_for(user)
        for each in machine.maintenance
    ][:MOST_ANNOUNCED_SHOWN]


def is_admin(user: Any) -> bool:
    """Return True if `user` sees all machines."""
    return bool(user.is_active and user.is_staff)


def _profiles_of(user: Any) -> list[RunnerProfile]:
    if is_admin(user):
        return list(RunnerProfile.objects.filter(enabled=True).order_by("name"))
    return RunnerProfile.usable_by(user)


def _machines_of(profile: RunnerProfile, known: dict[str, Machine]) -> Iterator[str]:
    values = profile.values()
    runner = RUNNERS.get(values.get(parameters.RUNNER_TYPE, ""))
    if runner is None:
        return
    name = runner.account(values)[1]
    if name:
        yield name
    elif patterns := [pattern.lower() for pattern in profile.limits.hosts]:
        yield from (each for each in known if any(fnmatchcase(each, pattern) for pattern in patterns))


# --- ask again --------------------------------------------------------------------------------------------------------


def ask(*, name: str, user: Any, audit: AuditRecord) -> SeenMachine:
    """Ask a machine now whether it answers, also if it has just failed to, and return its new state.

    The machine is asked with the configurations of active runs that the user sees; else with a profile of the user that
    leads there. Raises MachineNotFound, InvalidRequest (no configuration is complete) and the errors of `execute`.
    """
    machine = machine_for(user, name)
    runs = [run for run in machine.runs if lifecycle.is_readable(run)]
    config = None if runs else _config_for(machine, user)
    begin(audit)
    if config:
        runner = get_runner(config)
        BREAKER.let_through(runner.login)
        try:
            runner.execute("true", timeout=settings.RUNNERS_PROBE_TIMEOUT)
        finally:
            machine_states.store()
    else:
        for group in lifecycle.by_target(runs).values():
            BREAKER.let_through(lifecycle.runner_of(group[0]).login)
        for run in runs:
            run.probing_until = None
        RunnerRun.objects.active().filter(pk__in=[run.pk for run in runs]).update(probing_until=None)
        probing.refresh(runs, wait=settings.RUNNERS_PROBE_TIMEOUT)
    return machine_for(user, name)


def _config_for(machine: SeenMachine, user: Any) -> RunnerConfig:
    person = person_of(user)
    row = UserSettings.objects.filter(user=user).first()
    accounts = [*([row.preferred_username] if row and row.preferred_username else []), *person.accounts()]
    profiles = {each.name: each for each in _profiles_of(user)}
    for profile in (profiles[each] for each in machine.profiles):
        for params in ({}, *({"SSH": {"USER": account}} for account in accounts)):
            try:
                config = profile.resolve(params, person)
            except (ForbiddenParameter, InvalidProfile):
                continue
            if config.target.machine == machine.name:
                return config
    raise InvalidRequest(
        f"No profile that you may use says with which account {machine.name} can be asked. Set your preferred "
        "username, or test the connection of a profile."
    )


# --- forget -----------------------------------------------------------------------------------------------------------


def forget(*, name: str, user: Any, audit: AuditRecord) -> None:
    """Remove what the service knows of a machine that it does not use any more: its state and its announcements.

    Runs, audit records and trusted host keys stay. Raises MachineNotFound, and MachineInUse if the machine has active
    runs or a profile leads there.
    """
    machine_for(user, name)
    if profiles := profiles_leading_to(name):
        raise MachineInUse(
            f"{name} cannot be forgotten: the profiles {', '.join(profiles[:10])} lead there. Delete or change them "
            "first."
        )
    active = [run for run in RunnerRun.objects.active() if machine_of(run) == name]
    if active:
        raise MachineInUse(
            f"{name} cannot be forgotten: {len(active)} active runs are there. Stop them, or declare them ended first. "
            "If the machine is gone for good: autosubmit-runners-server forget-machine."
        )
    begin(audit)
    machine_states.forget(name)
    for row in Maintenance.objects.filter(machine=name):
        row.delete()


def profiles_leading_to(name: str) -> list[str]:
    """Return the names of the profiles that name this machine."""
    return [each.name for each in RunnerProfile.objects.order_by("name") if name in set(_machines_of(each, {}))]


def known_name(text: str) -> str:
    """Return the name of the machine that an admin means: its own name, or an alias of the SSH configuration.

    Raises MachineNotFound if the service knows no such machine.
    """
    name = text.strip().lower().rstrip(".")
    known = {LOCALHOST, *Machine.objects.values_list("name", flat=True)}
    for profile in RunnerProfile.objects.all():
        known.update(_machines_of(profile, {}))
        if profile.ssh_host.lower() == name:
            return next(_machines_of(profile, {}), name)
    known.update(filter(None, map(machine_of, RunnerRun.objects.active())))
    if name in known:
        return name
    raise MachineNotFound(
        f"{text.strip()[:100] or 'An empty name'}: no profile and no active run leads to this machine. Known are: "
        f"{', '.join(sorted(known)[:20])}."
    )
