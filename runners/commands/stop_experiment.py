"""`autosubmit stop`. services/stopping.py bounds it in time and verifies the end of the run."""

from __future__ import annotations

from runners.commands.base import Action, Command, Page
from runners.commands.parameters import Flag
from runners.commands.run_experiment import RUNNER_RUN

# Standard input for `stop`, which asks for a confirmation. 4.1.16 and newer also have an option for that, `-y`. Older
# versions end with a usage error at this option, so the confirmation is always given this way.
STOP_STDIN = b"y\n"


class StopExperiment(Command):
    name = "stop-experiment"
    toggle = RUNNER_RUN
    action = Action.STOP
    needs_profile = False
    parameters = (
        Flag(
            name="force",
            option="--force",
            help="End it at once with KILL, without `autosubmit stop`.",
            label="Kill it immediately",
            in_body=True,
        ),
        Flag(
            name="cancel_jobs",
            option="--cancel",
            label="Also cancel its jobs",
            help="Also cancel the jobs that it has submitted. If the experiment is not running: the jobs that the "
            "last run has left.",
            in_body=True,
        ),
        Flag(
            name="foreign",
            label="Also a run that this service has not started",
            help="End a run of the experiment that this service has not started, such as one that was started by hand. "
            "It is searched with the profile, or in the account of the last run of this service.",
            in_body=True,
        ),
    )
    page = Page(title="Stop the run", intro="Ends the run and waits until its end was seen.", button="Stop")
    summary = "Stop an experiment"
    description = (
        "Executes `autosubmit stop` and then, if the run does not end within its timeout, sends signals to the run's "
        "own processes. Responds after the end of the run was seen on its machine. `steps` lists the steps. Jobs that "
        "are already submitted continue, unless `cancel_jobs` is given: then Autosubmit cancels them after the end of "
        "the run, within RUNNERS_CANCEL_TIMEOUT, and `cancel` and `warnings` have the result. If the experiment is "
        "not running, `cancel_jobs` cancels the jobs that the last run has left. If several installations run an "
        "experiment with this id, `profile_name` is required: otherwise the response is 409 `ambiguous`, and nothing "
        "is stopped. A live `autosubmit run` of the account that this service has not started is never stopped "
        "unasked: the response is then 409 `foreign_run` with its pid. With `foreign` it is ended by INT, TERM and "
        "KILL (with `force` by KILL at once), each sent only if the process is still the same."
    )
    request_text = "Which experiment, and how hard. The run itself knows its machine."

    def argv(self, expid: str, *, force: bool = False, cancel_jobs: bool = False) -> list[str]:
        """Return `autosubmit stop`, which sends INT (KILL with `force`). `--cancel` also cancels the experiment's jobs.

        The command needs STOP_STDIN. It waits for the end of the run without limit, so the caller has to bound it. 4.0
        and 3.14 have no such command.
        """
        flags = {"force": force, "cancel_jobs": cancel_jobs}
        return ["autosubmit", "stop", *(each.option for each in self.parameters if flags.get(each.name)), expid]


STOP_EXPERIMENT = StopExperiment()
