"""The account that this service runs as."""

from __future__ import annotations

import os
import pwd


def own_account() -> pwd.struct_passwd:
    """The account that this service, and so every LOCAL command, runs as.

    Containers run as numbers that no database knows: then the environment says what they are called.
    """
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        name, home = os.environ.get("USER") or str(uid), os.environ.get("HOME") or "/"
        return pwd.struct_passwd((name, "x", uid, os.getegid(), "", home, "/bin/sh"))
