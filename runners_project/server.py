"""`autosubmit-runners-server COMMAND`: the service of an installed package, without a checkout.

serve: gunicorn with the options of docs/deployment.md. worker: `watch_runs`. Everything else is a management command;
its name may have dashes (`import-profiles`). Further options of each command follow, and win over ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

BIND = ("--bind", "127.0.0.1:8000")
# docs/deployment.md gives the reasons.
SERVE = (
    *("gunicorn", "runners_project.wsgi", "--workers", "2", "--threads", "8"),
    *("--graceful-timeout", "330", "--limit-request-line", "8190", "--no-control-socket"),
)
WORKER = ("watch_runs", "--interval", "10")


def main(arguments: Sequence[str] | None = None) -> None:
    """Execute the command of the command line. `serve` replaces this process, so that signals reach gunicorn."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if find_spec("django") is None:
        sys.exit(
            "The service is not installed here, only its command line. Run: pip install 'autosubmit-runners[server]'"
        )
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "runners_project.settings")
    if given[:1] == ["serve"]:
        options = given[1:] if _binds(given) else [*BIND, *given[1:]]
        os.execv(sys.executable, [sys.executable, "-m", *SERVE, *options])  # noqa: S606  (no shell is wanted)
    from django.core.management import execute_from_command_line

    if given[:1] == ["worker"]:
        given = [*WORKER, *given[1:]]
    elif given and not given[0].startswith("-"):
        given[0] = given[0].replace("-", "_")
    execute_from_command_line(["autosubmit-runners-server", *given])


def _binds(given: Sequence[str]) -> bool:
    """Return True if an option gives an address. gunicorn would add it to ours instead of replacing it."""
    return any(word.startswith(("-b", "--bind")) for word in given)


if __name__ == "__main__":
    main()
