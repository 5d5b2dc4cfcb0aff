"""Send what is in the outboxes of the webhooks and of the mail."""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from runners.webhooks import delivery, mail


class Command(BaseCommand):
    help = (
        "Send the webhook messages and the mail that are due, once or every --interval seconds. Several of "
        "these processes can run concurrently."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--interval", type=float, help="Seconds between two rounds; without it, one round.")

    def handle(self, *args: Any, **options: Any) -> None:
        interval = options["interval"]
        if interval is None:
            done = delivery.deliver_due() + mail.deliver_due()
            self.stdout.write(f"{done.delivered} delivered, {done.failed} failed.")
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self.stdout.write(f"Delivering webhooks every {interval:g} s.")
        threading.Thread(
            target=delivery.deliver_until, args=(stop, interval, mail.deliver_due), name="mail", daemon=True
        ).start()
        delivery.deliver_until(stop, interval)
