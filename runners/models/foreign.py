"""Runs of experiments that this service has not started."""

from __future__ import annotations

from typing import Any

from django.db import models

from profiles.installations import MAX_INSTALLATION
from runners.models.base import OfProfile
from runners_project import clock


class SeenForeignRun(OfProfile):
    """The last process that was seen to run an experiment without this service. It may have ended since then.

    The profile is that of the request during which it was seen: it decides who may see the row.
    """

    started_by = ""  # nobody of this service has started it

    expid = models.CharField(max_length=16)
    installation = models.CharField(max_length=MAX_INSTALLATION)
    host = models.CharField(max_length=255)
    user = models.CharField(max_length=100, blank=True)
    pid = models.IntegerField()
    since = models.DateTimeField(null=True, blank=True, help_text="When it started, by the machine's clock.")
    command = models.CharField(max_length=200, blank=True, help_text="Its command line.")
    seen_at = models.DateTimeField(default=clock.now, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["expid", "installation"], name="one_seen_foreign_run")]

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} runs {self.expid}"

    def as_dict(self) -> dict[str, Any]:
        """Return the facts for answers, as JSON types."""
        return {
            "pid": self.pid,
            "since": self.since.isoformat(timespec="seconds") if self.since else None,
            "host": self.host,
            "command": self.command,
            "user": self.user,
            "seen_at": self.seen_at.isoformat(timespec="seconds"),
        }
