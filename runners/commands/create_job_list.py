"""`autosubmit create`: make the job list of an experiment, and warn of what the old one loses."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from django.conf import settings

from runners.commands import installation, output
from runners.commands.base import Action, CommandOutcome, OneShotCommand, Page, WouldFail
from runners.commands.create_experiment import CREATE_EXPERIMENT_TOGGLE
from runners.commands.output import has_line, listed
from runners.commands.parameters import Flag, Params
from runners.commands.set_job_status import (
    ACTIVE,
    CHECK_WRAPPER,
    SET_JOB_STATUS,
    UPDATE_VERSION,
    Changes,
    has_active_jobs,
    jobs_of_status,
    read_changes,
    to_ready,
)
from runners.exceptions import CommandTimedOut, OutcomeUnknown
from runners.services.machines.registry import get_module_loader
from runners.services.machines.runner import CommandResult, Runner

JOB_LIST_UNREADABLE = (
    "Autosubmit cannot read the job list of the experiment. Its file may be damaged, or the disk full. A new job list "
    "resets all jobs: it is lost which jobs were COMPLETED, and jobs that are queuing or running are executed a "
    "second time."
)
PROGRESS_UNKNOWN = (
    "It is not known whether jobs are COMPLETED, or still on their platforms. A new job list resets all jobs: "
    "COMPLETED jobs become READY or WAITING, and jobs that are queuing or running are executed a second time."
)


class CreateJobList(OneShotCommand):
    name = "create-job-list"
    toggle = CREATE_EXPERIMENT_TOGGLE
    action = Action.RUN
    needs_idle = True
    is_long = True
    has_notes = True
    notes_unknown = PROGRESS_UNKNOWN
    parameters = (
        CHECK_WRAPPER,
        UPDATE_VERSION,
        Flag(
            name="force",
            option="--force",
            help="Ignore the old job list, for example if its file is damaged. All jobs are reset with and without "
            "`force`: COMPLETED jobs become READY or WAITING.",
            label="Ignore the old job list",
            hint="For a damaged job list. All jobs are reset, with and without this option.",
        ),
    )
    message = "Job list for experiment {expid} created successfully."
    page = Page(
        title="Create the job list",
        intro="An experiment needs a job list before it can run. Create it again after a change of the configuration.",
        button="Create the job list",
        done="The job list of {expid} was created. The experiment can be run now.",
        order=2,
        path="job-list",
    )
    summary = "Create the job list of an experiment"
    description = (
        "Executes `autosubmit create -np`. Resets all jobs, with and without `force`: `warnings` names the COMPLETED "
        "jobs whose progress is lost, and `dry_run` shows them in advance. Not possible while the experiment runs. "
        "Autosubmit reports success even if the configuration has errors: read `warnings`."
    )
    request_text = "Which experiment, and how its job list is made."
    params_text = "How the job list is made."

    def argv(self, expid: str, params: Params, *, is_detached: bool = False) -> list[str]:
        """The command makes no plot."""
        return ["autosubmit", "create", "-np", expid, *self.options(params)]

    def notes(self, runner: Runner, expid: str, params: Params, *, is_done: bool) -> list[str]:
        """Return what a new job list loses: a sentence about COMPLETED jobs, and one about jobs still on platforms.

        A setstatus that saves nothing asks Autosubmit itself, because only Autosubmit can read the job list of each
        version and backend. That costs one command, and three more if jobs are active. If Autosubmit cannot tell, a
        sentence says so.
        """
        end = time.monotonic() + settings.RUNNERS_LAUNCH_TIMEOUT
        argv = to_ready(expid, "COMPLETED")
        result = _ask(runner, argv, end)
        if result is None:
            return [PROGRESS_UNKNOWN]
        told = []
        if SET_JOB_STATUS.is_preview_success(result.exit_code, result.text):
            told.append(lost_progress(read_changes(result.stdout), at_least=result.truncated))
        else:
            found = output.complaint(result.stdout, result.stderr)
            if found and (output.is_locked(found) or output.is_experiment_missing(found)):
                raise WouldFail(argv, result)  # after twice the time
            if found and output.has_no_job_list(found):  # Autosubmit reports the same for a list that it cannot read
                told.append(JOB_LIST_UNREADABLE if installation.has_job_list_file(runner, expid) else "")
            elif not (found and SET_JOB_STATUS.refusal(argv, found)):  # else no job is COMPLETED
                told.append(PROGRESS_UNKNOWN)
        if has_active_jobs(result.text):
            told.append(active_jobs(_active_jobs(runner, expid, end), is_done=is_done))
        return [words for words in told if words]

    def is_success(self, exit_code: int, text: str) -> bool:
        return has_line(text, "Job list created successfully")

    def outcome(
        self, runner: Runner, expid: str, argv: list[str], result: CommandResult, notes: Sequence[str] = ()
    ) -> CommandOutcome:
        """Return the warnings, with one if the list has no job."""
        told = [*notes, *output.warnings(result.stdout)]
        if installation.has_empty_job_list(runner, expid):
            told.append(
                "The job list is empty. Check that the experiment's configuration has JOBS, in a form that the "
                "installed version of Autosubmit supports. (Before 4.1 each job needs FILE; SCRIPT is ignored.)"
            )
        return CommandOutcome(expid, told)


CREATE_JOB_LIST = CreateJobList()


def _active_jobs(runner: Runner, expid: str, end: float) -> dict[str, list[str]]:
    """Return the names of the jobs of each active status, as far as Autosubmit reports them until `end` (monotonic)."""
    found: dict[str, list[str]] = {}
    for status in ACTIVE:
        # Autosubmit rejects a status that no job has, so one command with all of them would be rejected.
        result = _ask(runner, to_ready(expid, status), end)
        if result and (names := jobs_of_status(expid, result.stdout)):
            found[status] = names
    return found


def _ask(runner: Runner, argv: list[str], end: float) -> CommandResult | None:
    """Return the result of a command that changes nothing; None if there is none by `end`. Raises RunnerUnreachable."""
    left = end - time.monotonic()
    if left <= 0:
        return None
    try:
        return runner.execute(get_module_loader(runner.config).wrap(argv), login=True, timeout=left)
    except (CommandTimedOut, OutcomeUnknown):
        return None


def lost_progress(found: Changes, *, at_least: bool = False) -> str:
    """Return a warning of what a new job list does to the COMPLETED jobs in `found`; empty if there are none.

    `at_least`: the output was too long, and `found` was read from its end only.
    """
    if not found.changed:
        return ""
    jobs = "1 COMPLETED job becomes" if found.changed == 1 else f"{found.changed} COMPLETED jobs become"
    jobs = f"At least {jobs}" if at_least else jobs
    return (
        f"{jobs} READY or WAITING again with a new job list, and the next run executes them again: "
        f"{listed(list(found.jobs), found.changed)}. set-job-status with final_status COMPLETED restores them."
    )


def active_jobs(found: Mapping[str, Sequence[str]], *, is_done: bool) -> str:
    """Return a warning for a new job list: jobs are in the queues of their platforms, or running there.

    `found`: their names by status; empty if Autosubmit only says that there are some. `is_done`: the new list has
    already been created.
    """
    count = sum(map(len, found.values()))
    named = [f"{name} ({status})" for status, names in found.items() for name in names]
    jobs = "Jobs" if not count else "1 job" if count == 1 else f"{count} jobs"
    which = f": {listed(named, count)}" if count else ". Autosubmit does not print which"
    verb = "was" if count == 1 else "were"
    head = f"{jobs} of an earlier run {verb} left on the platforms, queuing or running, and may still run there{which}."
    if is_done:
        return (
            f"{head} The new job list does not contain them: the next run executes them a second time, concurrently. "
            f"Cancel them on their platforms before the next run. stop-experiment does not find them any more."
        )
    return (
        f"{head} A new job list does not contain them, so the next run would execute them a second time, "
        f"concurrently. Cancel them first: stop-experiment with cancel_jobs."
    )
