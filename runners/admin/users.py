"""Django's users in the admin: their delete page counts what is deleted with a user."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin

from runners.admin.base import CountedDeletion

admin.site.unregister(get_user_model())


@admin.register(get_user_model())
class PeopleAdmin(CountedDeletion, UserAdmin):
    """Django's UserAdmin. A user may have thousands of messages."""
