"""Find stops that were interrupted because their server process died, and mark them as interrupted.

A stop writes its process into its row (`stop_owner`), with the latest time at which it can end (`stop_until`). It
removes both when it has its outcome. If they are still there and the process is dead, the stop was interrupted: by a
KILL, by a restart, by a worker that was ended at its graceful timeout.
"""

from __future__ import annotations

import logging

from django.db import DatabaseError, InterfaceError, connection

from runners.commands.stop_experiment import STOP_EXPERIMENT
from runners.models import AuditRecord, RunnerRun
from runners.services import audit, own_process
from runners.services.cancelling import Cancellation

logger = logging.getLogger(__name__)

SENTENCE = "interrupted: the service ended during this step"
BETWEEN = "interrupted: the service ended between two steps"
CANCEL = "autosubmit stop --cancel"  # the step of a stop in which its jobs are cancelled


def is_under_way(run: RunnerRun) -> bool:
    """Return True if a stop, or a cancel, of the run is being executed now."""
    return own_process.is_working(run.stop_owner, run.stop_until)


def mark(run: RunnerRun) -> None:
    """If the run's stop was interrupted, store that: in its steps, in what is known of its jobs, in its audit record.

    If several processes see the interruption, exactly one stores it.
    """
    if not run.stop_owner or is_under_way(run):
        return
    changes: dict[str, object] = {"stop_owner": "", "stop_until": None}
    if run.stop_steps and run.stop_steps[-1]["seconds"] is None:
        step = {**run.stop_steps[-1], "outcome": SENTENCE, "seconds": 0.0, "interrupted": True}
        changes["stop_steps"] = [*run.stop_steps[:-1], step]
        if step["action"] == CANCEL:
            failure = "The service ended during the cancellation. It is not known which jobs were cancelled."
            changes["cancel"] = Cancellation(failure=failure, is_unknown=True).as_dict()
    elif run.is_active:
        step = {"action": "stop", "outcome": BETWEEN, "seconds": 0.0, "ended": False, "interrupted": True}
        changes["stop_steps"] = [*run.stop_steps, step]
    mine = RunnerRun.objects.filter(pk=run.pk, stop_owner=run.stop_owner)
    if mine.update(**changes):
        actions = ", ".join(step["action"] for step in run.stop_steps) or "none"
        detail = (
            f"The service ended during a stop of run {run.pk}. Steps so far: {actions}. Stop it again if it is ACTIVE."
        )
        begun = AuditRecord.objects.filter(run_id=run.pk, owner=run.stop_owner)
        if not begun.update(outcome=AuditRecord.INTERRUPTED, detail=detail):
            AuditRecord.objects.create(  # of a stop that an earlier version of the service began
                actor=run.stopped_by,
                endpoint=STOP_EXPERIMENT.name,
                profile_name=run.profile_name,
                profile_id=run.profile_id,
                expid=run.expid,
                run_id=run.pk,
                outcome=AuditRecord.INTERRUPTED,
                detail=detail,
            )
    run.refresh_from_db()


def mark_at_start() -> None:
    """Mark the interrupted stops and commands of dead processes when a server process starts.

    The start does not fail if the database is not reachable.
    """
    try:
        mark_all()
        audit.mark_interrupted()
    except (DatabaseError, InterfaceError) as error:
        logger.warning("Interrupted commands cannot be checked now: %s", error)
    finally:
        connection.close()


def mark_all() -> None:
    """Call `mark` for all runs that have a stop owner."""
    for run in RunnerRun.objects.filter(stop_owner__gt=""):
        mark(run)
