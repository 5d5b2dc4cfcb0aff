"""`manage.py sizing`: how many database connections a service of this size needs, and whether PostgreSQL has them."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runners.management import bounds
from runners.services import sizing
from runners.services.machines.bulkheads import DEFAULT_THREADS

MOST = 10_000


class Command(BaseCommand):
    help = (
        "Print how many connections to PostgreSQL a service of this size may need. Fails if the database in "
        "DATABASE_URL admits fewer. The defaults are one node as documented."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--nodes", type=int, default=1, help="nodes of the service")
        parser.add_argument(
            "--processes", type=int, default=sizing.DEFAULT_PROCESSES, help="server processes of each node (--workers)"
        )
        parser.add_argument("--threads", type=int, default=DEFAULT_THREADS, help="threads of each (--threads)")
        parser.add_argument("--workers", type=int, help="`worker` processes of all nodes; default: one per node")

    def handle(self, *args: Any, **options: Any) -> None:
        workers = options["nodes"] if options["workers"] is None else options["workers"]
        size = sizing.Size(options["nodes"], options["processes"], options["threads"], workers)
        for name in ("nodes", "processes", "threads", "workers"):
            bounds.require(f"--{name}", getattr(size, name), 1, MOST)
        self.stdout.write(size.formula)
        room = sizing.room()
        if room is None:
            self.stdout.write("The database is SQLite, or a pooler is in front of it: it has no such limit.")
            return
        if lack := sizing.shortage(size, room):
            raise CommandError(lack)
        self.stdout.write(f"The database admits {room.admitted} ({room.limit}).")
