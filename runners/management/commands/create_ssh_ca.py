"""`manage.py create_ssh_ca`: make the user CA, which signs a certificate for each connection for a person."""

from __future__ import annotations

import platform
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runners.services.audit import audited, begin
from runners.services.machines.own_account import own_account
from runners.services.machines.ssh import keys, user_authority

INSTRUCTIONS = """\
Each machine has to trust the user CA once:
1. Write the lines above into a file that only root can change, such as /etc/ssh/autosubmit_runners_ca.pub.
2. Add to /etc/ssh/sshd_config, and reload sshd:
     TrustedUserCAKeys /etc/ssh/autosubmit_runners_ca.pub
     RevokedKeys /etc/ssh/autosubmit_runners_revoked    (an empty file will do; manage.py revoke_ssh_certificates)
3. A certificate has exactly one principal, the name of the account. Without AuthorizedPrincipalsFile nothing more is
   needed. Where it is set, the file of an account has to list this name.
4. Set SSH.AUTHENTICATION of the profiles to CERTIFICATE or BOTH, and map accounts to people (Accounts of people).
docs/security.md compares this with the service's key, and describes rotation and revocation."""


class Command(BaseCommand):
    help = (
        "Create the user CA (ed25519) that signs short-lived certificates for profiles with SSH.AUTHENTICATION "
        "CERTIFICATE or BOTH, store its private key in RUNNERS_SSH_KEY_DIR (mode 0600), and print the lines for "
        "TrustedUserCAKeys."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--comment", help="the last word of the public line (default: autosubmit-runners-ca@HOST)")
        how = parser.add_mutually_exclusive_group()
        how.add_argument(
            "--replace", action="store_true", help="create a new CA; the old one also signs until --retire"
        )
        how.add_argument("--retire", action="store_true", help="delete the old CA that --replace has kept")
        how.add_argument("--show", action="store_true", help="only print the lines of the existing CA")

    def handle(self, *args: Any, **options: Any) -> None:
        comment = options["comment"] or f"autosubmit-runners-ca@{platform.node() or 'localhost'}"
        if not comment.isprintable() or len(comment) > 100:
            raise CommandError("--comment: give at most 100 printable characters.")
        try:
            if options["show"]:
                self._print()
                return
            actor = f"{own_account().pw_name} (create_ssh_ca)"
            with audited(endpoint="create-ssh-ca", actor=actor, holds_changes=True) as record:
                begin(record)
                record.detail = self._retire() if options["retire"] else self._create(comment, options["replace"])
        except OSError as error:
            raise CommandError(f"{keys.directory()} cannot be used: {error.strerror}.") from error

    def _create(self, comment: str, replace: bool) -> str:
        """Create a CA and print its lines. Return a summary for the audit record."""
        lost = keys.previous(keys.USER_CA) if replace else None
        if lost:
            raise CommandError(f"An old CA ({lost.fingerprint}) is still in use: run --retire first.")
        try:
            made = keys.create(keys.USER_CA, comment=comment, replace=replace)
        except FileExistsError:
            raise CommandError(
                f"There is already a user CA in {keys.directory()}. Print it with --show, or create a new one with "
                f"--replace."
            ) from None
        self._print()
        return f"made the user CA {made.fingerprint}"

    def _retire(self) -> str:
        gone = keys.retire_previous(keys.USER_CA)
        if gone is None:
            raise CommandError("There is no old CA to retire.")
        self.stdout.write(f"Retired: {gone.fingerprint}. Remove its line from every TrustedUserCAKeys file:")
        self.stdout.write(gone.line)
        return f"retired the user CA {gone.fingerprint}"

    def _print(self) -> None:
        """Write the public lines to standard output, and everything else to standard error."""
        known = user_authority.authorities()
        if not known:
            raise CommandError(f"There is no user CA in {keys.directory()}. Create one: manage.py create_ssh_ca")
        for key in known:
            self.stderr.write(f"{key.path} ({key.fingerprint})")
        self.stdout.write("\n".join(key.line for key in known))
        self.stderr.write(INSTRUCTIONS)
