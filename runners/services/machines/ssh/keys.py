"""The service's own SSH key pair, and the previous one during a key rotation.

The keys are in RUNNERS_SSH_KEY_DIR: `id_ed25519` and `id_ed25519.previous` (mode 0600, in a directory of mode 0700).
The public halves are next to them, with the suffix `.pub`. Every connection may use both keys, so a new key can be
distributed before the old one is withdrawn.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings

from runners.services.machines.ssh.known_hosts import HostKey
from runners_project.private import make_directory

NAME = "id_ed25519"
PREVIOUS = "id_ed25519.previous"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half: `line` as in authorized_keys."""

    path: Path
    line: str

    @property
    def fingerprint(self) -> str:
        return HostKey.from_base64(self.line.split()[1]).fingerprint


def directory() -> Path:
    return Path(settings.RUNNERS_SSH_KEY_DIR).expanduser()


def private_keys() -> list[Path]:
    """Return the paths of the service's private keys, the current one first. The files may not exist."""
    return [directory() / NAME, directory() / PREVIOUS]


def current() -> PublicKey | None:
    return _public(directory() / NAME)


def previous() -> PublicKey | None:
    return _public(directory() / PREVIOUS)


def create(*, comment: str, replace: bool = False) -> PublicKey:
    """Create an ed25519 key pair. With `replace` the current pair becomes the previous one, which is overwritten.

    Raises FileExistsError if a pair exists and `replace` is not given; OSError if it cannot be written.
    """
    folder = make_directory(directory())
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    line = f"{public.decode()} {comment}"
    if replace and (folder / NAME).exists():
        for suffix in (".pub", ""):  # rename the private half last: until then, nothing was replaced
            os.replace(folder / (NAME + suffix), folder / (PREVIOUS + suffix))
    _write_new(folder / NAME, secret, 0o600)
    (folder / f"{NAME}.pub").unlink(missing_ok=True)
    _write_new(folder / f"{NAME}.pub", f"{line}\n".encode(), 0o644)
    return PublicKey(folder / NAME, line)


def retire_previous() -> PublicKey | None:
    """Delete the previous pair at the end of a rotation. Return its public half; None if there was no previous pair."""
    gone = previous()
    for suffix in ("", ".pub"):
        (directory() / (PREVIOUS + suffix)).unlink(missing_ok=True)
    return gone


def _public(private: Path) -> PublicKey | None:
    path = Path(f"{private}.pub")
    return PublicKey(private, path.read_text("utf-8").strip()) if private.is_file() and path.is_file() else None


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
