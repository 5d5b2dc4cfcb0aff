"""Open one SSH connection as `~/.ssh/config` says, through its jump hosts. Every host key on the way is verified."""

from __future__ import annotations

import errno
import logging
import os
import random
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
from django.conf import settings

from runners.exceptions import AuthenticationFailed, RunnerServiceError, RunnerUnreachable
from runners.services.machines.output import last_lines
from runners.services.machines.ssh import authentication, keys, known_hosts, user_authority
from runners.services.machines.ssh.certificates import moment
from runners.services.machines.ssh.config import DEFAULT_SSH_PORT, SSHHostOptions, lookup
from runners.services.machines.ssh.paramiko_fixes import Transport
from runners.services.machines.ssh.target import CERTIFICATE, SSHTarget
from runners.services.machines.ssh.user_authority import UserCertificate
from runners_project import bounded

logger = logging.getLogger(__name__)

KEEPALIVE = 20  # seconds
MAX_JUMPS = 4
# Seconds before each retry, if the server closed the connection during the greeting. It may have had too many new
# connections at once (sshd's MaxStartups), also from other processes of this service. A random factor spreads the
# retries of these processes.
RETRY_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)


class ConnectionClosedEarly(RunnerUnreachable):
    """The server closed the connection before it identified itself."""


Reached = Callable[[str], None]  # called with "connect" and "host_key" as soon as each stage is done


def connect(ssh: SSHTarget, deadline: float, reached: Reached = lambda stage: None) -> list[paramiko.SSHClient]:
    """Return authenticated connections to the jump hosts, if `~/.ssh/config` names any, and last the one to `ssh`.

    Jump hosts are reached with the service's keys, whatever `ssh.authentication` says: a certificate of the user CA
    forbids the forwarding that a jump host has to do.

    `reached` is called with each stage that the last connection reaches.
    Raises RunnerUnreachable, HostKeyUnknown, HostKeyChanged, AuthenticationFailed.
    """
    options = options_of(ssh)
    clients: list[paramiko.SSHClient] = []
    try:
        clients = open_jumps(ssh.host, options, deadline)
        clients.append(_connect_with_retry(ssh, options, clients[-1] if clients else None, deadline, reached))
    except RunnerUnreachable as error:
        error.is_remembered = not options.problem
        close(clients)
        raise
    except BaseException:
        close(clients)
        raise
    return clients


def _connect_with_retry(
    ssh: SSHTarget,
    options: SSHHostOptions,
    jump: paramiko.SSHClient | None,
    deadline: float,
    reached: Reached = lambda stage: None,
) -> paramiko.SSHClient:
    """Call `_client`. If the server closes the connection during the greeting, retry a few times."""
    for pause in RETRY_PAUSES:
        try:
            return _client(ssh, options, jump, deadline, reached)
        except ConnectionClosedEarly:
            wait = pause * random.uniform(0.5, 1.5)  # noqa: S311  (no secret)
            if time.monotonic() + wait >= deadline:
                raise
            time.sleep(wait)
    return _client(ssh, options, jump, deadline, reached)


def open_jumps(host: str, options: SSHHostOptions, deadline: float) -> list[paramiko.SSHClient]:
    """Open connections to the jump hosts of `host`, each through the one before it. Raises the errors of `connect`."""
    if options.problem:
        raise RunnerUnreachable(f"{host} cannot be reached: {options.problem}")
    clients: list[paramiko.SSHClient] = []
    try:
        for hop in jump_targets(options):
            clients.append(_connect_with_retry(hop, options_of(hop), clients[-1] if clients else None, deadline))
    except BaseException:
        close(clients)
        raise
    return clients


def close(clients: list[paramiko.SSHClient]) -> None:
    """Close connections that go through each other, the last one first."""
    for client in reversed(clients):
        client.close()


def has_certificate(clients: list[paramiko.SSHClient]) -> bool:
    """Return True if the machine, the last of the connections of `connect`, accepted a certificate of the user CA."""
    client = clients[-1]
    return isinstance(client, authentication.Client) and client.has_certificate


def jump_targets(options: SSHHostOptions) -> list[SSHTarget]:
    """Return the hops of a ProxyJump, `[user@]host[:port]` separated by commas, each completed from `~/.ssh/config`.

    As in OpenSSH, the first hop may have its own ProxyJump there. Raises RunnerUnreachable for a malformed ProxyJump.
    """
    hops: list[SSHTarget] = []
    jump = options.proxy_jump
    while jump:
        these = [_hop(text.strip(), options) for text in jump.split(",")]
        hops = these + hops
        if len(hops) > MAX_JUMPS:
            raise RunnerUnreachable(f"The ProxyJump of {options.hostname} has more than {MAX_JUMPS} hosts, or a loop.")
        jump = options_of(these[0]).proxy_jump
    return hops


def options_of(ssh: SSHTarget) -> SSHHostOptions:
    """Return the options of OpenSSH's configuration for a machine with this user and port."""
    return lookup(ssh.host, ssh.user, ssh.port)


def _hop(text: str, options: SSHHostOptions) -> SSHTarget:
    user, _, place = text.rpartition("@")
    host, colon, port = place.rpartition(":") if not place.endswith("]") else (place, "", "")
    host = (host if colon else place).strip("[]")
    if not host or (colon and not port.isdecimal()):
        raise RunnerUnreachable(f"'{text}' in the ProxyJump of {options.hostname} is not a valid [user@]host[:port].")
    known = lookup(host)
    # As in OpenSSH, the User of the destination host does not apply to its jump hosts.
    port_number = int(port) if colon else known.port or DEFAULT_SSH_PORT
    return SSHTarget(host, port_number, user or known.user or os.environ.get("USER", ""))


class _Verify(known_hosts.VerifyHostKey):
    """A policy that calls `reached` after it has accepted the host key."""

    def __init__(self, known: known_hosts.KnownHost, reached: Reached) -> None:
        super().__init__(known)
        self.reached = reached

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        super().missing_host_key(client, hostname, key)
        self.reached("host_key")


def _client(
    ssh: SSHTarget,
    options: SSHHostOptions,
    jump: paramiko.SSHClient | None,
    deadline: float,
    reached: Reached = lambda stage: None,
) -> paramiko.SSHClient:
    hostname = options.hostname or ssh.host
    where = f"{ssh.user}@{ssh.host}:{ssh.port}"
    signed, no_certificate = _certificates_for(ssh, where)
    if ssh.authentication == CERTIFICATE:
        options = replace(options, identity_agent="none", certificate_files=())
    known = known_hosts.load(options, ssh.port)
    client = authentication.Client(deadline, options, [certificate.key for certificate in signed])
    client.set_missing_host_key_policy(_Verify(known, reached))
    if options.connect_timeout:
        deadline = min(deadline, time.monotonic() + options.connect_timeout)
    left = max(0.1, deadline - time.monotonic())
    sock = None
    try:
        address = getattr(ssh, "address", "")  # of nodes.NodeTarget
        sock = open_socket(replace(options, hostname=address) if address else options, ssh.port, jump, deadline)
        reached("connect")
        client.connect(
            hostname,
            port=ssh.port,
            username=ssh.user,
            sock=sock,
            key_filename=[] if ssh.authentication == CERTIFICATE else identity_files(options),  # type: ignore[arg-type]  # its documentation says list, too
            timeout=left,
            banner_timeout=left,
            auth_timeout=left,
            channel_timeout=left,
            transport_factory=_transport_for(known, options),
        )
    except RunnerServiceError:
        client.close()
        raise
    except authentication.NoKeys as error:
        client.close()
        raise AuthenticationFailed(
            f"This service has no SSH key for {where}. Create one with `manage.py create_ssh_key`. {error}".strip()
        ) from error
    except authentication.SecondFactor as error:
        client.close()
        what = "certificate" if ssh.authentication == CERTIFICATE else "key"
        raise AuthenticationFailed(
            f"{where} accepts the service's {what} and asks for a second factor ({plain(str(error))}), which a service "
            f"cannot provide. Ask the administrators of the machine to accept this {what} without a second factor."
        ) from error
    except authentication.AccountRefused as error:
        client.close()
        raise AuthenticationFailed(
            f"{where} ended the connection instead of letting {ssh.user} in. It says: {error}. The "
            "keys are not the reason: ask its administrators about the account, or wait for the end of a maintenance."
        ) from error
    except authentication.KeysRejected as error:
        client.close()
        words = f"{_refusal(ssh, where, signed, no_certificate)} {plain(str(error))}"
        raise AuthenticationFailed(words.strip()) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        client.close()
        is_late = time.monotonic() >= deadline and not isinstance(
            error, bounded.NameServerSilent | authentication.Interrupted
        )
        kind = ConnectionClosedEarly if is_hang_up(error) and not is_late else RunnerUnreachable
        why = f"{NO_ANSWER} within {left:.0f} s" if is_late else reason(error, left)
        unreachable = kind(f"{where} cannot be reached: {why}")
        unreachable.is_silence = why.startswith(NO_ANSWER)
        raise unreachable from error
    finally:
        if client.get_transport() is None and sock is not None:
            sock.close()
    transport = client.get_transport()
    assert isinstance(transport, Transport)
    transport.set_keepalive(KEEPALIVE)
    transport.rest()
    return client


def _certificates_for(ssh: SSHTarget, where: str) -> tuple[list[UserCertificate], str]:
    """Return new certificates for a connection, or none and a sentence that says why, if the keys may be used instead.

    Both are empty for a target that uses no certificates. Raises AuthenticationFailed if it uses nothing else.
    """
    if not ssh.uses_person:
        return [], ""
    if ssh.lacks_person:
        raise AuthenticationFailed(
            f"{where} is reached with a certificate for one person, and the account {ssh.user} is not mapped to the "
            f"person who started this. An admin can add it (Accounts of people in the admin)."
        )
    try:
        signed = user_authority.sign(ssh.person, ssh.user)
    except user_authority.AuthorityUnusable as error:
        if ssh.authentication == CERTIFICATE:
            raise AuthenticationFailed(
                f"{where} is reached with a certificate, which cannot be made. {error}"
            ) from error
        return [], str(error)
    for certificate in signed:
        logger.info(
            "Signed a certificate for %s: key id %s, serial %d, valid until %s, CA %s",
            where,
            certificate.key_id,
            certificate.serial,
            moment(certificate.valid_before),
            certificate.authority.fingerprint,
        )
    return signed, ""


def _refusal(ssh: SSHTarget, where: str, signed: list[UserCertificate], no_certificate: str) -> str:
    """Return the error for a server that accepted neither certificate nor key, with the remedy for each."""
    keys_remedy = (
        f"Add one of its public keys (configuration/ssh-public-keys) to ~/.ssh/authorized_keys of {ssh.user} there."
    )
    if not signed:
        return f"{where} rejected the service's keys. {keys_remedy} {no_certificate}".strip()
    first = signed[0]
    lines = " or ".join(f"'{certificate.authority.line}'" for certificate in signed)
    remedy = (
        f"Check there, with the log of sshd: the file of TrustedUserCAKeys has the line {lines}; "
        f"AuthorizedPrincipalsFile, if it is used, lists {ssh.user}; the clock is right, because the certificate is "
        f"valid from {moment(first.valid_after)} to {moment(first.valid_before)}; RevokedKeys does not revoke it; and "
        f"RUNNERS_SSH_CERTIFICATE_SOURCES, if it is set, has the service's address."
    )
    what = f"the certificate for {ssh.person} (key id {first.key_id}, serial {first.serial})"
    if ssh.authentication == CERTIFICATE:
        return f"{where} rejected {what}. {remedy}"
    return f"{where} rejected {what} and the service's keys. {remedy} Or use the service's key: {keys_remedy}"


def _transport_for(known: known_hosts.KnownHost, options: SSHHostOptions) -> Any:
    """Return a transport factory for `SSHClient.connect`.

    Its transports prefer host keys of the types that are trusted, and respect HostKeyAlgorithms and
    PubkeyAcceptedAlgorithms. The factory raises RunnerUnreachable if the configuration leaves no host key algorithm.
    """

    def make(sock: Any, **arguments: Any) -> paramiko.Transport:
        transport = Transport(sock, **arguments)
        security = transport.get_security_options()
        types = known.preferred((*security.key_types, *known_hosts.CERTIFICATES))
        types = [name for name in types if name in (options.host_key_algorithms or types)]
        if not types:
            raise RunnerUnreachable(
                f"The service's SSH configuration gives HostKeyAlgorithms for {options.hostname} of which this service "
                f"supports none. It supports {', '.join(security.key_types)}."
            )
        security.key_types = types
        transport.sign_with(options.pubkey_accepted_algorithms)
        return transport

    return make


PROHIBITED = 1  # SSH_OPEN_ADMINISTRATIVELY_PROHIBITED, RFC 4254, 5.1
FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


def open_socket(
    options: SSHHostOptions, port: int, jump: paramiko.SSHClient | None, deadline: float
) -> socket.socket | paramiko.Channel:
    """Open a TCP connection to a port, or a channel of the jump host to it. Raises OSError, SSHException."""
    hostname = options.hostname
    if jump is not None:
        transport = jump.get_transport()
        assert transport
        left = max(0.1, deadline - time.monotonic())
        try:
            return transport.open_channel("direct-tcpip", (hostname, port), ("127.0.0.1", 0), timeout=left)
        except paramiko.ChannelException as error:
            if error.code != PROHIBITED:
                raise
            raise RunnerUnreachable(
                f"{hostname}:{port} cannot be reached: its jump host ({options.proxy_jump}) forbids forwarding to it. "
                "Its administrators can allow it (AllowTcpForwarding, PermitOpen, options of the key in "
                "authorized_keys)."
            ) from error
    addresses = bounded.resolve(hostname, port, deadline)
    wanted = FAMILIES.get(options.address_family)
    addresses = [address for address in addresses if wanted in (None, address[0])]
    if not addresses:
        raise OSError(errno.EAFNOSUPPORT, f"it has no address of the AddressFamily {options.address_family}")
    sock = bounded.connect(addresses, deadline, options.bind_address)
    # Without TCP_NODELAY each small packet waits for the acknowledgement of the previous one: `true` took 44 ms instead
    # of 1.8 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # With TCP_USER_TIMEOUT a peer that vanished is detected even if nothing is being read.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, KEEPALIVE * 3 * 1000)
    return sock


def identity_files(options: SSHHostOptions) -> list[str]:
    """Return the private keys to try, if the files exist: ours, then those that ssh would use.

    The keys of an ssh-agent follow them (authentication.py).
    """
    paths = [Path(name).expanduser() for name in (*settings.RUNNERS_SSH_KEYS, *options.identity_files)]
    at_configured = len(settings.RUNNERS_SSH_KEYS)
    paths[at_configured:at_configured] = keys.private_keys()
    return list(dict.fromkeys(map(str, paths)))


NO_ANSWER = "no answer"
BANNER = "Error reading SSH protocol banner"


def is_hang_up(error: BaseException) -> bool:
    """Return True if the server closed the connection before or during its greeting, instead of staying silent."""
    if isinstance(error, EOFError | ConnectionResetError | BrokenPipeError):
        return True
    # paramiko wraps every error that occurs while it waits for the greeting.
    return str(error).startswith(BANNER) and not isinstance(error.__context__, TimeoutError)


def reason(error: BaseException, seconds: float) -> str:
    """Return a sentence for users instead of a Python exception."""
    if is_hang_up(error):
        return (
            "the connection was closed during the SSH greeting; the server may have too many unauthenticated "
            "connections (MaxStartups)"
        )
    if isinstance(error, bounded.NameServerSilent):
        return str(error.strerror)
    # paramiko raises these texts when the greeting does not arrive in time.
    if isinstance(error, TimeoutError) or str(error) in ("No existing session", BANNER):
        return f"{NO_ANSWER} within {seconds:.0f} s"
    if isinstance(error, socket.gaierror):
        return "its host name cannot be resolved (DNS)"
    if isinstance(error, authentication.Interrupted):
        return plain(str(error)).rstrip(".")
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError | ConnectionRefusedError):
        return "connection refused; is an SSH server running there on that port?"
    words = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
    return plain(words) or "the connection was closed"


def plain(words: str) -> str:
    """Return one printable line, because the text may contain untrusted text from the server."""
    return last_lines(words.encode(), lines=1, characters=400)
