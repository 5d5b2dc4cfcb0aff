"""`autosubmit run`. services/starting.py launches it detached; run_log.py reads its log."""

from __future__ import annotations

from profiles.toggles import Toggle
from runners.commands.base import Action, Command, Page

RUNNER_RUN = Toggle("RUNNER_RUN", "runner-run")  # also of stop-experiment


class RunExperiment(Command):
    name = "run-experiment"
    toggle = RUNNER_RUN
    action = Action.RUN
    page = Page(
        title="Start a run",
        intro="Runs an experiment that has a job list, until its workflow ends or the run is stopped.",
        button="Start the run",
    )
    summary = "Start an experiment"
    description = (
        "Starts `autosubmit run` on the profile's machine and responds as soon as it executes. The run continues even "
        "if the client disconnects or this service restarts. A second request for a running experiment gets 409 with "
        "the active run."
    )
    request_text = "Which experiment, and how its machine is reached."

    def argv(self, expid: str) -> list[str]:
        return ["autosubmit", "run", expid]


RUN_EXPERIMENT = RunExperiment()
