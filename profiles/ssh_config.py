"""What `~/.ssh/config` of the service's account says about a host. Connecting is done in `runners.services`."""

from __future__ import annotations

import glob
import logging
import os
import shlex
import threading
from dataclasses import dataclass
from pathlib import Path

import paramiko
from django.conf import settings
from paramiko.ssh_exception import SSHException

logger = logging.getLogger(__name__)

MAX_INCLUDES = 16  # nested Include lines; OpenSSH's own limit

Stamp = tuple[str, int, int]  # path, time of the last change in ns (-1: not there), size


@dataclass(frozen=True, slots=True)
class SSHHostOptions:
    """The options of one host. `hostname` is the alias itself when the file does not say; None and () mean "not said".

    `problem` is a sentence when the file cannot be used: connecting without it could end on another machine than meant.
    """

    hostname: str
    port: int | None = None
    user: str | None = None
    identity_files: tuple[str, ...] = ()
    proxy_jump: str | None = None
    user_known_hosts_files: tuple[str, ...] = ()
    problem: str = ""


def config_path() -> Path:
    return Path(os.path.expanduser(getattr(settings, "RUNNERS_SSH_CONFIG", "") or "~/.ssh/config"))


def lookup(host: str) -> SSHHostOptions:
    """The options for `host`, a name or an alias. Never raises; a missing file says nothing about any host."""
    path = config_path()
    try:
        found = _cached(path).lookup(host)
        jump = found.get("proxyjump", "none")
        return SSHHostOptions(
            hostname=found.get("hostname") or host,
            port=_port(found.get("port")),
            user=found.get("user"),
            identity_files=tuple(os.path.expanduser(name) for name in found.get("identityfile", ())),
            proxy_jump=None if jump.lower() == "none" else jump,
            user_known_hosts_files=tuple(
                os.path.expanduser(name)
                for name in shlex.split(found.get("userknownhostsfile", ""))
                if name.lower() != "none"
            ),
        )
    except (SSHException, OSError, ValueError, KeyError) as error:
        # KeyError and ValueError come from paramiko, too, for canonicalization with incomplete options.
        logger.error("The SSH configuration %s cannot be used: %s", path, error)
        return SSHHostOptions(hostname=host, problem=f"The service's SSH configuration {path} cannot be used: {error}.")


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError(f"'Port {text[:20]}' is no port")
    return int(text)


_lock = threading.Lock()
_cache: tuple[Path, tuple[Stamp, ...], paramiko.SSHConfig] | None = None


def _cached(path: Path) -> paramiko.SSHConfig:
    """The parsed file, read again when it, or a file that it includes, has changed."""
    global _cache
    with _lock:
        if _cache and _cache[0] == path and all(_stamp(stamp[0]) == stamp for stamp in _cache[1]):
            return _cache[2]
        stamps: list[Stamp] = []
        config = paramiko.SSHConfig.from_text("\n".join(_lines(path, stamps)))
        _cache = (path, tuple(stamps), config)
        return config


def _stamp(path: str) -> Stamp:
    try:
        state = os.stat(path)
    except FileNotFoundError:
        return (path, -1, -1)
    return (path, state.st_mtime_ns, state.st_size)


def _lines(path: Path, stamps: list[Stamp], depth: int = 0) -> list[str]:
    """The lines of a file with those of its Include lines in their place, because paramiko passes over Include.

    After an included file the block goes on that it stood in. One difference to OpenSSH: a Host block of a file that is
    included inside another Host block counts always.
    """
    stamps.append(_stamp(str(path)))  # before reading: a change in between is then seen the next time
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return []
    lines: list[str] = []
    block = "Host *"
    for line in text.splitlines():
        word, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if word.lower() in ("host", "match"):
            block = line
        if word.lower() == "match" and "exec" in rest.lower().split():
            raise ValueError("it has 'Match exec', which would run a command here for each request")
        if word.lower() != "include":
            lines.append(line)
            continue
        if depth >= MAX_INCLUDES:
            raise ValueError("its Include lines are nested too deeply")
        for pattern in shlex.split(rest):
            pattern = os.path.join(os.path.expanduser("~/.ssh"), os.path.expanduser(pattern))
            stamps.append(_stamp(os.path.dirname(pattern)))  # a file that comes or goes changes its directory
            for name in sorted(glob.glob(pattern)):
                lines += ["Host *", *_lines(Path(name), stamps, depth + 1)]
        lines.append(block)
    return lines
