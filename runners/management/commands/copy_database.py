"""`manage.py copy_database --from sqlite:////path`: move from SQLite to PostgreSQL."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from runners.services import database_copy


class Command(BaseCommand):
    help = (
        "Copy all rows of a SQLite database into the new, empty PostgreSQL database of DATABASE_URL, in one "
        "transaction, and compare the number and the checksum of the rows of each table. Stop the service and the "
        "worker before. The SQLite file is not changed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--from",
            dest="source",
            required=True,
            metavar="sqlite:////PATH",
            help="the DATABASE_URL of the service until now",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            copied = database_copy.copy(_path(options["source"]), self.stdout.write)
        except database_copy.NotCopied as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"PostgreSQL: {str(error).strip()}. Nothing was copied.") from error
        self.stdout.write(f"{copied} rows copied. Each table has the same rows in both databases.")


def _path(url: str) -> Path:
    """Return the path in a URL such as sqlite:////var/lib/db.sqlite3, as the service reads DATABASE_URL."""
    try:
        found = dj_database_url.parse(url)
    except (ValueError, KeyError) as error:
        raise CommandError(f"--from: {error}: give sqlite:////absolute/path.") from error
    if found["ENGINE"] != "django.db.backends.sqlite3" or found["NAME"] in ("", ":memory:"):
        raise CommandError("--from: give sqlite:////absolute/path. Only SQLite databases can be copied.")
    return Path(str(found["NAME"]))
