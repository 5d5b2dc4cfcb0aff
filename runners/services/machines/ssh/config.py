"""The options of OpenSSH's configuration for a host, as `ssh -G` prints them. connect.py uses them.

`ssh -G HOST` prints the options that ssh would use (ssh(1)). So Include, Match, tokens, several files and
CanonicalizeHostname work as in ssh. The answer is cached until one of the files changes, at most CACHED_FOR seconds.
"""

from __future__ import annotations

import errno
import glob
import logging
import os
import pwd
import re
import shlex
import socket
import subprocess
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from django.conf import settings

from runners_project import bounded

logger = logging.getLogger(__name__)

DEFAULT_SSH_PORT = 22
USER_FILE, SYSTEM_FILE = "~/.ssh/config", "/etc/ssh/ssh_config"
USER_FOLDER, SYSTEM_FOLDER = "~/.ssh", "/etc/ssh"  # base of relative paths in Include lines
MAX_INCLUDES = 16  # nested Include lines; OpenSSH's own limit
MAX_FILES = 256
MAX_FILE = 1024 * 1024  # bytes of one file
MAX_ANSWER = 256 * 1024  # bytes of what `ssh -G` prints
TIMEOUT = 5  # seconds for `ssh -G`, which may ask DNS (CanonicalizeHostname)
LOOKUP_TIMEOUT = 6.0  # seconds for a whole lookup: the files and the account may be on a network, too
CACHED_HOSTS = 1024
CACHED_FOR = 60  # seconds; for changes outside of the files: DNS, `Match localnetwork`, environment variables
NOT_SAID = "autosubmit-runners-not-said"

Stamp = tuple[str, int, int]  # path, time of the last change in ns (-1: the file is missing), size in bytes


@dataclass(frozen=True, slots=True)
class SSHHostOptions:
    """The options of one host. `hostname` is the alias itself if no file gives another name. None and (): not set.

    `problem` is a sentence if the configuration cannot be used. Connecting without the configuration could reach the
    wrong machine. `ignored` names options that ssh would use and this service does not support.
    """

    hostname: str
    port: int | None = None
    user: str | None = None
    identity_files: tuple[str, ...] = ()
    certificate_files: tuple[str, ...] = ()
    identities_only: bool = False
    identity_agent: str | None = None  # "none", or the path of a socket
    proxy_jump: str | None = None
    host_key_alias: str = ""
    user_known_hosts_files: tuple[str, ...] = ()
    global_known_hosts_files: tuple[str, ...] = ()
    revoked_host_keys: tuple[str, ...] = ()
    host_key_algorithms: tuple[str, ...] = ()
    pubkey_accepted_algorithms: tuple[str, ...] = ()
    connect_timeout: int | None = None  # seconds
    address_family: str = "any"  # or inet, inet6
    bind_address: str = ""
    ignored: tuple[str, ...] = ()
    problem: str = ""


def lookup(host: str, user: str | None = None, port: int | None = None) -> SSHHostOptions:
    """Return the options for `host`, a name or an alias, as `ssh -l USER -p PORT HOST` would use them.

    Never raises. A missing file counts as empty.
    """
    key = (config_path(), host, user, port)
    try:
        return bounded.within_file_timeout(("ssh_config", key), lambda: _lookup(key), LOOKUP_TIMEOUT)
    except TimeoutError as error:
        return _unusable(host, str(error.strerror))


_Key = tuple[str, str, str | None, int | None]  # file, host, user, port


def _lookup(key: _Key) -> SSHHostOptions:
    with _lock:
        if found := _cache.get(key):
            _cache.move_to_end(key)
    if found and found.until > time.monotonic() and all(_stamp(stamp[0]) == stamp for stamp in found.stamps):
        return found.options
    stamps: list[Stamp] = []
    try:
        options = _asked(*key[1:], stamps)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        options = _unusable(key[1], said)
    with _lock:
        _cache[key] = _Cached(options, tuple(stamps), time.monotonic() + CACHED_FOR)
        while len(_cache) > CACHED_HOSTS:
            _cache.popitem(last=False)
    return options


def _unusable(host: str, why: str) -> SSHHostOptions:
    where = config_path() or USER_FILE
    logger.error("The SSH configuration %s cannot be used for a host: %s", where, why)
    return SSHHostOptions(host, problem=f"The service's SSH configuration {where} cannot be used: {why}.")


def config_path() -> str:
    """Return the file of RUNNERS_SSH_CONFIG. Empty: ssh reads its default files, the account's and the site's."""
    return os.path.expanduser(getattr(settings, "RUNNERS_SSH_CONFIG", "") or "")


@dataclass(frozen=True, slots=True)
class _Cached:
    options: SSHHostOptions
    stamps: tuple[Stamp, ...]
    until: float


_lock = threading.Lock()
_cache: OrderedDict[_Key, _Cached] = OrderedDict()


def _asked(host: str, user: str | None, port: int | None, stamps: list[Stamp]) -> SSHHostOptions:
    """Inspect the files, then ask ssh. Raises OSError, or ValueError with a sentence."""
    path = config_path()
    for name, folder in ((path, USER_FOLDER),) if path else ((USER_FILE, USER_FOLDER), (SYSTEM_FILE, SYSTEM_FOLDER)):
        _inspect(_at_home(name), _at_home(folder), stamps)
    chosen = [*(["-l", user] if user else []), *(["-p", str(port)] if port else []), "--", host]
    # A missing file and /dev/null count as empty, but for `ssh -F` they are errors.
    file = path if not path or os.path.isfile(path) else "none"
    said = _ssh_g([*(["-F", file] if file else []), *chosen])
    options = _options(said, host)
    if not user and options.user == _account().pw_name and not _says_user(file, host, port):
        options = replace(options, user=None)
    return options


def _says_user(file: str, host: str, port: int | None) -> bool:
    """Return True if the files set User to the service's own account, which is also the default that `ssh -G` prints.

    To tell them apart, a `User` for every host is appended. ssh uses it only if no file has set User before.
    """
    if file == "none":
        return False
    files = [file] if file else [_at_home(USER_FILE), SYSTEM_FILE]
    lines = [f'Host *\nInclude "{name}"\n' for name in files if '"' not in name]
    text = "".join([*lines, f"Host *\nUser {NOT_SAID}\n"])
    said = _ssh_g(["-F", "/dev/stdin", *(["-p", str(port)] if port else []), "--", host], text)
    return ("user", NOT_SAID) not in said


def _ssh_g(arguments: list[str], text: str = "") -> list[tuple[str, str]]:
    """Return (option in lower case, value) for each line of `ssh -G`. Raises OSError, ValueError."""
    environment = dict(os.environ, LC_ALL="C")
    if not settings.RUNNERS_SSH_MATCH_EXEC:
        # ssh executes the commands of `Match exec` with $SHELL. `_inspect` has rejected such lines. This shell also
        # blocks them if a file has changed since.
        environment["SHELL"] = "/bin/false"
    try:
        done = subprocess.run(  # noqa: S603  (the host and user were validated, and follow `--` or an option)
            ["ssh", "-G", "-T", *arguments],  # noqa: S607  (which ssh, the service's PATH decides)
            input=text.encode(),
            capture_output=True,
            timeout=TIMEOUT,
            env=environment,
            cwd="/",
            check=False,
        )
    except FileNotFoundError as error:
        raise ValueError("OpenSSH's client is missing on this machine; install it (openssh-client)") from error
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"`ssh -G` did not answer within {TIMEOUT} s; does it ask a DNS server?") from error
    if done.returncode or len(done.stdout) > MAX_ANSWER:
        raise ValueError(_complaint(done.stderr))
    lines = done.stdout.decode("utf-8", "surrogateescape").splitlines()
    return [(name.lower(), value) for name, _, value in (line.partition(" ") for line in lines)]


def _complaint(stderr: bytes) -> str:
    """Return the first line that ssh printed. It names file and line."""
    text = stderr[:4096].decode("utf-8", "replace")
    lines = ["".join(c for c in line if c.isprintable()).strip(" .")[:300] for line in text.splitlines()]
    return next((line for line in lines if line), "`ssh -G` failed without a message")


def _options(said: list[tuple[str, str]], host: str) -> SSHHostOptions:
    one = dict(reversed(said))  # the first value of a repeated option wins
    hostname, port = one.get("hostname") or host, _number(one.get("port"), 65535) or DEFAULT_SSH_PORT
    user = one.get("user")
    tokens = {
        "%": "%",
        "d": _account().pw_dir,
        "h": hostname,
        "i": str(os.getuid()),
        "k": one.get("hostkeyalias") or host,
        "L": socket.gethostname().partition(".")[0],
        "n": host,
        "p": str(port),
        "r": user or "",
        "u": _account().pw_name,
    }
    ignored = [
        f"{label} {one[name]}"
        for name, label in (("pkcs11provider", "PKCS11Provider"), ("knownhostscommand", "KnownHostsCommand"))
        if _is_set(one.get(name))
    ]
    files: dict[str, list[str]] = {"identityfile": [], "certificatefile": []}
    for name, value in said:
        if name in files and value.lower() != "none":
            try:
                files[name].append(_expanded(value, tokens))
            except KeyError as error:
                ignored.append(f"{value} (the token or variable {error.args[0]} is not supported)")
    agent = one.get("identityagent")
    try:
        agent = agent and (agent if agent in ("none", "SSH_AUTH_SOCK") else _expanded(agent, tokens))
    except KeyError as error:
        agent = "none"
        ignored.append(f"IdentityAgent (the token or variable {error.args[0]} is not supported)")
    problem = next(
        (
            f"The service's SSH configuration uses {label} for {host}, which this service does not support. {remedy}"
            for name, label, remedy in UNSUPPORTED
            if _is_set(one.get(name))
        ),
        "",
    )
    return SSHHostOptions(
        hostname=hostname,
        port=port,
        user=user,
        identity_files=tuple(files["identityfile"]),
        certificate_files=tuple(files["certificatefile"]),
        identities_only=one.get("identitiesonly") == "yes",
        identity_agent=None if agent == "SSH_AUTH_SOCK" else agent,
        proxy_jump=one["proxyjump"] if _is_set(one.get("proxyjump")) else None,
        host_key_alias=one.get("hostkeyalias", ""),
        user_known_hosts_files=_paths(one.get("userknownhostsfile", "")),
        global_known_hosts_files=_paths(one.get("globalknownhostsfile", "")),
        revoked_host_keys=tuple(
            _at_home(value) for value in (one.get("revokedhostkeys"),) if value and value != "none"
        ),
        host_key_algorithms=_listed(one.get("hostkeyalgorithms")),
        pubkey_accepted_algorithms=_listed(one.get("pubkeyacceptedalgorithms")),
        connect_timeout=_number(one.get("connecttimeout"), 24 * 3600),
        address_family=one.get("addressfamily", "any"),
        bind_address=one.get("bindaddress", ""),
        ignored=tuple(ignored),
        problem=problem,
    )


# (option as `ssh -G` prints it, as people write it, remedy). Ignoring one of these would be unsafe, or would lead to
# another machine.
UNSUPPORTED = (
    ("proxycommand", "ProxyCommand", "Use ProxyJump, or `ProxyCommand none` for this host."),
    ("bindinterface", "BindInterface", "Use BindAddress instead."),
)


def _is_set(value: str | None) -> bool:
    return bool(value) and value != "none"


def _listed(value: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (value or "").split(",")))


def _number(value: str | None, most: int) -> int | None:
    if value is None or not (value.isascii() and value.isdigit() and len(value) <= 9):
        return None
    return int(value) if 1 <= int(value) <= most else None


def _paths(value: str) -> tuple[str, ...]:
    """Split a line into file names. ssh does not escape blanks inside of a name, but each name begins with `/`."""
    return tuple(path for path in re.split(r" (?=/)", value) if path and path != "none")


def _expanded(value: str, tokens: dict[str, str]) -> str:
    """Expand tokens (ssh_config(5), TOKENS), variables and `~` in a file name. Raises KeyError for an unknown one."""
    value = re.sub(r"\$\{(\w+)\}", lambda found: os.environ[found[1]], value)
    if value.startswith("$"):
        value = os.environ[value[1:]]
    value = re.sub(r"%(.)", lambda found: tokens[found[1]], value)
    return _at_home(value)


def _at_home(path: str) -> str:
    """Expand `~` as ssh does: to the home of the account, whatever $HOME is."""
    return _account().pw_dir + path[1:] if path == "~" or path.startswith("~/") else os.path.expanduser(path)


def _account() -> pwd.struct_passwd:
    """Return the service's own account. Raises ValueError if this machine does not know it: ssh then does not work."""
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError as error:
        raise ValueError(f"this machine has no account with the user id {os.getuid()}") from error


# --- The files, before ssh is asked ----------------------------------------------------------------------------------


def _inspect(path: str, folder: str, stamps: list[Stamp], depth: int = 0) -> None:
    """Record the stamps of a file and of the files that it includes.

    Raises ValueError for `Match exec`, and for too many or too deeply nested files; OSError.
    """
    if len(stamps) >= MAX_FILES:
        raise ValueError(f"it includes more than {MAX_FILES} files")
    stamps.append(_stamp(path))  # before reading, so that the next lookup notices a concurrent change
    for words in _lines(path):
        keyword, *arguments = words
        criteria = [argument.lower().removeprefix("!").partition("=")[0] for argument in arguments]
        if keyword == "match" and "exec" in criteria and not settings.RUNNERS_SSH_MATCH_EXEC:
            raise ValueError(
                f"{path} has 'Match exec', which would run a command here for each request. The setting "
                "RUNNERS_SSH_MATCH_EXEC=1 allows it"
            )
        if keyword != "include":
            continue
        if depth >= MAX_INCLUDES:
            raise ValueError("its Include lines are nested too deeply")
        for pattern in arguments:
            pattern = os.path.join(folder, _at_home(pattern))
            stamps.append(_stamp(os.path.dirname(pattern)))  # a new or deleted file changes it
            for name in sorted(glob.glob(pattern)):
                _inspect(name, folder, stamps, depth + 1)


def _lines(path: str) -> Iterator[list[str]]:
    """Yield the words of each Match and Include line, the keyword in lower case. A missing file has no lines."""
    try:
        content = bounded.read_file(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ValueError(f"{path} is not a file") from error
    if len(content) > MAX_FILE:
        raise ValueError(f"{path} has more than {MAX_FILE} bytes")
    for line in os.fsdecode(content).splitlines():
        line = line.strip()
        if not re.match(r'"?(match|include)\b', line, re.IGNORECASE):
            continue
        try:
            words = shlex.split(line.replace("=", " ", 1), comments=False, posix=True)
        except ValueError:
            words = line.replace('"', " ").replace("'", " ").replace("=", " ").split()
        yield [words[0].lower(), *words[1:]]


def _stamp(path: str) -> Stamp:
    try:
        state = os.stat(path)
    except OSError:
        return (path, -1, -1)
    return (path, state.st_mtime_ns, state.st_size)
