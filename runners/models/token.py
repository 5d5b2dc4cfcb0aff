"""API tokens and sign-in attempts."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from functools import cache
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connections, models

from runners.models.prepared import PreparedColumns, prepared_columns
from runners_project import clock
from runners_project.clock import AutoDateTimeField

# Scanners for leaked secrets find tokens by it; a JWT never begins with it.
TOKEN_PREFIX = "asr_"  # noqa: S105
RANDOM_BYTES = 32
SHOWN = 15  # characters of a token that tell it apart: the prefix and 44 random bits


def hash_token(text: str) -> str:
    """Return the hash by which a token is stored. It needs no salt: nobody can guess a token of 256 random bits."""
    return hashlib.sha512(text.encode()).hexdigest()


class TokenScope(models.TextChoices):
    """What a token may do. Each scope includes the ones before it."""

    READ = "read", "read: status, logs and configuration"
    RUN = "run", "run: read, and the commands"
    MANAGE = "manage", "manage: run, and what admins do: declare runs ended, maintenance of machines"


_RANKS = {scope: rank for rank, scope in enumerate(TokenScope.values)}


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def with_digest(self, digest: str) -> ApiToken | None:
        """Return the token with this hash, and its user, or None.

        One query for each request: nothing is cached, so a revoked token ends at once in every process.
        """
        columns = prepared_columns(self.db, self.model, get_user_model())
        with connections[self.db].cursor() as cursor:
            cursor.execute(_with_digest_sql(columns), [digest])
            row = cursor.fetchone()
        if row is None:
            return None
        token, token.user = columns.instances(row)
        found: ApiToken = token
        return found


@cache
def _with_digest_sql(columns: PreparedColumns) -> str:
    tokens, people = ApiToken._meta.db_table, get_user_model()._meta.db_table
    return (
        f"SELECT {columns.sql} FROM {tokens} JOIN {people} ON {people}.id = {tokens}.user_id "  # noqa: S608
        f"WHERE {tokens}.digest = %s"
    )


class ApiToken(models.Model):
    """One token of one person. Only its SHA-512 is stored; `token_key`, its first characters, tells tokens apart."""

    digest = models.CharField(max_length=128, primary_key=True)
    token_key = models.CharField(max_length=25, db_index=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="auth_token_set")
    created = AutoDateTimeField(auto_now_add=True)
    expiry = models.DateTimeField(null=True, blank=True)
    name = models.CharField(max_length=100, blank=True, help_text="Its purpose, e.g. the machine that uses it.")
    scope = models.CharField(max_length=8, choices=TokenScope.choices, default=TokenScope.RUN)
    last_used = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        ordering = ["-created"]
        verbose_name = "API token"

    def __str__(self) -> str:
        return f"{self.token_key}… ({self.name or self.scope})"

    @classmethod
    def issue(cls, *, user: Any, expiry: timedelta | None = None, **values: Any) -> tuple[ApiToken, str]:
        """Store a new token. Return its row and the token itself, which is not stored. `expiry`: None means never."""
        text = TOKEN_PREFIX + secrets.token_hex(RANDOM_BYTES)
        until = clock.now() + expiry if expiry else None
        row = cls.objects.create(digest=hash_token(text), token_key=text[:SHOWN], user=user, expiry=until, **values)
        return row, text

    def allows(self, scope: str) -> bool:
        return _RANKS[self.scope] >= _RANKS[scope]


class SignInAttempts(models.Model):
    """The times of the last password checks of one account or one address. See runners.services.sign_in."""

    key = models.CharField(max_length=64, primary_key=True, help_text="SHA-256 of the counted address or account.")
    times = models.JSONField(default=list, help_text="Seconds since 1970.")
    expires = models.DateTimeField(default=clock.now, db_index=True)

    def __str__(self) -> str:
        return f"{len(self.times)} attempts"
