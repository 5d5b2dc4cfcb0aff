"""The tokens that `asr login` stores: one for each service, in a file that only the person can read.

The file is written to a new file beside it and renamed, so that a reader never sees a part of it. The client follows no
symbolic link, and does not use a file that belongs to somebody else or that others can read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import tempfile
import time
from typing import Any, Iterator

from runners.cli.errors import Exit, Problem
from runners.cli.settings import folder

LARGEST_FILE = 1_048_576  # bytes
LOCK_SECONDS = 10  # how long a second login waits for the first


def path() -> str:
    """Return the path of the file."""
    return os.path.join(folder(), "tokens.json")


def load() -> dict[str, Any]:
    """Return `{"last": URL, "tokens": {URL: {"token", "username", "expires"}}}`. Raises Problem."""
    empty: dict[str, Any] = {"last": "", "tokens": {}}
    name = path()
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return empty
    except OSError as error:
        words = "is a symbolic link. Remove it" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise Problem(Exit.USAGE, f"{name} {words}.") from None
    with open(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
            raise Problem(Exit.USAGE, f"{name} is not a file of yours. Remove it, and log in again.")
        if stat.S_IMODE(facts.st_mode) & 0o077:
            raise Problem(
                Exit.USAGE,
                f"Others can read {name}, which holds your tokens. Revoke them, and run: chmod 600 {name}",
            )
        data = file.read(LARGEST_FILE + 1)
    try:
        found = json.loads(data)
        tokens = found["tokens"]
        is_valid = isinstance(found["last"], str) and isinstance(tokens, dict)
        is_valid = is_valid and all(isinstance(each["token"], str) for each in tokens.values())
    except (ValueError, KeyError, TypeError, RecursionError):
        is_valid = False
    if not is_valid or len(data) > LARGEST_FILE:
        raise Problem(Exit.USAGE, f"{name} is damaged. Remove it, and log in again.")
    return {"last": found["last"], "tokens": tokens}


def store(url: str, entry: dict[str, Any]) -> None:
    """Store the token of a service. Raises Problem."""
    with _locked():
        found = load()
        found["tokens"][url] = entry
        found["last"] = url
        _write(found)


def remove(url: str) -> dict[str, Any] | None:
    """Remove the token of a service. Return what was stored; None if nothing was. Raises Problem."""
    with _locked():
        found = load()
        entry: dict[str, Any] | None = found["tokens"].pop(url, None)
        if entry is not None:
            _write(found)
    return entry


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Let one process at a time change the file. Make its directory, with mode 0700. Raises Problem."""
    place = folder()
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(place, 0o700)
        facts = os.stat(place)
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o022:
            raise Problem(Exit.USAGE, f"{place} must be a directory of yours that nobody else can write to.")
        lock = os.open(os.path.join(place, ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Problem(Exit.USAGE, f"The token cannot be stored in {place}: {error.strerror}.") from None
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Problem(Exit.USAGE, f"Another process changes {path()}. Try again.") from None
                time.sleep(0.1)
            except OSError:  # a file system without locks: the rename is still atomic
                break
        yield
    finally:
        os.close(lock)


def _write(found: dict[str, Any]) -> None:
    """Replace the file. Raises Problem."""
    name = path()
    try:
        if os.path.islink(name):
            raise Problem(Exit.USAGE, f"{name} is a symbolic link. Remove it.")
        descriptor, temporary = tempfile.mkstemp(prefix=".tokens-", dir=os.path.dirname(name))  # mode 0600
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                json.dump(found, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise Problem(Exit.USAGE, f"{name} cannot be written: {error.strerror}.") from None
