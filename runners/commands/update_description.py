"""`autosubmit updatedescrip`: replace the description of an experiment."""

from __future__ import annotations

import re
from collections.abc import Sequence

from profiles.toggles import Toggle
from runners.commands.base import Action, OneShotCommand, Page
from runners.commands.parameters import DESCRIPTION_LIMIT, EXPID_PATTERN, Params, Text


class UpdateDescription(OneShotCommand):
    name = "update-experiment-description"
    toggle = Toggle("UPDATE_EXPERIMENT_DETAILS", "update-experiment-description")
    action = Action.RUN
    parameters = (
        Text(
            name="description",
            required=True,
            allow_blank=True,
            max_length=DESCRIPTION_LIMIT,
            in_body=True,
            rows=4,
            help="Any text of at most 32,000 characters; may be empty.",
            label="New description",
        ),
    )
    message = "Description for experiment {expid} updated successfully."
    page = Page(
        title="Change the description",
        intro="Replaces the description of an experiment in Autosubmit. The experiment may be running.",
        button="Change the description",
        done="The description of {expid} was changed.",
        order=4,
        path="description",
    )
    summary = "Replace the description of an experiment"
    description = "Executes `autosubmit updatedescrip`. Also possible while the experiment runs."
    request_text = "Which experiment, and its new description."

    def argv(self, expid: str, params: Params, *, is_detached: bool = False) -> list[str]:
        return ["autosubmit", "updatedescrip", "--", expid, params["description"]]

    def new_description(self, argv: Sequence[str]) -> str | None:
        return argv[-1]

    def is_success(self, exit_code: int, text: str) -> bool:
        """Autosubmit prints its line before it writes, so the line alone proves nothing."""
        line = rf"^Setting {EXPID_PATTERN} description to '"
        return exit_code == 0 and re.search(line, text, re.MULTILINE) is not None


UPDATE_DESCRIPTION = UpdateDescription()
