"""Read runs: find them by filters, get one by its number."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce

from runners.exceptions import NotRunning, RunNotFound, StillReachable
from runners.models import AuditRecord, RunnerRun, RunReason, RunStatus
from runners.services import access, experiment_descriptions, interrupted, lifecycle, lookup, probing
from runners.services.audit import begin
from runners.services.bounded_queries import numbers_between
from runners.services.lookup import Scope
from runners.services.machines.probe import Probe

NUMBER = re.compile(r"[0-9]{1,18}")
EXPID_LENGTH = 16
START_OF_EXPID = re.compile(rf"[a-z0-9]{{1,{EXPID_LENGTH}}}")
# The columns that each order sorts by. Each pair has an index.
SORTS = {
    "-started": ("-id",),
    "started": ("id",),
    "-ended": ("-finished", "-id"),
    "ended": ("finished", "id"),
    "experiment": ("expid", "-id"),
    "-experiment": ("-expid", "id"),
    "machine": ("host", "-id"),
    "-machine": ("-host", "id"),
    "person": ("started_by", "-id"),
    "-person": ("-started_by", "id"),
}


def find(
    *,
    expid: str = "",
    status: str = "",
    reason: str = "",
    profile_name: str = "",
    installation: str = "",
    runner: str = "",
    host: str = "",
    user: str = "",
    started_by: str = "",
    silent: bool | None = None,
    log_too_large: bool | None = None,
    reachable: bool | None = None,
    search: str = "",
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    oldest_first: bool = False,
    beyond: int | None = None,
    sort: str = "",
    viewer: Any,
) -> QuerySet[RunnerRun]:
    """Return the runs that match all filters, ordered by number, newest first by default. The caller slices the result.

    `viewer`: the requesting user, who sees only the runs that `access.visible` allows.

    `reachable`: only active runs whose machine answers, or only those whose machine does not. `search`: as `matching`.
    `sort`: a key of SORTS instead of the number; sorted by their end, active runs are left out.

    `beyond`: only runs that come after the run of this number in this order. `created_after` is inclusive,
    `created_before` exclusive. Each filter but `runner` has an index that ends in the number. So with one filter the
    first rows are found at once, however many rows there are. For the same reason the times are first converted to
    ranges of numbers. With several filters: see `_with_all`.
    """
    runs = access.visible(RunnerRun.objects.order_by("id" if oldest_first else "-id"), viewer)
    if search.strip():
        runs = matching(runs, search.strip())
    # The filters are ordered from the one that usually matches the fewest runs to the one that matches the most.
    telling = {"expid": expid, "started_by": started_by, "user": user, "profile_name": profile_name, "host": host}
    telling["installation"] = installation
    rest = {"reason": reason, "status": status, "runner": runner}
    runs = _with_all(runs, {name: value for name, value in (telling | rest).items() if value})
    # COALESCE prevents the use of the index of `created`, after which the database would have to sort.
    runs = runs.alias(moment=Coalesce("created", "created"))
    # Few runs have a mark, and each mark has an index of its runs.
    if silent is not None:
        runs = runs.filter(silent_since__isnull=not silent)
    if log_too_large is not None:
        runs = runs.filter(log_too_large=log_too_large)
    if reachable is not None:
        runs = runs.filter(status=RunStatus.ACTIVE, reachable=reachable)
    if created_after:
        runs = runs.filter(moment__gte=created_after)
    if created_before:
        runs = runs.filter(moment__lt=created_before)
    if created_after or created_before:
        runs = runs.filter(numbers_between(runs, created_after, created_before))
    if beyond is not None:
        runs = runs.filter(id__gt=beyond) if oldest_first else runs.filter(id__lt=beyond)
    if sort:
        runs = runs.order_by(*SORTS[sort])
        if "ended" in sort:
            runs = runs.filter(finished__isnull=False)
    return runs


def _with_all(runs: QuerySet[RunnerRun], given: dict[str, str]) -> QuerySet[RunnerRun]:
    """Return those `runs` that have all of these values.

    With several values, PostgreSQL gets a subquery for each. It merges the sorted numbers of their indexes, and reads
    only the rows that it returns. With plain conditions it reads all rows that one index finds, or walks the whole
    table: 1 to 2 s with 1,000,000 runs. SQLite cannot merge. There, the first value uses its index and COALESCE
    prevents index use for the others. Otherwise SQLite uses any of the indexes, or sorts: measured with 300,000 runs,
    half of all combinations of two and three filters took 10 to 900 ms.
    """
    if len(given) > 1 and connection.vendor == "postgresql":
        for name, value in given.items():
            runs = runs.filter(pk__in=RunnerRun.objects.filter(**{name: value}).values("pk"))
        return runs
    best = "status" if given.get("status") == RunStatus.ACTIVE else next(iter(given), "")
    others = given.keys() - {best}
    runs = runs.alias(**{f"checked_{each}": Coalesce(each, each) for each in others})
    return runs.filter(**{f"checked_{name}" if name in others else name: value for name, value in given.items()})


def matching(runs: QuerySet[RunnerRun], text: str) -> QuerySet[RunnerRun]:
    """Return those `runs` whose number is `text`, whose expid begins with it, or whose description contains it.

    Upper and lower case are the same. The descriptions are those that the service knows, and only of `runs`.
    """
    expid = text.lower()
    found = Q(pk=int(text)) if NUMBER.fullmatch(text) else Q()
    if START_OF_EXPID.fullmatch(expid):
        # A range that the index can find. PostgreSQL uses no index for LIKE unless the collation is C.
        last = expid + EXPID_LENGTH * "z"
        found |= Q(expid__gte=expid, expid__lte=last, expid__startswith=expid)
    found |= experiment_descriptions.runs_described(runs, text)
    return runs.filter(found) if found else runs.none()


def get(*, pk: int, viewer: Any) -> RunnerRun:
    """Return one run that `viewer` may see. Raises RunNotFound.

    Its machine has confirmed its state within the freshness window, if the machine could be asked.
    """
    run = access.visible_run(pk, viewer)
    probing.refresh_if_stale(run)
    return run


def get_run(*, expid: str, viewer: Any, scope: Scope | None = None) -> RunnerRun:
    """Return the run whose status is requested: see `lookup.last`.

    If its machine can be reached, the machine confirmed the state within the freshness window.

    Raises RunNotFound.
    """
    run = lookup.last(expid, viewer, scope)
    if run is None:
        raise RunNotFound(f"Experiment {expid} was never run here.")
    interrupted.mark(run)
    probing.refresh_if_stale(run)
    return run


def abandon_run(*, pk: int, reason: str, audit: AuditRecord, viewer: Any) -> RunnerRun:
    """Declare that a run has ended whose machine cannot be reached any more. The machine is only probed.

    `reason` and the actor are stored with the run and in the audit log. `viewer` is the person who asks.
    Raises RunNotFound, ProfileForbidden, NotRunning, StillReachable.
    """
    run = access.visible_run(pk, viewer)
    audit.of_run(run)
    audit.detail = reason
    access.require_stop(viewer, run)
    begin(audit)
    abandon(run, note=f"{reason} ({audit.actor or 'nobody is signed in'})")
    return run


def abandon(run: RunnerRun, *, note: str) -> bool:
    """End a run whose machine cannot be reached any more. Return False if another process ended it first.

    Raises NotRunning if the run has ended, StillReachable if its machine answers: such a run has to be stopped instead.
    """
    if run.is_active:
        (probe,) = probing.probe([run])
        if probe.answer != Probe.CANNOT_TELL and run.is_active:
            raise StillReachable(
                f"Run {run.pk} of {run.expid} was just confirmed by its machine. Stop it instead.", run_id=run.pk
            )
    if not run.is_active:
        raise NotRunning(f"Run {run.pk} of {run.expid} has ended: it is {run.status}.", run=run)
    return lifecycle.finish_run(run, reason=RunReason.ABANDONED, confirmed=False, detail=note)
