"""Runs of experiments. A row outlives every process and every profile."""

from __future__ import annotations

import uuid
from datetime import datetime
from functools import cache
from typing import Any

from django.db import connections, models
from django.db.models import Q
from django.utils import timezone

from profiles.config import DEFAULT_INSTALLATION, ModuleLoaderType, RunnerConfig, RunnerType
from profiles.installations import MAX_INSTALLATION
from runners.models.base import OfProfile


def new_run_key() -> str:
    """Return 128 random bits in hex: the name of a run directory, which nobody can guess or create beforehand."""
    return uuid.uuid4().hex


class RunStatus(models.TextChoices):
    """The three statuses that today's clients know."""

    ACTIVE = "ACTIVE", "active"
    COMPLETED = "COMPLETED", "completed"
    TERMINATED = "TERMINATED", "terminated"


class RunReason(models.TextChoices):
    """Why a run is TERMINATED. Empty for ACTIVE and COMPLETED."""

    STOPPED = "stopped", "stopped on request"
    FAILED = "failed", "ended with an exit code other than 0"
    KILLED = "killed", "ended by a signal that did not come from here"
    LOST = "lost", "its process is gone and left no exit code (killed hard, or the machine was rebooted)"
    NEVER_STARTED = "never_started", "the launch never reached the command"
    ABANDONED = "abandoned", "declared ended by an admin while its machine could not be asked"


class RunnerRunQuerySet(models.QuerySet["RunnerRun"]):
    def active(self) -> RunnerRunQuerySet:
        return self.filter(status=RunStatus.ACTIVE)

    def ended_since(self, start: datetime) -> RunnerRunQuerySet:
        """Return the runs that ended at `start` or later, whenever they began, the last to end first."""
        return self.filter(finished__gte=start).order_by("-finished", "-id")

    def last_of(self, expid: str) -> tuple[RunnerRun | None, bool]:
        """Return the last run of the experiments that have this id now, and True if its runs are of one installation.

        If they are, the last run is the active one, if there is an active run.
        """
        sql, names, converters = _reading(self.db)
        with connections[self.db].cursor() as cursor:
            cursor.execute(sql, {"expid": expid})
            row = cursor.fetchone()
        if row is None:
            return None, True
        *values, is_alone = row
        for place, functions, column in converters:
            for convert in functions:
                values[place] = convert(values[place], column, connections[self.db])
        return RunnerRun.from_db(self.db, names, values), bool(is_alone)


@cache
def _reading(alias: str) -> tuple[str, list[str], list[tuple[int, list[Any], Any]]]:
    """Return how `last_of` reads a run: the statement, the fields' names, and (place, converters, column) of some.

    Cached, because every client polls this lookup: building SQL and converters takes Django five times as long as the
    query.
    """
    meta = RunnerRun._meta
    columns = [field.get_col(meta.db_table) for field in meta.concrete_fields]
    compiler = RunnerRun.objects.using(alias).all().query.get_compiler(alias)
    converters = [(place, *found) for place, found in compiler.get_converters(columns).items()]
    names = ", ".join(connections[alias].ops.quote_name(str(field.column)) for field in meta.concrete_fields)
    table = meta.db_table
    first, last = (
        f"(SELECT installation FROM {table} WHERE expid = %(expid)s ORDER BY installation {order} LIMIT 1)"  # noqa: S608
        for order in ("ASC", "DESC")
    )  # the first and the last entry of an index
    sql = (
        f"SELECT {names}, {first} = {last} FROM {table} "  # noqa: S608
        "WHERE expid = %(expid)s AND NOT superseded ORDER BY id DESC LIMIT 1"
    )
    return sql, [field.attname for field in meta.concrete_fields], converters


class RunnerRun(OfProfile):
    """One `autosubmit run` that this service started. The row itself has all data to find, stop and explain it."""

    key = models.CharField(max_length=32, unique=True, default=new_run_key, editable=False)
    expid = models.CharField(max_length=16)
    installation = models.CharField(
        max_length=MAX_INSTALLATION,
        default=DEFAULT_INSTALLATION,
        db_default=DEFAULT_INSTALLATION,  # an older server on the same database does not set this column
        help_text="The Autosubmit database that it uses, by the name that its profile had for it at the start.",
    )
    config = models.JSONField(help_text="The whole resolved configuration, as it was when the run was started.")
    runner = models.CharField(max_length=16, choices=RunnerType.choices)
    module_loader = models.CharField(max_length=16, choices=ModuleLoaderType.choices)
    modules = models.TextField(blank=True, help_text="One per line.")

    status = models.CharField(max_length=16, choices=RunStatus.choices, default=RunStatus.ACTIVE)
    reason = models.CharField(max_length=16, choices=RunReason.choices, blank=True)
    exit_code = models.IntegerField(null=True, blank=True, help_text="Of the command; 128 + signal when one ended it.")
    signal = models.CharField(max_length=32, blank=True, help_text="The signal that ended the command, if one did.")
    detail = models.TextField(blank=True, help_text="Last words of a run that failed, or why it was declared ended.")

    jobs = models.JSONField(
        null=True,
        blank=True,
        editable=False,
        help_text="What became of its jobs: total (null: not known), failed, not_run, failed_jobs (50 names at most).",
    )
    superseded = models.BooleanField(
        default=False, editable=False, help_text="Its experiment was deleted: a newer one has the same id."
    )

    pid = models.IntegerField(null=True, blank=True)
    identity = models.JSONField(null=True, blank=True, help_text="Host, boot id, pids and their start times.")
    host = models.CharField(max_length=255, blank=True, help_text="The machine's own name once it has answered.")
    user = models.CharField(max_length=100, blank=True, help_text="The account that runs it.")

    created = models.DateTimeField(default=timezone.now)
    modified = models.DateTimeField(default=timezone.now, help_text="When the state last changed.")
    finished = models.DateTimeField(null=True, blank=True)
    confirmed_at = models.DateTimeField(null=True, blank=True, help_text="When the machine last confirmed the state.")
    reachable = models.BooleanField(default=True, help_text="False: the last known state is shown, cannot tell now.")
    unreachable_detail = models.TextField(blank=True, help_text="Why the machine could not tell.")
    probing_until = models.DateTimeField(null=True, blank=True, editable=False)

    started_by = models.CharField(max_length=150, blank=True)
    stopped_by = models.CharField(max_length=150, blank=True)
    stop_requested_at = models.DateTimeField(null=True, blank=True)
    stop_steps = models.JSONField(
        default=list, blank=True, editable=False, help_text="What the last stop has tried so far, as it happens."
    )
    stop_owner = models.CharField(
        max_length=200, blank=True, editable=False, help_text="The process that carries out a stop now."
    )
    stop_until = models.DateTimeField(null=True, blank=True, editable=False)
    cancel = models.JSONField(
        null=True, blank=True, editable=False, help_text="What the last cancel of its jobs has brought."
    )
    cleaned_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When clean_runs removed its directory, log included."
    )

    objects = RunnerRunQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            # The expid comes first, so that the lookup of the active runs of an expid uses this index, too.
            models.UniqueConstraint(
                fields=["expid", "installation"], condition=Q(status="ACTIVE"), name="one_active_run_per_installation"
            ),
        ]
        indexes = [
            models.Index(fields=["expid", "-id"], name="run_expid_latest"),
            models.Index(fields=["expid", "installation", "-id"], name="run_installation_latest"),
            models.Index(fields=["status", "-id"], name="run_status_latest"),
            models.Index(fields=["profile_name", "-id"], name="run_profile_latest"),
            models.Index(fields=["installation", "-id"], name="run_of_installation"),
            models.Index(fields=["started_by", "-id"], name="run_user_latest"),
            models.Index(fields=["host", "-id"], name="run_host_latest"),
            models.Index(fields=["runner", "-id"], name="run_runner_latest"),
            models.Index(fields=["-created"], name="run_created"),
            models.Index(fields=["user", "-id"], name="run_account_latest"),
            models.Index(fields=["reason", "-id"], name="run_reason_latest"),
            models.Index(fields=["-finished", "-id"], name="run_finished"),
            models.Index(fields=["stop_owner"], condition=Q(stop_owner__gt=""), name="run_being_stopped"),
        ]

    def __str__(self) -> str:
        return f"run {self.pk} of {self.expid} ({self.status})"

    @property
    def is_active(self) -> bool:
        return self.status == RunStatus.ACTIVE

    @property
    def runner_config(self) -> RunnerConfig:
        return RunnerConfig.from_dict(self.config)

    def duration(self, now: datetime | None = None) -> float:
        """Return the seconds from the request to the end, or until now."""
        return ((self.finished or now or timezone.now()) - self.created).total_seconds()
