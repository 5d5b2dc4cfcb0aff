"""Find the run of an expid that a request means, if several installations have an experiment of that id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet

from profiles.models import RunnerProfile
from profiles.people import Person
from runners.exceptions import AmbiguousRun
from runners.models import RunnerRun, RunStatus
from runners.services import access

MAX_CHOICES = 50  # runs that an `ambiguous` error lists
NAMED = 5  # runs that the sentence of this error names


@dataclass(frozen=True, slots=True)
class Scope:
    """The runs among which a request searches. `profile_id`: runs that were started with this profile.

    `installations`: and runs in an installation whose whole name matches. A run needs to match only one of the two,
    because the name of a profile may have changed since the run was started.
    """

    profile_id: int | None
    installations: re.Pattern[str]

    def matches(self, row: Any) -> bool:
        """Return True if a row, which has a profile and an installation, is in this scope."""
        return row.profile_id == (self.profile_id or 0) or bool(self.installations.fullmatch(row.installation))

    def filter(self, runs: QuerySet[RunnerRun]) -> QuerySet[RunnerRun]:
        fitting = [name for name in _installations(runs) if self.installations.fullmatch(name)]
        return runs.filter(Q(installation__in=fitting) | Q(profile_id=self.profile_id or 0))


def of_profile(profile: RunnerProfile, profile_params: object, person: Person) -> Scope:
    """Return the scope of a command with this profile.

    With parameters, the account and the machine are known, and so is the installation. Without parameters, the values
    that the profile leaves open may be anything. Raises InvalidProfile.
    """
    if profile_params:
        name = profile.resolve(profile_params, person).installation
        return Scope(None, re.compile(re.escape(name)))
    return Scope(profile.pk, profile.installations())


def of_run(run: RunnerRun) -> Scope:
    """Return the scope with the runs of the same installation."""
    return Scope(None, re.compile(re.escape(run.installation)))


def last(expid: str, viewer: Any, scope: Scope | None = None) -> RunnerRun | None:
    """Return the active run that `viewer` may see, else the newest one.

    If several installations have the expid, and `viewer` has started a run in some of them, only those installations
    count: the request does not mean another person's experiment of the same id.
    """
    if scope is None:
        run, is_alone = RunnerRun.objects.last_of(expid)
        if run is None or (is_alone and access.may_see(viewer, run)):
            return run
    runs = _candidates(expid, viewer, scope)
    if len(_installations(runs)) > 1 and viewer.is_authenticated:
        mine = runs.filter(started_by=viewer.get_username())
        runs = runs.filter(installation__in=_installations(mine)) if mine.exists() else runs
    newest = runs.order_by("-id")
    return newest.filter(status=RunStatus.ACTIVE).first() or newest.first()


def to_stop(expid: str, viewer: Any, scope: Scope | None = None) -> RunnerRun | None:
    """Return the same as `last`. Raises AmbiguousRun if several active runs may be meant: a stop never guesses."""
    active = _candidates(expid, viewer, scope).filter(status=RunStatus.ACTIVE)
    found = list(active.order_by("-id")[: MAX_CHOICES + 1])
    if len(found) > 1:
        raise _ambiguous(expid, found)
    return found[0] if found else last(expid, viewer, scope)


def _candidates(expid: str, viewer: Any, scope: Scope | None) -> QuerySet[RunnerRun]:
    runs = access.visible(RunnerRun.objects.filter(expid=expid, superseded=False), viewer)
    return scope.filter(runs) if scope else runs


def _installations(runs: QuerySet[RunnerRun]) -> list[str]:
    return list(runs.order_by().values_list("installation", flat=True).distinct())


def _ambiguous(expid: str, runs: list[RunnerRun]) -> AmbiguousRun:
    shown = runs[:MAX_CHOICES]
    named = "; ".join(access.described(run) for run in shown[:NAMED])
    more = " and more" if len(runs) > NAMED else ""
    return AmbiguousRun(
        f"Experiment {expid} is running in {'several' if more else len(runs)} installations: {named}{more}. Send the "
        f"profile_name of one of them, and profile_params if this profile leaves the account or the machine open. "
        f"Nothing was stopped.",
        choices=[
            {
                "runner_id": run.pk,
                "profile_name": run.profile_name,
                "installation": run.installation,
                "user": run.user,
                "host": run.host,
                "started_by": run.started_by,
                "created": run.created.isoformat(timespec="seconds"),
            }
            for run in shown
        ],
    )
