"""What several models share: the profile of a row, and everything about a command that runs detached."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar, TypeVar

from django.conf import settings
from django.db import models

from profiles.config import DEFAULT_INSTALLATION, RunnerConfig
from profiles.installations import MAX_INSTALLATION
from profiles.models import RunnerProfile
from profiles.rules import RUNNERS
from runners_project import clock

MAX_MACHINE = 255
MAX_NODE = 100

Row = TypeVar("Row", bound="DetachedCommand", covariant=True)


def new_run_key() -> str:
    """Return 128 random bits in hex: the name of a run directory, which nobody can guess or create beforehand."""
    return uuid.uuid4().hex


def machine_of(config: RunnerConfig) -> str:
    """Return the runner, the account and the machine of a configuration, as `DetachedCommand.machine` stores them."""
    return f"{config.runner_type} {config.target.describe()}"[:MAX_MACHINE]


def node_of(config: RunnerConfig) -> str:
    """Return the node of this service on which a command with this configuration runs; empty: any node reaches it."""
    return settings.RUNNERS_NODE if RUNNERS[config.runner_type].is_local else ""


class OfProfile(models.Model):
    """Base of rows that were made with a profile. `profile_id` decides who may see and stop; the name is for people.

    `profile_id` is the primary key of the profile: it survives a rename and is never reused. If a new row has only a
    name, it gets the key of the profile that has this name now.
    """

    profile_name = models.CharField(max_length=100, blank=True)
    profile_id = models.BigIntegerField(
        null=True, blank=True, editable=False, help_text="The number of the profile. It may have been deleted."
    )

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self._state.adding and self.profile_name and self.profile_id is None:
            found = RunnerProfile.objects.filter(name=self.profile_name).values_list("pk", flat=True).first()
            self.profile_id = found
        super().save(*args, **kwargs)


class DetachedCommandQuerySet(models.QuerySet[Row]):
    def active(self) -> DetachedCommandQuerySet[Row]:
        """Return the rows whose command may still be running."""
        return self.filter(status=self.model.ACTIVE_STATUS)

    def ended_before(self, moment: datetime) -> DetachedCommandQuerySet[Row]:
        return self.filter(finished__lt=moment).exclude(status=self.model.ACTIVE_STATUS)


class DetachedCommand(OfProfile):
    """Base of a command that was launched on a machine and runs on without its request, in a directory of its own.

    The row has all data to find, probe and explain the command. Any number of processes may probe a command
    concurrently, so an active row is changed with `update_active` only, which is a compare-and-set.
    """

    ACTIVE_STATUS: ClassVar[str]  # the value of `status` while the command may still be running

    key = models.CharField(max_length=32, unique=True, default=new_run_key, editable=False)
    expid = models.CharField(max_length=16)
    installation = models.CharField(
        max_length=MAX_INSTALLATION,
        default=DEFAULT_INSTALLATION,
        db_default=DEFAULT_INSTALLATION,  # an older server on the same database does not set this column
        help_text="The name of its Autosubmit database in the profile at the start.",
    )
    config = models.JSONField(help_text="The complete resolved configuration at the start.")

    status: models.Field[Any, Any]  # each model has choices of its own
    exit_code = models.IntegerField(
        null=True, blank=True, help_text="Exit code of the command; 128 + signal if a signal ended it."
    )

    pid = models.IntegerField(null=True, blank=True)
    identity = models.JSONField(null=True, blank=True, help_text="Host, boot id, pids and their start times.")
    host = models.CharField(
        max_length=255, blank=True, help_text="The host name of the machine, after its first answer."
    )

    created = models.DateTimeField(default=clock.now)
    modified = models.DateTimeField(default=clock.now, help_text="When the state last changed.")
    finished = models.DateTimeField(null=True, blank=True)
    confirmed_at = models.DateTimeField(null=True, blank=True, help_text="When the machine last confirmed the state.")
    reachable = models.BooleanField(
        default=True, help_text="False: the last known state, because the machine cannot be probed now."
    )
    unreachable_detail = models.TextField(blank=True, help_text="The reason why the last probe failed.")
    probing_until = models.DateTimeField(null=True, blank=True, editable=False)
    machine = models.CharField(
        max_length=MAX_MACHINE,
        blank=True,
        default="",
        db_default="",  # an older server on the same database does not set this column
        editable=False,
        help_text="The runner, the account and the machine: the worker probes rows with the same value together.",
    )
    node = models.CharField(
        max_length=MAX_NODE,
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text="The node of this service (RUNNERS_NODE) on which a LOCAL command runs. Empty: any node reaches it.",
    )

    renumbered = models.BooleanField(
        default=False,
        db_default=False,
        editable=False,
        help_text="Its own number was taken when it was found again, so its new number does not tell its age.",
    )

    started_by = models.CharField(max_length=150, blank=True)
    cleaned_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When clean_runs removed its directory with the log."
    )

    objects = DetachedCommandQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self._state.adding and not self.machine:
            self.name_machine()
            with suppress(AttributeError, KeyError, TypeError, ValueError):
                self.node = node_of(self.runner_config)
        super().save(*args, **kwargs)

    def name_machine(self) -> None:
        """Set `machine` from the stored configuration. It stays empty if the configuration cannot be read."""
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            self.machine = machine_of(self.runner_config)

    @property
    def is_active(self) -> bool:
        return bool(self.status == self.ACTIVE_STATUS)

    @property
    def never_started(self) -> bool:
        """Return True if the command certainly never began.

        A stored identity proves that it began, but a missing identity proves nothing: a command whose launch was cut
        off leaves an exit code, and its identity is never read.
        """
        raise NotImplementedError

    @property
    def runner_config(self) -> RunnerConfig:
        """Return the stored configuration, for the person who started the command.

        Raises AttributeError, KeyError, TypeError, ValueError.
        """
        config = RunnerConfig.from_dict(self.config)
        return replace(config, target=config.target.for_person(self.started_by))

    def duration(self, now: datetime | None = None) -> float:
        """Return the seconds from the request to the end, or until now."""
        return ((self.finished or now or clock.now()) - self.created).total_seconds()

    def load(self, found: DetachedCommand | None) -> None:
        """Copy the values of the stored row `found`. None: the row was deleted, and this object stays as it is."""
        if found is not None:
            for column in found._meta.concrete_fields:
                setattr(self, column.attname, getattr(found, column.attname))

    def reload(self) -> None:
        """Load the stored row. If the row was deleted, this object stays as it is."""
        self.load(type(self)._default_manager.filter(pk=self.pk).first())

    def update_active(self, among: models.QuerySet[Any] | None = None, **changes: object) -> bool:
        """Update the row if its command is still active (and the row is in `among`). Otherwise reload it.

        In both cases this object matches the database afterwards. Return True if the row was updated.
        """
        rows = type(self).objects.active().filter(pk=self.pk)
        done = bool((rows if among is None else rows & among).update(**changes))
        if done:
            for name, value in changes.items():
                setattr(self, name, value)
        else:
            self.reload()
        return done

    def finish(
        self,
        *,
        status: str,
        exit_code: int | None,
        finished: datetime | None,
        confirmed: bool = True,
        among: models.QuerySet[Any] | None = None,
        **columns: object,
    ) -> bool:
        """Store the end of the command. Return False if another process stored it first, or the row is not in `among`.

        `finished`: when the command ended, by the clock of its machine; None: now. `confirmed`: the machine reported
        the end. `columns`: what only this model stores about an end.
        """
        now = clock.now()
        changes = columns | {
            "status": status,
            "exit_code": exit_code,
            # The machine's clock may be wrong, so the end is clamped: not before the start and not in the future.
            "finished": max(min(finished or now, now), self.created),
            "modified": max(now, self.created),
            "probing_until": None,
        }
        if confirmed:
            changes |= {"confirmed_at": now, "reachable": True, "unreachable_detail": ""}
        return self.update_active(among, **changes)
