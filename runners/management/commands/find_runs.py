"""`manage.py find_runs`: find runs and operations whose rows are lost, after a restore from a backup."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runners.management import bounds
from runners.models import AuditRecord
from runners.services import acting, found_runs
from runners.services.audit import audited, begin

NAMES_MOST = 50  # names of rows in one audit record, whose text has DETAIL_LIMIT characters


class Command(BaseCommand):
    help = (
        "List the directories of runs and operations on all machines that have no row in the database, with their "
        "states. --adopt makes their rows again. Use it after the database was restored from a backup, before the "
        "worker starts."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--adopt", action="store_true", help="make the rows again")
        parser.add_argument(
            "--account", action="append", default=[], help="also ask for this account, where profiles leave it open"
        )
        parser.add_argument(
            "--skip-numbers",
            type=int,
            default=0,
            metavar="N",
            help="then let the numbers of new runs and operations begin N above the largest one, so that none is used "
            "again that was given after the backup",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        bounds.require("--skip-numbers", options["skip_numbers"], 0, 1_000_000)
        if not options["adopt"] and not options["skip_numbers"]:
            if problem := self._find(options, []):
                raise CommandError(problem)
            return
        made: list[str] = []
        with audited(endpoint="find-runs", actor=acting.now().name) as record:
            record.detail = " ".join(f"{name}={options[name]}" for name in ("adopt", "account", "skip_numbers"))
            begin(record)
            try:
                problem = self._find(options, made)
            finally:
                record.detail += f": {', '.join(made[:NAMES_MOST]) or 'nothing was adopted'}"
                for start in range(NAMES_MOST, len(made), NAMES_MOST):
                    names = ", ".join(made[start : start + NAMES_MOST])
                    AuditRecord(endpoint=record.endpoint, actor=record.actor, detail=f"adopted, too: {names}").save()
            if options["skip_numbers"]:
                for table, number in found_runs.skip_numbers(options["skip_numbers"]).items():
                    self.stdout.write(f"The next number in {table} is at least {number}.")
            if problem:
                raise CommandError(problem)

    def _find(self, options: dict[str, Any], made: list[str]) -> str:
        """Print what is found, and adopt it if that was asked for. Return what was left out, for people.

        `made`: gets the names of the rows that were made, also if an error ends it.
        """
        silent, left = 0, 0
        for account in found_runs.find(tuple(options["account"])):
            if account.problem:
                silent += 1
                self.stderr.write(f"{account.where}: {account.problem}")
                continue
            words = f"{account.where}: {account.directories} directories, {len(account.found)} of them without a row"
            if account.others:
                words += f"; {account.others} more are of another service or of an older version"
            self.stdout.write(words)
            for found in account.found:
                row = found.row
                name = f"{row._meta.verbose_name} {row.pk} of {row.expid or 'a new experiment'}"
                by = row.started_by or "nobody who was signed in"
                said = f"  {name}, started by {by} at {row.created:%Y-%m-%d %H:%M:%S %Z}: {found.words}"
                if options["adopt"]:
                    if found_runs.adopt(found):
                        made.append(f"{row._meta.verbose_name} {row.pk}")
                        said += f". Adopted as {row.pk}, {row.status}."
                    else:
                        left += 1
                        said += f". Not adopted: {found.problem}"
                self.stdout.write(said)
        if not silent and not left:
            return ""
        return f"{silent} accounts could not be asked, and {left} rows were not made. Call this again later."
