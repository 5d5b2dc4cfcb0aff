"""The accounts of people, and their settings, in the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin

from profiles.models import AccountMap, UserSettings

if TYPE_CHECKING:
    SettingsAdmin = admin.ModelAdmin[UserSettings]
    AccountsAdmin = admin.ModelAdmin[AccountMap]
else:
    SettingsAdmin = AccountsAdmin = admin.ModelAdmin


@admin.register(AccountMap)
class AccountMapAdmin(AccountsAdmin):
    list_display = ("person", "accounts")
    search_fields = ("person", "accounts")
    fieldsets = (
        (
            None,
            {
                "fields": ("person", "accounts"),
                "description": "Profiles whose allowed users contain <code>{accounts}</code> let this person use "
                "these accounts.",
            },
        ),
    )


@admin.register(UserSettings)
class UserSettingsAdmin(SettingsAdmin):
    list_display = ("user", "preferred_username", "modified")
    search_fields = ("user__username", "preferred_username")
    readonly_fields = ("created", "modified")
    autocomplete_fields = ("user",)
