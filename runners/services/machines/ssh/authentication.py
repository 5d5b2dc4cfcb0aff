"""Log in over SSH with the service's keys, by public key only, within a deadline.

paramiko's own method (`SSHClient._auth`) restarts the timeout for each key, waits for an ssh-agent without a limit,
asks for a second factor on the service's standard input, and reports the last key's error instead of the cause.
"""

# mypy: disable-error-code="attr-defined"
# types-paramiko leaves out the private members that are used here.

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.agent import AgentSSH
from paramiko.pkey import PublicBlob

from runners import printable
from runners.services.machines.ssh.certificates import RSA_SIGNATURES, SUFFIX, BadCertificate, Certificate, key_bytes
from runners.services.machines.ssh.config import SSHHostOptions
from runners_project import bounded

AGENT_TIMEOUT = 3.0  # seconds for one answer of the ssh-agent
AGENT_ANSWER = 1024 * 1024  # bytes of one answer of the ssh-agent


class KeysRejected(paramiko.AuthenticationException):
    """The server accepted none of the keys. The text is a sentence for users, or empty."""


class NoKeys(paramiko.AuthenticationException):
    """There is no key to offer. The text is a sentence for users, or empty."""


class AccountRefused(paramiko.AuthenticationException):
    """The server ended the connection instead of letting the account in, and told people why. The text is its own."""


class Interrupted(paramiko.SSHException):
    """The connection ended while the keys were offered."""


class SecondFactor(paramiko.AuthenticationException):
    """The server accepted a key and asks for another factor. The text names the methods that it offers."""


class Client(paramiko.SSHClient):
    """A client whose authentication ends by `deadline` (of `time.monotonic`)."""

    def __init__(self, deadline: float, options: SSHHostOptions, signed: Sequence[paramiko.PKey] = ()) -> None:
        """`options` define the ssh-agent, the certificates and which keys may be used.

        `signed`: keys with certificates of the user CA, which are offered first.
        """
        super().__init__()
        self.deadline = deadline
        self.options = options
        self.signed = signed
        self.accepted: paramiko.PKey | None = None

    @property
    def has_certificate(self) -> bool:
        """Return True if the server has accepted a certificate of the user CA."""
        return any(key is self.accepted for key in self.signed)

    def _auth(  # called by `connect`
        self,
        username: str,
        password: object,
        pkey: object,
        key_filenames: list[str],
        allow_agent: bool,
        look_for_keys: bool,
        passphrase: object,
    ) -> None:
        transport = self.get_transport()
        assert transport
        self.accepted = authenticate(transport, username, key_filenames, self.options, self.deadline, self.signed)


def authenticate(
    transport: paramiko.Transport,
    username: str,
    files: list[str],
    options: SSHHostOptions,
    deadline: float,
    signed: Sequence[paramiko.PKey] = (),
) -> paramiko.PKey:
    """Offer `signed`, the keys of `files` and of the ssh-agent, each certificate and key once, until one is accepted.

    Return the accepted one. Raises KeysRejected, AccountRefused, NoKeys, Interrupted, SecondFactor, TimeoutError.
    """
    agent = Agent(agent_path(options), deadline)
    shown: set[bytes] = set()
    problems: list[str] = []
    try:
        for key in chain(signed, _keys(files, options, agent, problems)):
            offered = offered_bytes(key)
            if offered in shown or not _is_accepted(key, options):  # servers count rejected keys
                continue
            shown.add(offered)
            more = _show(transport, username, key, deadline, len(shown))
            if more is None:
                continue
            if more:
                raise SecondFactor(", ".join(more))
            return key
    except (TimeoutError, Interrupted) as error:
        if agent.problem:  # the agent did not sign in time
            raise Interrupted(agent.problem) from error
        raise
    finally:
        agent.close()
    problems += [agent.problem] if agent.problem else []
    if shown and (said := said_by(transport)):
        problems.append(f"The server says: {said}")
    raise (KeysRejected if shown else NoKeys)(" ".join(problems))


def _show(
    transport: paramiko.Transport, username: str, key: paramiko.PKey, deadline: float, number: int
) -> list[str] | None:
    """Offer one key. Return None if it was rejected, else the further methods that the server requires (normally none).

    Raises KeysRejected, AccountRefused, Interrupted, TimeoutError.
    """
    transport.auth_timeout = deadline - time.monotonic()
    if transport.auth_timeout <= 0:
        raise TimeoutError
    try:
        return list(transport.auth_publickey(username, key))
    except paramiko.BadAuthenticationType as error:  # the server accepts no keys at all
        offered = ", ".join(error.allowed_types)
        raise KeysRejected(f"It does not accept public keys for {username}, only {offered}.") from error
    except paramiko.AuthenticationException as error:
        if time.monotonic() >= deadline:
            raise TimeoutError from error
        if not transport.is_active():
            raise _closed(transport, number) from error
        return None
    except (paramiko.SSHException, EOFError, OSError) as error:
        if isinstance(error, TimeoutError) or time.monotonic() >= deadline:
            raise TimeoutError from error
        if transport.is_active():  # this key cannot be used with this server
            return None
        raise _closed(transport, number) from error


def _closed(transport: paramiko.Transport, number: int) -> paramiko.SSHException:
    """Return the error for a server that ended the connection when it had been shown `number` keys.

    sshd sends a reason when it ends a connection because of too many keys. If PAM does not let the account in
    (maintenance, an expired account), sshd sends PAM's text as a banner and closes the connection without a reason.
    """
    reason = one_line(getattr(transport, "disconnect_reason", ""))
    if not reason and (said := said_by(transport)):
        return AccountRefused(said)
    why = f" ({reason})" if reason else ""
    return Interrupted(
        f"the connection was closed after {number} keys were shown{why}; the server may allow fewer (MaxAuthTries)"
    )


def said_by(transport: paramiko.Transport) -> str:
    """Return what the server said to people during the login, as one line; empty if it said nothing."""
    return one_line(getattr(transport, "banner", ""))


def one_line(words: str) -> str:
    return printable.line(" ".join(words.split()))


def agent_path(options: SSHHostOptions) -> str:
    """Return the socket of the ssh-agent; empty if there is none."""
    if options.identity_agent == "none":
        return ""
    return options.identity_agent or os.environ.get("SSH_AUTH_SOCK", "")


def offered_bytes(key: paramiko.PKey) -> bytes:
    """Return the part of a key that is sent to the server: its certificate, if it has one, else its public half."""
    return key.public_blob.key_blob if key.public_blob else key.asbytes()


def _is_accepted(key: paramiko.PKey, options: SSHHostOptions) -> bool:
    """Return True if PubkeyAcceptedAlgorithms allows the key. RSA keys sign with the algorithms of `RSA_SIGNATURES`."""
    accepted = options.pubkey_accepted_algorithms
    suffix = SUFFIX if key.public_blob else ""
    names = RSA_SIGNATURES if key.get_name() == "ssh-rsa" else (key.get_name(),)
    return not accepted or any(f"{name}{suffix}" in accepted for name in names)


def _keys(files: list[str], options: SSHHostOptions, agent: Agent, problems: list[str]) -> Iterator[paramiko.PKey]:
    """Yield the keys to offer, each after its certificates. Add to `problems` why a key cannot be used.

    With IdentitiesOnly, a key of the ssh-agent is used only if a file contains its public half.
    """
    certificates = [blob for name in options.certificate_files for blob in _certificate(name, problems)]
    of_files: set[bytes] = set()
    for name in files:
        found: list[paramiko.PKey] = []
        with suppress(FileNotFoundError):
            found = _from_file(name, problems)
        for key in found:
            of_files.add(key.asbytes())
            yield from _with_certificates(key, certificates, problems)
        if options.identities_only:
            of_files |= _public_half(name)
    for key in agent.get_keys():
        if not options.identities_only or key.asbytes() in of_files:
            yield from _with_certificates(key, certificates, problems)


def _with_certificates(key: Any, certificates: list[PublicBlob], problems: list[str]) -> Iterator[Any]:
    """Yield the key with its own certificate, with each of `certificates` that belongs to it, and without one.

    A server that rejects an expired certificate may still accept the key. Its clock decides, so a certificate that has
    expired by ours is offered, too.
    """
    own = [key.public_blob] if key.public_blob else []
    for blob in [*own, *(blob for blob in certificates if _is_of(blob, key))]:
        key.public_blob = blob
        yield key
        if words := _why_not_valid(blob):
            problems.append(words)
    key.public_blob = None
    yield key


def _why_not_valid(blob: PublicBlob) -> str:
    """Return a sentence if a certificate is not valid now, else an empty text. A wrong signature is not noticed."""
    try:
        certificate = Certificate.from_blob(blob.key_blob)
        certificate.check_time()
    except BadCertificate as error:
        return f"The certificate {one_line(blob.comment or '')} {error}: renew it.".replace("  ", " ")
    return ""


def _is_of(blob: PublicBlob, key: paramiko.PKey) -> bool:
    try:
        certificate = Certificate.from_blob(blob.key_blob).certificate
    except BadCertificate:
        return False
    return key_bytes(certificate.public_key()) == key.asbytes()


def _certificate(name: str, problems: list[str]) -> list[PublicBlob]:
    try:
        text = bounded.within_file_timeout(("key", name), lambda: bounded.read_file(name)).decode()
        return [PublicBlob.from_string(text.strip())]
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it does not contain a certificate"
        problems.append(f"The certificate {name} cannot be used: {why}.")
        return []


def _public_half(name: str) -> set[bytes]:
    """Return the key in `NAME.pub`. ssh also uses a key of the agent if only its public half exists as a file."""
    try:
        text = bounded.within_file_timeout(("key", f"{name}.pub"), lambda: bounded.read_file(f"{name}.pub")).decode()
        return {bytes(PublicBlob.from_string(text.strip()).key_blob)}
    except (OSError, ValueError):
        return set()


def _from_file(name: str, problems: list[str]) -> list[paramiko.PKey]:
    path = os.path.expanduser(name)
    try:
        return [bounded.within_file_timeout(("key", path), lambda: _load(path))]
    except FileNotFoundError:
        raise
    except paramiko.PasswordRequiredException:
        problems.append(f"The key {name} is protected by a passphrase. Use an ssh-agent for it.")
    except OSError as error:
        problems.append(f"The key {name} cannot be read: {error.strerror or error}.")
    except (paramiko.SSHException, paramiko.pkey.UnknownKeyType, UnsupportedAlgorithm, ValueError):
        problems.append(f"The file {name} does not contain a private key of a supported type (ed25519, ecdsa, rsa).")
    return []


def _load(path: str) -> paramiko.PKey:
    bounded.read_file(path)  # check that it is a regular file, which cannot block paramiko
    if path.endswith("-cert.pub"):
        bounded.read_file(path.removesuffix("-cert.pub"))
    try:
        return paramiko.PKey.from_path(Path(path))
    except TypeError as error:  # cryptography raises it for a key with a passphrase
        raise paramiko.PasswordRequiredException from error


class Agent(AgentSSH):
    """The ssh-agent at a socket. It is asked for its keys only when they are needed. Each answer has a deadline."""

    def __init__(self, path: str, deadline: float) -> None:
        """`path`: empty if there is no agent."""
        super().__init__()
        self._path = path
        self._deadline = deadline
        self.problem = ""  # a sentence, once it has failed

    def get_keys(self) -> tuple[Any, ...]:
        """Return the agent's keys. Return none if there is no agent, or if it fails; `problem` then says why."""
        if not self._path:
            return ()
        try:
            self._connect(_AgentSocket(self._path, self))
        except (OSError, paramiko.SSHException, UnicodeError) as error:
            self.tell(error)
            return ()
        return tuple(super().get_keys())

    def tell(self, error: Exception) -> None:
        """Store in `problem` why the agent cannot be used. Only the first cause is kept."""
        if self.problem:
            return
        is_late = isinstance(error, TimeoutError)
        why = f"does not answer within {AGENT_TIMEOUT:g} s" if is_late else "cannot be asked"
        self.problem = f"The ssh-agent of the service ({self._path}) {why}, so its keys were not used."

    def left(self) -> float:
        """Return the seconds that are left for the next answer."""
        return max(0.01, min(AGENT_TIMEOUT, self._deadline - time.monotonic()))

    def close(self) -> None:
        self._close()


class _AgentSocket:
    """The connection to an agent as AgentSSH uses it: `send`, `recv`, `close`. Each answer has one deadline."""

    def __init__(self, path: str, agent: Agent) -> None:
        self._agent = agent
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(agent.left())
        try:
            self._socket.connect(path)
        except (OSError, UnicodeError):
            self._socket.close()
            raise
        self._answer_by = 0.0

    def send(self, data: bytes) -> None:
        self._answer_by = time.monotonic() + self._agent.left()
        self._within(lambda: self._socket.sendall(data))

    def recv(self, count: int) -> bytes:
        if count > AGENT_ANSWER:
            raise paramiko.SSHException("the answer of the ssh-agent is too long")
        return self._within(lambda: self._socket.recv(count))

    def _within(self, step: Any) -> Any:
        try:
            self._socket.settimeout(max(0.01, self._answer_by - time.monotonic()))
            if time.monotonic() > self._answer_by:
                raise TimeoutError
            return step()
        except OSError as error:
            self._agent.tell(error)
            # paramiko's thread asks for signatures. An OSError with one argument would end this thread silently.
            raise paramiko.SSHException("the ssh-agent does not answer") from error

    def close(self) -> None:
        self._socket.close()
