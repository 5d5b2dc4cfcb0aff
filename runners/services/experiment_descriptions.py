"""The descriptions of experiments that this service has seen: to find runs by them, and to show them in lists.

They are learned wherever a machine tells them anyway; no machine is asked for them here. A description says nothing
about who may see it: callers show it beside runs that the viewer may see.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Left

from profiles.config import DEFAULT_INSTALLATION, RunnerConfig
from runners import printable
from runners.commands.base import OneShotCommand
from runners.commands.parameters import DESCRIPTION_LIMIT
from runners.models import ExperimentDescription, RunnerRun
from runners.models.base import machine_of, node_of
from runners.services.db_connection import LOST, drop_lost_connection
from runners_project import clock

logger = logging.getLogger(__name__)

MOST_FOUND = 500  # experiments that one search finds by their descriptions
SHOWN = 1000  # characters in lists
SEEN_AGAIN = timedelta(days=1)  # how long an unchanged description is not written again


@dataclass(frozen=True, slots=True)
class Home:
    """Where an experiment is. The fields are columns of RunnerRun and of ExperimentDescription."""

    installation: str
    machine: str = ""
    node: str = ""


def home(installation: str, machine: str, node: str) -> Home:
    """Return the home of an experiment. A named installation is one database, whatever account reads it."""
    is_named = installation != DEFAULT_INSTALLATION
    return Home(installation) if is_named else Home(installation, machine, node)


def home_of(config: RunnerConfig) -> Home:
    return home(config.installation, machine_of(config), node_of(config))


def home_of_run(run: RunnerRun) -> Home:
    return home(run.installation, run.machine, run.node)


# --- learn and forget -------------------------------------------------------------------------------------------------


def learn(place: Home, texts: Mapping[str, str], *, limit: int = 0) -> None:
    """Store descriptions by expid. One query reads the known ones, one statement writes those that have changed.

    An empty text is ignored: it may mean that Autosubmit's database could not be read. `limit`: the length at which the
    source cuts its texts; a cut text does not replace a longer one that begins with it. If the database does not
    answer, nothing is stored: the caller's own answer does not need it.
    """
    told = {expid: (cleaned(text), bool(limit) and len(text) >= limit) for expid, text in texts.items()}
    told = {expid: found for expid, found in sorted(told.items()) if found[0]}
    if not told or place == Home(DEFAULT_INSTALLATION):  # an old row does not say its machine
        return
    try:
        _store(place, told)
    except LOST as error:
        logger.warning("Descriptions of experiments were not stored: %s", error)
        drop_lost_connection()


def _store(place: Home, told: Mapping[str, tuple[str, bool]]) -> None:
    now = clock.now()
    known = {row.expid: row for row in _rows(place).filter(expid__in=told)}
    changed = []
    for expid, (text, is_cut) in told.items():
        row = known.get(expid)
        if row and is_cut and row.description.startswith(text):
            text = row.description
        if row and row.description == text and now - row.seen_at < SEEN_AGAIN:
            continue
        changed.append(
            ExperimentDescription(
                expid=expid,
                installation=place.installation,
                machine=place.machine,
                node=place.node,
                description=text,
                search_text=folded(text),
                seen_at=now,
            )
        )
    if changed:
        with transaction.atomic():  # a failure does not break the transaction of the caller
            ExperimentDescription.objects.bulk_create(
                changed,
                update_conflicts=True,
                unique_fields=["expid", "installation", "machine", "node"],
                update_fields=["description", "search_text", "seen_at"],
            )


def note_success(command: OneShotCommand, config: RunnerConfig, expid: str, argv: list[str]) -> None:
    """Store or forget the description of an experiment after a command has succeeded."""
    text = command.new_description(argv)
    if text is not None and cleaned(text):
        learn(home_of(config), {expid: text})
    elif text is not None or command.removes_experiment:
        try:
            _rows(home_of(config)).filter(expid=expid).delete()
        except LOST as error:
            logger.warning("The description of %s was not removed: %s", expid, error)
            drop_lost_connection()


def _rows(place: Home) -> QuerySet[ExperimentDescription]:
    return ExperimentDescription.objects.filter(installation=place.installation, machine=place.machine, node=place.node)


def cleaned(text: str) -> str:
    """Return a description as one printable line of at most DESCRIPTION_LIMIT characters."""
    return printable.line(" ".join(text.split()), DESCRIPTION_LIMIT)


def folded(text: str) -> str:
    """Return a text for comparisons that ignore case and the ways to write an accent."""
    return unicodedata.normalize("NFKC", text).casefold()


# --- find and show ----------------------------------------------------------------------------------------------------


def runs_described(runs: QuerySet[RunnerRun], text: str) -> Q:
    """Return the condition for those `runs` whose experiment has `text` in its description, in upper or lower case.

    The experiments are looked up first: at most MOST_FOUND that have any of `runs`, the last expids first. Then the
    index on the expid finds their runs. An empty condition means that there are none.
    """
    wanted = folded(cleaned(text))
    if not wanted:
        return Q()
    of_expid = runs.order_by().filter(expid=OuterRef("expid"), installation=OuterRef("installation"))
    rows = ExperimentDescription.objects.filter(Exists(of_expid), search_text__contains=wanted).order_by("-expid")
    found = dict(rows.values_list("pk", "expid")[:MOST_FOUND])
    if not found:
        return Q()
    expids = sorted(set(found.values()))
    at_home = Q(machine=OuterRef("machine"), node=OuterRef("node")) | ~Q(installation=DEFAULT_INSTALLATION)
    described = ExperimentDescription.objects.filter(
        at_home, pk__in=found, expid=OuterRef("expid"), installation=OuterRef("installation")
    )
    # The range is for plans that walk the index of the expid in its order.
    of_expids = Q(expid__gte=expids[0], expid__lte=expids[-1], expid__in=expids, superseded=False)
    return of_expids & Q(Exists(described))


def of_runs(runs: Iterable[RunnerRun]) -> dict[int, str]:
    """Return the known descriptions of some runs, at most SHOWN characters each, by number. It needs one query."""
    homes = {run.pk: (run.expid, home_of_run(run)) for run in runs if not run.superseded}
    if not homes:
        return {}
    rows = ExperimentDescription.objects.filter(
        expid__in={expid for expid, _ in homes.values()},
        installation__in={place.installation for _, place in homes.values()},
    ).annotate(begin=Left("description", SHOWN + 1))
    found = {
        (expid, Home(*place)): text
        for expid, *place, text in rows.values_list("expid", "installation", "machine", "node", "begin")
    }
    return {number: printable.line(found[each], SHOWN) for number, each in homes.items() if each in found}


def forgettable(before: datetime) -> QuerySet[ExperimentDescription]:
    """Return the descriptions that were not seen since a time and whose experiment has no run here."""
    runs = RunnerRun.objects.filter(expid=OuterRef("expid"), installation=OuterRef("installation")).order_by()
    return ExperimentDescription.objects.filter(~Exists(runs), seen_at__lt=before)
