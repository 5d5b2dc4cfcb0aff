"""Remove what is left of runs and operations that ended long ago: directories on the machines, then rows.

Runs that are ACTIVE here are not touched. A directory is kept if the machine still sees its process (a run that an
admin has abandoned may live on), or if the state of its process is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Model, QuerySet

from runners import printable
from runners.exceptions import RunnerServiceError
from runners.models import AuditRecord, DetachedCommand, Mail, Operation, RunnerRun, WebhookDelivery
from runners.services import experiment_descriptions, lifecycle
from runners.services.machines import answers, scripts
from runners.services.machines.runner import Runner
from runners_project import clock

ROWS_AT_ONCE = 10_000  # rows in memory, and directories in one round trip
KIBIBYTES_MOST = 2**43  # 8 EiB, the size of the largest file
DELETE_AT_ONCE = 500  # rows in one statement, so that other writers are not blocked for long
COLUMNS = ("key", "config", "identity", "status", "started_by", "profile_id")
_KEY = re.compile(r"[0-9a-f]{32}")
MODELS: tuple[type[DetachedCommand], ...] = (RunnerRun, Operation)


@dataclass(slots=True)
class Cleaned:
    """The result for one machine (with `dry_run` the expected one): numbers of directories.

    `problem`: why nothing could be done.
    """

    where: str
    removed: int = 0
    absent: int = 0
    kept: int = 0
    kibibytes: int = 0
    problem: str = ""


def clean_directories(before: datetime, *, dry_run: bool = False) -> list[Cleaned]:
    """Remove the directories of runs and operations that ended before a time, with one round trip per machine.

    An error of a machine is not raised; it becomes the `problem` of that machine.
    """
    machines: dict[tuple[str, ...], Cleaned] = {}
    for model in MODELS:
        for rows in _batches(model.objects.ended_before(before).filter(cleaned_at=None)):
            for target, group in lifecycle.by_target(rows).items():
                runner = lifecycle.runner_of(group[0])
                done = machines.setdefault(target, Cleaned(runner.where))
                if not done.problem:
                    _clean(runner, group, done, dry_run=dry_run)
    return list(machines.values())


def delete_rows(before: datetime, *, dry_run: bool = False) -> dict[str, int]:
    """Delete rows of runs and operations that ended before a time and have no directory.

    Old messages are deleted, too, and old descriptions of experiments that have no runs. Returns the number of each, by
    their names; with `dry_run` the number if every directory could be removed.
    """
    kinds: list[QuerySet[Any]] = [model.objects.ended_before(before) for model in MODELS]
    if not dry_run:
        kinds = [kind.exclude(cleaned_at=None) for kind in kinds]
    kinds.append(WebhookDelivery.objects.filter(created__lt=before, next_attempt=None))
    kinds.append(Mail.objects.filter(created__lt=before, next_attempt=None))
    kinds.append(experiment_descriptions.forgettable(before))
    return {str(kind.model._meta.verbose_name_plural): _delete(kind, dry_run=dry_run) for kind in kinds}


def delete_audit(before: datetime, *, dry_run: bool = False) -> int:
    """Delete audit records from before a time and return their number."""
    return _delete(AuditRecord.objects.filter(created__lt=before), dry_run=dry_run)


def _batches(rows: QuerySet[Any]) -> Iterator[list[Any]]:
    last = 0
    while batch := list(rows.filter(pk__gt=last).order_by("pk").only(*COLUMNS)[:ROWS_AT_ONCE]):
        last = batch[-1].pk
        yield batch


def _delete(rows: QuerySet[Any], *, dry_run: bool) -> int:
    if dry_run:
        return rows.count()
    total = 0
    model: type[Model] = rows.model
    while keys := list(rows.order_by("pk").values_list("pk", flat=True)[:DELETE_AT_ONCE]):
        model._default_manager.filter(pk__in=keys).delete()
        total += len(keys)
    return total


def _clean(runner: Runner, rows: list[Any], done: Cleaned, *, dry_run: bool) -> None:
    by_key = {row.key: row for row in rows if _KEY.fullmatch(row.key) and lifecycle.is_readable(row)}
    done.kept += len(rows) - len(by_key)
    identities = {key: lifecycle.identity_of(row) for key, row in by_key.items()}
    targets = [(key, identity.words if identity else ()) for key, identity in identities.items()]
    script = scripts.clean(targets, dry_run=dry_run)
    try:
        result = runner.execute(script, timeout=settings.RUNNERS_COMMAND_TIMEOUT)
    except RunnerServiceError as error:
        done.problem = error.detail
        return
    gone = []
    told = read_answers(result.stdout)
    for key, row in by_key.items():
        answer, kibibytes = told.get(key, ("kept", 0))  # a directory without an answer still exists
        setattr(done, answer, getattr(done, answer) + 1)
        done.kibibytes += kibibytes
        if answer != "kept":
            gone.append(row.pk)
    if not dry_run:
        for start in range(0, len(gone), DELETE_AT_ONCE):
            chunk = gone[start : start + DELETE_AT_ONCE]
            type(rows[0]).objects.filter(pk__in=chunk).update(cleaned_at=clock.now())


def read_answers(output: bytes) -> dict[str, tuple[str, int]]:
    """Return the result for each directory, and its size in KiB, by its key. Invalid lines are ignored."""
    told = {}
    for line in output.decode("utf-8", "replace").split("\n"):
        words = line.split(" ") if len(line) < printable.LINE_LIMIT else []
        if len(words) == 3 and words[1] in ("removed", "absent", "kept"):
            with suppress(answers.Unreadable):
                told[words[0]] = (words[1], answers.integer(words[2], 0, KIBIBYTES_MOST))
    return told
