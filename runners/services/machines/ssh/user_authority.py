"""The user CA: it signs a certificate of some minutes for each new connection, for one person and one account.

A machine trusts the CA once (`TrustedUserCAKeys`), so no `authorized_keys` has to be edited. The key of a certificate
is made for one connection and stays in memory. A certificate has no extensions: sshd then forbids forwarding, agents,
terminals and `~/.ssh/rc`. Its key id names the person, and sshd logs it. The format is OpenSSH's (PROTOCOL.certkeys).
"""

from __future__ import annotations

import hashlib
import io
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.ssh import SSHCertificateBuilder, SSHCertificateType
from django.conf import settings
from paramiko.pkey import PublicBlob

from runners.services.machines.ssh import keys
from runners_project import bounded, clock

CLOCK_SKEW = 300  # seconds by which the clock of a machine may be behind ours
KEY_ID_PREFIX = "autosubmit-runners:"
MAX_PERSON = 120  # characters of a person's name in a key id, after the escaping; sshd's log lines have about 1,000
SHORT_PERSON = MAX_PERSON - 17  # what is left of a longer name, before "~" and 16 digits of its hash


class AuthorityUnusable(Exception):
    """The user CA cannot sign. The text is a sentence for users."""


@dataclass(frozen=True, slots=True)
class UserCertificate:
    """A key that was made for one connection, with its certificate. `serial`: as in sshd's log and in a KRL."""

    key: paramiko.PKey
    serial: int
    key_id: str
    valid_after: int  # seconds since 1970
    valid_before: int
    authority: keys.PublicKey


def authorities() -> list[keys.PublicKey]:
    """Return the public halves of the user CA and, during a rotation, of the previous one; none if there is no CA."""
    return [key for key in (keys.current(keys.USER_CA), keys.previous(keys.USER_CA)) if key]


def key_id(person: str) -> str:
    """Return the key id of a person's certificates. It is the same for all of them, so a KRL can revoke by person.

    Characters outside of A-Z a-z 0-9 . _ @ + - are percent-encoded (UTF-8). A long name is cut and ends with a hash.
    """
    escaped = quote(person, safe="@+", errors="replace").replace("~", "%7E")
    if len(escaped) > MAX_PERSON:
        escaped = f"{escaped[:SHORT_PERSON]}~{hashlib.sha256(person.encode(errors='replace')).hexdigest()[:16]}"
    return f"{KEY_ID_PREFIX}{escaped}"


def sign(person: str, account: str) -> list[UserCertificate]:
    """Return certificates for a new connection of `person` to `account`: of the CA, then of the previous CA.

    During a rotation a machine may trust only one of both. Raises AuthorityUnusable.
    """
    if not person or not account:
        raise AuthorityUnusable("A certificate needs a person and an account.")
    try:
        known = bounded.within_file_timeout(("user CA", str(keys.directory())), authorities)
    except (OSError, ValueError) as error:
        raise AuthorityUnusable(f"The public half of the user CA in {keys.directory()} cannot be read.") from error
    if not known:
        raise AuthorityUnusable(
            "This service has no user CA. An admin of the service makes one with `manage.py create_ssh_ca`."
        )
    own = Ed25519PrivateKey.generate()
    return [_signed(own, authority, person, account) for authority in known]


def _signed(own: Ed25519PrivateKey, authority: keys.PublicKey, person: str, account: str) -> UserCertificate:
    now = int(clock.now().timestamp())
    serial, name = secrets.randbits(63), key_id(person)
    after, before = now - CLOCK_SKEW, now + settings.RUNNERS_SSH_CERTIFICATE_LIFETIME
    builder = (
        SSHCertificateBuilder()
        .public_key(own.public_key())
        .serial(serial)
        .type(SSHCertificateType.USER)
        .key_id(name.encode())
        .valid_principals([account.encode()])
        .valid_after(after)
        .valid_before(before)
    )
    if settings.RUNNERS_SSH_CERTIFICATE_SOURCES:
        sources = ",".join(settings.RUNNERS_SSH_CERTIFICATE_SOURCES)
        builder = builder.add_critical_option(b"source-address", sources.encode())
    certificate = builder.sign(_private(authority.path))
    pem = own.private_bytes(Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    key: paramiko.PKey = paramiko.Ed25519Key.from_private_key(io.StringIO(pem.decode()))
    key.public_blob = PublicBlob.from_string(certificate.public_bytes().decode())
    return UserCertificate(key, serial, name, after, before, authority)


def _private(path: Path) -> Ed25519PrivateKey:
    """Return the private half of a CA. Raises AuthorityUnusable, also if other accounts may read the file."""

    def read() -> tuple[int, bytes]:
        return path.stat().st_mode, bounded.read_file(path)

    try:
        mode, data = bounded.within_file_timeout(("key", str(path)), read)
        if stat.S_IMODE(mode) & 0o077:
            raise AuthorityUnusable(
                f"Other accounts may use the user CA, so it is not used. Correct it: chmod 600 {path}"
            )
        key = serialization.load_ssh_private_key(data, None)
    except OSError as error:
        raise AuthorityUnusable(f"The user CA {path} cannot be read: {error.strerror or 'it hangs'}.") from error
    except (ValueError, TypeError) as error:
        raise AuthorityUnusable(f"The user CA {path} is not an ed25519 key without a passphrase.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise AuthorityUnusable(f"The user CA {path} is not an ed25519 key.")
    return key
