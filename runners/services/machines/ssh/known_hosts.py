"""Which host keys are trusted: only those that an admin has approved and those of known_hosts files.

services/host_keys.py provides the approved keys (`provide_approved_keys`).

paramiko's own reader ignores @revoked and @cert-authority lines and wildcards, and knows only one key per host and
type. So this module reads the files itself, as sshd(8) describes them. Keys are compared as the bytes that the server
shows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import paramiko
from django.conf import settings

from runners.exceptions import HostKeyChanged, HostKeyUnknown, RunnerUnreachable
from runners.services.machines.ssh import revoked_keys
from runners.services.machines.ssh.certificates import RSA_SIGNATURES, SUFFIX, BadCertificate, Certificate
from runners.services.machines.ssh.config import DEFAULT_SSH_PORT, SSHHostOptions
from runners_project import bounded

CERTIFICATES = tuple(
    f"{name}{SUFFIX}"
    for name in ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521") + RSA_SIGNATURES
)


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public key as bytes. `key_type` is the type that these bytes name, e.g. `ssh-ed25519`."""

    key_type: str
    blob: bytes

    @classmethod
    def from_base64(cls, text: str) -> HostKey:
        """Decode a key. Raises ValueError if the text is not a key."""
        try:
            blob = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError("no base64") from error
        return cls.from_blob(blob)

    @classmethod
    def from_blob(cls, blob: bytes) -> HostKey:
        """Parse a key. Raises ValueError if the bytes are not a key."""
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
    """The trusted and revoked keys of one host.

    `host` is its name without a port. `authorities` are the keys that may sign its certificates (`@cert-authority`).
    `revoked` maps revoked keys to the file that revokes them. `revoked_files`: RevokedHostKeys of the configuration.
    """

    name: str
    host: str
    trusted: tuple[HostKey, ...]
    authorities: tuple[HostKey, ...]
    revoked: dict[HostKey, str]
    revoked_files: tuple[str, ...] = ()

    def verify(self, key: HostKey, certificate: bytes | None = None) -> None:
        """Check the key that a server has proved to have, and the certificate for that key, if the server showed one.

        As in OpenSSH, a certificate whose authority is unknown counts as the plain key that it holds.
        Raises HostKeyUnknown or HostKeyChanged, with the fingerprint and the remedy, unless the key is trusted.
        """
        facts = {"host": self.name, "key_type": key.key_type, "fingerprint": key.fingerprint}
        if key in self.revoked:
            raise HostKeyChanged(
                f"The host key of {self.name} ({key}) is marked @revoked in {self.revoked[key]}: another person may "
                f"have it. Nothing was sent. The machine needs a new host key.",
                **facts,
            )
        self._check_revoked_files(key, certificate, facts)
        if key in self.trusted or (certificate and self._is_certified(key, certificate, facts)):
            return
        if self.trusted:
            of_type = next((known for known in self.trusted if known.key_type == key.key_type), self.trusted[0])
            raise HostKeyChanged(
                f"The host key of {self.name} has changed: the machine presents {key}, but {of_type} is trusted. "
                f"Nothing was sent. If the machine really has a new key, an admin has to replace the trusted key"
                " (admin pages, Trusted "
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

    def _check_revoked_files(self, key: HostKey, certificate: bytes | None, facts: dict[str, str]) -> None:
        """Raise HostKeyChanged if a file of RevokedHostKeys revokes the key, the certificate or its authority.

        As with ssh, no host is trusted while such a file is missing or cannot be read.
        """
        for file in self.revoked_files:
            try:
                is_revoked = revoked_keys.is_revoked(file, key.blob, certificate)
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else str(error)
                raise HostKeyChanged(
                    f"The host key of {self.name} ({key}) cannot be compared with RevokedHostKeys {file}: {why}. "
                    f"Nothing was sent. Correct that file, or the line in the service's SSH configuration.",
                    **facts,
                ) from error
            if is_revoked:
                raise HostKeyChanged(
                    f"The host key of {self.name} ({key}), or its certificate, is revoked by {file} (RevokedHostKeys): "
                    f"another person may have it. Nothing was sent. The machine needs a new host key.",
                    **facts,
                )

    def _is_certified(self, key: HostKey, blob: bytes, facts: dict[str, str]) -> bool:
        """Return True if a trusted authority has signed the certificate, False if the authority is unknown.

        Raises HostKeyChanged for a certificate that a trusted authority signed, but not for this host and time.
        """
        try:
            certificate = Certificate.from_blob(blob)
            authority = HostKey.from_blob(certificate.authority)
            if authority in self.revoked:
                raise BadCertificate(f"is signed by {authority}, which {self.revoked[authority]} marks @revoked")
            if authority not in self.authorities:
                return False
            certificate.check_host(self.host)
        except (BadCertificate, ValueError) as error:
            raise HostKeyChanged(
                f"The host certificate of {self.name} ({key}) {error}. Nothing was sent. The administrators of the "
                f"machine have to sign a new certificate for it.",
                **facts,
            ) from error
        return True

    def preferred(self, offered: Sequence[str]) -> list[str]:
        """Return `offered` key algorithms, those of trusted keys first.

        So a server with several keys shows a trusted one. Certificates are requested only if an authority is known for
        the host.
        """
        plain = [name for name in offered if not name.endswith(SUFFIX)]
        types = [known.key_type for known in self.trusted]
        wanted = [name for kind in types for name in (RSA_SIGNATURES if kind == "ssh-rsa" else (kind,))]
        first = [name for name in dict.fromkeys(wanted) if name in plain]
        certificates = [name for name in CERTIFICATES if name in offered] if self.authorities else []
        return [*certificates, *first, *(name for name in plain if name not in first)]


class VerifyHostKey(paramiko.MissingHostKeyPolicy):
    """paramiko asks this policy about every key, because the client is given no host keys of its own."""

    def __init__(self, known: KnownHost) -> None:
        self.known = known

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        # For a certificate, paramiko stores the whole certificate as `public_blob` of the key.
        self.known.verify(HostKey.of(key), key.public_blob.key_blob if key.public_blob else None)


def known_hosts_name(hostname: str, port: int) -> str:
    """Return the name under which known_hosts files list a host."""
    hostname = hostname.lower()
    return hostname if port == DEFAULT_SSH_PORT else f"[{hostname}]:{port}"


def name_of(options: SSHHostOptions, port: int) -> str:
    """Return the name under which the keys of a host are looked up: its HostKeyAlias (for any port) or its own name."""
    return options.host_key_alias.lower() or known_hosts_name(options.hostname, port)


ApprovedKeys = Callable[[Sequence[str]], Iterable[tuple[str, str]]]
ApprovedAuthorities = Callable[[], Iterable[tuple[str, str]]]


def _no_approved_keys(names: Sequence[str] = ()) -> Iterable[tuple[str, str]]:
    return ()


_approved_keys: ApprovedKeys = _no_approved_keys
_approved_authorities: ApprovedAuthorities = _no_approved_keys


def provide_approved_keys(keys: ApprovedKeys, authorities: ApprovedAuthorities) -> None:
    """Set who knows the keys and the authorities that an admin has approved; this module knows no rows.

    `keys` gets names as in known_hosts files, and returns (name, key in base64) for each key of these. `authorities`
    returns (patterns of names, key in base64) for each authority.
    """
    global _approved_keys, _approved_authorities
    _approved_keys, _approved_authorities = keys, authorities


def load(options: SSHHostOptions, port: int) -> KnownHost:
    """Return the trusted and revoked keys of the host of `options` at `port`. Each file is read once.

    An approved key replaces the keys of its type in files. As in OpenSSH, a host at another port than 22 is also looked
    up without its port if no line names it with the port. A key that is revoked without a port is revoked for all
    ports. Raises RunnerUnreachable for a file that cannot be read.
    """
    name = name_of(options, port)
    plain = options.hostname.lower()
    names = (name,) if options.host_key_alias else tuple(dict.fromkeys((name, plain)))
    files = (*options.user_known_hosts_files, settings.RUNNERS_KNOWN_HOSTS, *options.global_known_hosts_files)
    lines = [line for file in files if file for line in _read(file, names)]
    lines += _authorities(names)
    approved = list(_approved(names))
    trusted, authorities = next(filter(any, (_keys_for(each, approved, lines) for each in names)), ((), ()))
    revoked = {line.key: line.file for line in lines if line.marker == "@revoked"}
    host = options.host_key_alias.lower() or plain
    return KnownHost(name, host, trusted, authorities, revoked, options.revoked_host_keys)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a known_hosts file for at least one of the looked up `names`. `marker`: "" if it has none."""

    names: tuple[str, ...]
    marker: str
    key: HostKey
    file: str


def _keys_for(
    name: str, approved: list[tuple[str, HostKey]], lines: list[_Line]
) -> tuple[tuple[HostKey, ...], tuple[HostKey, ...]]:
    """Return the trusted keys and the authorities of one name."""
    of_admins = [key for host, key in approved if host == name]
    types = {key.key_type for key in of_admins}
    own = [line for line in lines if name in line.names]
    listed = [line.key for line in own if not line.marker and line.key.key_type not in types]
    return (*of_admins, *listed), tuple(line.key for line in own if line.marker == "@cert-authority")


def _approved(names: Sequence[str]) -> Iterator[tuple[str, HostKey]]:
    for name, text in _approved_keys(names):
        with suppress(ValueError):  # an invalid key matches no key
            yield name, HostKey.from_base64(text)


def _authorities(names: tuple[str, ...]) -> Iterator[_Line]:
    """Yield the authorities that an admin has approved for any of `names`, as lines of a known_hosts file."""
    for patterns, text in _approved_authorities():
        if matching := tuple(name for name in names if _is_for(patterns, name)):
            with suppress(ValueError):  # an invalid key matches no key
                yield _Line(matching, "@cert-authority", HostKey.from_base64(text), "")


def _read(file: str, names: tuple[str, ...]) -> list[_Line]:
    """Return the lines for any of `names`. A file that exists must be readable: it may revoke keys."""
    try:
        path = Path(file).expanduser()
        data = bounded.within_file_timeout(("known_hosts", path), lambda: bounded.read_file(path))
        text = data.decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunnerUnreachable(
            f"{names[0]} cannot be reached: the service cannot read its known_hosts file {file}: {error.strerror}."
        ) from error
    found = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        matching = tuple(name for name in names if _is_for(words[0], name)) if len(words) >= 3 else ()
        if not matching:
            continue
        try:
            key = HostKey.from_base64(words[2])
        except ValueError:
            continue
        if key.key_type == words[1]:
            found.append(_Line(matching, marker, key, file))
    return found


def _is_for(field: str, name: str) -> bool:
    """Return True if the host field of a line, `|1|salt|hash` or patterns separated by commas, matches `name`."""
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
    """Match `*` and `?` only; brackets are literal, as in `[host]:2222`.

    A regular expression would try all ways to divide a name among many `*`. This function searches each part between
    two `*` once, from left to right, so the time grows with the length of the pattern times that of the name.
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
    """Return True if `name` has `part`, in which `?` is any character, at `place`."""
    return all(wanted in ("?", name[place + index]) for index, wanted in enumerate(part))
