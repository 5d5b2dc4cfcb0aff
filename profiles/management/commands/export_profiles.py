"""`manage.py export_profiles`: write the configuration in the database as YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from profiles.yaml.importer import export_configuration
from profiles.yaml.writer import dump
from runners_project import private


class Command(BaseCommand):
    help = "Writes profiles, published SSH keys and endpoint toggles as YAML that import_profiles reads back unchanged."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--output", metavar="FILE", help="write to this file instead of standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        text = dump(export_configuration())
        if not options["output"]:
            self.stdout.write(text, ending="")
            return
        try:
            private.write(Path(options["output"]), text)
        except OSError as error:
            raise CommandError(f"Cannot write {options['output']}: {error.strerror}.") from None
        self.stdout.write(f"Written to {options['output']}.")
