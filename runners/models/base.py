"""The profile of a row, by its primary key: it survives a rename and is never reused."""

from __future__ import annotations

from typing import Any

from django.db import models

from profiles.models import RunnerProfile


class OfProfile(models.Model):
    """Base of rows that were made with a profile. `profile_id` decides who may see and stop; the name is for people.

    A new row without `profile_id` gets that of the profile that has the name now.
    """

    profile_name = models.CharField(max_length=100, blank=True)
    profile_id = models.BigIntegerField(
        null=True, blank=True, editable=False, help_text="The number of the profile. It may have been deleted."
    )

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self._state.adding and self.profile_name and self.profile_id is None:
            found = RunnerProfile.objects.filter(name=self.profile_name).values_list("pk", flat=True).first()
            self.profile_id = found
        super().save(*args, **kwargs)
