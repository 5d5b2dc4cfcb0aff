"""Heartbeats of the background processes."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models

from runners_project import clock

LATE_AFTER = 3  # intervals without a heartbeat
SLACK = timedelta(seconds=30)


class Heartbeat(models.Model):
    """One background process. It updates `seen` regularly; a late row means that the process is dead."""

    kind = models.CharField(max_length=32, help_text="The management command.")
    owner = models.CharField(max_length=200, unique=True, help_text="The process (services.own_process).")
    node = models.CharField(max_length=100, blank=True, default="", db_default="", help_text="RUNNERS_NODE.")
    interval = models.FloatField(help_text="Seconds between two of its rounds.")
    started = models.DateTimeField(default=clock.now)
    seen = models.DateTimeField(default=clock.now)

    class Meta:
        ordering = ["-seen"]

    def __str__(self) -> str:
        return f"{self.kind}, last seen {self.seen:%Y-%m-%d %H:%M:%S}"

    @property
    def lifetime(self) -> timedelta:
        """How long after the heartbeat its process counts as alive: it may miss several rounds."""
        return LATE_AFTER * timedelta(seconds=self.interval) + SLACK

    def is_late(self, now: datetime) -> bool:
        """Return True if the process counts as dead."""
        return now - self.seen > self.lifetime
