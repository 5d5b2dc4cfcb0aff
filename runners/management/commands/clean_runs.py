"""Remove the directories, and optionally the rows, of runs that ended long ago."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runners.management import bounds
from runners.services import acting, idempotency, retention
from runners.services.audit import audited, begin
from runners_project import clock


class Command(BaseCommand):
    help = (
        "Remove the directories (with logs) of runs and operations that ended at least --days ago from their "
        "machines. --rows and --audit also delete rows of this database. Active runs are never changed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--days", type=int, required=True, help="Minimum number of days since their end.")
        parser.add_argument("--dry-run", action="store_true", help="Print what would be done, and do nothing.")
        parser.add_argument(
            "--rows", action="store_true", help="Also delete their rows: these runs are unknown afterwards. Also "
            "deletes webhook messages of this age that were delivered or given up."
        )  # fmt: skip
        parser.add_argument("--audit", action="store_true", help="Also delete audit records of this age.")

    def handle(self, *args: Any, **options: Any) -> None:
        bounds.require("--days", options["days"], 0, bounds.MOST_DAYS)
        with audited(endpoint="clean-runs", actor=acting.now().name) as record:
            record.detail = " ".join(f"{name}={options[name]}" for name in ("days", "dry_run", "rows", "audit"))
            begin(record)
            self._clean(options)

    def _clean(self, options: dict[str, Any]) -> None:
        before = clock.now() - timedelta(days=options["days"])
        is_dry: bool = options["dry_run"]
        would = "would be " if is_dry else ""
        machines = retention.clean_directories(before, dry_run=is_dry)
        for machine in machines:
            if machine.problem:
                self.stderr.write(f"{machine.where}: {machine.problem}")
            text = f"{machine.where}: {machine.removed} directories {would}removed ({machine.kibibytes} KiB)"
            if machine.absent:
                text += f", {machine.absent} were already removed"
            if machine.kept:
                text += f", {machine.kept} kept: their processes may still be alive, or they cannot be removed"
            self.stdout.write(text)
        if options["rows"]:
            for name, count in retention.delete_rows(before, dry_run=is_dry).items():
                self.stdout.write(f"{'up to ' if is_dry else ''}{count} {name} {would}deleted")
        if options["audit"]:
            self.stdout.write(f"{retention.delete_audit(before, dry_run=is_dry)} audit records {would}deleted")
        if not is_dry:
            idempotency.clean()
        if problems := sum(1 for machine in machines if machine.problem):
            raise CommandError(f"{problems} machine(s) could not be cleaned. The next call retries them.")
