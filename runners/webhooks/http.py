"""Send one message to one receiver, and only to addresses that the rules allow.

The address is checked after the name was resolved, and the connection goes to this same address. So a change of DNS in
between has no effect. Redirects are not followed, proxies are not used, and one deadline bounds everything.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

from runners import printable
from runners.services.machines import answers
from runners.services.machines.output import plain_text
from runners_project import bounded

TIMEOUT = 15.0  # seconds for one message
RETRY_AFTER_MOST = 10**9  # seconds
ANSWER_LIMIT = 500  # bytes of a response that are read, to explain a failure

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# All of the public IPv6 internet. Other addresses may lead into this network, or to IPv4 addresses that we cannot see
# (64:ff9b:1::/48, ::ffff:0:0:0/96, ::/96, fec0::/10), although Python's is_global may return True for them.
_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class NotSent(Exception):
    """There was no response; the text says why. The receiver may have read the message."""


@dataclass(frozen=True, slots=True)
class Response:
    """The response of a receiver.

    `retry_after`: seconds that the receiver asks for; None: none. `text`: the beginning of the body, if the receiver
    rejected the message.
    """

    status: int
    retry_after: int | None
    text: str

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout: float = TIMEOUT) -> Response:
    """POST `body` and return the response. Raises NotSent."""
    parts = urlsplit(url)
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    try:
        deadline = time.monotonic() + timeout
        addresses = allowed_addresses(host, parts.port or (443 if is_tls else 80), deadline)
        stream = bounded.connect(addresses, deadline)
        if is_tls:  # the handshake reads from the socket, so do it later, with the watchdog running
            context = ssl.create_default_context()
            stream = context.wrap_socket(stream, server_hostname=host, do_handshake_on_connect=False)
    except (OSError, ValueError) as error:  # ValueError: an invalid port or name
        raise NotSent(_reason(error)) from error
    # Socket timeouts apply to each read, so a receiver that sends a byte now and then would block us for ever.
    watchdog = threading.Timer(max(0, deadline - time.monotonic()), _cut, [stream])
    watchdog.daemon = True
    watchdog.start()
    try:
        if isinstance(stream, ssl.SSLSocket):
            stream.do_handshake()
        return _converse(stream, url, body, headers, is_tls=is_tls)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= deadline:
            raise NotSent(f"no answer within {timeout:g} s") from error
        raise NotSent(_reason(error)) from error
    finally:
        watchdog.cancel()
        stream.close()


def allowed_addresses(host: str, port: int, deadline: float) -> list[bounded.Address]:
    """Return the addresses of `host` that are allowed. `deadline` is a time of `time.monotonic`.

    Raises PermissionError, which names the addresses and the setting, if no address is allowed; OSError if the name
    cannot be resolved.
    """
    found = bounded.resolve(host, port, deadline)
    addresses = list(dict.fromkeys(str(address[0]) for _, address in found))
    allowed = [(family, address) for family, address in found if is_allowed(str(address[0]))]
    if not allowed:
        raise PermissionError(
            f"{host} is at {', '.join(addresses)}, which is not a public address. To allow your own receiver, add it "
            f"to the setting RUNNERS_WEBHOOK_PRIVATE_TARGETS."
        )
    return allowed


def is_allowed(address: str) -> bool:
    """Return True if messages may go to this IP address: it is public, or in RUNNERS_WEBHOOK_PRIVATE_TARGETS."""
    ip = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
    if any(ip in network for network in settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS):
        return True
    return ip.is_global and not ip.is_multicast and (ip.version == 4 or ip in _PUBLIC_IPV6)


def _unwrapped(ip: IPAddress) -> IPAddress:
    """Return the IPv4 address embedded in an IPv6 address, if any. Otherwise an IPv6 form could hide 127.0.0.1."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
    if inner is None and ip in _NAT64:
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return inner or ip


def _converse(stream: socket.socket, url: str, body: bytes, headers: Mapping[str, str], *, is_tls: bool) -> Response:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port)
    connection.sock = stream  # already connected to the address that was checked
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("POST", path, body, dict(headers))
    answer = connection.getresponse()
    is_refused = not 200 <= answer.status < 300
    text = plain_text(answer.read(ANSWER_LIMIT)) if is_refused else ""
    wait = answer.headers.get("Retry-After", "").strip()
    try:
        seconds = answers.integer(wait, 0, RETRY_AFTER_MOST)
    except answers.Unreadable:  # the header is absent or a date; ignore it
        seconds = None
    return Response(answer.status, seconds, printable.text(text.strip()))


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):
        # Do not call SSLSocket.shutdown: it removes the TLS state while another thread reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _reason(error: BaseException) -> str:
    """Return a sentence for users instead of a Python exception."""
    if isinstance(error, socket.gaierror):
        return "its host name cannot be resolved (DNS)"
    if isinstance(error, bounded.NameServerSilent):
        return str(error.strerror)
    if isinstance(error, TimeoutError):
        return "connection timed out"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
