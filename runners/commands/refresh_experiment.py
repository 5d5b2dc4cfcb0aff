"""`autosubmit refresh`: fetch the project code of an experiment again."""

from __future__ import annotations

import re
from collections.abc import Sequence

from profiles.toggles import Toggle
from runners import printable
from runners.commands.base import Action, CommandOutcome, OneShotCommand, Page
from runners.commands.output import has_line
from runners.commands.parameters import Flag, Params
from runners.commands.set_job_status import UPDATE_VERSION
from runners.services.machines.runner import CommandResult, Runner

# Autosubmit does not look at the exit code of rsync, which copies a local project. rsync(1) and the shell tell it.
_NOT_COPIED = re.compile(r"^.{0,200}\brsync(?: error)?: .{1,300}$", re.MULTILINE)


class RefreshExperiment(OneShotCommand):
    name = "refresh-experiment"
    toggle = Toggle("REFRESH_EXPERIMENT", "refresh-experiment")
    action = Action.RUN
    needs_idle = True
    holds_lock = True
    is_long = True
    parameters = (
        Flag(
            name="model_conf",
            option="--model_conf",
            help="Replace the project's own configuration file (FILE_PROJECT_CONF) in `conf/` by the one of the new "
            "code. Autosubmit keeps the former file as a backup beside it.",
            label="Replace the project's configuration file",
            is_rare=True,
        ),
        Flag(
            name="jobs_conf",
            option="--jobs_conf",
            help="Replace the jobs file in `conf/` by the one of the new code (FILE_JOBS_CONF). Autosubmit keeps the "
            "former file as a backup beside it.",
            label="Replace the jobs file",
            is_rare=True,
        ),
        UPDATE_VERSION,
    )
    message = "Project code of experiment {expid} refreshed successfully."
    page = Page(
        title="Refresh the project code",
        intro="Fetches the project code again, from the Git repository, the SVN repository or the directory that the "
        "configuration names. Changes made in proj/ are lost. The experiment must not be running.",
        button="Refresh the code",
        done="The project code of {expid} was refreshed.",
        order=6,
        path="refresh",
    )
    summary = "Fetch the project code of an experiment again"
    description = (
        "Executes `autosubmit refresh`. Replaces the code in `proj/` of the experiment: changes that somebody made "
        "there are lost. Not possible while the experiment runs. The job list stays as it is: create it again if the "
        "new code changes the jobs."
    )
    request_text = "Which experiment, and which of its files the new code replaces."
    params_text = "Which files in `conf/` the new code replaces."

    def argv(self, expid: str, params: Params, *, is_detached: bool = False) -> list[str]:
        return ["autosubmit", "refresh", expid, *self.options(params)]

    def is_success(self, exit_code: int, text: str) -> bool:
        """An experiment without a project (PROJECT_TYPE none) is a success, too."""
        return exit_code == 0 and has_line(text, "Project folder updated")

    def outcome(
        self, runner: Runner, expid: str, argv: list[str], result: CommandResult, notes: Sequence[str] = ()
    ) -> CommandOutcome:
        """Return the warnings, with one if rsync did not copy a local project."""
        done = super().outcome(runner, expid, argv, result, notes)
        if found := _NOT_COPIED.search(result.all_text):
            done.warnings.append(
                f"The code may be incomplete, because rsync failed: {printable.line(found[0])}. Autosubmit does not "
                f"notice it."
            )
        return done


REFRESH_EXPERIMENT = RefreshExperiment()
