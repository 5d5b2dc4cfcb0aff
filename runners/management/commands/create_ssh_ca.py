"""`manage.py create_ssh_ca`: make the user CA, which signs a certificate for each connection for a person."""

from __future__ import annotations

from django.core.management.base import CommandError

from runners.management.key_pairs import KeyPairCommand
from runners.services import key_pairs
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


class Command(KeyPairCommand):
    help = (
        "Create the user CA (ed25519) that signs short-lived certificates for profiles with SSH.AUTHENTICATION "
        "CERTIFICATE or BOTH, store its private key in RUNNERS_SSH_KEY_DIR (mode 0600), and print the lines for "
        "TrustedUserCAKeys."
    )
    kind = key_pairs.USER_CA
    third = ("--show", "only prints the lines of the existing CA")

    def made(self, key: keys.PublicKey) -> None:
        """Write the public lines to standard output, and everything else to standard error."""
        for known in user_authority.authorities():
            self.stderr.write(f"{known.path} ({known.fingerprint})")
            self.stdout.write(known.line)
        self.stderr.write(INSTRUCTIONS)

    def retired(self, key: keys.PublicKey) -> None:
        self.stdout.write(f"Retired: {key.fingerprint}. Remove its line from every TrustedUserCAKeys file:")
        self.stdout.write(key.line)

    def other(self, actor: str) -> None:
        key = self.kind.current or self.kind.previous
        if key is None:
            raise CommandError(f"There is no user CA in {keys.directory()}. Create one: manage.py create_ssh_ca")
        self.made(key)
