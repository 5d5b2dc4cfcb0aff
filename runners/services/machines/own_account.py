"""The account that this service runs as."""

from __future__ import annotations

import os
import pwd


def own_account() -> pwd.struct_passwd:
    """Return the account that runs this service and every LOCAL command.

    A container may run with a user id that has no passwd entry. The fallback is USER and HOME of the environment.
    """
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        name, home = os.environ.get("USER") or str(uid), os.environ.get("HOME") or "/"
        return pwd.struct_passwd((name, "x", uid, os.getegid(), "", home, "/bin/sh"))
