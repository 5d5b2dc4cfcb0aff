"""Logins of the command line that a person approves on a page. See runners.services.device_login."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from runners.models.token import TokenScope
from runners_project.clock import AutoDateTimeField


class DeviceLogin(models.Model):
    """One login of a program: who asks, from where, and the person who has approved it.

    Only the SHA-512 of the device code is stored, because whoever has that code gets the token.
    """

    class Status(models.TextChoices):
        PENDING = "pending", "pending: nobody has decided"
        APPROVED = "approved", "approved: the program may get its token"
        DENIED = "denied", "denied"
        DONE = "done", "done: the program has got its token"

    digest = models.CharField(max_length=128, primary_key=True)
    user_code = models.CharField(max_length=16, unique=True)
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.PENDING)
    host = models.CharField(max_length=100, help_text="The machine of the program, as the program names it.")
    address = models.CharField(max_length=64, help_text="The address of the program, as the service sees it.")
    scope = models.CharField(max_length=8, choices=TokenScope.choices)
    created = AutoDateTimeField(auto_now_add=True)
    expires = models.DateTimeField(db_index=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.CASCADE, related_name="+")

    def __str__(self) -> str:
        return f"login of {self.host}"
