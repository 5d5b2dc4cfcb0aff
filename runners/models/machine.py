"""What the service knows about machines: whether they answer, and their announced maintenance."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from runners_project import clock

MAX_MACHINE = 253  # characters of a machine's name (`Target.machine`)
MAX_TEXT = 500  # characters of an announcement


class Machine(models.Model):
    """The last contact with one machine. `name` is `Target.machine`: a host name in lower case, or `localhost`."""

    name = models.CharField(max_length=MAX_MACHINE, unique=True)
    is_answering = models.BooleanField(null=True, help_text="Null: not known yet.")
    since = models.DateTimeField(null=True, blank=True, help_text="When it began to answer, or stopped answering.")
    last_answer = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(blank=True)
    last_error_code = models.CharField(max_length=40, blank=True)
    last_error_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class MaintenanceQuerySet(models.QuerySet["Maintenance"]):
    def not_over(self) -> MaintenanceQuerySet:
        """Return the announcements that apply now or later."""
        return self.filter(Q(ends=None) | Q(ends__gt=clock.now()))

    def now(self) -> MaintenanceQuerySet:
        """Return the announcements that apply now."""
        return self.not_over().filter(starts__lte=clock.now())


class Maintenance(models.Model):
    """An announced maintenance of one machine. While it applies, no command that changes something starts there."""

    machine = models.CharField(
        max_length=MAX_MACHINE, db_index=True, help_text="The host name of the machine, or localhost."
    )
    text = models.CharField(
        max_length=MAX_TEXT, help_text="What people read when their command is refused: the reason, and whom to ask."
    )
    starts = models.DateTimeField(default=clock.now, help_text="Commands are refused from this time on.")
    ends = models.DateTimeField(
        null=True, blank=True, help_text="Commands are accepted again from this time on. Empty: until an admin ends it."
    )
    announced_by = models.CharField(max_length=150, blank=True, editable=False)

    objects = MaintenanceQuerySet.as_manager()

    class Meta:
        ordering = ["starts", "id"]
        verbose_name = "maintenance of a machine"
        verbose_name_plural = "maintenance of machines"

    def __str__(self) -> str:
        return f"{self.machine} from {self.starts:%Y-%m-%d %H:%M %Z}"

    @property
    def applies(self) -> bool:
        """Return True if it applies now."""
        now = clock.now()
        return self.starts <= now and (self.ends is None or self.ends > now)
