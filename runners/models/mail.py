"""Mail: which runs people want to be told about, and the outbox of these messages."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from runners.models.webhook import REPEATED_EVENTS
from runners_project import clock


class MailSubscription(models.Model):
    """What one person wants mail about: with neither profile nor run, the runs that the person has started."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="mail_subscriptions")
    profile_id = models.BigIntegerField(null=True, blank=True, help_text="Runs with the profile of this number.")
    run = models.ForeignKey("runners.RunnerRun", on_delete=models.CASCADE, null=True, blank=True, related_name="+")
    created = models.DateTimeField(default=clock.now)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["user"], condition=Q(profile_id=None, run=None), name="one_mail_subscription_for_mine"
            ),
            models.UniqueConstraint(
                fields=["user", "profile_id"], condition=Q(run=None), name="one_mail_subscription_per_profile"
            ),
            models.UniqueConstraint(
                fields=["user", "run"], condition=Q(run__isnull=False), name="one_mail_subscription_per_run"
            ),
        ]
        indexes = [models.Index(fields=["profile_id"], name="mail_subscription_profile")]

    def __str__(self) -> str:
        if self.run_id:
            return f"run {self.run_id}"
        return f"profile {self.profile_id}" if self.profile_id else "my runs"


class Mail(models.Model):
    """One message to one person, written in the transaction of what it tells. `event`: of webhooks, or `test`.

    `next_attempt`: as in WebhookDelivery. The address is that of the person at the time of the attempt.
    """

    SENT = "sent"
    WAITING = "waiting"
    GIVEN_UP = "given up"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    subscription = models.ForeignKey(MailSubscription, on_delete=models.SET_NULL, null=True, blank=True)
    run = models.ForeignKey("runners.RunnerRun", on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    event = models.CharField(max_length=32)
    subject = models.CharField(max_length=200)
    body = models.TextField()
    created = models.DateTimeField(default=clock.now)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt = models.DateTimeField(null=True, blank=True, default=clock.now)
    sent_at = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "mail"
        constraints = [
            models.UniqueConstraint(
                fields=["user", "run", "event"],
                condition=Q(run__isnull=False) & ~Q(event__in=REPEATED_EVENTS),
                name="one_mail_unless_repeated",
            )
        ]
        indexes = [
            models.Index(F("next_attempt"), condition=Q(next_attempt__isnull=False), name="mail_due"),
            models.Index(fields=["user", "-id"], name="mail_user_latest"),
            models.Index(fields=["-id"], condition=Q(sent_at=None), name="mail_undone"),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.user_id}: {self.state}"

    @property
    def state(self) -> str:
        if self.sent_at:
            return self.SENT
        return self.WAITING if self.next_attempt else self.GIVEN_UP
