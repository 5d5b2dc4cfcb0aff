"""User names: reject a name that looks like an existing one, so that nobody is mistaken for somebody else."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models.signals import post_delete, post_save, pre_save
from django.dispatch import receiver

from profiles.models import AccountMap
from profiles.validators import canonical

MAX_USERNAME = 150  # of django.contrib.auth


def validate_unlike_others(name: str, *, pk: int = 0) -> None:
    """Raise ValidationError if another account's name looks like this one. `pk`: the account that has the name.

    Reads all names, so it runs only when an account gets a name.
    """
    if len(name) > MAX_USERNAME:
        return  # the field's own rule rejects it
    mine = canonical(name)
    others = get_user_model()._default_manager.exclude(pk=pk).values_list("username", flat=True)
    for other in others.iterator():
        if other != name and canonical(other) == mine:
            raise ValidationError(
                f"This name is too similar to the account name {other}. Choose another name, or use that account."
            )


@receiver(pre_save)
def reject_lookalikes(sender: type, instance: Any, raw: bool = False, **kwargs: Any) -> None:
    """Validate the name of every account that is created or renamed, in whatever way. Raises ValidationError."""
    if raw or sender is not get_user_model():
        return
    fields = kwargs.get("update_fields")
    if fields is not None and "username" not in fields:
        return
    known = sender.objects.filter(pk=instance.pk, username=instance.username).exists() if instance.pk else False
    if not known:
        validate_unlike_others(instance.username, pk=instance.pk or 0)


@receiver(post_save)
def forget_mapping_of_inactive_user(sender: type, instance: Any, **kwargs: Any) -> None:
    """Delete the account map of an inactive user. Tokens and sessions: runners.services.deactivation."""
    if sender is get_user_model() and not instance.is_active:
        forget_mapping(instance.username)


@receiver(post_delete, sender=get_user_model())  # without a sender every model's rows would be deleted one by one
def forget_mapping_of_deleted_user(sender: type, instance: Any, **kwargs: Any) -> None:
    """Delete the account map of a deleted user, because somebody else may get the name."""
    forget_mapping(instance.username)


def forget_mapping(username: str) -> None:
    if row := AccountMap.of(username):
        row.delete()


# So that forms and createsuperuser show the error at the field.
get_user_model()._meta.get_field("username").validators.append(validate_unlike_others)
