"""`manage.py create_token USER`: create an API token and print it once."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from runners.management import bounds
from runners.models import ApiToken, TokenScope


class Command(BaseCommand):
    help = (
        "Create an API token and print it. Only its hash is stored, so it cannot be shown again. Only the token goes "
        "to standard output."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="the name of an existing user, or a new one with --create-user")
        parser.add_argument("--scope", choices=TokenScope.values, default=TokenScope.RUN.value)
        parser.add_argument(
            "--days",
            type=int,
            default=settings.TOKEN_DAYS,
            help="days for which it is valid (default %(default)s); 0: no expiry",
        )
        parser.add_argument("--name", default="", help="its purpose, such as the machine that uses it")
        parser.add_argument(
            "--create-user", action="store_true", help="create the user without a password if it does not exist"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        bounds.require("--days", options["days"], 0, bounds.MOST_DAYS)
        model = get_user_model()
        user = model.objects.filter(username=options["user"]).first()
        if user is None and options["create_user"]:
            user = model.objects.create_user(username=options["user"])
        if user is None:
            raise CommandError(f"User '{options['user']}' does not exist. Add --create-user to create it.")
        if not user.is_active:
            raise CommandError(f"The account '{options['user']}' is deactivated. Its tokens would not be accepted.")
        expiry = timedelta(days=options["days"]) if options["days"] else None
        token, text = ApiToken.issue(user=user, expiry=expiry, scope=options["scope"], name=options["name"][:100])
        until = f"until {token.expiry:%Y-%m-%d}" if token.expiry else "without end"
        self.stderr.write(f"Token {token.token_key}… of {user.get_username()}, scope {token.scope}, valid {until}:")
        self.stdout.write(text)
