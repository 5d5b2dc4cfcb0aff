"""`manage.py forget_machine NAME --reason TEXT`: a machine is gone for good."""

from __future__ import annotations

from argparse import ArgumentParser

from runners.management.gone import GoneCommand
from runners.services import gone


class Command(GoneCommand):
    help = (
        "Declare that a machine is gone for good: its active runs and operations end, pending restarts are withdrawn, "
        "and clean_runs does not ask it for directories any more. Delete or change its profiles first. Refused if the "
        "machine answers or has just answered, also if it rejects the login."
    )
    endpoint = "forget-machine"
    forget = staticmethod(gone.forget_machine)
    options = ("login_fails",)

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--even-if-login-fails",
            dest="login_fails",
            action="store_true",
            help="forget it also if it rejects the login or has another host key: the account is gone, or the address "
            "belongs to another machine now",
        )
