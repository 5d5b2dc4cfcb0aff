"""The audit log: one record for each requested command and each change of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models
from django.db.models import Q

from runners.models.base import OfProfile
from runners_project import clock

if TYPE_CHECKING:
    from runners.models.run import RunnerRun


class AuditRecord(OfProfile):
    """One requested command, or one change of the configuration: who, what, with which outcome.

    `services.audit` writes it when the command begins (`under_way`) and completes it when the command ends. Nobody
    edits it. Use cases receive the record of their command and fill in what only they know (`argv`, `run_id`).
    """

    OK = "ok"
    UNDER_WAY = "under_way"
    INTERRUPTED = "interrupted"

    created = models.DateTimeField(default=clock.now)
    actor = models.CharField(
        max_length=150, blank=True, help_text="Stored as text, because the account may be deleted."
    )
    token = models.CharField(max_length=64, blank=True, help_text="The public part of the token, if one was used.")
    address = models.CharField(max_length=64, blank=True)
    endpoint = models.CharField(max_length=64)
    expid = models.CharField(max_length=16, blank=True)
    run_id = models.BigIntegerField(null=True, blank=True)
    argv = models.JSONField(default=list, blank=True)
    outcome = models.CharField(
        max_length=64, default=OK, help_text="'ok', 'under_way', 'interrupted', or the code of the error."
    )
    detail = models.TextField(blank=True)
    duration_ms = models.PositiveIntegerField(default=0)
    changes = models.JSONField(
        null=True,
        blank=True,
        help_text="Of the configuration: a list of action (add, change, remove), kind, object, before and after.",
    )
    # Both are null once the command has ended. They are nullable and have no default: the table has millions of rows,
    # and SQLite would copy it to add another kind of column.
    owner = models.CharField(
        max_length=200, null=True, editable=False, help_text="The process that executes the command (own_process)."
    )
    owned_until = models.DateTimeField(
        null=True, editable=False, help_text="The command cannot be in progress after this time."
    )

    request_id = models.CharField(
        max_length=64, null=True, editable=False, help_text="The request id in the response and the log."
    )

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["expid", "-id"], name="audit_expid"),
            models.Index(fields=["actor", "-id"], name="audit_actor"),
            models.Index(fields=["run_id", "-id"], name="audit_run"),
            models.Index(fields=["endpoint", "-id"], name="audit_endpoint"),
            models.Index(fields=["outcome", "-id"], name="audit_outcome"),
            models.Index(fields=["-created"], name="audit_created"),
            models.Index(fields=["address", "-id"], name="audit_address"),
            models.Index(fields=["token", "-id"], condition=Q(token__gt=""), name="audit_token"),
        ]

    def of_run(self, run: RunnerRun) -> None:
        """Store the run of the command in the record, with its experiment and profile."""
        self.run_id, self.expid = run.pk, run.expid
        self.profile_name, self.profile_id = run.profile_name, run.profile_id

    def __str__(self) -> str:
        return f"{self.endpoint} {self.expid} by {self.actor or 'nobody'}: {self.outcome}"
