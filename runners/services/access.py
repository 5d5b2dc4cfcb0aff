"""Who may do what with a profile. The groups are the admin's (RunnerProfile.run_groups and so on)."""

from __future__ import annotations

import time
from collections.abc import Hashable
from enum import StrEnum
from typing import Any, TypeVar

from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.db.models.signals import m2m_changed, post_delete, post_save

from profiles.models import DeletedProfile, RunnerProfile, groups_of
from runners.exceptions import NotRunning, ProfileForbidden, RunnerServiceError
from runners.models import AuditRecord, RunnerRun
from runners.models_operations import Operation

Row = TypeVar("Row", bound=Model)


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
    """Whether `user` (maybe anonymous) may, by the groups of the profile; superusers always may.

    Whether anonymous people get this far is PROTECTION_LEVEL's matter.
    """
    return profile.permits(user, _GROUPS[action])


# --- Seeing runs and logs ---------------------------------------------------------------------------------------------

VIEW_RULES_AGE = 1.0  # seconds that a process believes the rules that it has read: every status asks for them
_view_rules: tuple[float, dict[int, frozenset[int]]] | None = None


def view_rules() -> dict[int, frozenset[int]]:
    """The groups that see the runs of a profile, by its number; profiles whose runs everybody sees are left out.

    A profile that was deleted keeps its rule, and a new name changes nothing.
    """
    global _view_rules
    now = time.monotonic()
    if _view_rules is None or now - _view_rules[0] > VIEW_RULES_AGE:
        rules: dict[int, set[int]] = {}
        for number, groups in DeletedProfile.objects.values_list("number", "view_groups"):
            is_list = isinstance(groups, list)  # else somebody has spoilt the row: nobody's group
            rules[number] = {group for group in groups if isinstance(group, int)} if is_list else set()
        pairs = RunnerProfile.objects.filter(view_groups__isnull=False).values_list("pk", "view_groups")
        for number, group in pairs:
            rules.setdefault(number, set()).add(group)
        _view_rules = now, {number: frozenset(groups) for number, groups in rules.items()}
    return _view_rules[1]


def forget_view_rules(**kwargs: Any) -> None:
    """At once in the process where they were changed; the others follow within VIEW_RULES_AGE."""
    global _view_rules
    _view_rules = None


for _model in (RunnerProfile, DeletedProfile):
    post_save.connect(forget_view_rules, _model)
    post_delete.connect(forget_view_rules, _model)
m2m_changed.connect(forget_view_rules, RunnerProfile.view_groups.through)


def hidden_profiles(user: Any) -> list[int]:
    """The profiles whose runs `user` does not see, by number.

    `user` is not looked at while no profile has such a rule.
    """
    rules = view_rules()
    if not rules or (user.is_active and user.is_superuser):
        return []
    own = groups_of(user)
    return [number for number, groups in rules.items() if not groups & own]


def visibility(user: Any) -> Hashable:
    """Equal for users who see the same runs, so that what was made for one of them may be shown to the other."""
    hidden = hidden_profiles(user)
    return (frozenset(hidden), user.get_username()) if hidden else ()


def visible(rows: QuerySet[Row], user: Any) -> QuerySet[Row]:
    """Those of `rows` (runs, operations) that `user` may see: all but others' with a profile that hides them."""
    hidden = hidden_profiles(user)
    return rows.exclude(_hidden(hidden, user, "started_by")) if hidden else rows


def visible_records(records: QuerySet[AuditRecord], user: Any) -> QuerySet[AuditRecord]:
    """Those of audit records that `user` may see: of no run and no profile that is hidden, and the user's own."""
    hidden = hidden_profiles(user)
    if not hidden:
        return records
    runs = RunnerRun.objects.filter(_hidden(hidden, user, "started_by"))
    # A stop names no profile, and a record from before rows had the number of their profile has none.
    of_hidden_run = Exists(runs.filter(pk=OuterRef("run_id")))
    return records.exclude(_hidden(hidden, user, "actor")).exclude(of_hidden_run)


def _hidden(profiles: list[int], user: Any, starter: str) -> Q:
    """The rows of hidden profiles, but for those that `user` started; nobody who is not signed in started any."""
    rows = Q(profile_id__in=profiles)
    return rows & ~Q(**{starter: user.get_username()}) if user.is_authenticated else rows


def may_see(user: Any, row: RunnerRun | Operation) -> bool:
    """The same for one row."""
    if row.profile_id is None or row.profile_id not in view_rules():
        return True
    return row.profile_id not in hidden_profiles(user) or (
        user.is_authenticated and row.started_by == user.get_username()
    )


def described(run: RunnerRun) -> str:
    """A run in an error, for somebody who may see it: its number, profile, account and machine."""
    profile = f" of profile {run.profile_name}" if run.profile_name else ""
    return f"run {run.pk}{profile}, {run.user or 'an unknown account'} on {run.host or 'this machine'}"


def detail_for(user: Any, error: RunnerServiceError) -> str:
    """The sentence of an error, without what it tells of a run that `user` may not see."""
    run = getattr(error, "run", None)
    if run is None or may_see(user, run):
        return error.detail
    return (
        f"Experiment {run.expid} has a run in this installation that is not shown to you, and it is in the way. Ask an "
        "admin."
    )


def require(user: Any, profile: RunnerProfile, action: Action) -> None:
    """Raises ProfileForbidden unless `user` may."""
    if not user_may(user, profile, action):
        raise ProfileForbidden(
            f"You may not {_IN_WORDS[action].format(profile.name)}: an admin has given that to certain groups. Ask an "
            "admin to add you to one of them."
        )


def user_may_stop(user: Any, run: RunnerRun) -> bool:
    """Whether `user` may stop a run: who does not see it may not, and else as its profile says now, disabled or not.

    When the profile was deleted its rules are gone, so nobody but who started the run and superusers may.
    """
    if not run.profile_name:
        return True
    if not may_see(user, run):
        return False
    profile = RunnerProfile.objects.filter(pk=run.profile_id or 0).first()
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
