"""Who may do what with a profile. The groups are the admin's (RunnerProfile.run_groups and so on)."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from profiles.models import RunnerProfile
from runners.exceptions import NotRunning, ProfileForbidden
from runners.models import RunnerRun


class Action(StrEnum):
    """What is asked for. RUN covers everything that uses a profile but setting statuses: creating, describing, too."""

    RUN = "run"
    STOP = "stop"
    SET_STATUS = "set-status"


_GROUPS = {Action.RUN: "run_groups", Action.STOP: "stop_groups", Action.SET_STATUS: "status_groups"}
_IN_WORDS = {
    Action.RUN: "use the profile {}",
    Action.STOP: "stop runs of the profile {}",
    Action.SET_STATUS: "set the status of jobs with the profile {}",
}


def user_may(user: Any, profile: RunnerProfile, action: Action) -> bool:
    """Whether `user` (maybe anonymous) is in one of the action's groups, or the profile names none.

    Superusers always may. Whether anonymous people get this far is PROTECTION_LEVEL's matter.
    """
    if user.is_active and user.is_superuser:
        return True
    groups = set(getattr(profile, _GROUPS[action]).values_list("pk", flat=True))
    if not groups:
        return True
    return bool(user.is_authenticated and user.is_active and user.groups.filter(pk__in=groups).exists())


def require(user: Any, profile: RunnerProfile, action: Action) -> None:
    """Raises ProfileForbidden unless `user` may."""
    if not user_may(user, profile, action):
        raise ProfileForbidden(
            f"You may not {_IN_WORDS[action].format(profile.name)}: an admin has given that to certain groups. Ask an "
            "admin to add you to one of them."
        )


def user_may_stop(user: Any, run: RunnerRun) -> bool:
    """Whether `user` may stop a run: as its profile says now, disabled or not.

    When the profile was deleted its rules are gone, so nobody but who started the run and superusers may.
    """
    if not run.profile_name:
        return True
    profile = RunnerProfile.objects.filter(name=run.profile_name).first()
    if profile:
        return user_may(user, profile, Action.STOP)
    return bool((user.is_active and user.is_superuser) or user.get_username() == run.started_by)


def require_stop(user: Any, run: RunnerRun) -> None:
    """Raises ProfileForbidden unless `user` may stop the run."""
    if not user_may_stop(user, run):
        raise ProfileForbidden(
            f"You may not stop run {run.pk} of {run.expid}: the profile {run.profile_name} gives that to certain "
            "groups, or was deleted. Ask an admin."
        )


def require_stop_of(user: Any, run: RunnerRun, active: RunnerRun) -> None:
    """For who asks to stop `run` in particular, while `active` is the active run of its experiment.

    Raises NotRunning when that is another one, which nobody has asked to stop, ProfileForbidden unless `user` may.
    """
    if active.pk != run.pk:
        run.refresh_from_db()
        raise NotRunning(f"Run {run.pk} has ended; run {active.pk} of {run.expid} is active now.", run=active)
    require_stop(user, active)
