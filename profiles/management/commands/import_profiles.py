"""`manage.py import_profiles FILE`: import RUNNER_CONFIGURATION of a YAML file into the database."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import IntegrityError

from profiles.models import RunnerProfile
from profiles.readiness import missing_of
from profiles.validators import is_public_key
from profiles.yaml.format import InvalidConfiguration
from profiles.yaml.importer import import_configuration
from profiles.yaml.reader import parse


class Command(BaseCommand):
    help = (
        "Imports profiles, published SSH keys and endpoint toggles from RUNNER_CONFIGURATION in a YAML file. "
        "All or nothing; importing the same file again changes nothing. Then it names what each of the profiles "
        "still needs, such as a trusted host key, with the command or the admin page that adds it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help="a YAML file, or - for standard input")
        parser.add_argument("--dry-run", action="store_true", help="print what would change, and change nothing")
        parser.add_argument(
            "--prune",
            action="store_true",
            help="also remove profiles and keys that are missing in the file (only for sections that the file has)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        name = "Standard input" if options["file"] == "-" else options["file"]
        try:
            configuration = parse(read(options["file"]))
            plan = import_configuration(configuration, prune=options["prune"], dry_run=options["dry_run"])
        except InvalidConfiguration as error:
            lines = "\n".join(f"  {mistake}" for mistake in error.mistakes)
            raise CommandError(f"Nothing was imported. {name} is not valid:\n{lines}") from None
        except IntegrityError:
            raise CommandError("Nothing was imported: the configuration was changed concurrently. Try again.") from None
        for change in plan.changes:
            self.stdout.write(str(change))
        for path in plan.kept:
            self.stdout.write(f"  {path} is not in the file; kept (--prune removes it)")
        for text in plan.warnings:
            self.stderr.write(f"Warning: {text}")
        for key in configuration.ssh_public_keys or ():
            if not is_public_key(key):
                self.stderr.write(f"Warning: this published SSH key is not a valid OpenSSH public key: {key[:60]}")
        if not plan:
            self.stdout.write("Nothing to change.")
        elif options["dry_run"]:
            self.stdout.write(
                f"Would add {plan.count('add')}, change {plan.count('change')}, remove {plan.count('remove')}. "
                "Nothing was changed."
            )
        else:
            self.stdout.write(
                f"Added {plan.count('add')}, changed {plan.count('change')}, removed {plan.count('remove')}."
            )
        if not options["dry_run"]:
            self._say_what_is_missing(list(configuration.profiles or ()))

    def _say_what_is_missing(self, names: list[str]) -> None:
        for row in RunnerProfile.objects.filter(name__in=names):
            missing = missing_of(row)
            if missing:
                self.stderr.write(f"Profile {row.name} still needs:")
            for each in missing:
                self.stderr.write(f"  {each}")


def read(name: str) -> str:
    """Return the text of a file, or of standard input for `-`. Raises CommandError."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"Cannot read {name}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise CommandError(
            f"Cannot read {name}: byte {error.start} is not valid UTF-8. Save the file as UTF-8."
        ) from None
