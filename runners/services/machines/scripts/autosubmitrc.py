"""Autosubmit's configuration file, and the directory of the experiments that it names. This file runs on the machine.

It is sent as a part of the Python scripts that import it: see `_python`. It needs Python 3.6 and the standard library
only. experiments_root.sh has the same rules for machines and scripts without Python.
"""

from __future__ import annotations

import os
import re
import stat

MOST_CONFIGURATION = 16384  # bytes of the file that are read


def open_file(path: str, folder: int | None = None) -> int:
    """Open a regular file for reading; it never waits for a FIFO. `folder`: a descriptor; then no link is followed."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(path, flags) if folder is None else os.open(path, flags | os.O_NOFOLLOW, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError("not a regular file")
    return file


def autosubmit_configuration(base: str, named: str) -> dict[tuple[str, str], str]:
    """Return the values of Autosubmit's configuration file by (section, key). Empty: no file, or one without values.

    `base`: the directory of all runs, in which Autosubmit's commands are executed. `named`: the value of
    AUTOSUBMIT_CONFIGURATION, or empty. Raises OSError if the file that Autosubmit reads cannot be read.
    Source: BasicConfig.read of 4.0.105 to 4.1.17.1, which reads the first file that exists.
    """
    files = [named] + [os.path.join(each, ".autosubmitrc") for each in (base, os.path.expanduser("~"))]
    files += ["/etc/autosubmitrc", "/etc/.autosubmitrc"]
    found, section = {}, ""
    for path in files:
        if not path or not os.path.exists(path):
            continue
        with open(open_file(path), "rb") as file:
            lines = file.read(MOST_CONFIGURATION).decode("utf-8", "replace").splitlines()
        for line in lines:
            match = re.match(r"\[([^]]*)\]", line)
            if match:
                section = match.group(1)
            elif line[:1] not in ("#", ";", " ", "\t"):
                match = re.match(r"([^=:]*)[=:](.*)", line)
                if match:
                    found[section, match.group(1).strip()] = match.group(2).strip()
        break
    return found


def experiments_root(configuration: dict[tuple[str, str], str]) -> str:
    """Return the directory of the experiments. `configuration`: that of `autosubmit_configuration`."""
    return configuration.get(("local", "path")) or os.path.join(os.path.expanduser("~"), "autosubmit")
