"""`manage.py rotate_webhook_secret NAME`: give a webhook a new signing secret, and retire the old one later."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runners.models import Webhook
from runners.models.webhook import new_secret
from runners.services import acting
from runners.services.audit import audited, begin


class Command(BaseCommand):
    help = (
        "Give a webhook a new signing secret and print it. Messages are signed with both secrets until --retire. Only "
        "the secret goes to standard output."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the name of the webhook")
        parser.add_argument("--retire", action="store_true", help="forget the old secret")

    def handle(self, *args: Any, **options: Any) -> None:
        name, is_retired = options["name"], options["retire"]
        hook = Webhook.objects.filter(name=name).first()
        if hook is None:
            raise CommandError(f"There is no webhook '{name}'.")
        if is_retired and not hook.previous_secret:
            raise CommandError(f"The webhook '{name}' has no old secret.")
        if not is_retired and hook.previous_secret:
            raise CommandError(f"The webhook '{name}' still has an old secret. Run --retire first.")
        with audited(endpoint="rotate-webhook-secret", actor=acting.now().name, holds_changes=True) as record:
            record.detail = f"{name}: {'forget the old secret' if is_retired else 'a new secret'}"
            begin(record)
            if is_retired:
                hook.previous_secret = ""
            else:
                hook.previous_secret, hook.secret = hook.secret, new_secret()
            hook.save(update_fields=["secret", "previous_secret"])
        if is_retired:
            self.stderr.write("Messages are signed with the new secret only.")
        else:
            self.stderr.write("Give this secret to the receiver. Then run this command with --retire.")
            self.stdout.write(hook.secret)
