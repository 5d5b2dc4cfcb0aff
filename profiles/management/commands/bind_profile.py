"""`manage.py bind_profile NAME`: bind the open SSH.USER of a profile to the person who makes the request."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from profiles import parameters
from profiles.limits import ACCOUNTS, USERNAME
from profiles.models import RunnerProfile


class Command(BaseCommand):
    help = (
        "Bind the open SSH.USER of profiles to the person who asks: the account with the same name ({username}) and "
        "the accounts that an admin has mapped to this person ({accounts})."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", metavar="NAME", nargs="*", help="profiles")
        parser.add_argument("--all", action="store_true", help="all profiles that let every person use every account")
        parser.add_argument(
            "--to",
            metavar="PATTERN",
            action="append",
            help=f"allowed values of SSH.USER instead of {USERNAME} and {ACCOUNTS}, such as 'x_{USERNAME}'; repeatable",
        )

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        rows = {row.name: row for row in RunnerProfile.objects.select_for_update()}
        names = [name for name, row in rows.items() if row.is_anybody] if options["all"] else options["names"]
        if not names and not options["all"]:
            raise CommandError("Give the names of profiles, or --all.")
        if missing := [name for name in names if name not in rows]:
            raise CommandError(f"Nothing was changed: unknown profile {', '.join(missing)}.")
        for name in names:
            row = rows[name]
            fixed = [path for path in row.values() if parameters.table()[path].limit == parameters.USERS]
            if fixed:
                raise CommandError(f"Nothing was changed: {name} has a fixed {fixed[0]}, so there is nothing to bind.")
            row.bind()
            if options["to"]:
                row.allowed_users = "\n".join(options["to"])
            try:
                row.full_clean()
            except ValidationError as error:
                raise CommandError(f"Nothing was changed: {name}: {' '.join(error.messages)}") from None
            row.save(update_fields=["allowed_users"])
            self.stdout.write(f"{name}: SSH.USER may be {', '.join(row.limits.users)}.")
