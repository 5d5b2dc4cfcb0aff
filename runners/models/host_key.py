"""Host keys, and authorities of host certificates, that an admin has approved."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from runners_project import clock


class TrustedHostKey(models.Model):
    """A host key that an admin has approved, in addition to those in known_hosts files.

    With `is_authority`, the key may sign host certificates of the hosts that match `host`, as a line with
    `@cert-authority` in a known_hosts file.
    """

    host = models.CharField(
        max_length=255,
        help_text="The real host name; '[name]:port' when the port is not 22. Of an authority: patterns, separated by "
        "commas.",
    )
    key_type = models.CharField(max_length=64)
    key = models.TextField(help_text="The public key in base64.")
    is_authority = models.BooleanField("signs host certificates", default=False, db_default=False)
    approved_by = models.CharField(max_length=150, blank=True)
    created = models.DateTimeField(default=clock.now)

    class Meta:
        ordering = ["host", "key_type"]
        constraints = [
            models.UniqueConstraint(
                fields=["host", "key_type"],
                condition=Q(is_authority=False),
                name="one_trusted_host_key_per_host_and_type",
            )
        ]

    def __str__(self) -> str:
        return f"{self.host} {self.key_type}"

    @property
    def line(self) -> str:
        """Return the line of a known_hosts file."""
        return f"{'@cert-authority ' if self.is_authority else ''}{self.host} {self.key_type} {self.key}"
