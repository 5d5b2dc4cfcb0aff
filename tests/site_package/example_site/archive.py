"""`autosubmit archive`: move an experiment to the archive."""

from __future__ import annotations

from profiles.toggles import Toggle
from runners.commands.base import Action, OneShotCommand, Page
from runners.commands.parameters import Flag, Params


class ArchiveExperiment(OneShotCommand):
    name = "store-experiment"
    toggle = Toggle("STORE_EXPERIMENT", "store-experiment")
    action = Action.RUN
    parameters = (Flag(name="noclean", option="--noclean", help="Do not clean it before.", label="Do not clean it"),)
    needs_idle = True
    message = "Experiment {expid} was archived."
    page = Page(
        title="Archive an experiment",
        intro="Moves the files of an experiment to the archive. It must not be running.",
        button="Archive it",
        done="{expid} was archived.",
    )
    summary = "Archive an experiment"
    description = "Executes `autosubmit archive`. Not possible while the experiment runs."
    request_text = "Which experiment."
    params_text = "How to archive it."

    def argv(self, expid: str, params: Params, *, is_detached: bool = False) -> list[str]:
        return ["autosubmit", "archive", *self.options(params), "--", expid]

    def is_success(self, exit_code: int, text: str) -> bool:
        return exit_code == 0 and "archived successfully" in text


ARCHIVE_EXPERIMENT = ArchiveExperiment()
