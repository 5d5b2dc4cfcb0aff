"""The API tokens that people make and revoke for themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet

from runners import printable
from runners.exceptions import InvalidRequest
from runners.models import ApiToken, AuditRecord, TokenScope
from runners.services.audit import begin
from runners_project import clock

MOST_TOKENS = 50  # of one person, that are still valid
NAME_LIMIT = 100  # characters
LONGEST_DAYS = 365  # or TOKEN_DAYS, if that is longer. Only admins make tokens without an end.


def scopes_for(user: Any) -> list[tuple[str, str]]:
    """Return the scopes, with labels, of the tokens that a person may make: what the person's session may do."""
    return [(value, label) for value, label in TokenScope.choices if value != TokenScope.MANAGE or user.is_staff]


def default_days() -> int:
    return settings.TOKEN_DAYS or LONGEST_DAYS


def longest_days() -> int:
    return max(LONGEST_DAYS, settings.TOKEN_DAYS)


def tokens_of(user: Any) -> QuerySet[ApiToken]:
    return ApiToken.objects.filter(user=user).order_by("-created")


def make(*, user: Any, name: str, scope: str, days: int, audit: AuditRecord) -> tuple[ApiToken, str]:
    """Make a token of a person. Return its row and its text, which is not stored. Raises InvalidRequest."""
    errors: dict[str, list[str]] = {}
    name = name.strip()
    if not name or not name.isprintable() or len(name) > NAME_LIMIT:
        errors["name"] = [f"Give 1 to {NAME_LIMIT} printable characters, such as the machine that uses the token."]
    if scope not in dict(scopes_for(user)):
        errors["scope"] = ["Choose one of the scopes."]
    if not 1 <= days <= longest_days():
        errors["days"] = [f"Give a number from 1 to {longest_days()}."]
    if errors:
        raise InvalidRequest(" ".join(words for texts in errors.values() for words in texts), errors)
    if tokens_of(user).filter(Q(expiry=None) | Q(expiry__gt=clock.now())).count() >= MOST_TOKENS:
        raise InvalidRequest(f"You have {MOST_TOKENS} valid tokens. Revoke those that you do not use any more.")
    audit.detail = f"{printable.line(name, NAME_LIMIT)}, scope {scope}, {days} days"
    begin(audit)
    return ApiToken.issue(user=user, expiry=timedelta(days=days), name=name, scope=scope)


def revoke(*, user: Any, token_key: str, audit: AuditRecord) -> ApiToken:
    """Delete the token of a person with this public part. Raises InvalidRequest if there is none (any more)."""
    is_key = token_key.isascii() and token_key.isprintable()
    row = tokens_of(user).filter(token_key=token_key[:25]).first() if is_key else None
    if row is None:
        raise InvalidRequest("This token does not exist any more.")
    audit.detail = str(row)
    begin(audit)
    row.delete()
    return row
