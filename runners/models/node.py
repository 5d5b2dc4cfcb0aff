"""Commands for the machine of another node of this service."""

from __future__ import annotations

from django.db import models

from runners_project import clock


class NodeCommand(models.Model):
    """One script that the worker of a node executes for another node, such as a probe of a LOCAL run.

    `request` and `answer` are signed with SECRET_KEY and the number of the row. The worker first sets `begun`, so each
    command is executed once.
    """

    node = models.CharField(max_length=100)
    request = models.TextField()
    created = models.DateTimeField(default=clock.now)
    begun = models.DateTimeField(null=True, blank=True)
    answer = models.TextField(blank=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"command {self.pk} for node {self.node}"
