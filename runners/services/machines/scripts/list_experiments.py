"""List the experiments that an account can read. This file runs on the machine: see `scripts.experiments`.

It needs Python 3.6 and the standard library only. It changes nothing, and starts nothing of Autosubmit. The names are
those of the directory of the experiments, the descriptions those of Autosubmit's database if it is a readable file.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any
from urllib.parse import quote

from runners.services.machines.scripts.autosubmitrc import autosubmit_configuration, experiments_root

MOST_ENTRIES = 200000  # of the directory
MOST_LISTED = 1000
MOST_TEXT = 100  # characters of a description
EXPID = re.compile("[a-z][a-z0-9]{3,15}")


def names_in(root: str) -> list[str]:
    """Return the names of the directories that can be experiments. No link is followed."""
    found = []
    with os.scandir(root) as entries:
        for number, entry in enumerate(entries):
            if number >= MOST_ENTRIES:
                break
            if EXPID.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                found.append(entry.name)
    return found


def rows_of(path: str) -> list[tuple[str, str]]:
    """Return the names and descriptions in Autosubmit's database, the newest first; an empty list without a database.

    Source: autosubmit.sql of 3.14 to 4.1.17.1 (the table `experiment`).
    """
    try:
        import sqlite3
    except ImportError:  # a Python without it: the list has no descriptions
        return []
    try:
        database = sqlite3.connect("file:%s?mode=ro" % quote(path), uri=True, timeout=1)
    except sqlite3.Error:
        return []
    try:
        query = "SELECT name, description FROM experiment ORDER BY id DESC LIMIT ?"
        return [(str(name), str(text or "")) for name, text in database.execute(query, (MOST_ENTRIES,))]
    except sqlite3.Error:
        return []
    finally:
        database.close()


def main(request: dict[str, Any]) -> None:
    try:
        answer = listed(request["base"])
    except OSError as error:
        answer = {"problem": "unreadable", "detail": error.strerror or ""}
    sys.stdout.write("%s - %s\n" % (request["mark"], json.dumps(answer)))


def listed(base: str) -> dict[str, Any]:
    """Return the newest experiments: name, description, and whether its directory belongs to this account."""
    configuration = autosubmit_configuration(base, os.environ.get("AUTOSUBMIT_CONFIGURATION") or "")
    root = experiments_root(configuration)
    present = set(names_in(root))
    folder = configuration.get(("database", "path")) or root
    rows = rows_of(os.path.join(folder, configuration.get(("database", "filename")) or "autosubmit.db"))
    found = [(name, text) for name, text in dict(reversed(rows)).items() if name in present][::-1]
    if not rows:  # such as a PostgreSQL database; other directories, such as metadata, have no conf
        names = sorted(present, reverse=True)[: 2 * MOST_LISTED]
        found = [(name, "") for name in names if os.path.isdir(os.path.join(root, name, "conf"))]
    own = os.geteuid()
    experiments = []
    for name, text in found[:MOST_LISTED]:
        try:
            is_own = os.lstat(os.path.join(root, name)).st_uid == own
        except OSError:
            continue
        experiments.append([name, " ".join(text.split())[:MOST_TEXT], is_own])
    return {"experiments": experiments, "total": len(found)}


if __name__ == "__main__":
    main(dict(json.loads(sys.argv[1]), base=sys.argv[2]))
