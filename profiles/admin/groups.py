"""Django's groups in the admin: their delete page protects the groups that profiles need."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest

from profiles.groups import profiles_that_need

admin.site.unregister(Group)


@admin.register(Group)
class ProfileGroupAdmin(GroupAdmin):
    """Django's GroupAdmin. Its delete page also lists the profiles that still need the group."""

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, Any, Any]:
        deleted, counts, missing, protected = super().get_deleted_objects(objs, request)
        needed = {f"profile {profile}" for group in objs for profile in profiles_that_need(group)}
        return deleted, counts, missing, [*protected, *sorted(needed)]
