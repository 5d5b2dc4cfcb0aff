"""What to run, and how to read what it says. Pure functions; the facts were measured on Autosubmit 4.1.17.1.

Every value is one argv item in the `--option=value` form, so a value that begins with a dash is still a value.
Success is the success line, never the exit code alone: several commands exit 0 on failure, and others do not on
success.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# The statuses that `setstatus -t` takes. FAILED, RUNNING and others exist in Autosubmit but are refused there.
ACCEPTED_STATUSES = ("READY", "COMPLETED", "WAITING", "SUSPENDED", "UNKNOWN", "HELD")
EXPID_PATTERN = r"[a-z][a-z0-9]{3,15}"
DESCRIPTION_LIMIT = 32_000  # characters: in UTF-8 below the 131,071 bytes that Linux allows for one argument
LINE_LIMIT = 2000  # characters of one line of output that are told

_CREATED = re.compile(rf"^Experiment ({EXPID_PATTERN}) created\s*$", re.MULTILINE)
_ECODE = re.compile(r"\[eCode=([0-9]{1,9})\]")
_CHANGED = re.compile(r"^CHANGED: job: (\S+) status to: (\S+)", re.MULTILINE)
_DATE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ ")
_LINE_START = r"^(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ )?(?:\[WARNING\] )?"
# Autosubmit says these and still exits 0: the configuration is wrong, and a run will fail.
_WARNINGS = ("contain some issues ignored", "Critical Issues", "No changes were performed")
EXPID_LOCK = "expid.lock"  # in the service's own directory on the machine
LOCK_WAIT, LOCK_BUSY = 120, 75  # seconds that one expid waits for another's end; its exit code when it waits no longer


@dataclass(frozen=True, slots=True)
class SetJobStatusParams:
    """`command_params` of set-job-status. At least one filter is given; several are combined with AND."""

    final_status: str
    job_names_list: tuple[str, ...] = ()
    filter_chunks: str | None = None
    filter_status: tuple[str, ...] = ()
    filter_type: str | None = None
    filter_type_chunk: str | None = None
    filter_type_chunk_split: str | None = None
    check_wrapper: bool = False
    update_version: bool = False


@dataclass(frozen=True, slots=True)
class CreateExperimentParams:
    """`command_params` of create-experiment."""

    description: str
    git_repo: str | None = None
    git_branch: str | None = None
    minimal: bool = False
    config_path: str | None = None
    hpc: str | None = None
    use_local_minimal: bool = False
    operational: bool = False
    testcase: bool = False
    copy: str | None = None
    evaluation: bool = False
    dummy: bool = False


@dataclass(frozen=True, slots=True)
class CreateJobListParams:
    """`command_params` of create-job-list."""

    check_wrapper: bool = False
    update_version: bool = False
    force: bool = False


def _options(*pairs: tuple[str, object]) -> list[str]:
    """`--name` for True, `--name=value` for texts; nothing for False, None and empty texts."""
    return [name if value is True else f"{name}={value}" for name, value in pairs if value]


def version() -> list[str]:
    return ["autosubmit", "-v"]


def run(expid: str) -> list[str]:
    return ["autosubmit", "run", expid]


def stop(expid: str, *, force: bool = False, cancel_jobs: bool = False) -> list[str]:
    """INT, the safe way (KILL with `force`); `--cancel` also cancels the experiment's jobs.

    It waits for the end of the run without limit: bound it.
    """
    return ["autosubmit", "stop", "-y", *_options(("--force", force), ("--cancel", cancel_jobs)), expid]


def expid(params: CreateExperimentParams) -> list[str]:
    """Create an experiment. One at a time per machine and account: parallel ones lose and leave duplicate rows."""
    return [
        *("flock", "--close", "--wait", str(LOCK_WAIT), "--conflict-exit-code", str(LOCK_BUSY), EXPID_LOCK),
        *("autosubmit", "expid", f"--description={params.description}"),
        *_options(
            ("--HPC", params.hpc),
            ("--copy", params.copy),
            ("--minimal_configuration", params.minimal),
            ("--git_repo", params.git_repo),
            ("--git_branch", params.git_branch),
            ("--git_as_conf", params.config_path),
            ("--use_local_minimal", params.use_local_minimal),
            ("--operational", params.operational),
            ("--evaluation", params.evaluation),
            ("--testcase", params.testcase),
            ("--dummy", params.dummy),
        ),
    ]


def create(expid: str, params: CreateJobListParams) -> list[str]:
    """Make the job list, without a plot."""
    return [
        *("autosubmit", "create", "-np", expid),
        *_options(
            ("--check_wrapper", params.check_wrapper),
            ("--update_version", params.update_version),
            ("--force", params.force),
        ),
    ]


def setstatus(expid: str, params: SetJobStatusParams, *, save: bool = True) -> list[str]:
    """Change statuses and save. Without `save` Autosubmit says the same and keeps nothing: a preview.

    A preview leaves out what would still change something, or takes long: the version and the wrappers.
    """
    return [
        *("autosubmit", "setstatus", expid, *(["--save"] if save else []), "-np"),
        f"--status_final={params.final_status}",
        *_options(
            ("--list", " ".join(params.job_names_list)),
            ("--filter_chunks", params.filter_chunks),
            ("--filter_status", " ".join(params.filter_status)),
            ("--filter_type", params.filter_type),
            ("--filter_type_chunk", params.filter_type_chunk),
            ("--filter_type_chunk_split", params.filter_type_chunk_split),
            ("--check_wrapper", params.check_wrapper and save),
            ("--update_version", params.update_version and save),
        ),
    ]


def updatedescrip(expid: str, description: str) -> list[str]:
    return ["autosubmit", "updatedescrip", "--", expid, description]


def _has_line(text: str, beginning: str) -> bool:
    """Whether a line begins so.

    Anywhere in a line would not do: on failure Autosubmit shows the arguments that it got (`Namespace(description=...`,
    on one line), and they may hold any words, those of success included.
    """
    return re.search(_LINE_START + re.escape(beginning), text, re.MULTILINE) is not None


def created_expid(text: str) -> str | None:
    """The id in `Experiment a000 created`. The earlier line "... has been registered" is no proof of success."""
    found = _CREATED.findall(text)
    return found[-1] if found else None


def is_job_list_created(text: str) -> bool:
    return _has_line(text, "Job list created successfully")


def is_job_list_saved(text: str) -> bool:
    return _has_line(text, "JobList saved in ") or _has_line(text, "No changes were performed")


def is_job_list_shown(text: str) -> bool:
    """Of a setstatus without `save`."""
    return _has_line(text, "Changes NOT saved to the JobList") or _has_line(text, "No changes were performed")


def changed_jobs(text: str) -> dict[str, str]:
    """What a setstatus has changed, or would change: the new status of each job, in Autosubmit's order."""
    return dict(_CHANGED.findall(text))


def is_description_set(text: str) -> bool:
    return re.search(rf"^Setting {EXPID_PATTERN} description to '", text, re.MULTILINE) is not None


def warnings(text: str) -> list[str]:
    """Lines that mean trouble although the command succeeded."""
    return [line.strip()[-LINE_LIMIT:] for line in text.splitlines() if any(sign in line for sign in _WARNINGS)]


def error_code(text: str) -> int | None:
    """The number in the last `[eCode=7014]`."""
    found = _ECODE.findall(text)
    return int(found[-1]) if found else None


def complaint(text: str) -> str:
    """The last line that carries an error code, without Autosubmit's date; empty if there is none."""
    lines = [line.strip() for line in text.splitlines() if _ECODE.search(line)]
    return _DATE.sub("", lines[-1])[-LINE_LIMIT:] if lines else ""


def silence(exit_code: int) -> str:
    """What to say of a command that failed without a word."""
    if exit_code == LOCK_BUSY:
        return f"another experiment is being created in this account for more than {LOCK_WAIT} s; try again later"
    return "no output"
