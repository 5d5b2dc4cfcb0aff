"""The service's own SSH key pairs: its key, and the user CA, each with the previous one during a rotation.

The keys are in RUNNERS_SSH_KEY_DIR: `id_ed25519`, `user_ca`, `id_ed25519.previous` and `user_ca.previous` (mode 0600,
in a directory of mode 0700). The public halves are next to them, with the suffix `.pub`. Every connection may use both
keys, so a new key can be distributed before the old one is withdrawn. user_authority.py signs with the user CA.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings

from profiles.validators import is_public_key
from runners.services.machines.ssh.known_hosts import HostKey
from runners_project.private import make_directory

NAME = "id_ed25519"
USER_CA = "user_ca"
PREVIOUS = ".previous"  # suffix of the pair that a rotation replaces


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half: `line` as in authorized_keys and in the file of TrustedUserCAKeys."""

    path: Path
    line: str

    @property
    def fingerprint(self) -> str:
        return HostKey.from_base64(self.line.split()[1]).fingerprint


def directory() -> Path:
    return Path(settings.RUNNERS_SSH_KEY_DIR).expanduser()


def make_key_directory() -> Path:
    """Return the directory, and create it with mode 0700 if it does not exist. Raises OSError."""
    return make_directory(directory())


def private_keys(name: str = NAME) -> list[Path]:
    """Return the paths of private keys, the current one first. `name`: NAME or USER_CA. The files may not exist."""
    return [directory() / name, directory() / (name + PREVIOUS)]


def current(name: str = NAME) -> PublicKey | None:
    """Return the public half of the current pair; None if there is none. Raises OSError."""
    return _public(directory() / name)


def previous(name: str = NAME) -> PublicKey | None:
    return _public(directory() / (name + PREVIOUS))


def create(name: str = NAME, *, comment: str, replace: bool = False) -> PublicKey:
    """Create an ed25519 key pair. With `replace` the current pair becomes the previous one, which is overwritten.

    Raises FileExistsError if a pair exists and `replace` is not given; OSError if it cannot be written.
    """
    folder = make_key_directory()
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    line = f"{public.decode()} {comment}"
    if replace and (folder / name).exists():
        for suffix in (".pub", ""):  # rename the private half last: until then, nothing was replaced
            os.replace(folder / (name + suffix), folder / (name + PREVIOUS + suffix))
    _write_new(folder / name, secret, 0o600)
    (folder / f"{name}.pub").unlink(missing_ok=True)
    _write_new(folder / f"{name}.pub", f"{line}\n".encode(), 0o644)
    return PublicKey(folder / name, line)


def retire_previous(name: str = NAME) -> PublicKey | None:
    """Delete the previous pair at the end of a rotation. Return its public half; None if there was no previous pair."""
    gone = previous(name)
    for suffix in ("", ".pub"):
        (directory() / (name + PREVIOUS + suffix)).unlink(missing_ok=True)
    return gone


def _public(private: Path) -> PublicKey | None:
    """Return the public half of a pair; None if one of both files is missing. Raises OSError, also for a bad line."""
    path = Path(f"{private}.pub")
    if not (private.is_file() and path.is_file()):
        return None
    line = path.read_text("utf-8", errors="replace").strip()
    if not is_public_key(line):
        raise OSError(errno.EINVAL, f"{path.name} is not a public key")
    return PublicKey(private, line)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Create a file atomically: it exists complete and with `mode`, whatever the umask, or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as stream:
        try:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
            os.fchmod(stream.fileno(), mode)
            os.link(draft, path)  # unlike a rename, this refuses to overwrite
        finally:
            draft.unlink()
