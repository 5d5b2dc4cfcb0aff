"""`manage.py revoke_ssh_certificates FILE`: write a key revocation list for sshd's RevokedKeys."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runners.services.audit import audited, begin
from runners.services.machines.own_account import own_account
from runners.services.machines.ssh import keys, revocation, user_authority
from runners.services.machines.ssh.revocation import NotRevoked, Revocation

MAX_SERIAL = 2**63 - 1
MOST = 1000  # revocations in one call


class Command(BaseCommand):
    help = (
        "Add certificates of the user CA to a key revocation list (KRL), or create the list. Copy FILE to the "
        "machines, where RevokedKeys in sshd_config names it. Remove the person's mapping or deactivate the account "
        "first: the service itself does not read the list."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="the list; it is created, or gets the new revocations")
        parser.add_argument(
            "--serial", type=int, action="append", default=[], help="one certificate, as sshd's log names it"
        )
        parser.add_argument(
            "--person", action="append", default=[], help="all certificates of a person, also later ones"
        )
        parser.add_argument(
            "--ca", action="append", default=[], metavar="SHA256:...", help="all certificates of one of the user CAs"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        serials, people, fingerprints = options["serial"], options["person"], options["ca"]
        if not serials and not people and not fingerprints:
            raise CommandError("Give --serial, --person or --ca.")
        if len(serials) + len(people) + len(fingerprints) > MOST:
            raise CommandError(f"Give at most {MOST} revocations at once.")
        if not all(0 < serial <= MAX_SERIAL for serial in serials):
            raise CommandError(f"--serial: give a number from 1 to {MAX_SERIAL}.")
        if not all(people):
            raise CommandError("--person: give the name that the person signs in with.")
        known = {key.fingerprint: key for key in self._authorities()}
        if unknown := [text for text in fingerprints if text not in known]:
            raise CommandError(f"--ca: {unknown[0]} is not a user CA of this service. Known: {', '.join(known)}.")
        what = Revocation(serials, people, [known[text] for text in fingerprints])
        actor = f"{own_account().pw_name} (revoke_ssh_certificates)"
        with audited(endpoint="revoke-ssh-certificates", actor=actor) as record:
            begin(record)
            try:
                revocation.revoke(options["file"], what, known.values())
            except NotRevoked as error:
                raise CommandError(str(error)) from error
            words = [f"serial {serial}" for serial in serials]
            words += [user_authority.key_id(person) for person in people] + [f"CA {text}" for text in fingerprints]
            record.detail = f"{options['file']}: {', '.join(words)}"
        self.stdout.write(f"Revoked in {options['file']}: {', '.join(words)}")
        self.stderr.write("Copy the file to the machines. sshd reads it at each login, so no reload is needed.")

    def _authorities(self) -> list[keys.PublicKey]:
        known = user_authority.authorities()
        if not known:
            raise CommandError(f"There is no user CA in {keys.directory()}. Create one: manage.py create_ssh_ca")
        return known
