"""What people used last in the forms of the pages."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from runners_project.clock import AutoDateTimeField


class LastFormValues(models.Model):
    """The profile that one person used last, and the values of the open parameters by profile.

    `values`: {profile name: {path of the parameter: text}}. They are suggestions: each request is checked as if they
    were typed.
    """

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="last_form_values")
    profile_name = models.CharField(max_length=100, blank=True)
    values = models.JSONField(default=dict)
    modified = AutoDateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"last form values of {self.user}"
