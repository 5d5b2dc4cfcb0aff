"""The Autosubmit database that a profile's account used last."""

from __future__ import annotations

from django.db import models

from profiles.validators import MAX_HOST, MAX_PATH, MAX_USER
from runners_project import clock


class SeenDatabase(models.Model):
    """The database that the connection test found. One row per profile, account and machine."""

    profile_id = models.BigIntegerField(help_text="The number of the profile. It may have been deleted.")
    user = models.CharField(max_length=MAX_USER, help_text="The account.")
    ssh_host = models.CharField(max_length=MAX_HOST, blank=True, help_text="The host in the profile; empty for LOCAL.")
    host = models.CharField(max_length=255, help_text="The host name of the machine.")
    location = models.CharField(
        max_length=MAX_PATH, help_text="A real path, or the address of a server without credentials."
    )
    seen = models.DateTimeField(default=clock.now)

    class Meta:
        ordering = ["-seen"]
        constraints = [
            models.UniqueConstraint(
                fields=["profile_id", "user", "ssh_host"], name="one_seen_database_per_profile_and_account"
            )
        ]

    def __str__(self) -> str:
        return f"{self.location} on {self.host}"
