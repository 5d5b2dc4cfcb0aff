"""The timeout of a database statement, by the purpose of the process."""

from __future__ import annotations

from collections.abc import Sequence

WATCHING = frozenset({"watch_runs", "worker", "deliver_webhooks"})
# They process whole tables, or a person waits for them.
UNLIMITED = frozenset(
    {"migrate", "clean_runs", "copy_database", "dumpdata", "loaddata", "flush", "sqlflush", "inspectdb"}
    | {"shell", "dbshell", "test"}
)


def statement_timeout(argv: Sequence[str], *, requests: float, watch: float) -> float:
    """Return the seconds for one statement in a process that was started by `argv`; 0 means no limit.

    `argv[1]` is the management command, if there is one; its name may have dashes (runners_project.server). Servers and
    all other commands get the limit of requests.
    """
    command = argv[1].replace("-", "_") if len(argv) > 1 else ""
    if command in UNLIMITED:
        return 0
    return watch if command in WATCHING else requests
