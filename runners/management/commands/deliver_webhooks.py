"""Send the webhook messages and the mail that are due, once."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from runners.webhooks import delivery, mail


class Command(BaseCommand):
    help = (
        "Send the webhook messages and the mail that are due, once. The worker (watch_runs) does the same all the time."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        done = delivery.deliver_due() + mail.deliver_due()
        self.stdout.write(f"{done.delivered} delivered, {done.failed} failed.")
