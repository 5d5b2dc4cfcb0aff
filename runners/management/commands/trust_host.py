"""`manage.py trust_host HOST`: see the host keys of a machine and approve them, or an authority of certificates."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Q

from runners.exceptions import RunnerServiceError
from runners.models import TrustedHostKey
from runners.services import host_keys
from runners.services.host_keys import ScannedKey
from runners.services.machines.own_account import own_account

LONGEST_KEY = 16_384  # characters of the file


class Command(BaseCommand):
    help = (
        "Show the host keys of a machine, each with its SHA256 fingerprint, and approve them. First compare the "
        "fingerprints with those on the machine (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), or give the "
        "expected one with --fingerprint. With --authority: approve a key that signs host certificates."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "host",
            help="a host name, an IP address or an alias of ~/.ssh/config; with --authority or --forget also patterns "
            "of real host names, such as '*.hpc.example.org,login.example.org'",
        )
        parser.add_argument("--port", type=int, help="default: the one in ~/.ssh/config, or 22")
        parser.add_argument(
            "--authority",
            metavar="FILE",
            help="approve the public key in this file (- for standard input) as an authority that signs host "
            "certificates of the hosts that match; the machine is not contacted",
        )
        how = parser.add_mutually_exclusive_group()
        how.add_argument(
            "--fingerprint",
            action="append",
            metavar="SHA256:...",
            help="approve exactly the key with this fingerprint, in place of a changed one; may be repeated",
        )
        how.add_argument(
            "--yes", action="store_true", help="approve the keys that the machine presents, without asking"
        )
        how.add_argument("--forget", action="store_true", help="remove all approved keys of the machine")
        parser.add_argument("--replace", action="store_true", help="with --yes: also in place of changed keys")

    def handle(self, *args: Any, **options: Any) -> None:
        actor = f"{own_account().pw_name} (trust_host)"
        host, port = options["host"], options["port"]
        if port is not None and not 1 <= port <= 65535:
            raise CommandError("--port: give a number from 1 to 65535.")
        try:
            if options["forget"]:
                self._forget(host, port, actor)
                return
            if options["authority"]:
                self._approve_authority(host, options, actor)
                return
            keys = host_keys.scan(host, port)
            for key in keys:
                self.stdout.write(_described(key))
            for key in self._chosen(keys, options):
                host_keys.approve(key, actor)
                self.stdout.write(f"Approved: {key.host} {key.key_type} {key.fingerprint}")
        except RunnerServiceError as error:
            raise CommandError(error.detail) from error

    def _forget(self, host: str, port: int | None, actor: str) -> None:
        is_pattern = bool(set(host) & set("*?!,"))
        name = host.lower() if is_pattern else host_keys.name_of(host, port)
        of_host = Q(host=name, is_authority=False) | Q(host=host.lower(), is_authority=True)
        rows = list(TrustedHostKey.objects.filter(of_host))
        for row in rows:
            self.stdout.write(f"Removed: {row.host} {row.key_type} {host_keys.fingerprint_of(row)}")
            host_keys.forget(row, actor)
        if not rows:
            self.stdout.write(f"There is no approved key of {name}.")

    def _approve_authority(self, hosts: str, options: dict[str, Any], actor: str) -> None:
        """Approve an authority of host certificates. Raises CommandError, InvalidRequest."""
        if options["port"] is not None:
            raise CommandError("--port: an authority has patterns, such as '[*.example.org]:2222', and no port.")
        try:
            name = options["authority"]
            text = sys.stdin.read(LONGEST_KEY) if name == "-" else _read_key(Path(name))
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"--authority: {name} cannot be read: {error}.") from error
        key = host_keys.authority_of(text)
        hosts = host_keys.hosts_of_authority(hosts)
        self.stdout.write(f"{hosts} {key}  (signs host certificates)")
        if options["fingerprint"]:
            if [_canonical(text) for text in options["fingerprint"]] != [key.fingerprint]:
                raise CommandError("The key in the file has another fingerprint. Nothing was approved.")
        elif not options["yes"]:
            if not sys.stdin.isatty():
                raise CommandError("Nothing was approved. Approve with --fingerprint SHA256:... (or --yes).")
            question = f"Do you trust every host certificate that it signs for {hosts}? [yes/no] "
            if input(question).strip().lower() != "yes":
                raise CommandError("Nothing was approved.")
        host_keys.approve_authority(hosts, key, actor)
        self.stdout.write(f"Approved: {hosts} {key}")

    def _chosen(self, keys: list[ScannedKey], options: dict[str, Any]) -> list[ScannedKey]:
        """Return the keys to approve. Raises CommandError if they do not match the options, or the user declines."""
        if options["fingerprint"]:
            expected = [_canonical(text) for text in options["fingerprint"]]
            missing = [text for text in expected if text not in [key.fingerprint for key in keys]]
            if missing:
                raise CommandError(
                    f"The machine has no key with the fingerprint {missing[0]}. Nothing was approved: this may be "
                    f"another machine."
                )
            return [key for key in keys if key.fingerprint in expected]
        open_keys = [key for key in keys if key.state in ("new", "changed")]
        if not open_keys:
            self.stdout.write("Nothing to approve.")
            return []
        changed = [key for key in open_keys if key.state == "changed"]
        if options["yes"]:
            if changed and not options["replace"]:
                raise CommandError(
                    f"The {changed[0].key_type} key has changed. Nothing was approved. If the machine really has a "
                    f"new key, add --replace, or better --fingerprint with the expected fingerprint."
                )
            return open_keys
        if not sys.stdin.isatty():
            raise CommandError("Nothing was approved. Approve with --fingerprint SHA256:... (or --yes).")
        question = f"Do you trust {'them, CHANGED ones included' if changed else 'them'}? Compare first. [yes/no] "
        if input(question).strip().lower() != "yes":
            raise CommandError("Nothing was approved.")
        return open_keys


def _described(key: ScannedKey) -> str:
    words = {
        "new": "not known yet",
        "trusted": "trusted already",
        "changed": f"CHANGED, {key.trusted_fingerprint} is trusted",
        "revoked": "REVOKED by a known_hosts file",
    }
    return f"{key.host} {key.key_type} {key.fingerprint}  ({words[key.state]})"


def _read_key(path: Path) -> str:
    with path.open(encoding="utf-8") as stream:
        return stream.read(LONGEST_KEY)


def _canonical(text: str) -> str:
    """Return a fingerprint in our form. People omit the prefix, and some tools pad the base64."""
    return "SHA256:" + text.strip().removeprefix("SHA256:").rstrip("=")
