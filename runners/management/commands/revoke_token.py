"""`manage.py revoke_token KEY`: revoke an API token by its first characters."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runners.models import ApiToken
from runners.models.token import SHOWN
from runners.services import acting
from runners.services.audit import audited, begin


class Command(BaseCommand):
    help = "Revoke an API token. KEY: its first 15 characters, which the lists of tokens and the audit log show."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("key", help="the first 15 characters of the token; more are ignored")

    def handle(self, *args: Any, **options: Any) -> None:
        key = options["key"][:SHOWN]
        tokens = list(ApiToken.objects.filter(token_key=key).select_related("user"))
        if len(key) < SHOWN or not tokens:
            raise CommandError(f"There is no token that begins with '{key}'. Give its first {SHOWN} characters.")
        if len(tokens) > 1:
            raise CommandError(f"{len(tokens)} tokens begin with '{key}'. Revoke the right one in the admin.")
        (token,) = tokens
        with audited(endpoint="revoke-token", actor=acting.now().name, holds_changes=True) as record:
            record.detail = f"{token.token_key} of {token.user.get_username()}"
            begin(record)
            token.delete()
        self.stdout.write(f"Revoked: {token}, of {token.user.get_username()}.")
