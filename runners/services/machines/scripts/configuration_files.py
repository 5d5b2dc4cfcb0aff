"""List, read and replace the configuration files of an experiment. This file runs on the machine: see
`scripts.configuration_files`.

It needs Python 3.6 and the standard library only. Each component of a path is opened by itself, without following
links, relative to its folder that is already open. So nobody can lead it out of the folder `conf` of the experiment,
not even by replacing a folder meanwhile.

The request is the first argument, as JSON; a new content is the standard input. The answer is one line: the mark of the
request and an object in JSON.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import json
import os
import re
import stat
import sys
import time
from typing import Any

from runners.services.machines.scripts.autosubmitrc import autosubmit_configuration, experiments_root

COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
SUFFIXES = (".yml", ".yaml", ".conf")
MOST_DEPTH = 4  # components of a path below conf
MOST_FILES = 500
MOST_NAMES = 10000  # names of one folder that are looked at
TEMPORARY = re.compile(r"\.autosubmit-runners-[0-9a-f]{16}\.tmp")
STALE = 600  # seconds after which a temporary file belongs to no writer any more
LOCK_PATIENCE = 2.0  # seconds
VERSION = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{16}")
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Problem(Exception):
    """The request cannot be fulfilled. The arguments: a word for the service, a sentence, further members."""


def folder(name: str, at: int | None = None) -> int:
    """Open a folder, and no link."""
    return os.open(name, FOLDER, dir_fd=at)


def experiment_of(expid: str) -> int:
    # The program is executed in the directory of all runs, like Autosubmit's commands.
    try:
        where = experiments_root(autosubmit_configuration(".", os.environ.get("AUTOSUBMIT_CONFIGURATION") or ""))
    except OSError as error:
        raise Problem(
            "no_experiment", "Autosubmit's configuration file cannot be read: %s." % (error.strerror or error)
        )
    try:
        top = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Problem("no_experiment", "%s cannot be opened: %s." % (where, error.strerror))
    try:
        return folder(expid, top)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Problem("rejected", "%s/%s is a link or no folder. Links are not followed." % (where, expid))
        raise Problem("no_experiment", "%s/%s: %s." % (where, expid, error.strerror))


def conf_of(experiment: int) -> int:
    try:
        return folder("conf", experiment)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Problem("rejected", "conf is a link or no folder. Links are not followed.")
        raise Problem("no_file", "The folder conf of the experiment: %s." % error.strerror)


def place_of(conf: int, path: str) -> tuple[int, str]:
    """Return the open folder of a file, and its name there."""
    parts = path.split("/")
    if len(parts) > MOST_DEPTH or not all(COMPONENT.fullmatch(part) for part in parts):
        raise Problem("rejected", "This path is not accepted.")
    here = conf
    for part in parts[:-1]:
        try:
            here = folder(part, here)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise Problem("rejected", "%s is a link or no folder. Links are not followed." % part)
            raise Problem("no_file", "%s: %s." % (part, error.strerror))
    return here, parts[-1]


def content_of(at: int, name: str, most: int) -> tuple[bytes, os.stat_result]:
    """Return the content of a regular file, and its status. A FIFO or a device is never read."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=at)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Problem("rejected", "It is a link. Links are not followed.")
        if error.errno == errno.ENOENT:
            raise Problem("no_file", "It does not exist.")
        raise Problem("rejected", "It cannot be read: %s." % error.strerror)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise Problem("rejected", "It is not a regular file.")
        data = b""
        while len(data) <= most:
            part = os.read(file, most + 1 - len(data))
            if not part:
                break
            data += part
    finally:
        os.close(file)
    if len(data) > most:
        raise Problem("rejected", "It is larger than %d bytes." % most)
    return data, status


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fields_of(path: str, status: os.stat_result) -> dict[str, Any]:
    return {
        "path": path,
        "size": status.st_size,
        "modified": int(status.st_mtime),
        "mode": stat.S_IMODE(status.st_mode),
    }


# --- reading ---


def answer_list(request: dict[str, Any], experiment: int) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    left = [0]

    def look(at: int, prefix: str, depth: int) -> None:
        names = sorted(os.listdir(at)[:MOST_NAMES])
        for name in names:
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            is_folder = stat.S_ISDIR(status.st_mode)
            is_file = stat.S_ISREG(status.st_mode) and name.endswith(SUFFIXES)
            if not COMPONENT.fullmatch(name) or not (is_folder or is_file) or (is_folder and depth == MOST_DEPTH):
                left[0] += not name.startswith(".autosubmit-runners")
            elif is_file:
                if len(found) == MOST_FILES:
                    left[0] += 1
                else:
                    found.append(fields_of(prefix + name, status))
            else:
                try:
                    inner = folder(name, at)
                except OSError:  # replaced meanwhile, or not readable
                    left[0] += 1
                    continue
                look(inner, prefix + name + "/", depth + 1)
                os.close(inner)

    look(conf_of(experiment), "", 1)
    return {"files": found, "others": left[0]}


def answer_read(request: dict[str, Any], experiment: int) -> dict[str, Any]:
    conf = conf_of(experiment)
    if request["version"]:
        data, status = former(conf, request["path"], request["version"], request["most"])
    else:
        at, name = place_of(conf, request["path"])
        data, status = content_of(at, name, request["most"])
    return dict(fields_of(request["path"], status), digest=digest_of(data), content=encoded(data))


# --- former versions ---


def store_of(conf: int, is_made: bool = False) -> int | None:
    """Return the open folder of the former versions that this account has kept; None if there is none."""
    name = ".autosubmit-runners.%d" % os.geteuid()  # of each account its own, so that no other one can read them
    if is_made:
        try:
            os.mkdir(name, 0o700, dir_fd=conf)
        except FileExistsError:
            pass
    try:
        store = folder(name, conf)
    except FileNotFoundError:
        return None
    status = os.fstat(store)
    if status.st_uid != os.geteuid():
        raise Problem("rejected", "conf/%s belongs to another account." % name)
    if stat.S_IMODE(status.st_mode) != 0o700:
        os.fchmod(store, 0o700)
    return store


def prefix_of(path: str) -> str:
    return path.replace("/", "%") + "."  # a path has no percent sign


def versions_of(store: int, path: str) -> list[str]:
    """Return the names of the versions of a file, the newest first."""
    prefix = prefix_of(path)
    names = (name for name in os.listdir(store) if name.startswith(prefix))
    return sorted((name[len(prefix) :] for name in names if VERSION.fullmatch(name[len(prefix) :])), reverse=True)


def former(conf: int, path: str, version: str, most: int) -> tuple[bytes, os.stat_result]:
    store = store_of(conf)
    if store is None or not VERSION.fullmatch(version):
        raise Problem("no_file", "There is no such version.")
    return content_of(store, prefix_of(path) + version, most)


def answer_versions(request: dict[str, Any], experiment: int) -> dict[str, Any]:
    store = store_of(conf_of(experiment))
    found: list[dict[str, Any]] = []
    for version in versions_of(store, request["path"]) if store is not None else []:
        status = os.stat(prefix_of(request["path"]) + version, dir_fd=store, follow_symlinks=False)
        found.append({"version": version, "size": status.st_size})
    return {"versions": found[: request["kept"]]}


# --- writing ---


def lock(experiment: int, conf: int) -> int:
    """Hold the lock that Autosubmit's commands hold while they use the experiment.

    Source: `portalocker.Lock(tmp/autosubmit.lock)` of 4.0.105 to 4.1.17.1, which is flock(2).
    """
    deadline = time.monotonic() + LOCK_PATIENCE
    try:
        tmp = folder("tmp", experiment)
    except FileNotFoundError:
        tmp, flags = conf, FOLDER
        name = "."
    else:
        name, flags = "autosubmit.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        file = os.open(name, flags, 0o664, dir_fd=tmp)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            if time.monotonic() > deadline:
                raise Problem("locked", "Another Autosubmit process uses the experiment.")
            time.sleep(0.1)
            continue
        try:
            there = os.stat(name, dir_fd=tmp, follow_symlinks=False)
            if os.path.samestat(there, os.fstat(file)):
                return file
        except FileNotFoundError:
            pass
        os.close(file)  # somebody has removed the file before we had the lock


def stored(at: int, data: bytes, mode: int, like: int | None = None) -> str:
    """Write a new temporary file that is safely on disk, and return its name. `like`: the file that it will replace."""
    name = ".autosubmit-runners-%s.tmp" % os.urandom(8).hex()
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=at)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        if like is not None:
            if os.fstat(file).st_gid != os.fstat(like).st_gid:
                os.fchown(file, -1, os.fstat(like).st_gid)
            for attribute in os.listxattr(like) if hasattr(os, "listxattr") else ():
                try:  # POSIX ACLs; others may need privileges
                    os.setxattr(file, attribute, os.getxattr(like, attribute))
                except OSError:
                    pass
        os.fchmod(file, mode)
        os.fsync(file)
    except BaseException:
        os.unlink(name, dir_fd=at)
        raise
    finally:
        os.close(file)
    return name


def remove_stale(at: int) -> None:
    for name in os.listdir(at):
        if TEMPORARY.fullmatch(name):
            try:
                if time.time() - os.stat(name, dir_fd=at, follow_symlinks=False).st_mtime > STALE:
                    os.unlink(name, dir_fd=at)
            except FileNotFoundError:
                pass


def keep(conf: int, path: str, data: bytes, kept: int) -> str:
    """Keep the former content as a version, and at most `kept` versions of the file."""
    store = store_of(conf, is_made=True)
    if store is None:
        raise Problem("failed", "The former content cannot be kept: its folder was removed.")
    remove_stale(store)
    now = time.time()
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + ".%06dZ" % (now % 1 * 1e6)
    version = "%s-%s" % (stamp, digest_of(data)[:16])
    temporary = stored(store, data, 0o600)
    os.rename(temporary, prefix_of(path) + version, src_dir_fd=store, dst_dir_fd=store)
    os.fsync(store)
    for old in versions_of(store, path)[kept:]:
        os.unlink(prefix_of(path) + old, dir_fd=store)
    return version


def require_same(data: bytes, expected: str) -> None:
    if digest_of(data) != expected:
        raise Problem("changed", "The file has changed since it was read.", {"digest": digest_of(data)})


def answer_write(request: dict[str, Any], experiment: int) -> dict[str, Any]:
    new = sys.stdin.buffer.read(request["most"] + 1)
    if digest_of(new) != request["digest"]:
        raise Problem("cut", "The new content did not arrive as it was sent.")
    conf = conf_of(experiment)
    at, name = place_of(conf, request["path"])
    held = lock(experiment, conf)
    old, status = content_of(at, name, request["most"])
    require_same(old, request["expected"])
    answer = {"former": encoded(old), "digest": request["digest"], "version": "", "is_changed": old != new}
    if old == new:
        return answer
    if status.st_uid != os.geteuid():
        raise Problem("rejected", "It belongs to another account. Only its owner can replace it and keep its mode.")
    remove_stale(at)
    answer["version"] = keep(conf, request["path"], old, request["kept"])
    like = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    temporary = stored(at, new, stat.S_IMODE(status.st_mode), like)
    try:
        # An editor does not take the lock, so look again at the last moment.
        require_same(content_of(at, name, request["most"])[0], request["expected"])
        os.rename(temporary, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        os.unlink(temporary, dir_fd=at)
        raise
    try:
        os.fsync(at)
    except OSError:  # the file is replaced, which the answer has to say
        pass
    os.close(held)
    return answer


ANSWERS = {"list": answer_list, "read": answer_read, "versions": answer_versions, "write": answer_write}


def main(request: dict[str, Any]) -> None:
    try:
        answer = ANSWERS[request["ask"]](request, experiment_of(request["expid"]))
    except Problem as problem:
        more = problem.args[2] if len(problem.args) > 2 else {}
        answer = dict(more, problem=problem.args[0], detail=problem.args[1])
    except OSError as error:
        answer = {"problem": "failed", "detail": "%s." % (error.strerror or error)}
    sys.stdout.write("\n%s %s\n" % (request["mark"], json.dumps(answer, separators=(",", ":"))))
    sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
