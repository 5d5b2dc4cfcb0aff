"""What the service has learned about experiments on machines."""

from __future__ import annotations

from django.db import models

from profiles.installations import MAX_INSTALLATION
from runners.models.base import MAX_MACHINE, MAX_NODE
from runners_project import clock


class ExperimentDescription(models.Model):
    """The description of one experiment, as it was last seen on its machine. It is used to find and to show runs.

    `installation`, `machine` and `node` are those of the runs of the experiment. `machine` and `node` are empty if the
    installation has a name of its own, because that is one database for all its accounts.
    """

    expid = models.CharField(max_length=16)
    installation = models.CharField(max_length=MAX_INSTALLATION)
    machine = models.CharField(max_length=MAX_MACHINE, blank=True)
    node = models.CharField(max_length=MAX_NODE, blank=True)
    description = models.TextField(help_text="One printable line, at most 32,000 characters.")
    search_text = models.TextField(
        help_text="The description with its case folded, because databases ignore case in different ways."
    )
    seen_at = models.DateTimeField(default=clock.now, db_index=True, help_text="When it was last seen, within a day.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["expid", "installation", "machine", "node"], name="one_description_per_experiment"
            )
        ]

    def __str__(self) -> str:
        return f"description of {self.expid}"
