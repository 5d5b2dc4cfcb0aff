"""Write key revocation lists (KRL) for sshd's RevokedKeys, with OpenSSH's own `ssh-keygen -k`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runners import printable
from runners.services.machines.ssh import keys
from runners.services.machines.ssh.user_authority import key_id

TIMEOUT = 30.0  # seconds for ssh-keygen
READABLE = 0o644  # sshd reads the file as root, but it is public


class NotRevoked(Exception):
    """The list was not written, and an existing one is unchanged. The text is a sentence for users."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """What to revoke of the certificates of some CAs. `authorities`: CAs of which everything is revoked."""

    serials: Sequence[int] = ()
    people: Sequence[str] = ()
    authorities: Sequence[keys.PublicKey] = ()


def revoke(path: Path, revocation: Revocation, signed_by: Iterable[keys.PublicKey]) -> None:
    """Add revocations to the list `path`, or create it. The new list replaces the old one atomically.

    `signed_by`: the CAs to whose certificates serials and people apply. Raises NotRevoked.
    """
    lines = [f"serial: {serial}" for serial in revocation.serials]
    lines += [f"id: {key_id(person)}" for person in revocation.people]
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".autosubmit-runners-krl.") as folder:
            draft, specification = Path(folder) / "krl", Path(folder) / "specification"
            if path.exists() and path.stat().st_size:  # sshd accepts an empty list, ssh-keygen does not
                shutil.copyfile(path, draft)
            specification.write_text("".join(f"{line}\n" for line in lines))
            if lines:
                for authority in signed_by:
                    _write_public(Path(folder) / "ca.pub", authority)
                    _ssh_keygen(draft, "-s", str(Path(folder) / "ca.pub"), str(specification))
            for authority in revocation.authorities:
                _write_public(Path(folder) / "revoked.pub", authority)
                _ssh_keygen(draft, str(Path(folder) / "revoked.pub"))
            draft.chmod(READABLE)
            os.replace(draft, path)
    except OSError as error:
        raise NotRevoked(f"{path} cannot be written: {error.strerror or error}.") from error


def _write_public(path: Path, authority: keys.PublicKey) -> None:
    path.write_text(f"{authority.line}\n")


def _ssh_keygen(draft: Path, *arguments: str) -> None:
    """Create the list, or update it if it exists. Raises NotRevoked, OSError."""
    argv = ["ssh-keygen", "-q", "-k", *(["-u"] if draft.exists() else []), "-f", str(draft), *arguments]
    try:
        done = subprocess.run(  # noqa: S603  (the arguments are options and absolute paths)
            argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise NotRevoked(f"ssh-keygen did not end within {TIMEOUT:g} s.") from error
    if done.returncode:
        words = printable.line(" ".join(done.stderr.decode(errors="replace").split()))
        raise NotRevoked(f"ssh-keygen failed: {words or f'exit code {done.returncode}'}")
