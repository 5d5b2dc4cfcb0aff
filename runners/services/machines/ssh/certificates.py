"""SSH certificates, and the validation of one that a server shows instead of a plain host key.

paramiko proves only that the server has the private key of the certificate. This module checks what ssh checks, too:
which authority signed the certificate, for which names, and until when. The format is OpenSSH's (PROTOCOL.certkeys).
"""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.hazmat.primitives.serialization.ssh import (
    SSHCertificate,
    SSHCertificateType,
    SSHCertPublicKeyTypes,
    load_ssh_public_identity,
)
from paramiko import Message

from runners_project import clock

SUFFIX = "-cert-v01@openssh.com"  # the type of a certificate is the type of its key and this suffix
RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")  # with which a key of type ssh-rsa signs
MAX_CERTIFICATE = 64 * 1024  # bytes
WEAK_SIGNATURES = ("ssh-rsa", "ssh-dss")  # SHA-1; not in OpenSSH's CASignatureAlgorithms either


class BadCertificate(Exception):
    """The certificate does not prove that this is the host. The text completes "The certificate of HOST ..."."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that was parsed, but not validated yet. `authority`: the public key that signed it, as bytes."""

    certificate: SSHCertificate
    authority: bytes
    signature_algorithm: str

    @classmethod
    def from_blob(cls, blob: bytes) -> Certificate:
        """Parse a certificate. Raises BadCertificate for bytes that are not a certificate."""
        if len(blob) > MAX_CERTIFICATE:
            raise BadCertificate(f"has more than {MAX_CERTIFICATE} bytes")
        name = bytes(Message(blob).get_string())
        try:
            certificate = load_ssh_public_identity(name + b" " + b64encode(blob))
            if not isinstance(certificate, SSHCertificate):
                raise BadCertificate("is a key without a certificate")
            authority = key_bytes(certificate.signature_key())
        except (ValueError, IndexError, UnsupportedAlgorithm) as error:
            raise BadCertificate("cannot be read") from error
        # The last two fields are the key of the authority and its signature, which begins with its algorithm.
        field = len(authority).to_bytes(4, "big") + authority
        before, found, signature = blob.rpartition(field)
        if not found:
            raise BadCertificate("cannot be read")
        algorithm = Message(Message(signature).get_string()).get_string()
        return cls(certificate, authority, bytes(algorithm).decode("ascii", "replace"))

    def check_host(self, name: str) -> None:
        """Raise BadCertificate unless the certificate is valid for the host `name` (without a port) now.

        As measured with OpenSSH 9.2: the names of a certificate have no wildcards, and a certificate without names is
        valid for every host. The caller has to check that the authority is trusted.
        """
        certificate = self.certificate
        if certificate.type != SSHCertificateType.HOST:
            raise BadCertificate("is a user certificate, not a host certificate")
        if self.signature_algorithm in WEAK_SIGNATURES:
            raise BadCertificate(f"is signed with {self.signature_algorithm}, which is too weak")
        try:
            certificate.verify_cert_signature()
        except (InvalidSignature, ValueError, AssertionError) as error:
            raise BadCertificate("has an invalid signature") from error
        self.check_time()
        if certificate.critical_options:
            raise BadCertificate("has critical options, which are not allowed in host certificates")
        names = [principal.decode("utf-8", "replace") for principal in certificate.valid_principals]
        if names and name.lower() not in names:
            shown = "".join(c for c in ", ".join(names)[:200] if c.isprintable())
            raise BadCertificate(f"is valid for other names: {shown}")

    def check_time(self) -> None:
        """Raise BadCertificate unless the certificate is valid now."""
        now = int(clock.now().timestamp())
        if now < self.certificate.valid_after:
            raise BadCertificate(f"is valid only from {moment(self.certificate.valid_after)}")
        if now >= self.certificate.valid_before:
            raise BadCertificate(f"expired at {moment(self.certificate.valid_before)}")


def key_bytes(key: SSHCertPublicKeyTypes) -> bytes:
    """Return a public key as SSH sends it."""
    return b64decode(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])


def moment(seconds: int) -> str:
    """Return a time, in seconds since 1970, as text in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(min(seconds, 253402300799)))
