"""Create audit records for changes of the configuration: who, what, before, after.

Signals of the models create the records, so every way to change a row creates one: admin, API, import, management
commands, a shell. All models except those in NOT_CONFIGURATION are configuration: a new model is covered until somebody
adds it there. Methods that send no signals (`update`, `bulk_create`, `bulk_update`) are not used on these models; a
test searches the source for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, time
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import ManyToManyField, Model
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

from profiles.models import RunnerProfile
from runners import printable
from runners.models import AuditRecord
from runners.services import acting
from runners.services.audit import DETAIL_LIMIT, RECORD_OF_CHANGES, begin

ENDPOINT = "change-configuration"
NOT_CONFIGURATION = frozenset(
    {
        *("admin.LogEntry", "auth.Permission", "contenttypes.ContentType", "sessions.Session"),
        *("runners.RunnerRun", "runners.Operation", "runners.IdempotencyRecord", "runners.AuditRecord"),
        *(
            "runners.WebhookDelivery",
            "runners.SignInAttempts",
            "runners.Heartbeat",
            "runners.NodeCommand",
            "runners.SeenForeignRun",
        ),
        "runners.DeviceLogin",  # logins in progress; the token that each makes is recorded
        *("runners.MailSubscription", "runners.Mail"),  # what people want to be told, and what they were told
        "runners.ExperimentDescription",  # what machines have told
        "runners.Machine",  # which machines answer
        "runners.SeenDatabase",  # what the connection test has read
        "runners.LastFormValues",  # what forms suggest
        "profiles.DeletedProfile",  # what a removed profile leaves for its runs; the removal itself is recorded
    }
)
NOT_TOLD = frozenset({"id", "last_login", "last_used", "modified"})  # not recorded: they change without a decision
SECRET_WORDS = ("password", "secret", "digest")  # in the names of fields whose values are never recorded
SET, CHANGED = "(set)", "(changed)"
TEXT_LIMIT = 2000  # characters of a value
MOST_NAMES = 100  # of a list of related rows

_BEFORE = "_audit_before"  # key of the old values in an instance's __dict__, between the two signals of one change
Values = dict[str, Any]


def models_of_configuration() -> list[type[Model]]:
    return [
        model for model in apps.get_models() if not model._meta.proxy and model._meta.label not in NOT_CONFIGURATION
    ]


def connect() -> None:
    """Connect the signals of all models of the configuration. Called once, when all models are loaded."""
    for model in models_of_configuration():
        pre_save.connect(_before_save, sender=model)
        post_save.connect(_after_save, sender=model)
        pre_delete.connect(_before_delete, sender=model)
        post_delete.connect(_after_delete, sender=model)
        for field in model._meta.local_many_to_many:
            m2m_changed.connect(_related, sender=field.remote_field.through)


# --- Signals ---------------------------------------------------------------------------------------------------------


def _before_save(sender: type[Model], instance: Model, using: str, update_fields: Any = None, **kwargs: Any) -> None:
    if _is_told(sender, update_fields):
        instance.__dict__[_BEFORE] = _stored(sender, instance, using)


def _after_save(sender: type[Model], instance: Model, using: str, update_fields: Any = None, **kwargs: Any) -> None:
    if not _is_told(sender, update_fields):
        return
    before, after = instance.__dict__.pop(_BEFORE, None), _stored(sender, instance, using)
    if after is None:
        return
    if before is None:
        _record("add", instance, {}, {name: value for name, value in after.items() if value not in (None, "", [])})
        return
    names = [name for name in after if before.get(name) != after[name]]
    if names:
        _record("change", instance, {name: before[name] for name in names}, {name: after[name] for name in names})


def _before_delete(sender: type[Model], instance: Model, using: str, **kwargs: Any) -> None:
    values = _stored(sender, instance, using)
    if values is not None:
        related = {name: _names(manager) for name, manager in _relations(instance)}
        values |= {name: names for name, names in related.items() if names}
    instance.__dict__[_BEFORE] = values


def _after_delete(sender: type[Model], instance: Model, **kwargs: Any) -> None:
    values = instance.__dict__.pop(_BEFORE, None)
    if values is not None:
        _record("remove", instance, {name: value for name, value in values.items() if value not in (None, "", [])}, {})


def _related(sender: type[Model], instance: Model, action: str, **kwargs: Any) -> None:
    """Record a change of a many-to-many field, made from either of its sides."""
    for name, manager in _relations(instance):
        if manager.through is not sender:
            continue
        key = f"{_BEFORE}_{name}"
        if action.startswith("pre_"):
            instance.__dict__[key] = _names(manager)
            continue
        before, after = instance.__dict__.pop(key, []), _names(manager)
        if before != after:
            _record("change", instance, {name: before}, {name: after})


# --- Values ----------------------------------------------------------------------------------------------------------


def _is_told(sender: type[Model], update_fields: Any) -> bool:
    """Return True if a save can change a recorded field. A sign-in saves only its time, which is not recorded."""
    if update_fields is None:
        return True
    return any(field.name not in NOT_TOLD and field.name in update_fields for field in sender._meta.concrete_fields)


def _stored(sender: type[Model], instance: Model, using: str) -> Values | None:
    """Return the values of the row in the database, by field; None if there is no row."""
    if instance.pk is None:
        return None
    row = sender._base_manager.using(using).filter(pk=instance.pk).first()
    if row is None:
        return None
    return {field.name: _plain(row, field) for field in sender._meta.concrete_fields if field.name not in NOT_TOLD}


def _plain(row: Model, field: Any) -> Any:
    """Return the field's value as JSON can hold it, with bounded length. For a related row, return its name."""
    value = getattr(row, field.name) if field.is_relation else field.value_from_object(row)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list | dict) and len(str(value)) <= TEXT_LIMIT:
        return value
    return str(value) if is_secret(field.name) else printable.without_credentials(str(value))[:TEXT_LIMIT]


def _relations(instance: Model) -> Iterator[tuple[str, Any]]:
    """Yield the names and many-to-many managers of a row: of its own fields, and of others' fields that lead to it."""
    for field in instance._meta.get_fields():
        if isinstance(field, ManyToManyField):
            yield field.name, getattr(instance, field.name)
        elif field.many_to_many and not getattr(field, "hidden", False):
            name = str(field.get_accessor_name())  # type: ignore[union-attr]  # a relation from the other side
            yield name, getattr(instance, name)


def _names(manager: Any) -> list[str]:
    """Return the sorted names of related rows: for a long list, the first ones and how many more there are."""
    names = sorted(map(str, manager.all()))
    return names if len(names) <= MOST_NAMES else [*names[:MOST_NAMES], f"... and {len(names) - MOST_NAMES} more"]


def is_secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET_WORDS)


# --- Records ---------------------------------------------------------------------------------------------------------


def _record(action: str, instance: Model, before: Values, after: Values) -> None:
    """Store a change in the record of the command that makes it, if that holds changes; else in a new record."""
    names = list({**before, **after})
    for name in filter(is_secret, names):
        before, after = _masked(name, before, after)
    before, after = _without_query(before), _without_query(after)
    kind, what = str(instance._meta.verbose_name), printable.line(str(instance), 200)
    change = {"action": action, "kind": kind, "object": what, "before": before, "after": after}
    if (record_of_changes := RECORD_OF_CHANGES.get()) is not None:
        record_of_changes.changes = [*(record_of_changes.changes or []), change]
        if record_of_changes._state.adding:
            begin(record_of_changes)
        else:
            record_of_changes.save(update_fields=["changes"])
        return
    if acting.OF_REQUEST.get() is None and not settings.RUNNERS_AUDIT_WITHOUT_REQUEST:
        return
    actor = acting.now()
    if not actor.name and action == "add" and isinstance(instance, AbstractBaseUser):
        actor = replace(actor, name=instance.get_username())  # an account is made when its person first signs in
    AuditRecord.objects.create(
        endpoint=ENDPOINT,
        actor=actor.name[:150],
        token=actor.token[:64],
        address=actor.address[:64],
        profile_name=instance.name if isinstance(instance, RunnerProfile) else "",
        detail=f"{action} {kind} {what}{': ' + ', '.join(names) if action == 'change' else ''}"[:DETAIL_LIMIT],
        changes=[change],
    )


def _without_query(values: Values) -> Values:
    """Mask the query of a receiver's URL: what follows the question mark is often a token."""
    url = values.get("url")
    if not isinstance(url, str) or "?" not in url:
        return values
    return {**values, "url": f"{url.partition('?')[0]}?{SET}"}


def _masked(name: str, before: Values, after: Values) -> tuple[Values, Values]:
    if name in before:
        before = {**before, name: SET if before[name] else ""}
    if name in after:
        after = {**after, name: (CHANGED if before.get(name) else SET) if after[name] else ""}
    return before, after
