"""What a long command answers once it has succeeded: its message, and the members of the response."""

from __future__ import annotations

from typing import Any

from runners.models.operation import OperationKind
from runners.services.execute import CommandOutcome

MESSAGES = {
    OperationKind.SET_JOB_STATUS: "Job status for experiment {expid} set successfully.",
    OperationKind.CREATE_EXPERIMENT: "Experiment {expid} created successfully.",
    OperationKind.CREATE_JOB_LIST: "Job list for experiment {expid} created successfully.",
}


def body_of(kind: OperationKind, outcome: CommandOutcome) -> dict[str, Any]:
    """Return the response body for a long command that has succeeded."""
    body: dict[str, Any] = {"message": message_of(kind, outcome), "warnings": outcome.warnings}
    if kind is OperationKind.CREATE_EXPERIMENT:
        return {"expid": outcome.expid, **body}
    if kind is OperationKind.SET_JOB_STATUS and (changes := outcome.changes):
        counts = {"selected": changes.selected, "changed": changes.changed, "unchanged": changes.unchanged}
        return {**body, "changed": changes.jobs, "counts": counts}
    return body


def message_of(kind: OperationKind, outcome: CommandOutcome) -> str:
    """Return the message for a long command that has succeeded."""
    changes = outcome.changes
    if kind is not OperationKind.SET_JOB_STATUS or changes is None or changes.changed:
        return MESSAGES[kind].format(expid=outcome.expid)
    if changes.selected == 0:
        return f"No job of experiment {outcome.expid} was changed: the filters select none."
    which = f"the {changes.selected} selected jobs have" if changes.selected else "the selected jobs have"
    if changes.selected == 1:
        which = "the selected job has"
    return f"No job of experiment {outcome.expid} was changed: {which} this status already, or see the warnings."
