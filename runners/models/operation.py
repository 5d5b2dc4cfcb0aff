"""Operations, which continue without their request, and idempotency keys, by which a retry finds the first answer."""

from __future__ import annotations

from django.db import models

from runners.commands.registry import operation_kinds
from runners.exceptions import AccountBusy
from runners.models.base import DetachedCommand
from runners_project import clock


class OperationStatus(models.TextChoices):
    """`pending` is never stored: it is `running` without an identity."""

    PENDING = "pending", "the machine has not confirmed the start yet"
    RUNNING = "running", "the command executes"
    SUCCEEDED = "succeeded", "the command has succeeded"
    FAILED = "failed", "the command failed, timed out, or was never started"
    UNKNOWN = "unknown", "its process is gone without a result: check the experiment before you retry it"


class Operation(DetachedCommand):
    """One Autosubmit command that runs detached, like a run: launched, probed, and at the end evaluated by its log."""

    ACTIVE_STATUS = OperationStatus.RUNNING

    kind = models.CharField(max_length=32, choices=operation_kinds, help_text="The command.")
    expid = models.CharField(
        max_length=16, blank=True, help_text="For create-experiment: empty until the experiment is created."
    )
    argv = models.JSONField(default=list)
    timeout = models.PositiveIntegerField(help_text="Timeout of the command on its machine, in seconds.")

    status = models.CharField(max_length=16, choices=OperationStatus.choices, default=OperationStatus.RUNNING)
    result = models.JSONField(null=True, blank=True, help_text="expid and warnings of a command that has succeeded.")
    error = models.JSONField(null=True, blank=True, help_text="code, detail and facts of a command that has failed.")

    notes = models.JSONField(default=list, editable=False, help_text="Warnings from before the start.")

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["status", "-id"], name="operation_status_latest"),
            models.Index(fields=["-created"], name="operation_created"),
            models.Index(fields=["expid", "-id"], name="operation_expid"),
            models.Index(fields=["started_by", "-id"], name="operation_person"),
            models.Index(fields=["host", "-id"], name="operation_host"),
            models.Index(fields=["kind", "-id"], name="operation_kind"),
            models.Index(fields=["-id"], condition=models.Q(renumbered=True), name="operation_renumbered"),
        ]

    def __str__(self) -> str:
        return f"operation {self.pk}: {self.kind} {self.expid} ({self.state})"

    @property
    def never_started(self) -> bool:
        if self.status != OperationStatus.FAILED:
            return False
        # A create-experiment that waited in vain for another one has started nothing.
        was_busy = isinstance(self.error, dict) and self.error.get("code") == AccountBusy.code
        return was_busy or (self.identity is None and self.exit_code is None)

    @property
    def state(self) -> str:
        """Return the status as clients see it."""
        is_pending = self.is_active and self.identity is None
        return OperationStatus.PENDING.value if is_pending else self.status


class IdempotencyRecord(models.Model):
    """One `Idempotency-Key` of one caller: the first request with this key, and its answer.

    Without `answer_status`, the request is under way, or its process died. `operation` or `run_key` then identifies
    what it has started. `run_key` is the key of the run that the request inserts, or, for a stop, of the run that it
    has found.
    """

    caller = models.CharField(max_length=150, blank=True, help_text="Empty: no signed-in person.")
    key = models.CharField(max_length=255)
    endpoint = models.CharField(max_length=64)
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of endpoint and body.")
    created = models.DateTimeField(default=clock.now)

    owner = models.CharField(max_length=200, blank=True, help_text="The process that handles it.")
    owned_until = models.DateTimeField(default=clock.now, help_text="The end of its lease.")

    run_key = models.CharField(max_length=32)
    operation = models.OneToOneField(Operation, on_delete=models.SET_NULL, null=True, blank=True)
    answer_status = models.PositiveSmallIntegerField(null=True, blank=True)
    answer_body = models.JSONField(null=True, blank=True)
    answer_headers = models.JSONField(default=dict, blank=True)

    is_repeated = False  # not stored; set by the process that claimed the record: the key was used before

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["caller", "key"], name="one_record_per_caller_and_key")]
        indexes = [models.Index(fields=["created"], name="idempotency_created")]

    def __str__(self) -> str:
        return f"{self.endpoint} {self.key} of {self.caller or 'nobody'}"
