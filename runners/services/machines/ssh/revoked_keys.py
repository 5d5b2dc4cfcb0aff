"""RevokedHostKeys of ssh_config(5): a file of public keys, one per line, or a key revocation list (KRL).

Only OpenSSH's own `ssh-keygen -Q` reads a KRL. It compares explicit keys, fingerprints, serial numbers and key ids.
"""

from __future__ import annotations

import subprocess
from base64 import b64decode, b64encode

from paramiko import Message

from runners.services.machines.ssh.certificates import BadCertificate, Certificate
from runners_project import bounded

KRL = b"SSHKRL\n\0"  # source: PROTOCOL.krl of OpenSSH
TIMEOUT = 5  # seconds for `ssh-keygen -Q`


def is_revoked(file: str, key: bytes, certificate: bytes | None) -> bool:
    """Return True if the file revokes a host key, the certificate that a server showed for it, or its authority.

    Raises OSError if the file cannot be read (TimeoutError if that takes too long), and ValueError with the end of a
    sentence for a line that is not a key, and for a KRL that ssh-keygen does not accept.
    """
    content = bounded.within_file_timeout(("revoked", file), lambda: bounded.read_file(file))
    if content.startswith(KRL):
        return any(_is_in_krl(file, blob) for blob in (key, certificate) if blob)
    revoked = set(_keys(content))
    if key in revoked:
        return True
    if not certificate:
        return False
    try:
        return certificate in revoked or Certificate.from_blob(certificate).authority in revoked
    except BadCertificate:
        return False  # it proves nothing, so only the plain key counts


def _keys(content: bytes) -> list[bytes]:
    """Return the public keys of a text, one per line; blank lines and comments are skipped.

    Raises ValueError for a line without a key, because it may be a damaged key. As measured with OpenSSH 9.2, ssh then
    trusts no host.
    """
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith(b"#"):
            continue
        try:
            blob = b64decode(words[1], validate=True)
        except (IndexError, ValueError):
            blob = b""
        if not blob.startswith(len(words[0]).to_bytes(4, "big") + words[0]):
            raise ValueError(f"line {number} is not a public key")
        found.append(blob)
    return found


def _is_in_krl(file: str, blob: bytes) -> bool:
    name = bytes(Message(blob).get_string())
    try:
        done = subprocess.run(  # noqa: S603  (the file is of the service's own configuration)
            ["ssh-keygen", "-Q", "-f", file, "/dev/stdin"],  # noqa: S607  (which one, the service's PATH decides)
            input=name + b" " + b64encode(blob) + b"\n",
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except FileNotFoundError as error:
        raise ValueError("ssh-keygen is missing on this machine; install it (openssh-client)") from error
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"`ssh-keygen -Q` did not answer within {TIMEOUT} s") from error
    answer = done.stdout.strip()
    if answer.endswith(b": REVOKED"):
        return True
    if answer.endswith(b": ok") and done.returncode == 0:
        return False
    raise ValueError("`ssh-keygen -Q` does not accept this key revocation list")
