"""Runs of experiments. A row outlives every process and every profile."""

from __future__ import annotations

from datetime import datetime
from functools import cache

from django.db import connections, models
from django.db.models import Q

from profiles.rules import loader_choices, runner_choices
from runners.models.base import DetachedCommand, DetachedCommandQuerySet
from runners.models.prepared import PreparedColumns, prepared_columns


class RunStatus(models.TextChoices):
    """The three statuses that today's clients know."""

    ACTIVE = "ACTIVE", "active"
    COMPLETED = "COMPLETED", "completed"
    TERMINATED = "TERMINATED", "terminated"


class RunReason(models.TextChoices):
    """Why a run is TERMINATED. Empty for ACTIVE and COMPLETED."""

    STOPPED = "stopped", "stopped on request"
    FAILED = "failed", "ended with an exit code other than 0"
    KILLED = "killed", "ended by a signal that was not sent by this service"
    LOST = "lost", "its process is gone without an exit code (killed by KILL, or the machine was rebooted)"
    NEVER_STARTED = "never_started", "the launch never reached the command"
    ABANDONED = "abandoned", "declared ended by an admin while its machine was unreachable"


class RunnerRunQuerySet(DetachedCommandQuerySet["RunnerRun"]):
    def ended_since(self, start: datetime) -> RunnerRunQuerySet:
        """Return the runs that ended at `start` or later, whenever they began, the last to end first."""
        return self.filter(finished__gte=start).order_by("-finished", "-id")

    def last_of(self, expid: str) -> tuple[RunnerRun | None, bool]:
        """Return the last run of the experiments that have this id now, and True if its runs are of one installation.

        If they are, the last run is the active one, if there is an active run.
        """
        columns = prepared_columns(self.db, self.model)
        with connections[self.db].cursor() as cursor:
            cursor.execute(_last_of_sql(columns), {"expid": expid})
            row = cursor.fetchone()
        if row is None:
            return None, True
        (run,) = columns.instances(row)
        return run, bool(row[-1])


@cache
def _last_of_sql(columns: PreparedColumns) -> str:
    """Return the statement of `last_of`: the columns of the run, and whether all runs are of one installation."""
    table = RunnerRun._meta.db_table
    first, last = (
        f"(SELECT installation FROM {table} WHERE expid = %(expid)s ORDER BY installation {order} LIMIT 1)"  # noqa: S608
        for order in ("ASC", "DESC")
    )  # the first and the last entry of an index
    return (
        f"SELECT {columns.sql}, {first} = {last} FROM {table} "  # noqa: S608
        "WHERE expid = %(expid)s AND NOT superseded ORDER BY id DESC LIMIT 1"
    )


class RunnerRun(DetachedCommand):
    """One `autosubmit run` that this service started."""

    ACTIVE_STATUS = RunStatus.ACTIVE

    runner = models.CharField(max_length=16, choices=runner_choices)
    module_loader = models.CharField(max_length=16, choices=loader_choices)
    modules = models.TextField(blank=True, help_text="One per line.")

    command_params = models.JSONField(
        null=True, blank=True, editable=False, help_text="The options of `autosubmit run` that were given; null: none."
    )
    previous_run = models.BigIntegerField(
        null=True,
        blank=True,
        editable=False,
        help_text="The number of the run that this one continues. That row may have been deleted.",
    )

    restart = models.JSONField(
        null=True,
        blank=True,
        editable=False,
        help_text="When it is to be started again: on (lost, platform) and attempts. null: never.",
    )
    restarts = models.PositiveSmallIntegerField(
        default=0, db_default=0, editable=False, help_text="How many automatic restarts have led to this run."
    )
    restart_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When it is to be started again; null: no restart is pending."
    )
    restart_key = models.CharField(
        max_length=32, blank=True, default="", db_default="", editable=False, help_text="The key of the run to start."
    )
    restart_detail = models.TextField(
        blank=True, default="", db_default="", editable=False, help_text="What became of the restart."
    )

    status = models.CharField(max_length=16, choices=RunStatus.choices, default=RunStatus.ACTIVE)
    reason = models.CharField(max_length=16, choices=RunReason.choices, blank=True)
    signal = models.CharField(max_length=32, blank=True, help_text="The signal that ended the command, if one did.")
    detail = models.TextField(
        blank=True, help_text="Last lines of a run that failed, or the reason why it was declared ended."
    )

    jobs = models.JSONField(
        null=True,
        blank=True,
        editable=False,
        help_text="The results of its jobs: total (null: not known), failed, not_run, failed_jobs (at most 50 names).",
    )
    log_size = models.BigIntegerField(null=True, blank=True, editable=False, help_text="Bytes, at the last probe.")
    last_output_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When it last printed something. Null: not known, or never."
    )
    silent_since = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="Set while it runs and prints nothing for longer than its profile allows: its last output.",
    )
    log_too_large = models.BooleanField(
        default=False, db_default=False, editable=False, help_text="Its log has passed RUNNERS_LOG_SIZE_LIMIT."
    )
    progress = models.JSONField(
        null=True,
        blank=True,
        editable=False,
        help_text="Its jobs at the last look: total, done, failed, running; and the stamp of the job list.",
    )

    superseded = models.BooleanField(
        default=False, editable=False, help_text="Its experiment was deleted: a newer one has the same id."
    )

    user = models.CharField(max_length=100, blank=True, help_text="The account that runs it.")

    stopped_by = models.CharField(max_length=150, blank=True)
    stop_requested_at = models.DateTimeField(null=True, blank=True)
    stop_steps = models.JSONField(
        default=list, blank=True, editable=False, help_text="The steps of the last stop so far."
    )
    stop_owner = models.CharField(
        max_length=200, blank=True, editable=False, help_text="The process that executes a stop now."
    )
    stop_until = models.DateTimeField(null=True, blank=True, editable=False)
    cancel = models.JSONField(
        null=True, blank=True, editable=False, help_text="The result of the last cancellation of its jobs."
    )

    objects = RunnerRunQuerySet.as_manager()  # type: ignore[misc]  # mypy sees no class variable here

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
            models.Index(fields=["-created"], name="run_created"),
            models.Index(fields=["user", "-id"], name="run_account_latest"),
            models.Index(fields=["reason", "-id"], name="run_reason_latest"),
            models.Index(fields=["-finished", "-id"], name="run_finished"),
            models.Index(fields=["-id"], condition=Q(silent_since__isnull=False), name="run_silent"),
            models.Index(fields=["-id"], condition=Q(log_too_large=True), name="run_log_too_large"),
            models.Index(fields=["-id"], condition=Q(renumbered=True), name="run_renumbered"),
            models.Index(fields=["restart_at"], condition=Q(restart_at__isnull=False), name="run_restart_due"),
            models.Index(fields=["machine", "node"], condition=Q(status="ACTIVE"), name="run_active_machine"),
            models.Index(fields=["stop_owner"], condition=Q(stop_owner__gt=""), name="run_being_stopped"),
        ]

    def __str__(self) -> str:
        return f"run {self.pk} of {self.expid} ({self.status})"

    def reload(self) -> None:
        """Load the stored row. A row that was deleted, because its launch was rejected, counts as never started."""
        super().reload()
        if self.is_active and not RunnerRun.objects.filter(pk=self.pk).exists():
            self.status, self.reason = RunStatus.TERMINATED, RunReason.NEVER_STARTED

    @property
    def never_started(self) -> bool:
        return self.reason == RunReason.NEVER_STARTED
