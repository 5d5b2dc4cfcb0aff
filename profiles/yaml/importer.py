"""Import and export of the YAML configuration, for commands and admin pages. A plan lists what an import changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Model

from profiles import parameters
from profiles.config import DEFAULT_INSTALLATION
from profiles.limits import lines
from profiles.models import AccountMap, EndpointToggle, PublishedSSHKey, RunnerProfile
from profiles.toggles import toggles
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
    InvalidConfiguration,
    Mistake,
    ProfileSettings,
)

NEW_GROUPS = "GROUPS"  # not a section of the YAML: the groups that ACCESS names and an import creates


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the plan. `action` is add, change or remove; `before` or `after` is empty if there is no value.

    `fields`: for a profile that is added or removed as a whole, its paths and values. `row`: the row that is written.
    It has no primary key before it is saved and after it is deleted.
    """

    action: str
    path: str
    before: str = ""
    after: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    row: Model | None = field(default=None, compare=False, repr=False)

    SIGNS = {"add": "+", "change": "~", "remove": "-"}

    def __str__(self) -> str:
        text = f"{self.SIGNS[self.action]} {self.path}"
        if self.action == "change":
            return f"{text}: {self.before} -> {self.after}"
        said = "; ".join(f"{path}={value}" for path, value in self.fields) or self.before or self.after
        return f"{text}: {said}" if said else text


@dataclass(slots=True)
class ImportPlan:
    """What an import changes.

    `kept`: what the text does not name and stays, because the import does not prune. `warnings`: warnings for an admin
    about the profiles in the text.
    """

    changes: list[Change] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _steps: list[Callable[[], object]] = field(default_factory=list, repr=False)

    def count(self, action: str) -> int:
        return sum(change.action == action for change in self.changes)

    def carry_out(self) -> None:
        """Write the changes. Call it in the transaction that made the plan, because that one holds the row locks."""
        for step in self._steps:
            step()

    def __bool__(self) -> bool:
        return bool(self.changes)


def import_configuration(configuration: Configuration, *, prune: bool = False, dry_run: bool = False) -> ImportPlan:
    """Make the rows match the configuration, all or nothing. Raises InvalidConfiguration.

    Sections that the configuration does not have (`None`) stay as they are, even with `prune`. A dry run writes
    nothing.
    """
    with transaction.atomic():
        plan = _plan(configuration, prune=prune)
        if not dry_run:
            plan.carry_out()
    return plan


def export_configuration() -> Configuration:
    """Return the whole configuration in the database."""
    return Configuration(
        profiles={
            row.name: settings_of(row) for row in RunnerProfile.objects.prefetch_related(*RunnerProfile.ACCESS.values())
        },
        ssh_public_keys=tuple(PublishedSSHKey.objects.values_list("line", flat=True)),
        accounts={row.person: lines(row.accounts) for row in AccountMap.objects.all()},
        endpoints=EndpointToggle.states(),
    )


def settings_of(row: RunnerProfile) -> ProfileSettings:
    """Return one profile as settings of the YAML."""
    return ProfileSettings(
        row.values(), row.enabled, row.description, row.access(), _limits(row), row.installation, row.silent_after
    )


def _plan(configuration: Configuration, *, prune: bool) -> ImportPlan:
    plan = ImportPlan()
    mistakes: list[Mistake] = []
    if configuration.profiles is not None:
        _plan_profiles(plan, configuration.profiles, prune, mistakes)
    if configuration.ssh_public_keys is not None:
        _plan_keys(plan, configuration.ssh_public_keys, prune)
    if configuration.accounts is not None:
        _plan_accounts(plan, configuration.accounts, prune)
    if configuration.endpoints is not None:
        _plan_endpoints(plan, configuration.endpoints)
    if mistakes:
        raise InvalidConfiguration(mistakes)
    return plan


def _plan_profiles(plan: ImportPlan, wanted: dict[str, ProfileSettings], prune: bool, mistakes: list[Mistake]) -> None:
    rows = {row.name: row for row in RunnerProfile.objects.select_for_update()}
    groups = {group.name: group for group in Group.objects.all()}
    for name, settings in wanted.items():
        row = rows.pop(name, None)
        path = f"{PROFILES}.{name}"
        changes: list[Change] = []
        if row is None:
            row = RunnerProfile(name=name)
            changes.append(Change("add", path, after="everything open", fields=_fields(settings), row=row))
        else:
            changes += _changed(row, path, settings)
        if not changes:
            plan.warnings += row.warnings
            continue
        row.set_values(settings.values)
        for key, items in (settings.limits or {}).items():
            setattr(row, RunnerProfile.LIMITS[key], "\n".join(items))
        row.enabled = row.enabled if settings.enabled is None else settings.enabled
        row.description = row.description if settings.description is None else settings.description
        row.installation = row.installation if settings.installation is None else settings.installation
        row.silent_after = row.silent_after if settings.silent_after is None else settings.silent_after
        try:
            row.full_clean()
        except ValidationError as error:  # rules that need the row, not only the text
            mistakes += [
                Mistake(f"{ROOT}.{path}.{_wire_name(name)}", " ".join(m)) for name, m in error.message_dict.items()
            ]
        plan.changes += changes
        plan.warnings += row.warnings
        plan._steps.append(row.save)
        if settings.access is not None:
            _plan_groups(plan, settings.access, groups)
            plan._steps.append(partial(_give_to_groups, row, settings.access, groups))
    for name, row in rows.items():
        gone = Change("remove", f"{PROFILES}.{name}", fields=_fields(settings_of(row)), row=row)
        _plan_removal(plan, gone, row.delete, prune)


def _changed(row: RunnerProfile, path: str, settings: ProfileSettings) -> list[Change]:
    """Return the changes from a stored profile to `settings`, field by field."""
    values = row.values()
    found: list[tuple[str, Any, Any, Callable[[Any], str]]] = [
        (key, values.get(key), settings.values.get(key), _text) for key in parameters.table()
    ]
    if settings.enabled is not None:
        found.append((ENABLED, row.enabled, settings.enabled, _text))
    if settings.description is not None:
        found.append((DESCRIPTION, row.description, settings.description, repr))
    if settings.installation is not None:
        found.append((INSTALLATION, row.installation, settings.installation, _installation))
    if settings.silent_after is not None:
        found.append((SILENT_AFTER, row.silent_after, settings.silent_after, _text))
    for section, had, wants in ((ACCESS, row.access(), settings.access), (LIMITS, _limits(row), settings.limits)):
        found += [(f"{section}.{key}", had[key], items, _list) for key, items in (wants or {}).items()]
    return [
        Change("change", f"{path}.{key}", shown(before), shown(after), row=row)
        for key, before, after, shown in found
        if before != after
    ]


def _fields(settings: ProfileSettings) -> tuple[tuple[str, str], ...]:
    """Return the paths and values of a profile, in the order of `_changed`. Open and default values are omitted."""
    said = [(key, _text(settings.values[key])) for key in parameters.table() if key in settings.values]
    if settings.enabled is False:
        said.append((ENABLED, _text(settings.enabled)))
    if settings.description:
        said.append((DESCRIPTION, repr(settings.description)))
    if settings.installation:
        said.append((INSTALLATION, settings.installation))
    if settings.silent_after:
        said.append((SILENT_AFTER, _text(settings.silent_after)))
    for section, members in ((ACCESS, settings.access), (LIMITS, settings.limits)):
        said += [(f"{section}.{key}", _list(items)) for key, items in (members or {}).items() if items]
    return tuple(said)


def _plan_groups(plan: ImportPlan, access: dict[str, tuple[str, ...]], groups: dict[str, Group]) -> None:
    """Plan the missing groups, without members. A missing group must not open a profile to everybody."""
    for name in {name: None for names in access.values() for name in names}:
        if name not in groups:
            groups[name] = group = Group(name=name)
            plan.changes.append(Change("add", NEW_GROUPS, after=f"{name}, without members", row=group))
            plan._steps.append(group.save)


def _give_to_groups(row: RunnerProfile, access: dict[str, tuple[str, ...]], groups: dict[str, Group]) -> None:
    for key, names in access.items():
        getattr(row, RunnerProfile.ACCESS[key]).set([groups[name] for name in names])


def _limits(row: RunnerProfile) -> dict[str, tuple[str, ...]]:
    return {name: lines(getattr(row, field)) for name, field in RunnerProfile.LIMITS.items()}


def _installation(name: str) -> str:
    return name or f"({DEFAULT_INSTALLATION})"


def _list(items: tuple[str, ...]) -> str:
    return ", ".join(items) or "(any)"


def _plan_keys(plan: ImportPlan, wanted: tuple[str, ...], prune: bool) -> None:
    rows = {row.line: row for row in PublishedSSHKey.objects.select_for_update()}
    for line in wanted:
        if not rows.pop(line, None):
            row = PublishedSSHKey(line=line)
            plan.changes.append(Change("add", SSH_PUBLIC_KEYS, after=str(row), row=row))
            plan._steps.append(row.save)
    for row in rows.values():
        _plan_removal(plan, Change("remove", SSH_PUBLIC_KEYS, before=str(row), row=row), row.delete, prune)


def _plan_accounts(plan: ImportPlan, wanted: dict[str, tuple[str, ...]], prune: bool) -> None:
    rows = {row.person: row for row in AccountMap.objects.select_for_update()}
    for person, accounts in wanted.items():
        row = rows.pop(person, None)
        before, after = (_list(lines(row.accounts)) if row else ""), _list(accounts)
        if row is None or before != after:
            row = row or AccountMap(person=person)
            change = Change("change" if row.pk else "add", f"{ACCOUNTS}.{person}", before, after, row=row)
            row.accounts = "\n".join(accounts)
            plan.changes.append(change)
            plan._steps.append(row.save)
    for person, row in rows.items():
        gone = Change("remove", f"{ACCOUNTS}.{person}", before=_list(lines(row.accounts)), row=row)
        _plan_removal(plan, gone, row.delete, prune)


def _plan_endpoints(plan: ImportPlan, wanted: dict[str, bool]) -> None:
    """Plan the toggles. Nothing is pruned: a toggle without a row has the state that it starts in."""
    rows = {row.name: row for row in EndpointToggle.objects.select_for_update()}
    for name, enabled in wanted.items():
        row = rows.get(name) or EndpointToggle(name=name, enabled=toggles()[name].is_enabled)
        if row.enabled != enabled:
            path = f"{ENDPOINTS}.{name}.{ENABLED}"
            plan.changes.append(Change("change", path, _text(row.enabled), _text(enabled), row=row))
            row.enabled = enabled
            plan._steps.append(row.save)


def _plan_removal(plan: ImportPlan, change: Change, delete: Callable[[], object], prune: bool) -> None:
    if prune:
        plan.changes.append(change)
        plan._steps.append(delete)
    else:
        plan.kept.append(f"{change.path}: {change.before}" if change.before else change.path)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(value)
    return "(open)" if value is None else str(value)


def _wire_name(field_name: str) -> str:
    return {field: path for path, field in RunnerProfile.FIELDS.items()}.get(field_name, field_name.upper())
