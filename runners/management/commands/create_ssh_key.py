"""`manage.py create_ssh_key`: make the service's SSH key pair and publish its public half."""

from __future__ import annotations

from runners.management.key_pairs import KeyPairCommand
from runners.services import key_pairs
from runners.services.machines.ssh.keys import PublicKey


class Command(KeyPairCommand):
    help = (
        "Create the service's SSH key pair (ed25519), store the private key in RUNNERS_SSH_KEY_DIR (mode 0600), and "
        "publish the public key in configuration/ssh-public-keys. New connections use it."
    )
    kind = key_pairs.SERVICE_KEY
    third = ("--publish", "only publishes the existing pair (again)")

    def made(self, key: PublicKey) -> None:
        self.stderr.write(f"{key.path} ({key.fingerprint}). Add this line to ~/.ssh/authorized_keys of the accounts:")
        self.stdout.write(key.line)

    def retired(self, key: PublicKey) -> None:
        self.stdout.write(f"Retired: {key.fingerprint}. It can be removed from every authorized_keys.")

    def other(self, actor: str) -> None:
        self.made(key_pairs.publish(self.kind, actor=actor))
