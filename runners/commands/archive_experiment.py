"""`autosubmit archive` and `autosubmit unarchive`: pack an experiment into one file, and unpack it."""

from __future__ import annotations

import re

from profiles.toggles import Toggle
from runners.commands.base import Action, OneShotCommand, Page
from runners.commands.output import has_line
from runners.commands.parameters import EXPID_PATTERN, Flag, Params
from runners.services.machines import scripts

ARCHIVE_EXPERIMENT_TOGGLE = Toggle("ARCHIVE_EXPERIMENT", "archive-experiment and unarchive-experiment")


class ArchiveExperiment(OneShotCommand):
    name = "archive-experiment"
    toggle = ARCHIVE_EXPERIMENT_TOGGLE
    action = Action.RUN
    needs_idle = True
    holds_lock = True
    is_long = True
    parameters = (
        Flag(
            name="uncompressed",
            option="--uncompress",
            help="Make a .tar file, faster and larger than a .tar.gz. unarchive-experiment then needs it, too.",
            label="Do not compress",
            hint="Faster, but larger. To unarchive, give the same option.",
        ),
    )
    message = "Experiment {expid} archived successfully."
    page = Page(
        title="Archive the experiment",
        intro="Packs the directory of an experiment into one file and removes the directory. It cannot be run until "
        "it is unarchived. Its runs stay in the history. The experiment must not be running.",
        button="Archive",
        done="{expid} was archived.",
        order=8,
        path="archive",
    )
    summary = "Archive an experiment"
    description = (
        "Executes `autosubmit archive`: packs the directory of the experiment into YEAR/EXPID.tar.gz beside the "
        "experiments, and removes the directory. Not possible while the experiment runs. Commands for an archived "
        "experiment get 404 `experiment_not_found` with the place of the archive; unarchive-experiment brings it back."
    )
    request_text = "Which experiment, and how it is packed."
    params_text = "How it is packed."

    def argv(self, expid: str, params: Params, *, is_detached: bool = False) -> list[str]:
        return ["autosubmit", "archive", expid, *self.options(params)]

    def is_success(self, exit_code: int, text: str) -> bool:
        return exit_code == 0 and has_line(text, "Experiment archived successfully")


class UnarchiveExperiment(OneShotCommand):
    name = "unarchive-experiment"
    toggle = ARCHIVE_EXPERIMENT_TOGGLE
    action = Action.RUN
    is_long = True
    parameters = (
        Flag(
            name="uncompressed",
            option="--uncompressed",
            help="The archive is a .tar file, not a .tar.gz: it was made with the same option.",
            label="The archive is not compressed",
        ),
    )
    message = "Experiment {expid} unarchived successfully."
    page = Page(
        title="Unarchive the experiment",
        intro="Unpacks an archived experiment into its directory, and removes the archive.",
        button="Unarchive",
        done="{expid} was unarchived.",
        order=9,
        path="unarchive",
    )
    summary = "Unpack an archived experiment"
    description = (
        "Executes `autosubmit unarchive`: unpacks the newest archive of the experiment, and removes the archive. "
        "Refused if the directory of the experiment exists."
    )
    request_text = "Which experiment, and how it is packed."
    params_text = "How it is packed."

    def argv(self, expid: str, params: Params, *, is_detached: bool = False) -> list[str]:
        return ["autosubmit", "unarchive", expid, *self.options(params)]

    def checks(self, expid: str) -> list[str]:
        """If Autosubmit cannot read the archive, it removes the directory of the experiment."""
        return [scripts.no_directory(expid)]

    def is_success(self, exit_code: int, text: str) -> bool:
        """Up to 4.1.12, the exit code is also 0 for an experiment that is not archived."""
        line = rf"^Experiment {EXPID_PATTERN} unarchived successfully"
        return exit_code == 0 and re.search(line, text, re.MULTILINE) is not None


ARCHIVE_EXPERIMENT = ArchiveExperiment()
UNARCHIVE_EXPERIMENT = UnarchiveExperiment()
