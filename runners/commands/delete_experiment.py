"""`autosubmit delete`: remove an experiment for good."""

from __future__ import annotations

import re

from profiles.toggles import Toggle
from runners.commands.base import Action, OneShotCommand, Page
from runners.commands.parameters import EXPID_LIMIT, EXPID_PATTERN, EXPID_RULE, InvalidParams, Params, Text

CONFIRMATION = "confirm_expid"
_REMOVED = re.compile(
    rf"^(?:The {EXPID_PATTERN} experiment was removed from the local disk and from the database\b|"
    rf"/.{{1,1000}}/job_data_{EXPID_PATTERN}\.(?:db|sql)\s*$)",
    re.MULTILINE,
)


class DeleteExperiment(OneShotCommand):
    name = "delete-experiment"
    toggle = Toggle("DELETE_EXPERIMENT", "delete-experiment", is_enabled=False)
    action = Action.RUN
    needs_idle = True
    holds_lock = True
    removes_experiment = True
    is_long = True
    parameters = (
        Text(
            name=CONFIRMATION,
            required=True,
            max_length=EXPID_LIMIT,
            pattern=EXPID_PATTERN,
            rule=EXPID_RULE,
            in_body=True,
            help="The same experiment once more, to confirm that it is deleted for good.",
            label="The experiment once more",
            hint="Type it again, to confirm that it is deleted for good.",
            placeholder="a000",
        ),
    )
    message = "Experiment {expid} deleted successfully."
    page = Page(
        title="Delete the experiment",
        intro="Deletes the directory of an experiment with its configuration, job list and logs, and its entry in the "
        "database of Autosubmit. Nobody can undo it. Data that its jobs wrote elsewhere stays. Its runs stay in the "
        "history. The experiment must not be running.",
        button="Delete for good",
        done="{expid} was deleted.",
        order=10,
        path="delete",
    )
    summary = "Delete an experiment for good"
    description = (
        "Executes `autosubmit delete --force`: removes the directory of the experiment, its entry in Autosubmit's "
        "database, and its job data. Nobody can undo it. Data that its jobs wrote elsewhere stays. Refused while the "
        "experiment is active, and unless `confirm_expid` repeats `expid`. The runs and the audit log stay readable. "
        "The endpoint is off until an admin enables it (DELETE_EXPERIMENT)."
    )
    request_text = "Which experiment, twice."

    def argv(self, expid: str, params: Params, *, is_detached: bool = False) -> list[str]:
        """`--force` answers the question of `delete`. Autosubmit also takes lists of experiments: `expid` is one."""
        return ["autosubmit", "delete", "--force", expid]

    def validate_for(self, expid: str, params: Params) -> None:
        if params[CONFIRMATION] != expid:
            raise InvalidParams({CONFIRMATION: f"It differs from expid. Repeat {expid} to delete it for good."})

    def is_success(self, exit_code: int, text: str) -> bool:
        """Autosubmit prints what it removed, one line per file, only if it could remove everything.

        If there are so many that only the end of the output was read, the last line is the file of the job data.
        """
        return exit_code == 0 and _REMOVED.search(text) is not None


DELETE_EXPERIMENT = DeleteExperiment()
