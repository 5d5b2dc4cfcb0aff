"""Who may do what with a profile. Admins choose the groups (RunnerProfile.run_groups and so on)."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any, TypeVar

from django.contrib.auth.models import AnonymousUser
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.db.models.signals import m2m_changed, post_delete, post_save

from profiles.models import DeletedProfile, RunnerProfile, groups_of
from runners.commands.base import Action as Action
from runners.exceptions import NotRunning, ProfileForbidden, RunnerServiceError, RunNotFound
from runners.models import AuditRecord, DetachedCommand, RunnerRun, SeenForeignRun

Row = TypeVar("Row", bound=Model)


_GROUPS = {Action.RUN: "run_groups", Action.STOP: "stop_groups", Action.SET_STATUS: "status_groups"}
_IN_WORDS = {
    Action.RUN: "use the profile {}",
    Action.STOP: "stop runs of the profile {}",
    Action.SET_STATUS: "set the status of jobs with the profile {}",
}


def user_may(user: Any, profile: RunnerProfile, action: Action) -> bool:
    """Return True if the groups of the profile allow the action to `user`, who may be anonymous. Superusers always may.

    PROTECTION_LEVEL decides whether anonymous users get this far.
    """
    return profile.permits(user, _GROUPS[action])


# --- Seeing runs and logs ---------------------------------------------------------------------------------------------

VIEW_RULES_AGE = 1.0  # seconds for which a process caches the rules, because every status needs them
_view_rules: tuple[float, dict[int, frozenset[int]]] | None = None


def view_rules() -> dict[int, frozenset[int]]:
    """Return the groups that see the runs of a profile, by its number. Profiles whose runs everybody sees are left out.

    A deleted profile keeps its rule. Renaming a profile changes nothing.
    """
    global _view_rules
    now = time.monotonic()
    if _view_rules is None or now - _view_rules[0] > VIEW_RULES_AGE:
        rules: dict[int, set[int]] = {}
        for number, groups in DeletedProfile.objects.values_list("number", "view_groups"):
            is_list = isinstance(groups, list)  # else the row is damaged: no group sees the runs
            rules[number] = {group for group in groups if isinstance(group, int)} if is_list else set()
        pairs = RunnerProfile.objects.filter(view_groups__isnull=False).values_list("pk", "view_groups")
        for number, group in pairs:
            rules.setdefault(number, set()).add(group)
        _view_rules = now, {number: frozenset(groups) for number, groups in rules.items()}
    return _view_rules[1]


def forget_view_rules(**kwargs: Any) -> None:
    """Drop the cached rules of this process, where they were changed. Other processes follow within VIEW_RULES_AGE."""
    global _view_rules
    _view_rules = None


for _model in (RunnerProfile, DeletedProfile):
    post_save.connect(forget_view_rules, _model)
    post_delete.connect(forget_view_rules, _model)
m2m_changed.connect(forget_view_rules, RunnerProfile.view_groups.through)


def hidden_profiles(user: Any) -> list[int]:
    """Return the numbers of the profiles whose runs `user` does not see.

    `user` is not evaluated while no profile has such a rule.
    """
    rules = view_rules()
    if not rules or (user.is_active and user.is_superuser):
        return []
    own = groups_of(user)
    return [number for number, groups in rules.items() if not groups & own]


def visibility(user: Any) -> Hashable:
    """Return a key that is equal for users who see the same runs, so that they can share cached content."""
    hidden = hidden_profiles(user)
    return (frozenset(hidden), user.get_username()) if hidden else ()


def visible(rows: QuerySet[Row], user: Any) -> QuerySet[Row]:
    """Return those `rows` (runs, operations) that `user` may see: the user's own, and those of no hidden profile."""
    hidden = hidden_profiles(user)
    return rows.exclude(_hidden(hidden, user, "started_by")) if hidden else rows


def visible_records(records: QuerySet[AuditRecord], user: Any) -> QuerySet[AuditRecord]:
    """Return those audit records that `user` may see: the user's own, and those of no hidden run or profile."""
    hidden = hidden_profiles(user)
    if not hidden:
        return records
    runs = RunnerRun.objects.filter(_hidden(hidden, user, "started_by"))
    # The record of a stop has no profile, and neither has a record from before rows had the number of their profile.
    of_hidden_run = Exists(runs.filter(pk=OuterRef("run_id")))
    return records.exclude(_hidden(hidden, user, "actor")).exclude(of_hidden_run)


def _hidden(profiles: list[int], user: Any, starter: str) -> Q:
    """Select the rows of hidden profiles, except those that `user` started. Anonymous users have started none."""
    rows = Q(profile_id__in=profiles)
    return rows & ~Q(**{starter: user.get_username()}) if user.is_authenticated else rows


def may_see(user: Any, row: DetachedCommand | SeenForeignRun) -> bool:
    """Return True if `user` may see the row. The same as `visible`, for one row."""
    if row.profile_id is None or row.profile_id not in view_rules():
        return True
    return row.profile_id not in hidden_profiles(user) or (
        user.is_authenticated and row.started_by == user.get_username()
    )


def visible_run(pk: int, user: Any) -> RunnerRun:
    """Return the run of this number as it is stored. Raises RunNotFound if it does not exist for `user`."""
    run = RunnerRun.objects.filter(pk=pk).first()
    if run is None or not may_see(user, run):
        raise RunNotFound(f"Run {pk} does not exist.")
    return run


def described(run: RunnerRun) -> str:
    """Describe a run in an error for a user who may see it: its number, profile, account and machine."""
    profile = f" of profile {run.profile_name}" if run.profile_name else ""
    return f"run {run.pk}{profile}, {run.user or 'an unknown account'} on {run.host or 'this machine'}"


def detail_for(user: Any, error: RunnerServiceError) -> str:
    """Return the text of an error, without details of a run that `user` may not see."""
    run = getattr(error, "run", None)
    return error.detail if run is None or may_see(user, run) else in_hidden_run(run.expid)


def detail_for_everybody(error: RunnerServiceError) -> str:
    """Return the text of an error that is stored where people read it whose view is not known now."""
    return detail_for(AnonymousUser(), error)


def facts_for(user: Any, error: RunnerServiceError) -> dict[str, Any]:
    """Return the facts of an error, without the number of a run that `user` may not see."""
    run = getattr(error, "run", None)
    is_hidden = run is not None and not may_see(user, run)
    return {name: fact for name, fact in error.facts.items() if not (is_hidden and name == "run_id")}


def in_hidden_run(expid: str) -> str:
    """Return the text of AlreadyRunning for a user who may not see the run."""
    return f"Experiment {expid} is already running in this installation, in a run that you may not see. Ask an admin."


def require(user: Any, profile: RunnerProfile, action: Action) -> None:
    """Raise ProfileForbidden unless `user` may."""
    if not user_may(user, profile, action):
        raise ProfileForbidden(
            f"You may not {_IN_WORDS[action].format(profile.name)}: only certain groups may do this. Ask an admin to "
            f"add you to one of them."
        )


def require_view(user: Any, profile: RunnerProfile) -> None:
    """Raise ProfileForbidden unless `user` sees the runs of the profile."""
    if profile.pk in hidden_profiles(user):
        raise ProfileForbidden(
            f"You may not see the experiments of the profile {profile.name}: only certain groups may do this. Ask an "
            f"admin to add you to one of them."
        )


def user_may_stop(user: Any, run: RunnerRun) -> bool:
    """Return True if `user` may see the run and its profile, disabled or not, now allows `user` to stop it.

    If the profile was deleted, its rules are gone: then only the user who started the run and superusers may.
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
    """Raise ProfileForbidden unless `user` may stop the run."""
    if not user_may_stop(user, run):
        raise ProfileForbidden(
            f"You may not stop run {run.pk} of {run.expid}: the profile {run.profile_name} allows this to certain "
            f"groups only, or was deleted. Ask an admin."
        )


def require_stop_of(user: Any, run: RunnerRun, active: RunnerRun) -> None:
    """Check a request to stop `run` in particular, while `active` is the active run of its experiment.

    Raises NotRunning if `active` is another run, which nobody has asked to stop. Raises ProfileForbidden unless `user`
    may stop it.
    """
    if active.pk != run.pk:
        run.refresh_from_db()
        raise NotRunning(f"Run {run.pk} has ended; run {active.pk} of {run.expid} is active now.", run=active)
    require_stop(user, active)
