"""Keep access rules when a group or profile is deleted. Otherwise restricted access would become open to everybody.

The only group of an action of a profile cannot be deleted. A deleted profile leaves the groups that see its runs.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group
from django.db.models import ProtectedError
from django.db.models.signals import pre_delete
from django.dispatch import receiver

from profiles.models import DeletedProfile, RunnerProfile


def profiles_that_need(group: Group) -> list[RunnerProfile]:
    """Return the profiles that have `group` as the only group of some action."""
    return [
        profile
        for profile in RunnerProfile.objects.prefetch_related(*RunnerProfile.ACCESS.values())
        if any(list(getattr(profile, field).all()) == [group] for field in RunnerProfile.ACCESS.values())
    ]


@receiver(pre_delete, sender=Group)
def reject_deletion(sender: type[Group], instance: Group, **kwargs: Any) -> None:
    """Raise ProtectedError if the group is the only one of an action of a profile."""
    if needed := profiles_that_need(instance):
        names = ", ".join(profile.name for profile in needed)
        raise ProtectedError(
            f"The group {instance.name} is the only group that may use {names}. Without it, everybody could use them. "
            f"Add another group to these profiles first.",
            set(needed),
        )


@receiver(pre_delete, sender=RunnerProfile)
def keep_view_groups(sender: type[RunnerProfile], instance: RunnerProfile, **kwargs: Any) -> None:
    """Keep the view groups of a deleted profile, in the same transaction. The same people still see its runs."""
    groups = sorted(instance.view_groups.values_list("pk", flat=True))
    if groups:
        kept = {"name": instance.name, "view_groups": groups}
        DeletedProfile.objects.update_or_create(number=instance.pk, defaults=kept)
