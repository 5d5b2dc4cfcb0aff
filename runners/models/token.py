"""API tokens and sign-in attempts. django-rest-knox stores the hash of a token; we add its name and scope."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from knox.models import AbstractAuthToken


class TokenScope(models.TextChoices):
    """What a token may do. Each scope includes the ones before it."""

    READ = "read", "read: status, logs and configuration"
    RUN = "run", "run: read, and the commands"
    MANAGE = "manage", "manage: run, and declaring runs ended whose machine cannot be asked"


class ApiToken(AbstractAuthToken):
    """One token of one person. Only its SHA-512 is stored; `token_key`, its first characters, tells tokens apart."""

    name = models.CharField(max_length=100, blank=True, help_text="What it is for, e.g. the machine that uses it.")
    scope = models.CharField(max_length=8, choices=TokenScope.choices, default=TokenScope.RUN)
    last_used = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created"]
        verbose_name = "API token"

    def __str__(self) -> str:
        return f"{self.token_key}… ({self.name or self.scope})"

    def allows(self, scope: str) -> bool:
        order = TokenScope.values
        return order.index(self.scope) >= order.index(scope)


class SignInAttempts(models.Model):
    """The times of the last password checks of one account or one address. See runners.services.sign_in."""

    key = models.CharField(max_length=64, primary_key=True, help_text="SHA-256 of what is counted.")
    times = models.JSONField(default=list, help_text="Seconds since 1970.")
    expires = models.DateTimeField(default=timezone.now, db_index=True)

    def __str__(self) -> str:
        return f"{len(self.times)} attempts"
