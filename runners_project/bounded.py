"""Deadlines for operating system calls that may never return: DNS, and files of a home directory that hangs.

Neither `getaddrinfo` nor the opening of a file can be cancelled, so they are `AbandonableCalls`.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from runners_project.shared_calls import AbandonableCalls

T = TypeVar("T")

THREADS = 64  # the most calls of each kind that have not returned
FILE_TIMEOUT = 5.0  # seconds for reading files
FILE_LIMIT = 16 * 1024 * 1024  # bytes; larger files are rejected
NULL_DEVICE = os.makedev(1, 3)  # /dev/null, which `UserKnownHostsFile` often names


_NAMES, _FILES = AbandonableCalls("dns", THREADS), AbandonableCalls("files", THREADS)


class NameServerSilent(TimeoutError):
    """The resolver does not answer. The text of the error is the end of a sentence."""

    def __init__(self) -> None:
        super().__init__(errno.ETIMEDOUT, "the name server (DNS) does not answer")


Address = tuple[socket.AddressFamily, tuple[Any, ...]]  # family and address, as `socket.connect` takes them


def resolve(host: str, port: int, deadline: float) -> list[Address]:
    """Return the TCP addresses of a name, without duplicates, in the resolver's order.

    `deadline` is a time of `time.monotonic`. Raises socket.gaierror if the name is unknown or invalid, and
    NameServerSilent if the resolver does not answer in time.
    """
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            found = _NAMES.call((host, port), lambda: _getaddrinfo(host, port), max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            raise NameServerSilent from error
    else:
        found = _getaddrinfo(host, port)  # an address: no DNS query
    return list(dict.fromkeys((entry[0], tuple(entry[4])) for entry in found))


def _getaddrinfo(host: str, port: int) -> Sequence[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # the name cannot be encoded for DNS
        raise socket.gaierror(socket.EAI_NONAME, "not a valid DNS name") from error


def connect(addresses: Sequence[Address], deadline: float, bind_address: str = "") -> socket.socket:
    """Return a TCP connection to the first of the addresses that answers. Raises OSError.

    Each address gets an equal share of the time until the deadline, so that a dead one does not use up the time of the
    others. The time left after connecting becomes the socket's timeout. `bind_address`: the local address to connect
    from.
    """
    failure: OSError = TimeoutError(errno.ETIMEDOUT, "the timeout was over before the connection")
    for place, (family, address) in enumerate(addresses):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(left / (len(addresses) - place))
            if bind_address:
                sock.bind((bind_address, 0))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            sock.settimeout(max(0.1, deadline - time.monotonic()))
            return sock
    raise failure


def within_file_timeout(key: Hashable, function: Callable[[], T], timeout: float | None = None) -> T:
    """Return the result of a function that only reads files. Raises its errors, or TimeoutError after FILE_TIMEOUT."""
    return _FILES.call(key, function, FILE_TIMEOUT if timeout is None else timeout)


def read_file(path: str | Path) -> bytes:
    """Return the content of a regular file, or nothing for /dev/null. Never waits for a FIFO or a device.

    Call it within `within_file_timeout`. Raises OSError, also for other kinds of files and for files over FILE_LIMIT.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(descriptor, "rb") as stream:
        state = os.fstat(descriptor)
        if stat.S_ISCHR(state.st_mode) and state.st_rdev == NULL_DEVICE:
            return b""
        if not stat.S_ISREG(state.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        data = stream.read(FILE_LIMIT + 1)
    if len(data) > FILE_LIMIT:
        raise OSError(errno.EFBIG, f"it has more than {FILE_LIMIT} bytes", str(path))
    return data
