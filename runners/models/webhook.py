"""Webhooks: the receivers of messages about runs and operations, and the outbox of these messages."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import uuid
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import URLValidator
from django.db import models
from django.db.models import F, Q

from runners_project import clock
from runners_project.env import weakness

SECRET_PREFIX = "whsec_"  # noqa: S105  (Standard Webhooks; not itself a secret)
SECRET_BYTES = range(24, 65)  # Standard Webhooks: between 24 and 64
_SINGLE_LABEL = re.compile(r"^https?://[a-z0-9-]+(?![^:/?#])", re.IGNORECASE)  # URLValidator requires a dot after it


def new_secret() -> str:
    """Return a new signing secret of 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def new_message_id() -> str:
    return f"msg_{uuid.uuid4().hex}"


def secret_bytes(secret: str) -> bytes:
    """Return the key inside `whsec_<base64>`. Raises ValueError if it is not valid."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"it has to begin with {SECRET_PREFIX}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"what follows {SECRET_PREFIX} is not base64") from None
    if len(key) not in SECRET_BYTES:
        raise ValueError(f"it has {len(key)} bytes, not {SECRET_BYTES.start} to {SECRET_BYTES.stop - 1}")
    if why := weakness(secret.removeprefix(SECRET_PREFIX)):
        raise ValueError(f"it {why}")
    return key


def validate_secret(value: str) -> None:
    try:
        secret_bytes(value)
    except ValueError as error:
        raise ValidationError(
            f"Not a valid signing secret: {error}. Keep the generated one, or paste whsec_<base64 of 24 to 64 random "
            f"bytes>."
        ) from error


def validate_target(value: str) -> None:
    """Validate an http(s) URL with a host and without a password. The address itself is checked at each delivery.

    The host may be a single label, such as the name of a container or of a machine in the local network.
    """
    URLValidator(schemes=["http", "https"])(_SINGLE_LABEL.sub(r"\g<0>.example", value))
    parts = urlsplit(value)
    if parts.username or parts.password:
        raise ValidationError("The URL must not contain a user name or password. Messages are signed.")
    if parts.fragment:
        raise ValidationError("The URL has a #fragment, which is never sent. Remove it.")


class WebhookEvent(models.TextChoices):
    """The events. Every run that ends causes exactly one of the first three."""

    COMPLETED = "run.completed", "a run ended with exit code 0"
    TERMINATED = "run.terminated", "a run ended in any other way"
    NEVER_STARTED = "run.never_started", "a run was requested and its command was never executed"
    SILENT = "run.silent", "a run prints nothing for longer than its profile allows"
    LOG_TOO_LARGE = "run.log_too_large", "the log of a run has passed the limit of the service"
    RESTARTED = "run.restarted", "a run was started again, or could not be"
    OPERATION_FAILED = "operation.failed", "an operation failed, or its outcome is unknown"


# A run may be silent several times. It may be a restart itself, and later not be started again.
REPEATED_EVENTS = (WebhookEvent.SILENT.value, WebhookEvent.RESTARTED.value)


class WebhookFormat(models.TextChoices):
    """The form of the bodies that a receiver gets."""

    GENERIC = "generic", "JSON as in the documentation, signed"
    SLACK = "slack", "an incoming webhook of Slack"
    MATTERMOST = "mattermost", "an incoming webhook of Mattermost"


def validate_events(value: Any) -> None:
    if not isinstance(value, list) or not set(map(str, value)) <= set(WebhookEvent.values):
        raise ValidationError(f"Give a list of {', '.join(WebhookEvent.values)}; an empty list means all of them.")


def validate_names(value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValidationError("Give a list of profile names; an empty list means every profile.")


class Webhook(models.Model):
    """One receiver. Its secrets are stored in plain text to sign with them. No log, list or answer may show them."""

    name = models.CharField(max_length=100, unique=True)
    url = models.CharField(max_length=2000, validators=[validate_target], help_text="http:// or https://")
    secret = models.CharField(
        max_length=120,
        default=new_secret,
        validators=[validate_secret],
        help_text="The receiver needs it to verify the messages (Standard Webhooks).",
    )
    previous_secret = models.CharField(
        max_length=120,
        blank=True,
        default="",
        db_default="",  # an older server on the same database does not set this column
        validators=[validate_secret],
        help_text="The secret before the last change. While it is set, messages are signed with both. Empty it when "
        "the receiver verifies with the new one.",
    )
    format = models.CharField(
        max_length=16,
        choices=WebhookFormat.choices,
        default=WebhookFormat.GENERIC,
        db_default=WebhookFormat.GENERIC.value,  # an older server on the same database does not set this column
        help_text="The form of the messages.",
    )
    events = models.JSONField(default=list, blank=True, validators=[validate_events], help_text="Empty: every event.")
    profile_names = models.JSONField(
        default=list, blank=True, validators=[validate_names], help_text="Empty: runs of every profile."
    )
    enabled = models.BooleanField(default=True, help_text="Off: no message is sent, and no new message is stored.")
    created = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def secrets(self) -> list[str]:
        """The secrets with which messages are signed, the new one first."""
        return [self.secret, *([self.previous_secret] if self.previous_secret else [])]

    def wants(self, event: str, profile_name: str) -> bool:
        """Return True if the receiver wants the event. An invalid row wants none, so that runs can still end."""
        lists = (self.events, self.profile_names)
        return all(isinstance(each, list) for each in lists) and all(
            not each or value in each for each, value in zip(lists, (event, profile_name), strict=True)
        )


class WebhookDelivery(models.Model):
    """One message to one receiver, written in the transaction of what it tells.

    `next_attempt`: the earliest time of the next attempt; null if there is none (delivered, or given up). A process
    that delivers first moves it into the future, so it is also the lease.
    """

    DELIVERED = "delivered"
    WAITING = "waiting"
    GIVEN_UP = "given up"

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    # The message outlives the row of its run, so `payload` has everything that is sent.
    run = models.ForeignKey(
        "runners.RunnerRun", on_delete=models.SET_NULL, null=True, blank=True, related_name="webhook_deliveries"
    )
    event = models.CharField(max_length=32, choices=WebhookEvent.choices)
    message_id = models.CharField(max_length=64, unique=True, default=new_message_id, editable=False)
    payload = models.JSONField()
    created = models.DateTimeField(default=clock.now)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt = models.DateTimeField(null=True, blank=True, default=clock.now)
    delivered_at = models.DateTimeField(null=True, blank=True)
    last_status = models.PositiveIntegerField(null=True, blank=True, help_text="The HTTP status of the last answer.")
    last_error = models.TextField(blank=True, help_text="Why the last attempt failed.")

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "webhook deliveries"
        constraints = [
            models.UniqueConstraint(
                fields=["webhook", "run", "event"],
                # A condition also makes it an index, which a migration can build without a lock.
                condition=Q(run__isnull=False) & ~Q(event__in=REPEATED_EVENTS),
                name="one_delivery_unless_repeated",
            )
        ]
        indexes = [
            models.Index(F("next_attempt"), condition=Q(next_attempt__isnull=False), name="delivery_due"),
            models.Index(fields=["webhook", "-id"], name="delivery_webhook_latest"),
            models.Index(fields=["event", "-id"], name="delivery_event_latest"),
            models.Index(fields=["-id"], condition=Q(delivered_at=None), name="delivery_undone"),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.message_id}: {self.state}"

    @property
    def state(self) -> str:
        if self.delivered_at:
            return self.DELIVERED
        return self.WAITING if self.next_attempt else self.GIVEN_UP
