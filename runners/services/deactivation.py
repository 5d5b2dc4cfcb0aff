"""Delete the tokens and sessions of a user whose account is deactivated, so that nothing can act as the user later.

Each request checks anyway whether the account is active. Deleting makes the loss permanent: tokens and sessions do not
come back if the account is activated again. Runs continue, and admins see and stop them.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db.models.signals import post_save
from django.dispatch import receiver

from runners.models import ApiToken
from runners_project import clock


@receiver(post_save)
def end_access_of_inactive_user(sender: type, instance: Any, created: bool = False, **kwargs: Any) -> None:
    if sender is get_user_model() and not created and not instance.is_active:
        ApiToken.objects.filter(user=instance).delete()
        end_sessions(instance)


def end_sessions(user: Any) -> int:
    """Delete the sessions of one account and return how many there were.

    All sessions have to be decoded, because only their data contains the account's number.
    """
    ended = [
        session.session_key
        for session in Session.objects.filter(expire_date__gt=clock.now()).iterator()
        if session.get_decoded().get("_auth_user_id") == str(user.pk)
    ]
    return Session.objects.filter(session_key__in=ended).delete()[0] if ended else 0
