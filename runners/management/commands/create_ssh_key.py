"""`manage.py create_ssh_key`: make the service's SSH key pair and publish its public half."""

from __future__ import annotations

import platform
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from profiles.models import PublishedSSHKey
from runners.services.audit import audited, begin
from runners.services.machines.own_account import own_account
from runners.services.machines.ssh import keys


class Command(BaseCommand):
    help = (
        "Create the service's SSH key pair (ed25519), store the private key in RUNNERS_SSH_KEY_DIR (mode 0600), and "
        "publish the public key in configuration/ssh-public-keys. New connections use it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--comment", help="the last word of the public line (default: autosubmit-runners@HOST)")
        how = parser.add_mutually_exclusive_group()
        how.add_argument(
            "--replace", action="store_true", help="create a new pair; the old one also stays in use until --retire"
        )
        how.add_argument("--retire", action="store_true", help="delete the old pair that --replace has kept")
        how.add_argument("--publish", action="store_true", help="only publish the existing pair (again)")

    def handle(self, *args: Any, **options: Any) -> None:
        comment = options["comment"] or f"autosubmit-runners@{platform.node() or 'localhost'}"
        if not comment.isprintable() or len(comment) > 100:
            raise CommandError("--comment: give at most 100 printable characters.")
        actor = f"{own_account().pw_name} (create_ssh_key)"
        with audited(endpoint="create-ssh-key", actor=actor, holds_changes=True) as record:
            begin(record)
            try:
                record.detail = self._do(comment, options)
            except OSError as error:
                raise CommandError(f"{keys.directory()} cannot be used: {error.strerror}.") from error

    def _do(self, comment: str, options: dict[str, Any]) -> str:
        """Execute the command. Return a summary for the audit record."""
        if options["retire"]:
            gone = keys.retire_previous()
            if gone is None:
                raise CommandError("There is no old key pair to retire.")
            PublishedSSHKey.objects.filter(line=gone.line).delete()
            self.stdout.write(f"Retired: {gone.fingerprint}. It can be removed from every authorized_keys.")
            return f"retired {gone.fingerprint}"
        if options["publish"]:
            key = keys.current()
            if key is None:
                raise CommandError(f"There is no key pair in {keys.directory()}.")
        else:
            key = self._create(comment, replace=options["replace"])
        PublishedSSHKey.objects.get_or_create(line=key.line, defaults={"comment": f"create_ssh_key: {key.path}"[:200]})
        self.stderr.write(f"{key.path} ({key.fingerprint}). Add this line to ~/.ssh/authorized_keys of the accounts:")
        self.stdout.write(key.line)
        return f"{'published' if options['publish'] else 'made'} {key.fingerprint}"

    def _create(self, comment: str, *, replace: bool) -> keys.PublicKey:
        lost = keys.previous() if replace else None
        if lost:
            raise CommandError(f"An old key pair ({lost.fingerprint}) is still in use: run --retire first.")
        try:
            return keys.create(comment=comment, replace=replace)
        except FileExistsError:
            raise CommandError(
                f"There is already a key pair in {keys.directory()}. Publish it with --publish, or create a new one "
                f"with --replace."
            ) from None
