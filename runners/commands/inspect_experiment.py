"""`autosubmit inspect`: generate the scripts of an experiment's jobs, without submitting them."""

from __future__ import annotations

from profiles.toggles import Toggle
from runners.commands.base import Action, OneShotCommand, Page
from runners.commands.output import has_line
from runners.commands.parameters import Flag, Params
from runners.commands.set_job_status import CHECK_WRAPPER, UPDATE_VERSION


class InspectExperiment(OneShotCommand):
    """It has no filters: 4.1 ignores them as soon as the experiment has a lock file, which `create` leaves behind."""

    name = "inspect-experiment"
    toggle = Toggle("INSPECT_EXPERIMENT", "inspect-experiment")
    action = Action.RUN
    needs_idle = True
    holds_lock = True
    is_long = True
    parameters = (
        CHECK_WRAPPER,
        Flag(
            name="force",
            option="--force",
            help="Also generate the scripts of jobs that were already submitted. 4.1 obeys it only together with "
            "`check_wrapper`.",
            label="Also scripts of submitted jobs",
            hint="Autosubmit 4.1 obeys it only together with the check of the wrappers.",
            is_rare=True,
        ),
        Flag(
            name="quick",
            option="--quick",
            help="Only one job of each section. Not known to Autosubmit 4.0.",
            label="Only one job of each section",
            hint="For experiments with many jobs. Autosubmit 4.0 does not know it.",
        ),
        UPDATE_VERSION,
    )
    message = "Scripts of experiment {expid} generated successfully."
    page = Page(
        title="Generate the job scripts",
        intro="Generates the scripts that Autosubmit would submit, so that you can read them before a run. Nothing is "
        "submitted. The experiment must have a job list and must not be running.",
        button="Generate the scripts",
        done="The scripts of {expid} were generated.",
        order=7,
        path="inspect",
    )
    summary = "Generate the job scripts of an experiment"
    description = (
        "Executes `autosubmit inspect`, which writes a script `NAME.cmd` for each job that was not submitted yet into "
        "`tmp/` of the experiment. Nothing is submitted, and the statuses of the jobs stay. Not possible while the "
        "experiment runs. `GET experiments/{expid}/scripts` lists and reads the scripts."
    )
    request_text = "Which experiment, and which scripts are generated."
    params_text = "Which scripts are generated."

    def argv(self, expid: str, params: Params, *, is_detached: bool = False) -> list[str]:
        return ["autosubmit", "inspect", expid, *self.options(params)]

    def is_success(self, exit_code: int, text: str) -> bool:
        """Versions up to 4.1.10 print the line in other words."""
        return exit_code == 0 and (
            has_line(text, "No more scripts to generate") or has_line(text, "no more scripts to generate")
        )


INSPECT_EXPERIMENT = InspectExperiment()
