"""`manage.py forget_node NAME --reason TEXT`: a node of this service is gone for good."""

from __future__ import annotations

from runners.management.gone import GoneCommand
from runners.services import gone


class Command(GoneCommand):
    help = (
        "Declare that a node of this service is gone for good: its active LOCAL runs and operations end, pending "
        "restarts are withdrawn, and clean_runs does not ask for its directories any more. Refused while a worker or "
        "a server of the node is alive."
    )
    endpoint = "forget-node"
    forget = staticmethod(gone.forget_node)
