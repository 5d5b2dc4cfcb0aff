"""`manage.py forget_machine NAME --reason TEXT`: a machine is gone for good."""

from __future__ import annotations

from runners.management.gone import GoneCommand
from runners.services import gone


class Command(GoneCommand):
    help = (
        "Declare that a machine is gone for good: its active runs and operations end, pending restarts are withdrawn, "
        "and clean_runs does not ask it for directories any more. Delete or change its profiles first. Refused if the "
        "machine answers."
    )
    endpoint = "forget-machine"
    forget = staticmethod(gone.forget_machine)
