"""The published SSH keys in the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin

from profiles.models import PublishedSSHKey
from profiles.validators import is_public_key

if TYPE_CHECKING:
    KeyAdmin = admin.ModelAdmin[PublishedSSHKey]
else:
    KeyAdmin = admin.ModelAdmin


@admin.register(PublishedSSHKey)
class PublishedSSHKeyAdmin(KeyAdmin):
    list_display = ("__str__", "comment", "is_real")
    search_fields = ("line", "comment")
    fieldsets = (
        (
            None,
            {
                "fields": ("line", "comment"),
                "description": "People see this line in the GUI and add it to their <code>authorized_keys</code>. The "
                "service needs the private key in its own <code>~/.ssh</code>.",
            },
        ),
    )

    @admin.display(description="OpenSSH key", boolean=True)
    def is_real(self, key: PublishedSSHKey) -> bool:
        return is_public_key(key.line)
