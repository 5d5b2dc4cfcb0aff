"""`autosubmit setstatus`: give jobs another status."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from profiles.toggles import Toggle
from runners import printable
from runners.commands import output
from runners.commands.base import Action, CommandOutcome, Member, OneShotCommand, Page, Refusal
from runners.commands.output import Complaint, UsageError, has_line
from runners.commands.parameters import (
    EXPID_PATTERN,
    SECTION,
    Choice,
    Flag,
    InvalidParams,
    InvalidValue,
    Params,
    Text,
    TextList,
    Words,
)
from runners.printable import quoted
from runners.services.machines.runner import CommandResult, Runner

# Every status that Autosubmit knows. Which of them `setstatus -t` accepts depends on the version: 4.1.17.1 accepts the
# first six, 4.1.16 also FAILED and RUNNING. So Autosubmit itself decides, and its error is the answer.
STATUSES = (
    *("READY", "COMPLETED", "WAITING", "SUSPENDED", "UNKNOWN", "HELD"),
    *("FAILED", "SUBMITTED", "QUEUING", "RUNNING", "PREPARED", "SKIPPED", "DELAYED"),
)
ANY = "ANY"  # in `filter_status`: jobs of every status
# Statuses of jobs that are in a platform's queue or running there, as far as Autosubmit knows.
ACTIVE = ("RUNNING", "QUEUING", "SUBMITTED")
CHANGED_LIMIT = 1000  # jobs that an answer lists
JOB_NAME_PATTERN = rf"{EXPID_PATTERN}_[{SECTION}]+"
JOB_NAMES_LIMIT = 100_000  # bytes of all names together: they are one command argument, which Linux limits to 131,071
JOB_NAMES = "job_names_list"
CHUNK_FILTERS = ("filter_chunks", "filter_type_chunk", "filter_type_chunk_split")
FILTERS = (JOB_NAMES, "filter_status", "filter_type", *CHUNK_FILTERS)

# setstatus of every version prints this before it applies its filters, and only when jobs are ACTIVE.
_HAS_ACTIVE = "Checking the connection to all platforms in use"
_NOT_SAVED, _UNCHANGED = "Changes NOT saved to the JobList", "No changes were performed"
# What versions before 4.1.17 print for `--filter_status=ANY`. (ANY is then the only filter.)
_NOT_ANY = re.compile(
    r"There are no jobs with status ANY|supplied input for -f[st]\b|while setting some of the workflow jobs"
)
_CHANGED = re.compile(r"^CHANGED: job: (.{1,255}?) status to: ([A-Z]{1,32})\s*$")
_SELECTED = re.compile(r"^The selected number of jobs to change is: ([0-9]{1,9})\s*$")
# Versions up to 4.1.16 print this for an active job whose platform cannot be reached, even if nothing is to be saved.
# 4.1.16 names the platform first, older versions name the job first.
_OFFLINE = re.compile(r"^(?:\[[A-Z]+\] )?JOB: \[(.{1,255}?)\] is ignored as the \[(.{1,255}?)\] platform is currently")
_CHUNKS = ("--filter_chunks", "--filter_type_chunk", "--filter_type_chunk_split")
_FILTERS = ("--list", "--filter_status", "--filter_type", *_CHUNKS)
_UNEXPLAINED = "Autosubmit prints only '{}'. The usual cause is a job, section, status or chunk that does not exist."
# 4.1.8 to 4.1.12 print this for every error in setstatus. The details that 4.1.12 adds are empty for a filter's error.
_NO_CHANGES = "while setting some of the workflow jobs, no changes were made"
_UNTOLD = (
    "Autosubmit prints only '{}', without the rejected value. The usual cause is a job, section, status or chunk that "
    "does not exist. Another cause is an unusable platform."
)
_SPLITS = r"\[[A-Za-z0-9 ,:-]{1,200}\]"
_ONE_SECTION = re.compile(r"([^\s,\[\]]{1,255})\s*(\[[^\[\]]{0,1000}\])?[\s,]*")


# Statuses that a running Autosubmit takes from its file. Others would be active ones, or are not known by all versions.
WHILE_RUNNING = "while_running"
STATUSES_WHILE_RUNNING = ("READY", "COMPLETED", "WAITING", "SUSPENDED", "FAILED")
_FILTERS_WHILE_RUNNING = (JOB_NAMES, "filter_status", "filter_type")


_HANDED_OVER = {
    "read": "Autosubmit has taken the change of {expid}, but its job list does not show all of it yet.",
    "waiting": "The change of {expid} waits: Autosubmit has not taken it yet. It will with its next round.",
    "withdrawn": "No job of {expid} was changed: the run ended before it took the change. Send the request again.",
}


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The outcome of a change that was handed to a running Autosubmit.

    `state`: applied (the job list shows it), read (Autosubmit has taken the file, and the job list does not show the
    whole change yet), waiting (it has not taken the file yet), withdrawn (the run ended before; nothing was changed).
    `applied_at`: when the whole change was seen, ISO 8601. `not_applied`: jobs without the change, at most
    CHANGED_LIMIT.
    """

    state: str
    applied_at: str | None
    not_applied: list[str]


@dataclass(frozen=True, slots=True)
class Changes:
    """What a setstatus has changed.

    `changed`: the number of changed jobs. `jobs`: the new status of each of them, at most CHANGED_LIMIT. `selected`:
    how many jobs the filters select; None if this version does not say. `handed_over`: None unless a run executed.
    """

    jobs: dict[str, str]
    changed: int
    selected: int | None
    handed_over: HandedOver | None = None

    @property
    def unchanged(self) -> int | None:
        return None if self.selected is None else max(self.selected - self.changed, 0)


def balanced(text: str) -> str:
    """Return a filter on one line. Raises InvalidValue if its brackets do not match."""
    text = " ".join(text.split())
    depth = 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if depth < 0:
            break
    if depth:
        raise InvalidValue(f"Unbalanced brackets in {quoted(text)}.", "brackets")
    return text


def split_sections(text: str) -> list[str]:
    """Split `DN [1-2], SIM` into its items. Text that cannot be split is the last item; the pattern rejects that item.

    Items are `NAME` or `NAME [splits]`.
    """
    found: list[str] = []
    place = len(text) - len(text.lstrip(" \t\r\n,"))
    while place < len(text):
        item = _ONE_SECTION.match(text, place)
        if item is None:
            return [*found, text[place : place + 300]]
        splits = f" {' '.join(item[2].split())}" if item[2] else ""
        found.append(item[1] + splits)
        place = item.end()
    return found


def _filter(name: str, help: str, *, label: str, placeholder: str) -> Text:
    """Return a filter in Autosubmit's nested lists, such as `[ 20000101 [ fc0 [1-2] ] ],SIM`, on one or more lines."""
    return Text(
        name=name,
        option=f"--{name}",
        max_length=10_000,
        pattern=rf"\s*[{SECTION[:-1]}\[(][{SECTION[:-1]} \t\r\n\[\](),*-]*",
        rule="use letters, digits, blanks and _ , . : * + @ - [ ], as in [ 20000101 [ fc0 [1-2] ] ].",
        check=balanced,
        help=help,
        label=label,
        placeholder=placeholder,
        is_rare=True,
    )


CHECK_WRAPPER = Flag(
    name="check_wrapper",
    option="--check_wrapper",
    help="Also generate and check the wrappers.",
    label="Also check the wrappers",
    is_rare=True,
)
UPDATE_VERSION = Flag(
    name="update_version",
    option="--update_version",
    help="Set the experiment's Autosubmit version to the one that runs the command.",
    label="Update the Autosubmit version",
    hint="For an experiment that was created with another version.",
    is_rare=True,
)


class SetJobStatus(OneShotCommand):
    name = "set-job-status"
    toggle = Toggle("SET_JOB_STATUS", "set-job-status")
    action = Action.SET_STATUS
    needs_idle = True
    is_long = True
    preview_name = "preview-job-status"
    parameters = (
        Choice(
            name="final_status",
            option="--status_final",
            choices=STATUSES,
            unknown="Autosubmit knows no status {value}. It knows {choices}.",
            help="The new status. Not every version of Autosubmit sets jobs to each.",
            label="New status",
            hint="Autosubmit does not accept other statuses.",
        ),
        TextList(
            name=JOB_NAMES,
            option="--list",
            item=Text(
                name="",
                required=True,
                pattern=JOB_NAME_PATTERN,
                rule="a job name is the experiment, _, and letters, digits or _ . : + @ -, such as a001_SIM.",
                max_length=255,
            ),
            max_bytes=JOB_NAMES_LIMIT,
            shortest=6,
            invalid='Give a list of job names, such as ["a001_SIM"].',
            too_long=f"Give fewer names, {JOB_NAMES_LIMIT} characters together; or use a filter.",
            help="Full job names, such as a001_SIM.",
            label="Jobs by name",
            hint="Full names, separated by blanks or lines.",
            placeholder="a000_SIM",
            rows=3,
        ),
        _filter(
            "filter_chunks",
            "Such as [ 20000101 [ fc0 [1-2] ] ].",
            label="Jobs by chunk",
            placeholder="[ 20000101 [ fc0 [1-2] ] ]",
        ),
        Words(
            name="filter_status",
            option="--filter_status",
            words=(*STATUSES, ANY),
            rule="use Autosubmit's statuses, such as READY or FAILED.",
            help="Jobs that have one of these statuses now. Autosubmit rejects a status that no job has.",
            label="Jobs by status",
            hint="Jobs that have one of these statuses now.",
            placeholder="FAILED WAITING",
        ),
        Words(
            name="filter_type",
            option="--filter_type",
            pattern=rf"[{SECTION[:-1]}][{SECTION}]*( {_SPLITS})?",
            rule="use the names of job sections, such as SIM, and splits in brackets, as in DN [1-2].",
            split=split_sections,
            separator=",",
            help="Jobs of these sections, such as SIM, or DN [1-2] for some of its splits.",
            label="Jobs by section",
            hint="The names of job sections; splits in brackets.",
            placeholder="DN [1-2], SIM",
        ),
        _filter(
            "filter_type_chunk",
            "Such as [ 20000101 [ fc0 [1] ] ],SIM.",
            label="Jobs by chunk and section",
            placeholder="[ 20000101 [ fc0 [1] ] ],SIM",
        ),
        _filter(
            "filter_type_chunk_split",
            "Such as [ 20000101 [ fc0 [1] ] ],SIM.",
            label="Jobs by chunk, section and split",
            placeholder="[ 20000101 [ fc0 [1] ] ],SIM",
        ),
        CHECK_WRAPPER,
        UPDATE_VERSION,
        Flag(
            name=WHILE_RUNNING,
            help="Change the statuses even if the experiment runs: through the file that a running Autosubmit reads. "
            "With job_names_list, filter_status and filter_type only.",
            label="Also while it runs",
            hint="The running Autosubmit reads the change with its next round. Jobs by name, status or section only.",
            is_rare=True,
        ),
    )
    message = "Job status for experiment {expid} set successfully."
    members = (
        Member(
            "changed",
            "text_by_name",
            "The new status of each changed job, at most 1,000; `counts.changed` has the total.",
        ),
        Member(
            "counts",
            "object",
            "Numbers of selected, changed and unchanged jobs.",
            title="ChangeCounts",
            text="How many jobs a set-job-status met.",
            members=(
                Member(
                    "selected",
                    "integer",
                    "Number of jobs that the filters select; null if this version of Autosubmit does not print it.",
                    is_nullable=True,
                ),
                Member("changed", "integer", "Jobs that have a new status."),
                Member(
                    "unchanged",
                    "integer",
                    "Selected jobs that were not changed: they already had the status, or a warning has the reason. "
                    "null like `selected`.",
                    is_nullable=True,
                ),
            ),
        ),
        Member(
            WHILE_RUNNING,
            "object",
            "The outcome of a change while the experiment runs; null if it did not run.",
            is_nullable=True,
            title="HandedOver",
            text="A change that was handed to a running Autosubmit.",
            members=(
                Member(
                    "state",
                    "text",
                    "applied: the job list shows the whole change. read: Autosubmit has taken the change, and the job "
                    "list does not show all of it yet. waiting: Autosubmit has not taken it yet, and will with its "
                    "next round. withdrawn: the run ended before, and nothing was changed.",
                ),
                Member("applied_at", "text", "When the whole change was seen in the job list.", is_nullable=True),
                Member("not_applied", "texts", "Jobs that do not show the change yet, at most 1,000."),
            ),
        ),
    )
    answer_name = "JobStatusAnswer"
    answer_text = "What was changed."
    page = Page(
        title="Set the status of jobs",
        intro="Select the jobs. The filters are combined with AND. The experiment must not be running.",
        button="Set the status",
        preview_button="Preview the changes",
        preview_note="When it saves, it also moves other jobs from READY back to WAITING. The next run determines "
        "again which of them are ready.",
        order=3,
        path="set-status",
    )
    summary = "Change the status of jobs"
    description = (
        "Executes `autosubmit setstatus` and saves the result. Not possible while the experiment runs. A job that is "
        "submitted, queuing or running on its platform may be cancelled there: Autosubmit 4.1.17.1 cancels it for "
        "every new status, older versions do not cancel running jobs."
    )
    request_text = "Which experiment, which of its jobs, and their new status."
    params_text = "Which jobs get which status. At least one filter has to be given; several are combined with AND."
    # Up to 4.1.16 `-ft` also heads errors of job names, so the headings of the details come first.
    refusals = (
        (re.compile(r"Specified job\(s\)|Job Validation Message|List of jobs has a format error"), ("--list",)),
        (re.compile(r"-fc // -ftc|Chunk Validation Message|chunk formula"), _CHUNKS),
        (re.compile(r"Section Validation Message|Specified section"), ("--filter_type",)),
        (re.compile(r"Status Validation Message|There are no jobs with status"), ("--filter_status",)),
        (re.compile(r"supplied input for -fl"), ("--list",)),
        (re.compile(r"supplied input for -fs"), ("--filter_status",)),
        (re.compile(r"supplied input for -ftc|supplied input for -fc"), _CHUNKS),
        (re.compile(r"supplied input for -ft"), ("--filter_type", "--list")),
        (re.compile(r"Cannot set jobs to the active status|Invalid status '"), ("--status_final",)),
    )

    # --- the request ---

    def argv(self, expid: str, params: Params, *, is_detached: bool = False) -> list[str]:
        return ["autosubmit", "setstatus", expid, "--save", "-np", *self.options(params)]

    def preview_argv(self, expid: str, params: Params) -> list[str]:
        """A preview omits options that would still change something or take long: the version and the wrappers."""
        harmless = {**params, "check_wrapper": False, "update_version": False}
        return ["autosubmit", "setstatus", expid, "-np", *self.options(harmless)]

    def options(self, params: Params) -> list[str]:
        """4.1.17 accepts ANY, older versions do not. Beside another filter it has no effect, so it is left out."""
        if ANY in (params.get("filter_status") or ()):
            others = any(params.get(name) for name in FILTERS if name != "filter_status")
            params = {**params, "filter_status": () if others else (ANY,)}
        return super().options(params)

    def validate(self, params: Params) -> None:
        if not any(params[name] for name in FILTERS):
            raise InvalidParams({JOB_NAMES: f"Select jobs: give {JOB_NAMES} or at least one filter."})
        given = [name for name in CHUNK_FILTERS if params[name]]
        if len(given) > 1:
            raise InvalidParams(
                {given[1]: f"Give only one of {' and '.join(given)}: Autosubmit would ignore all but one."}
            )

        if params.get(WHILE_RUNNING):
            self._validate_while_running(params)

    def _validate_while_running(self, params: Params) -> None:
        names = [each.name for each in self.parameters]
        for name in [*(name for name in CHUNK_FILTERS), "check_wrapper", "update_version"]:
            if name in names and params.get(name):
                raise InvalidParams({name: f"Not with while_running: give {' or '.join(_FILTERS_WHILE_RUNNING)}."})
        if any("[" in section for section in params.get("filter_type") or ()):
            raise InvalidParams({"filter_type": "Not with splits together with while_running."})
        if params["final_status"] not in STATUSES_WHILE_RUNNING:
            known = ", ".join(STATUSES_WHILE_RUNNING)
            raise InvalidParams({"final_status": f"A running Autosubmit sets jobs only to one of {known}."})

    def validate_for(self, expid: str, params: Params) -> None:
        foreign = [name for name in params[JOB_NAMES] if not name.startswith(f"{expid}_")]
        if foreign:
            raise InvalidParams(
                {JOB_NAMES: f"{quoted(foreign[0])} is not a job of {expid}. The names of its jobs begin with {expid}_."}
            )

    # --- the result ---

    def is_success(self, exit_code: int, text: str) -> bool:
        """Return True if a setstatus has saved.

        4.1.16 and newer print a line when they have saved. Older versions print which jobs they changed, and their exit
        code tells whether these changes were saved.
        """
        if has_line(text, "[CRITICAL]") or has_line(text, _NOT_SAVED):
            return False
        if has_line(text, "JobList saved in ") or has_line(text, _UNCHANGED):
            return True
        return exit_code == 0 and (has_line(text, "CHANGED: job: ") or _is_silent_end(text))

    def is_preview_success(self, exit_code: int, text: str) -> bool:
        """Return True if a setstatus without --save succeeded. 3.14 does not print that it has not saved."""
        if has_line(text, _NOT_SAVED) or has_line(text, _UNCHANGED):
            return True
        if exit_code or has_line(text, "[CRITICAL]"):
            return False
        return has_line(text, "CHANGED: job: ") or _is_silent_end(text)

    def outcome(
        self, runner: Runner, expid: str, argv: list[str], result: CommandResult, notes: Sequence[str] = ()
    ) -> CommandOutcome:
        """Return the changes, with a warning for sections that Autosubmit left out."""
        found = read_changes(result.stdout)
        # A preview saves nothing, so Autosubmit's hint at its option would only confuse. A success never has it.
        told = [words for words in output.warnings(result.stdout) if not words.startswith(_NOT_SAVED)]
        if result.truncated:
            told.append(
                "Autosubmit's output is so long that only its end was read: more jobs were changed than `changed` and "
                "`counts` show."
            )
        filter_type = next((word.partition("=")[2] for word in argv if word.startswith("--filter_type=")), "")
        for section in sections_left_out(found, sections_of(filter_type)):
            told.append(
                f"No job of section {section} was selected, so none was changed. Autosubmit 4.1.17 ignores jobs "
                f"without splits in a filter by section if other jobs of the experiment have splits. Name the jobs "
                "instead."
            )
        return CommandOutcome(expid, told, found)

    def message_of(self, outcome: CommandOutcome) -> str:
        changes = outcome.changes
        if changes and changes.handed_over and changes.handed_over.state != "applied":
            return _HANDED_OVER[changes.handed_over.state].format(expid=outcome.expid)
        if changes is None or changes.changed:
            return super().message_of(outcome)
        if changes.selected == 0:
            return f"No job of experiment {outcome.expid} was changed: the filters do not select any job."
        which = f"the {changes.selected} selected jobs have" if changes.selected else "the selected jobs have"
        if changes.selected == 1:
            which = "the selected job has"
        return f"No job of experiment {outcome.expid} was changed: {which} this status already, or see the warnings."

    def page_message(self, outcome: CommandOutcome, params: Params) -> str:
        changes = outcome.changes
        if not (changes and changes.changed):
            return self.message_of(outcome)
        jobs = "1 job" if changes.changed == 1 else f"{changes.changed} jobs"
        rest = f" {changes.unchanged} of the selected jobs were not changed." if changes.unchanged else ""
        return f"{jobs} of {outcome.expid} set to {params['final_status']}.{rest}"

    def answer(self, outcome: CommandOutcome) -> dict[str, Any]:
        changes = outcome.changes
        if changes is None:  # an operation whose stored result cannot be read
            return {}
        counts = {"selected": changes.selected, "changed": changes.changed, "unchanged": changes.unchanged}
        handed_over = asdict(changes.handed_over) if changes.handed_over else None
        return {"changed": changes.jobs, "counts": counts, WHILE_RUNNING: handed_over}

    def stored(self, changes: Changes | None) -> Any:
        return asdict(changes) if changes else None

    def restored(self, stored: object) -> Changes | None:
        match stored:
            case None:
                return None
            case {"jobs": dict(jobs), "changed": int(changed), "selected": None | int() as selected}:
                if all(isinstance(each, str) for each in jobs.values()):
                    return Changes(jobs, changed, selected)
        raise ValueError("these are no changes")

    # --- a failure ---

    def usage_error(self, argv: Sequence[str], text: str) -> UsageError | None:
        """The same for `filter_status` ANY alone, which versions up to 4.1.16 reject."""
        if not output.usage_error(text):
            if f"--filter_status={ANY}" in argv and _NOT_ANY.search(text):
                return UsageError(("filter_status",), f"it knows no ANY; give statuses that jobs have, or {JOB_NAMES}")
            return None
        return super().usage_error(argv, text)

    def refusal(self, argv: Sequence[str], found: Complaint) -> Refusal | None:
        if refused := super().refusal(argv, found):
            return refused
        if _NO_CHANGES in found.reason and not found.details:
            given = tuple(self._names(argv, _FILTERS))
            return Refusal(given, _UNTOLD.format(found.reason), is_certain=False) if given else None
        return None

    def _sentence(self, candidates: Sequence[str], found: Complaint) -> str:
        sentence = found.details or found.reason.partition("\n")[2]
        if sentence or candidates[0] == "--status_final":
            return sentence or found.reason
        return _UNEXPLAINED.format(found.reason)


SET_JOB_STATUS = SetJobStatus()


def _is_silent_end(text: str) -> bool:
    """Return True if the output ends with loading the job list: 4.1.8 and 4.1.10 print no more if nothing changes."""
    return text.rstrip().endswith("\nLooking for edgeless jobs...")


# --- questions to a job list ------------------------------------------------------------------------------------------


def to_ready(expid: str, status: str) -> list[str]:
    """Return a setstatus that saves nothing and lists the jobs of one status. A new job list makes them READY."""
    return SET_JOB_STATUS.preview_argv(expid, {"final_status": "READY", "filter_status": (status,)})


def has_active_jobs(text: str) -> bool:
    """Return True if the output of a setstatus, which may have failed, says that jobs are ACTIVE."""
    return has_line(text, _HAS_ACTIVE)


def read_changes(stdout: bytes) -> Changes:
    """Read the output of a setstatus, whether it saved the changes or not."""
    jobs: dict[str, str] = {}
    selected = None
    for line in output.lines_of(stdout):
        line = line.replace(output.END, "")
        if line.startswith("CHANGED: ") and (found := _CHANGED.match(line[:400])):
            jobs[printable.line(found[1])] = found[2]
        elif line.startswith("The selected") and (found := _SELECTED.match(line[:100])):
            selected = int(found[1])
    return Changes(dict(list(jobs.items())[:CHANGED_LIMIT]), len(jobs), selected)


def jobs_of_status(expid: str, stdout: bytes) -> list[str]:
    """Return the jobs that a setstatus without --save selects, including those whose platform cannot be reached."""
    names = dict.fromkeys(read_changes(stdout).jobs)
    for line in output.lines_of(stdout):
        if found := _OFFLINE.match(line[:600]):
            names |= {printable.line(name, 255): None for name in found.groups() if name.startswith(f"{expid}_")}
    return list(names)


def sections_of(filter_type: str) -> list[str]:
    """Return the names of the sections in `DN [1-2], SIM`, without `ANY`."""
    names = [part.partition("[")[0].strip() for part in filter_type.split(",")]
    return [name for name in names if name and name.upper() != "ANY"]


def sections_left_out(found: Changes, sections: Iterable[str]) -> list[str]:
    """Return the sections of which a setstatus has certainly selected no job.

    4.1.17.1 leaves out jobs without splits if any job of the experiment has splits.
    """
    if found.selected == 0:
        return list(sections)
    if not found.changed or found.unchanged != 0 or found.changed > len(found.jobs):
        return []  # the sections of the selected jobs that were not changed, or are not listed, are unknown
    names = [name.upper() for name in found.jobs]
    return [each for each in sections if not any(name.endswith(f"_{each.upper()}") for name in names)]
