"""Send what is in the outbox of the webhooks."""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from runners.webhooks import delivery


class Command(BaseCommand):
    help = (
        "Send the webhook messages that are due, once or every --interval seconds. Several of these processes can run "
        "concurrently."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--interval", type=float, help="Seconds between two rounds; without it, one round.")

    def handle(self, *args: Any, **options: Any) -> None:
        interval = options["interval"]
        if interval is None:
            done = delivery.deliver_due()
            self.stdout.write(f"{done.delivered} delivered, {done.failed} failed.")
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self.stdout.write(f"Delivering webhooks every {interval:g} s.")
        delivery.deliver_until(stop, interval)
