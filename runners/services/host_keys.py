"""Scan the keys that a host shows, and approve or forget them, and authorities of host certificates.

known_hosts.py decides which keys are trusted.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import paramiko
from django.conf import settings
from django.db import transaction

from runners import printable
from runners.exceptions import InvalidRequest, RunnerUnreachable
from runners.models import TrustedHostKey
from runners.services.audit import audited
from runners.services.machines.breaker import BREAKER
from runners.services.machines.ssh import connect as ssh_connect
from runners.services.machines.ssh import known_hosts
from runners.services.machines.ssh.certificates import RSA_SIGNATURES
from runners.services.machines.ssh.config import DEFAULT_SSH_PORT, SSHHostOptions, lookup
from runners.services.machines.ssh.known_hosts import HostKey

# A server shows one key per connection, of the kind that the client asks for.
KINDS = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    RSA_SIGNATURES,
)
_LOG = "paramiko.scan"
logging.getLogger(_LOG).setLevel(logging.CRITICAL)  # a missing key of one kind is not worth a message


@dataclass(frozen=True, slots=True)
class ScannedKey:
    """A key that a host has just shown. People have to compare fingerprints to decide whether it is the host's own.

    `host` is the name as in known_hosts files. `state` compares it with what is trusted: `new`, `trusted`, `changed`
    (another key of this type is trusted, `trusted_fingerprint`) or `revoked` (by a known_hosts file).
    """

    host: str
    key_type: str
    key: str  # base64
    fingerprint: str
    state: str
    trusted_fingerprint: str = ""


def scan(host: str, port: int | None = None) -> list[ScannedKey]:
    """Return the host keys of a machine, one of each kind that it has. This trusts no key and does not log in.

    `host` may be an alias of ~/.ssh/config; its jump hosts must be trusted already.
    Raises RunnerUnreachable and its subclasses (the latter for jump hosts).
    """
    options = lookup(host, port=port)
    port = port or options.port or DEFAULT_SSH_PORT
    deadline = time.monotonic() + settings.RUNNERS_CONNECT_TIMEOUT
    jumps = ssh_connect.open_jumps(host, options, deadline)
    try:
        shown = [_show(options, port, kinds, jumps[-1] if jumps else None, deadline) for kinds in KINDS]
    finally:
        ssh_connect.close(jumps)
    known = known_hosts.load(options, port)
    name = known.name
    if not any(shown):
        raise RunnerUnreachable(f"{name} has no host key of a supported type (ed25519, ecdsa, rsa).")
    return [_compared(known, key) for key in shown if key]


def _show(
    options: SSHHostOptions, port: int, algorithms: tuple[str, ...], jump: paramiko.SSHClient | None, deadline: float
) -> HostKey | None:
    """Return the key that the server shows if it is asked for `algorithms`; None if it has no key of these."""
    left = max(0.1, deadline - time.monotonic())
    sock: socket.socket | paramiko.Channel | None = None
    transport: paramiko.Transport | None = None
    try:
        sock = ssh_connect.open_socket(options, port, jump, deadline)
        transport = paramiko.Transport(sock)
        transport.set_log_channel(_LOG)
        transport.banner_timeout = left
        security = transport.get_security_options()
        security.key_types = [name for name in security.key_types if name in algorithms]
        transport.start_client(timeout=left)
        return HostKey.of(transport.get_remote_server_key())
    except paramiko.ssh_exception.IncompatiblePeer as error:
        if "host key" in str(error):
            return None
        raise RunnerUnreachable(f"{options.hostname}:{port} cannot be reached: {error}") from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise RunnerUnreachable(
            f"{options.hostname}:{port} cannot be reached: {ssh_connect.reason(error, left)}"
        ) from error
    finally:
        if transport:
            transport.close()
        if sock:
            sock.close()


def _compared(known: known_hosts.KnownHost, key: HostKey) -> ScannedKey:
    of_type = next((other for other in known.trusted if other.key_type == key.key_type), None)
    if key in known.revoked:
        state = "revoked"
    elif key in known.trusted:
        state = "trusted"
    else:
        state = "changed" if of_type else "new"
    return ScannedKey(
        host=known.name,
        key_type=key.key_type,
        key=key.base64,
        fingerprint=key.fingerprint,
        state=state,
        trusted_fingerprint=of_type.fingerprint if of_type and state == "changed" else "",
    )


def approve(scanned: ScannedKey, approved_by: str, *, address: str = "") -> TrustedHostKey:
    """Trust a key. It replaces another key of its type for this host and port. This creates an audit record.

    Raises InvalidRequest for a key that a known_hosts file revokes.
    """
    with audited(endpoint="approve-host-key", actor=approved_by, address=address, holds_changes=True) as record:
        record.detail = f"{scanned.host} {scanned.key_type} {scanned.fingerprint}"
        if scanned.state == "revoked":
            raise InvalidRequest(
                f"{record.detail} is marked @revoked in a known_hosts file of the service and cannot be trusted."
            )
        with transaction.atomic():
            old = TrustedHostKey.objects.filter(
                host=scanned.host, key_type=scanned.key_type, is_authority=False
            ).first()
            if old and old.key != scanned.key:
                record.detail += f", replaces {fingerprint_of(old)}"
            row, _ = TrustedHostKey.objects.update_or_create(
                host=scanned.host,
                key_type=scanned.key_type,
                is_authority=False,
                defaults={"key": scanned.key, "approved_by": approved_by},
            )
        BREAKER.forget()  # machines that were rejected because of their keys may be contacted at once
        return row


MAX_PATTERNS_TEXT = 255  # characters: the column
AUTHORITY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
_PATTERN = re.compile(r"!?[A-Za-z0-9_.:*?-]+|!?\[[A-Za-z0-9_.:*?-]+\]:[0-9*?]+")


def authority_of(line: str) -> HostKey:
    """Return the key of a `.pub` file (`TYPE BASE64 COMMENT`). Raises InvalidRequest for anything else."""
    words = line.split()
    remedy = "Give the line of the authority's .pub file, such as 'ssh-ed25519 AAAA... host-ca'."
    if "PRIVATE KEY" in line:
        raise _invalid("key", f"This is a private key. Keep it secret. {remedy}")
    if len(words) < 2 or words[0] not in AUTHORITY_TYPES:
        raise _invalid("key", f"This is not a public key of a type that may sign host certificates. {remedy}")
    try:
        key = HostKey.from_base64(words[1])
        paramiko.PKey.from_type_string(key.key_type, key.blob)
    except (ValueError, UnicodeDecodeError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        raise _invalid("key", f"This is not a valid public key. {remedy}") from error
    if key.key_type != words[0]:
        raise _invalid("key", f"The key is of the type {key.key_type}, not {words[0]}. {remedy}")
    return key


def hosts_of_authority(text: str) -> str:
    """Return the host patterns of an authority in the form of known_hosts files. Raises InvalidRequest.

    A pattern of wildcards only is rejected: such an authority could speak for every machine, jump hosts included.
    """
    items = [item.strip().lower() for item in text.split(",") if item.strip()]
    remedy = "Give names with * and ?, separated by commas, such as *.hpc.example.org,login.example.org."
    if not items or len(",".join(items)) > MAX_PATTERNS_TEXT:
        raise _invalid("hosts", f"Give 1 to {MAX_PATTERNS_TEXT} characters. {remedy}")
    for item in items:
        if not _PATTERN.fullmatch(item):
            raise _invalid("hosts", f"{printable.quoted(item)} is not a valid pattern of host names. {remedy}")
        if not set(item) - set("!*?.:[]"):
            raise _invalid("hosts", f"{printable.quoted(item)} fits every host. {remedy}")
    if all(item.startswith("!") for item in items):
        raise _invalid("hosts", f"These patterns only exclude hosts. {remedy}")
    return ",".join(items)


def _invalid(field: str, sentence: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {sentence}", {field: [sentence]})


def approve_authority(hosts: str, key: HostKey, approved_by: str, *, address: str = "") -> TrustedHostKey:
    """Trust host certificates that `key` has signed for hosts that match `hosts`. This creates an audit record.

    As for a line with `@cert-authority`, a certificate must name the host and be valid now, and keys that known_hosts
    files revoke stay revoked. Raises InvalidRequest for patterns that are not valid.
    """
    hosts = hosts_of_authority(hosts)
    with audited(endpoint="approve-host-authority", actor=approved_by, address=address, holds_changes=True) as record:
        record.detail = f"{hosts} {key}"
        row, _ = TrustedHostKey.objects.get_or_create(
            host=hosts,
            key_type=key.key_type,
            key=key.base64,
            is_authority=True,
            defaults={"approved_by": approved_by},
        )
        BREAKER.forget()
        return row


def forget(row: TrustedHostKey, forgotten_by: str, *, address: str = "") -> None:
    """Stop trusting an approved key or authority (a file may still list it). This creates an audit record.

    Open connections stay open until they are idle.
    """
    endpoint = "forget-host-authority" if row.is_authority else "forget-host-key"
    with audited(endpoint=endpoint, actor=forgotten_by, address=address, holds_changes=True) as record:
        record.detail = f"{row.host} {row.key_type} {fingerprint_of(row)}"
        row.delete()


def approved_keys(names: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Return (name, key in base64) for each approved key of these hosts. See `known_hosts.provide_approved_keys`."""
    rows = TrustedHostKey.objects.filter(host__in=names, is_authority=False)
    return rows.order_by("pk").values_list("host", "key")


def approved_authorities() -> Iterable[tuple[str, str]]:
    """Return (patterns, key in base64) for each approved authority."""
    return TrustedHostKey.objects.filter(is_authority=True).order_by("pk").values_list("host", "key")


def connect() -> None:
    """Let SSH connections trust the approved keys. Called when the application is ready."""
    known_hosts.provide_approved_keys(approved_keys, approved_authorities)


def name_of(host: str, port: int | None = None) -> str:
    """Return the name under which the keys of a host are stored, according to ~/.ssh/config."""
    options = lookup(host, port=port)
    return known_hosts.name_of(options, port or options.port or DEFAULT_SSH_PORT)


def fingerprint_of(row: TrustedHostKey) -> str:
    """Return the fingerprint as `ssh-keygen -l` prints it; empty if the row holds no valid key."""
    try:
        return HostKey.from_base64(row.key).fingerprint
    except ValueError:
        return ""
