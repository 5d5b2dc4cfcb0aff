"""Rows and the YAML wire: what an import would change, the import itself, the export. For commands and admin pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import transaction

from profiles import parameters
from profiles.config import Endpoint
from profiles.limits import lines
from profiles.models import EndpointToggle, PublishedSSHKey, RunnerProfile
from profiles.yaml_config import (
    ACCESS,
    DESCRIPTION,
    ENABLED,
    ENDPOINTS,
    LIMITS,
    PROFILES,
    ROOT,
    SSH_PUBLIC_KEYS,
    Configuration,
    InvalidConfiguration,
    Mistake,
    ProfileSettings,
)


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the plan. `before` or `after` is empty where there is nothing; `action` is add, change or remove."""

    action: str
    path: str
    before: str = ""
    after: str = ""

    SIGNS = {"add": "+", "change": "~", "remove": "-"}

    def __str__(self) -> str:
        text = f"{self.SIGNS[self.action]} {self.path}"
        if self.action == "change":
            return f"{text}: {self.before} -> {self.after}"
        return f"{text}: {self.before or self.after}" if self.before or self.after else text


@dataclass(slots=True)
class Plan:
    """What an import changes. `kept`: what the text does not name and is left alone because nobody asked to prune."""

    changes: list[Change] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    _steps: list[Callable[[], object]] = field(default_factory=list, repr=False)

    def count(self, action: str) -> int:
        return sum(change.action == action for change in self.changes)

    def __bool__(self) -> bool:
        return bool(self.changes)


def import_configuration(configuration: Configuration, *, prune: bool = False, dry_run: bool = False) -> Plan:
    """Make the rows say what the configuration says, all or nothing. Raises InvalidConfiguration.

    Parts that the configuration does not have (`None`) stay as they are, with `prune`, too. A dry run writes nothing.
    """
    with transaction.atomic():
        plan = _plan(configuration, prune=prune)
        if not dry_run:
            for step in plan._steps:
                step()
    return plan


def export_configuration() -> Configuration:
    """Everything there is."""
    return Configuration(
        profiles={
            row.name: settings_of(row) for row in RunnerProfile.objects.prefetch_related(*RunnerProfile.ACCESS.values())
        },
        ssh_public_keys=tuple(PublishedSSHKey.objects.values_list("line", flat=True)),
        endpoints=EndpointToggle.states(),
    )


def settings_of(row: RunnerProfile) -> ProfileSettings:
    """One profile as YAML says it."""
    return ProfileSettings(row.values(), row.enabled, row.description, row.access(), _limits(row))


def _plan(configuration: Configuration, *, prune: bool) -> Plan:
    plan = Plan()
    mistakes: list[Mistake] = []
    if configuration.profiles is not None:
        _plan_profiles(plan, configuration.profiles, prune, mistakes)
    if configuration.ssh_public_keys is not None:
        _plan_keys(plan, configuration.ssh_public_keys, prune)
    if configuration.endpoints is not None:
        _plan_endpoints(plan, configuration.endpoints)
    if mistakes:
        raise InvalidConfiguration(mistakes)
    return plan


def _plan_profiles(plan: Plan, wanted: dict[str, ProfileSettings], prune: bool, mistakes: list[Mistake]) -> None:
    rows = {row.name: row for row in RunnerProfile.objects.select_for_update()}
    for name, settings in wanted.items():
        row = rows.pop(name, None)
        path = f"{PROFILES}.{name}"
        changes: list[Change] = []
        if row is None:
            row = RunnerProfile(name=name)
            summary = ", ".join(f"{key}={_text(value)}" for key, value in _in_order(settings.values))
            changes.append(Change("add", path, after=summary or "everything open"))
        else:
            before = row.values()
            changes += [
                Change("change", f"{path}.{key}", _text(before.get(key)), _text(settings.values.get(key)))
                for key in parameters.PATHS
                if before.get(key) != settings.values.get(key)
            ]
            if settings.enabled not in (None, row.enabled):
                changes.append(Change("change", f"{path}.{ENABLED}", _text(row.enabled), _text(settings.enabled)))
            if settings.description not in (None, row.description):
                changes.append(
                    Change("change", f"{path}.{DESCRIPTION}", repr(row.description), repr(settings.description))
                )
        for section, had, wants in (
            (ACCESS, row.access(), settings.access),
            (LIMITS, _limits(row), settings.limits),
        ):
            changes += [
                Change("change", f"{path}.{section}.{key}", _list(had[key]), _list(items))
                for key, items in (wants or {}).items()
                if had[key] != items
            ]
        if not changes:
            continue
        row.set_values(settings.values)
        for key, items in (settings.limits or {}).items():
            setattr(row, RunnerProfile.LIMITS[key], "\n".join(items))
        row.enabled = row.enabled if settings.enabled is None else settings.enabled
        row.description = row.description if settings.description is None else settings.description
        try:
            row.full_clean()
        except ValidationError as error:  # what the text alone cannot tell
            mistakes += [
                Mistake(f"{ROOT}.{path}.{_wire_name(name)}", " ".join(m)) for name, m in error.message_dict.items()
            ]
        plan.changes += changes
        plan._steps.append(row.save)
        if settings.access is not None:
            plan._steps.append(partial(_give_to_groups, row, settings.access))
    for name, row in rows.items():
        _plan_removal(plan, f"{PROFILES}.{name}", row.delete, prune)


def _give_to_groups(row: RunnerProfile, access: dict[str, tuple[str, ...]]) -> None:
    """Groups that do not exist are made, without members: a profile must not become everybody's by a missing group."""
    for key, names in access.items():
        groups = [Group.objects.get_or_create(name=name)[0] for name in names]
        getattr(row, RunnerProfile.ACCESS[key]).set(groups)


def _limits(row: RunnerProfile) -> dict[str, tuple[str, ...]]:
    return {name: lines(getattr(row, field)) for name, field in RunnerProfile.LIMITS.items()}


def _list(items: tuple[str, ...]) -> str:
    return ", ".join(items) or "(any)"


def _plan_keys(plan: Plan, wanted: tuple[str, ...], prune: bool) -> None:
    rows = {row.line: row for row in PublishedSSHKey.objects.select_for_update()}
    for line in wanted:
        if not rows.pop(line, None):
            row = PublishedSSHKey(line=line)
            plan.changes.append(Change("add", SSH_PUBLIC_KEYS, after=str(row)))
            plan._steps.append(row.save)
    for row in rows.values():
        _plan_removal(plan, f"{SSH_PUBLIC_KEYS}: {row}", row.delete, prune)


def _plan_endpoints(plan: Plan, wanted: dict[Endpoint, bool]) -> None:
    """Nothing to prune: the four families are always there."""
    states = EndpointToggle.states()
    for endpoint, enabled in wanted.items():
        if states[endpoint] != enabled:
            path = f"{ENDPOINTS}.{endpoint.value}.{ENABLED}"
            plan.changes.append(Change("change", path, _text(states[endpoint]), _text(enabled)))
            switch = partial(
                EndpointToggle.objects.update_or_create, name=endpoint.value, defaults={"enabled": enabled}
            )
            plan._steps.append(switch)


def _plan_removal(plan: Plan, path: str, delete: Callable[[], object], prune: bool) -> None:
    if prune:
        plan.changes.append(Change("remove", path))
        plan._steps.append(delete)
    else:
        plan.kept.append(path)


def _in_order(values: parameters.Values) -> list[tuple[str, object]]:
    return [(path, values[path]) for path in parameters.PATHS if path in values]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(value)
    return "(open)" if value is None else str(value)


def _wire_name(field_name: str) -> str:
    return {field: path for path, field in RunnerProfile.FIELDS.items()}.get(field_name, field_name.upper())
