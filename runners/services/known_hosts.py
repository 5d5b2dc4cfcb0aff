"""Which host keys are trusted: those that an admin has approved and those of known_hosts files. Nothing else, ever.

paramiko's own reader passes over @revoked lines and wildcards and knows one key per host and type, so the files are
read here, as sshd(8) describes them. Keys are compared as the bytes that the server shows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import paramiko
from django.conf import settings

from runners.exceptions import HostKeyChanged, HostKeyUnknown, RunnerUnreachable
from runners.models import TrustedHostKey

USER_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")  # OpenSSH's defaults
SYSTEM_FILE = "/etc/ssh/ssh_known_hosts"
RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")  # a key of type ssh-rsa is asked for by the name of its signatures


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public key as bytes. `key_type` is the one inside of them, e.g. `ssh-ed25519`."""

    key_type: str
    blob: bytes

    @classmethod
    def from_base64(cls, text: str) -> HostKey:
        """Raises ValueError when it is no key."""
        try:
            blob = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError("no base64") from error
        length = int.from_bytes(blob[:4], "big")
        if not 0 < length <= min(64, len(blob) - 4):
            raise ValueError("no public key")
        return cls(blob[4 : 4 + length].decode("ascii"), blob)

    @classmethod
    def of(cls, key: paramiko.PKey) -> HostKey:
        return cls(key.get_name(), key.asbytes())

    @property
    def base64(self) -> str:
        return base64.b64encode(self.blob).decode()

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it: SHA256 in base64 without padding."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.key_type} {self.fingerprint}"


@dataclass(frozen=True, slots=True)
class KnownHost:
    """What is known about one host. `revoked` maps keys to the file that says so."""

    name: str
    trusted: tuple[HostKey, ...]
    revoked: dict[HostKey, str]

    def verify(self, key: HostKey) -> None:
        """Raises HostKeyUnknown or HostKeyChanged, with the fingerprint and the remedy, unless `key` is trusted."""
        facts = {"host": self.name, "key_type": key.key_type, "fingerprint": key.fingerprint}
        if key in self.revoked:
            raise HostKeyChanged(
                f"The host key of {self.name} ({key}) is marked @revoked in {self.revoked[key]}: somebody else "
                "may have it. Nothing was sent. The machine needs a new host key.",
                **facts,
            )
        if key in self.trusted:
            return
        if self.trusted:
            of_type = next((known for known in self.trusted if known.key_type == key.key_type), self.trusted[0])
            raise HostKeyChanged(
                f"The host key of {self.name} has changed: it shows {key}, trusted is {of_type}. Nothing was sent. If "
                "the machine was really given a new key, an admin has to replace the trusted one (admin pages, Trusted "
                "host keys, or `manage.py trust_host`).",
                trusted_fingerprint=of_type.fingerprint,
                **facts,
            )
        raise HostKeyUnknown(
            f"The host key of {self.name} is not known ({key}). An admin can compare this fingerprint with the "
            "machine's own and approve it (admin pages, Trusted host keys, or `manage.py trust_host`), or add it to "
            "the service's known_hosts.",
            **facts,
        )

    def preferred(self, offered: Sequence[str]) -> list[str]:
        """`offered` key algorithms, those of trusted keys first: a server with several keys then shows one of these."""
        types = [known.key_type for known in self.trusted]
        wanted = [name for kind in types for name in (RSA_SIGNATURES if kind == "ssh-rsa" else (kind,))]
        first = [name for name in dict.fromkeys(wanted) if name in offered]
        return [*first, *(name for name in offered if name not in first)]


class VerifyHostKey(paramiko.MissingHostKeyPolicy):
    """Asks `known` about every key: the client is given no keys of its own, so all of them are "missing" to it."""

    def __init__(self, known: KnownHost) -> None:
        self.known = known

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        self.known.verify(HostKey.of(key))


def known_hosts_name(hostname: str, port: int) -> str:
    """The name under which known_hosts files list a host."""
    hostname = hostname.lower()
    return hostname if port == 22 else f"[{hostname}]:{port}"


def load(name: str, user_files: Iterable[str] = ()) -> KnownHost:
    """What is known about the host `name` (see `known_hosts_name`).

    An approved key replaces those of its type in files. `user_files` are those of ~/.ssh/config, else the usual ones.
    """
    approved = list(_approved(name))
    types = {key.key_type for key in approved}
    listed: list[HostKey] = []
    revoked: dict[HostKey, str] = {}
    for file in (*(tuple(user_files) or USER_FILES), settings.RUNNERS_KNOWN_HOSTS, SYSTEM_FILE):
        for marker, key in _read(file, name) if file else ():
            if marker == "@revoked":
                revoked[key] = file
            elif not marker and key.key_type not in types:
                listed.append(key)
    return KnownHost(name, (*approved, *listed), revoked)


def _approved(name: str) -> Iterator[HostKey]:
    for text in TrustedHostKey.objects.filter(host=name).values_list("key", flat=True):
        with suppress(ValueError):  # what is no key matches none
            yield HostKey.from_base64(text)


def _read(file: str, name: str) -> list[tuple[str, HostKey]]:
    """(marker or "", key) of the lines for `name`. A file that exists must be readable: it may revoke keys."""
    try:
        text = Path(file).expanduser().read_text("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunnerUnreachable(f"The service cannot read its known_hosts file {file}: {error.strerror}.") from error
    found = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        if len(words) < 3 or not _is_for(words[0], name):
            continue
        try:
            key = HostKey.from_base64(words[2])
        except ValueError:
            continue
        if key.key_type == words[1]:
            found.append((marker, key))
    return found


def _is_for(field: str, name: str) -> bool:
    """Whether the host field of a line, `|1|salt|hash` or patterns separated by commas, means `name`."""
    if field.startswith("|1|"):
        try:
            salt, digest = (base64.b64decode(part, validate=True) for part in field[3:].split("|"))
        except ValueError:
            return False
        return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)
    is_match = False
    for pattern in field.lower().split(","):
        if _matches(pattern.removeprefix("!"), name):
            if pattern.startswith("!"):
                return False
            is_match = True
    return is_match


def _matches(pattern: str, name: str) -> bool:
    """`*` and `?` only; brackets stand for themselves, as in `[host]:2222`.

    Not as a regular expression, which tries all ways to share a name among many `*`. Here each part between two `*` is
    looked for once, from left to right, so the work grows with the length of the pattern times that of the name.
    """
    first, *parts = pattern.split("*")
    if not parts:
        return len(first) == len(name) and _fits(first, name, 0)
    *middle, last = parts
    if len(first) + len(last) > len(name) or not _fits(first, name, 0) or not _fits(last, name, len(name) - len(last)):
        return False
    place, end = len(first), len(name) - len(last)
    for part in filter(None, middle):
        while place + len(part) <= end and not _fits(part, name, place):
            place += 1
        if place + len(part) > end:
            return False
        place += len(part)
    return True


def _fits(part: str, name: str, place: int) -> bool:
    """Whether `part`, in which `?` is any character, stands in `name` at `place`."""
    return all(wanted in ("?", name[place + index]) for index, wanted in enumerate(part))
