"""`autosubmit recovery`: set the statuses of jobs by what their platforms know, after a run was lost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from django.conf import settings

from profiles.toggles import Toggle
from runners import printable
from runners.commands import output
from runners.commands.base import Action, CommandOutcome, Member, OneShotCommand, Page, WouldFail
from runners.commands.output import UsageError, has_line, listed
from runners.commands.parameters import Flag, InvalidParams, Parameter, Params, Words
from runners.commands.set_job_status import (
    CHANGED_LIMIT,
    JOB_NAMES,
    SET_JOB_STATUS,
    UPDATE_VERSION,
)
from runners.exceptions import CommandTimedOut, OutcomeUnknown
from runners.services.machines.registry import get_module_loader
from runners.services.machines.runner import CommandResult, Runner

# What recovery prints for each job that it has looked at, changed or not. Up to 4.1.16, only for COMPLETED ones.
_RECOVERED = re.compile(r"^CHANGED job '(.{1,255}?)' status to ([A-Z]{1,32})\s*$")
_SELECTED = re.compile(r"^The selected number of jobs to recover is ([0-9]{1,9})\s*$")
_ACTIVE = re.compile(r"Experiment can't be recovered due being ([0-9]{1,9}) active jobs")
_ABOUT_SAVING = re.compile(r"Changes (?:will be )?NOT (?:be )?saved to the job", re.IGNORECASE)
_SINCE = {  # the first version that knows the option
    "--offline": (4, 1, 16),
    **dict.fromkeys(("--list", "--filter_chunks", "--filter_status", "--filter_type"), (4, 1, 17)),
}
FILTER_STATUSES = ("READY", "COMPLETED", "WAITING", "SUSPENDED", "FAILED", "UNKNOWN")
_UNKNOWN = "It is not known what the recovery would change, because Autosubmit on the machine could not be asked."


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a recovery did, or would do.

    `jobs`: the status that each job gets, at most CHANGED_LIMIT. `changed`: the number of jobs that Autosubmit printed.
    `completed`: how many of them become COMPLETED. `selected`: how many jobs it looked at; None if it does not say.
    """

    jobs: dict[str, str]
    changed: int
    completed: int
    selected: int | None

    @property
    def waiting(self) -> int | None:
        return None if self.selected is None else max(self.selected - self.completed, 0)


def _filters() -> tuple[Parameter, ...]:
    """Return the filters that recovery shares with set-job-status."""
    shared = {each.name: each for each in SET_JOB_STATUS.parameters}
    return (
        shared[JOB_NAMES],
        shared["filter_chunks"],
        Words(
            name="filter_status",
            option="--filter_status",
            words=FILTER_STATUSES,
            rule=f"use one of {', '.join(FILTER_STATUSES)}.",
            help="Only jobs that have this status now. Autosubmit takes one.",
            label="Only jobs of this status",
            hint="One status.",
            placeholder="FAILED",
            is_rare=True,
        ),
        shared["filter_type"],
    )


class RecoverExperiment(OneShotCommand):
    name = "recover-experiment"
    toggle = Toggle("RECOVER_EXPERIMENT", "recover-experiment")
    action = Action.SET_STATUS
    needs_idle = True
    holds_lock = True
    is_long = True
    preview_name = "preview-recovery"
    has_notes = True
    notes_unknown = _UNKNOWN
    parameters = (
        Flag(
            name="all",
            option="--all",
            help="All jobs. Without it, only jobs that were ready, submitted, queuing or running when the last run "
            "ended: usually the right choice after a lost run.",
            label="All jobs",
            hint="Without it: only jobs that were active when the last run ended.",
        ),
        Flag(
            name="force",
            option="--force",
            help="If jobs are still submitted, queuing or running: cancel them on their platforms, then recover. "
            "Without it, Autosubmit refuses the recovery while there are such jobs.",
            label="Cancel active jobs",
            hint="Jobs that are still submitted, queuing or running are cancelled on their platforms first.",
        ),
        Flag(
            name="offline",
            option="--offline",
            help="Do not need the platforms: for a platform that cannot be reached, Autosubmit uses its own history "
            "of the experiment, and cancels nothing there. Since 4.1.16.",
            label="Without unreachable platforms",
            hint="For a platform that cannot be reached. Nothing is cancelled there.",
            is_rare=True,
        ),
        *_filters(),
        UPDATE_VERSION,
    )
    message = "Experiment {expid} recovered successfully."
    members = (
        Member(
            "recovered",
            "text_by_name",
            f"The status of each job that was looked at, at most {CHANGED_LIMIT:,}. Jobs that were COMPLETED before "
            "are listed, too. Autosubmit before 4.1.17 prints only COMPLETED jobs; the other jobs became WAITING.",
        ),
        Member(
            "counts",
            "object",
            "Numbers of the jobs that were looked at.",
            title="RecoveryCounts",
            text="How many jobs a recovery met.",
            members=(
                Member(
                    "selected",
                    "integer",
                    "Jobs that were looked at; null if this version of Autosubmit does not print it.",
                    is_nullable=True,
                ),
                Member("completed", "integer", "Jobs that are COMPLETED, by what their platforms know."),
                Member(
                    "waiting",
                    "integer",
                    "Jobs that are executed again: WAITING, or READY if nothing else is missing. null like `selected`.",
                    is_nullable=True,
                ),
            ),
        ),
    )
    answer_name = "RecoveryAnswer"
    answer_text = "The result of a recovery."
    page = Page(
        title="Recover the experiment",
        intro="After a run was lost: asks the platforms which jobs are done. These become COMPLETED; the others "
        "become WAITING and are executed again. The experiment must not be running.",
        button="Recover",
        preview_button="Preview the changes",
        preview_note="Autosubmit lists every job that it looked at, also those that have the status already.",
        order=5,
        path="recover",
    )
    summary = "Recover the job list of an experiment"
    description = (
        "Executes `autosubmit recovery --save`: jobs whose platform knows that they are done become COMPLETED, all "
        "others that were looked at become WAITING. Not possible while the experiment runs. Without `force`, "
        "Autosubmit refuses while jobs are submitted, queuing or running; with it, they are cancelled on their "
        "platforms. Autosubmit does not check that they ended; on the platform `local` they may continue. `dry_run` "
        "asks Autosubmit what would change, and saves nothing. The filters need Autosubmit 4.1.17 or newer."
    )
    request_text = "Which experiment, and which of its jobs are recovered."
    params_text = "Which jobs are recovered. Several filters are combined with AND."

    refusals = SET_JOB_STATUS.refusals

    # --- the request ---

    def argv(self, expid: str, params: Params, *, is_detached: bool = False) -> list[str]:
        return ["autosubmit", "recovery", expid, "--save", "-np", *self.options(params)]

    def preview_argv(self, expid: str, params: Params) -> list[str]:
        """Without --save Autosubmit cancels nothing, with and without `force`."""
        harmless = {**params, "update_version": False}
        return ["autosubmit", "recovery", expid, "-np", *self.options(harmless)]

    def validate(self, params: Params) -> None:
        if len(params["filter_status"] or ()) > 1:
            raise InvalidParams({"filter_status": "Give one status: Autosubmit takes one in a recovery."})

    def validate_for(self, expid: str, params: Params) -> None:
        if params.get(JOB_NAMES):
            SET_JOB_STATUS.validate_for(expid, params)

    def notes(self, runner: Runner, expid: str, params: Params, *, is_done: bool) -> list[str]:
        """Return what the recovery would change, for a dry run. It takes as long as the recovery itself."""
        if is_done:
            return []
        argv = self.preview_argv(expid, params)
        text = get_module_loader(runner.config).wrap(argv, self.checks(expid))
        try:
            result = runner.execute(text, login=True, timeout=settings.RUNNERS_COMMAND_TIMEOUT)
        except (CommandTimedOut, OutcomeUnknown):
            return [_UNKNOWN]
        if not self.is_preview_success(result.exit_code, result.text):
            raise WouldFail(argv, result)
        outcome = self.outcome(runner, expid, argv, result)
        if _ACTIVE.search(result.text):
            return outcome.warnings
        return [*outcome.warnings, *self._sentences(outcome.changes)]

    def _sentences(self, found: Recovered) -> Iterator[str]:
        if found.completed:
            names = [name for name, status in found.jobs.items() if status == "COMPLETED"]
            yield f"{_jobs(found.completed)} would be COMPLETED: {listed(names, found.completed)}."
        if found.waiting:
            names = [name for name, status in found.jobs.items() if status != "COMPLETED"]
            yield f"{_jobs(found.waiting)} would be executed again: {listed(names, found.waiting)}."
        if found.selected is None:
            yield "All other jobs that are looked at would be executed again. This version does not list them."
        if found.selected == 0:
            yield "No job would be recovered. Give `all` to look at all jobs."

    def may_need_newer(self, argv: Sequence[str], exit_code: int) -> bool:
        return exit_code == 1 and any(option in _SINCE for option in self._given(argv))

    def needs_newer(self, argv: Sequence[str], version: str) -> UsageError | None:
        """Up to 4.1.10, an unknown option ends Autosubmit with code 1, and it prints its help or nothing."""
        numbers = tuple(int(word) for word in version.split(".")[:3] if word.isascii() and word.isdigit())
        if len(numbers) != 3:
            return None
        missing = [option for option in self._given(argv) if numbers < _SINCE.get(option, numbers)]
        names = tuple(each.name for each in self.parameters if each.option in missing)
        return UsageError(names, f"its recovery has no option {' '.join(missing)}") if names else None

    # --- the result ---

    def is_success(self, exit_code: int, text: str) -> bool:
        """Autosubmit prints the line after it has saved. The same line without saving has a warning before it."""
        return exit_code == 0 and has_line(text, "Recovery finalized") and not has_line(text, "Changes NOT saved")

    def is_preview_success(self, exit_code: int, text: str) -> bool:
        """Autosubmit 4.1.17 refuses a preview while jobs are active. This is what the preview has to tell."""
        return (exit_code == 0 and has_line(text, "Recovery finalized")) or _ACTIVE.search(text) is not None

    def outcome(
        self, runner: Runner, expid: str, argv: list[str], result: CommandResult, notes: Sequence[str] = ()
    ) -> CommandOutcome:
        found = read_recovered(result.stdout)
        told = [*notes, *(text for text in output.warnings(result.stdout) if not _ABOUT_SAVING.match(text))]
        if active := _ACTIVE.search(result.text):
            told = [
                f"{_jobs(int(active[1]))} of the experiment are submitted, queuing or running. The recovery is refused "
                f"without `force`; with it, they are cancelled on their platforms, and then recovered. Autosubmit "
                f"cannot preview that."
            ]
        elif "--force" in argv and "--save" in argv:
            told.append(
                "If jobs were submitted, queuing or running, Autosubmit has asked their platforms to cancel them. It "
                "does not check that they ended. Check it before the next run."
            )
        if found.changed > len(found.jobs) or result.truncated:
            told.append("Autosubmit's output is long: only a part of the jobs is listed.")
        return CommandOutcome(expid, told, found)

    def page_message(self, outcome: CommandOutcome, params: Params) -> str:
        done = outcome.changes.completed
        return f"{outcome.expid} was recovered: {_jobs(done)} COMPLETED by what the platforms know."

    def answer(self, outcome: CommandOutcome) -> dict[str, Any]:
        found = outcome.changes
        if found is None:  # an operation whose stored result cannot be read
            return {}
        counts = {"selected": found.selected, "completed": found.completed, "waiting": found.waiting}
        return {"recovered": found.jobs, "counts": counts}

    def stored(self, changes: Recovered | None) -> Any:
        return asdict(changes) if changes else None

    def restored(self, stored: object) -> Recovered | None:
        match stored:
            case None:
                return None
            case {
                "jobs": dict(jobs),
                "changed": int(changed),
                "completed": int(completed),
                "selected": None | int() as selected,
            } if all(isinstance(each, str) for each in jobs.values()):
                return Recovered(jobs, changed, completed, selected)
        raise ValueError("these are no recovered jobs")


RECOVER_EXPERIMENT = RecoverExperiment()


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def read_recovered(stdout: bytes) -> Recovered:
    """Read the output of a recovery, whether it saved the changes or not."""
    jobs: dict[str, str] = {}
    selected = None
    for line in output.lines_of(stdout):
        line = line.replace(output.END, "")
        if line.startswith("CHANGED job") and (found := _RECOVERED.match(line[:400])):
            jobs[printable.line(found[1])] = found[2]
        elif line.startswith("The selected") and (found := _SELECTED.match(line[:100])):
            selected = int(found[1])
    completed = sum(status == "COMPLETED" for status in jobs.values())
    return Recovered(dict(list(jobs.items())[:CHANGED_LIMIT]), len(jobs), completed, selected)
