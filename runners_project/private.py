"""Keep the files of the service private: files have mode 0600 and directories 0700 from the start.

Importing this module sets the umask of the process to 077. The settings import it first, so every entry point
(manage.py, gunicorn, a script that calls django.setup()) sets the umask before it can create a file. An SQLite
database, its WAL and its journal then have mode 0600, whatever the umask of the account.

Commands of LOCAL profiles belong to the account. They get the umask that the process started with (ACCOUNT_UMASK).
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

UMASK = 0o077
ACCOUNT_UMASK = os.umask(UMASK)  # read once: a second import does not execute this line
SQLITE_SUFFIXES = ("", "-wal", "-shm", "-journal")


class ForeignFile(Exception):
    """Another account could read or replace a file of the service, and the service cannot correct that."""


def make_directory(path: Path) -> Path:
    """Create a directory and its missing parents with mode 0700, or tighten an existing one. Raises ForeignFile."""
    missing = [path, *path.parents]
    for folder in reversed(missing[: next((i for i, each in enumerate(missing) if each.exists()), len(missing))]):
        folder.mkdir(mode=0o700, exist_ok=True)
    tighten(path)
    return path


def write(path: Path, text: str) -> None:
    """Write a text file with mode 0600. An existing file is tightened before the write. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # not /dev/stdout, not a pipe
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, 0)
        stream.write(text)


def tighten(path: Path) -> str:
    """Remove the permissions of group and others from a file or directory of the service.

    Return a sentence about the change; "" if there was nothing to change, or the file does not exist. Raises
    ForeignFile if the file belongs to another account, because its owner can read and change it at any time.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except PermissionError as error:
        raise ForeignFile(
            f"{path} cannot be checked: {error.strerror}. Change its owner to {_name(os.geteuid())}."
        ) from None
    if found.st_uid != os.geteuid():
        me = _name(os.geteuid())
        raise ForeignFile(
            f"{path} belongs to {_name(found.st_uid)}, who can read and change it, but the service runs as {me}. "
            f"Run the service as {_name(found.st_uid)}, or change the owner of the file to {me}: chown {me} {path}"
        )
    mode = stat.S_IMODE(found.st_mode)
    if not mode & 0o077:
        return ""
    path.chmod(mode & ~0o077)
    return f"{path} had mode {mode:04o}, so other accounts could use it. Its mode is now {mode & ~0o077:04o}."


def tighten_all(paths: Iterable[Path]) -> list[str]:
    """Call `tighten` for each path. Return the sentences about changes. Raises ForeignFile."""
    return [words for path in paths if (words := tighten(path))]


def require_safe_parent(path: Path) -> None:
    """Raise ForeignFile if every account can replace `path`, because its directory is world-writable."""
    try:
        mode = path.parent.stat().st_mode
    except OSError:
        return
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise ForeignFile(
            f"Every account can replace {path}, because all accounts may write into {path.parent}. Correct this: "
            f"chmod o-w {path.parent}"
        )


def database_files(name: str) -> list[Path]:
    """Return the paths of an SQLite database, whether they exist or not; none for a database in memory."""
    if not name or name == ":memory:" or name.startswith("file:"):
        return []
    return [Path(f"{name}{suffix}") for suffix in SQLITE_SUFFIXES]


def files_in(folder: Path) -> Iterator[Path]:
    """Yield a directory and its files, if it exists. Everybody may read the public halves of keys, so skip them."""
    if folder.is_dir():
        yield folder
        yield from (path for path in sorted(folder.iterdir()) if path.suffix != ".pub" and path.is_file())


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
