"""The command lines of Autosubmit and the parsing of its output. Pure functions.

The facts were measured on every version of docs/autosubmit-versions.md; tests/versions/outputs holds real outputs.
Every value is one argv item in the `--option=value` form, so a value that begins with a dash is still a value.
The success line proves success, never the exit code alone: several commands exit with 0 on failure, and others exit
with another code on success.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runners import printable
from runners.services.machines.scripts import EXPID_LOCK

# Measured with `expid --copy` of 4.1.8 to 4.1.17.1: conf/*.yml is copied, and HPCARCH is rewritten.
NOT_COPIED = (
    "Only the configuration files were copied. The default platform (HPCARCH) is the one of `hpc`, or else local; the "
    "description, the job list, its progress and the logs are not copied."
)
# Every status that Autosubmit knows. Which of them `setstatus -t` accepts depends on the version: 4.1.17.1 accepts the
# first six, 4.1.16 also FAILED and RUNNING. So Autosubmit itself decides, and its error is the answer.
STATUSES = (
    *("READY", "COMPLETED", "WAITING", "SUSPENDED", "UNKNOWN", "HELD"),
    *("FAILED", "SUBMITTED", "QUEUING", "RUNNING", "PREPARED", "SKIPPED", "DELAYED"),
)
EXPID_PATTERN = r"[a-z][a-z0-9]{3,15}"
DESCRIPTION_LIMIT = 32_000  # characters: in UTF-8 below the 131,071 bytes that Linux allows for one argument

# 4.x prints the first of these lines at the end. 3.14 prints the second and, when all is done, the third.
_CREATED = re.compile(rf"^Experiment ({EXPID_PATTERN}) created\s*$", re.MULTILINE)
_REGISTERED = re.compile(rf'^The new experiment "({EXPID_PATTERN})" has been registered\.\s*$', re.MULTILINE)
_REGISTERED_WELL = "Experiment registered successfully"
_SUBMITTING = re.compile(r'^ *File "[^"\n]*", line \d+, in \w*submit\w*', re.MULTILINE)
_VERSION = re.compile(r"^([0-9]{1,4}\.[0-9]{1,4}[0-9A-Za-z.+-]{0,40})\s*$", re.MULTILINE)
_USAGE_ERROR = re.compile(r"^(?:autosubmit(?: [a-z]{1,40})?: )?error: (.{1,2000})", re.MULTILINE)
# What versions before 4.1.17 print for `--filter_status=ANY`. (ANY is then the only filter.)
_NOT_ANY = re.compile(
    r"There are no jobs with status ANY|supplied input for -f[st]\b|while setting some of the workflow jobs"
)
_LONG_OPTION = re.compile(r"--[A-Za-z_]{1,40}")
_LINE_START = r"^(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ )?(?:\[WARNING\] )?"
_NOT_SAVED, _UNCHANGED = "Changes NOT saved to the JobList", "No changes were performed"
ANY = "ANY"  # in `filter_status`: jobs of every status
DEFAULT_HPC = "local"  # the default of 4.x; 3.14 requires the option
# Seconds that one expid waits for the end of another: while a request waits for it, and when it runs detached.
LOCK_WAIT, DETACHED_LOCK_WAIT = 2, 120
LOCK_BUSY = 75  # exit code of flock when this wait has timed out


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


# The option that carries each member of `command_params`.
OPTIONS = {
    "final_status": "--status_final",
    "job_names_list": "--list",
    "filter_chunks": "--filter_chunks",
    "filter_status": "--filter_status",
    "filter_type": "--filter_type",
    "filter_type_chunk": "--filter_type_chunk",
    "filter_type_chunk_split": "--filter_type_chunk_split",
    "check_wrapper": "--check_wrapper",
    "update_version": "--update_version",
    "force": "--force",
    "description": "--description",
    "hpc": "--HPC",
    "copy": "--copy",
    "minimal": "--minimal_configuration",
    "git_repo": "--git_repo",
    "git_branch": "--git_branch",
    "config_path": "--git_as_conf",
    "use_local_minimal": "--use_local_minimal",
    "operational": "--operational",
    "evaluation": "--evaluation",
    "testcase": "--testcase",
    "dummy": "--dummy",
}


def _options(**params: object) -> list[str]:
    """Return `--name` for True, `--name=value` for texts; nothing for False, None and empty texts."""
    options = ((OPTIONS[name], value) for name, value in params.items() if value)
    return [option if value is True else f"{option}={value}" for option, value in options]


# Statuses of jobs that are in a platform's queue or running there, as far as Autosubmit knows.
ACTIVE = ("RUNNING", "QUEUING", "SUBMITTED")
# setstatus of every version prints this before it applies its filters, and only when jobs are ACTIVE.
_HAS_ACTIVE = "Checking the connection to all platforms in use"


def to_ready(expid: str, status: str) -> list[str]:
    """Return a setstatus that saves nothing and lists the jobs of one status. A new job list makes them READY."""
    return setstatus(expid, SetJobStatusParams("READY", filter_status=(status,)), save=False)


def has_active_jobs(text: str) -> bool:
    """Return True if the output of a setstatus, which may have failed, says that jobs are ACTIVE."""
    return _has_line(text, _HAS_ACTIVE)


def version() -> list[str]:
    return ["autosubmit", "-v"]


NO_EXPERIMENT = "zzzzzzzzzz"  # a name that Autosubmit's counter of experiments does not reach


def describe(expid: str) -> list[str]:
    """Return a command that changes nothing.

    Autosubmit reports a missing experiment once it has found its configuration and database.
    """
    return ["autosubmit", "describe", expid]


def run(expid: str) -> list[str]:
    return ["autosubmit", "run", expid]


# Standard input for `stop`, which asks for a confirmation. 4.1.16 and newer also have an option for that, `-y`. Older
# versions end with a usage error at this option, so the confirmation is always given this way.
STOP_STDIN = b"y\n"


def stop(expid: str, *, force: bool = False, cancel_jobs: bool = False) -> list[str]:
    """Return `autosubmit stop`, which sends INT (KILL with `force`). `--cancel` also cancels the experiment's jobs.

    The command needs STOP_STDIN. It waits for the end of the run without limit, so the caller has to bound it. 4.0 and
    3.14 have no such command.
    """
    return ["autosubmit", "stop", *(["--force"] if force else []), *(["--cancel"] if cancel_jobs else []), expid]


def expid(params: CreateExperimentParams, *, is_detached: bool = False) -> list[str]:
    """Return the command that creates an experiment.

    Only one runs at a time per machine and account: concurrent ones fail and leave duplicate rows. `is_detached`: no
    request waits for the command, so it may wait longer for the lock.
    """
    wait = DETACHED_LOCK_WAIT if is_detached else LOCK_WAIT
    return [
        *("flock", "--close", "--wait", str(wait), "--conflict-exit-code", str(LOCK_BUSY), EXPID_LOCK),
        *("autosubmit", "expid", f"--description={params.description}"),
        *_options(
            hpc=params.hpc or DEFAULT_HPC,
            copy=params.copy,
            minimal=params.minimal,
            git_repo=params.git_repo,
            git_branch=params.git_branch,
            config_path=params.config_path,
            use_local_minimal=params.use_local_minimal,
            operational=params.operational,
            evaluation=params.evaluation,
            testcase=params.testcase,
            dummy=params.dummy,
        ),
    ]


def create(expid: str, params: CreateJobListParams) -> list[str]:
    """Return the command that creates the job list, without a plot."""
    return [
        *("autosubmit", "create", "-np", expid),
        *_options(check_wrapper=params.check_wrapper, update_version=params.update_version, force=params.force),
    ]


def setstatus(expid: str, params: SetJobStatusParams, *, save: bool = True) -> list[str]:
    """Return the command that changes statuses and saves them. Without `save`, Autosubmit prints the same: a preview.

    A preview omits options that would still change something or take long: the version and the wrappers.
    """
    filters = {
        "job_names_list": " ".join(params.job_names_list),
        "filter_chunks": params.filter_chunks,
        "filter_status": " ".join(params.filter_status),
        "filter_type": params.filter_type,
        "filter_type_chunk": params.filter_type_chunk,
        "filter_type_chunk_split": params.filter_type_chunk_split,
    }
    if ANY in params.filter_status:  # 4.1.17 accepts it, older versions do not. Beside another filter it has no effect.
        filters["filter_status"] = ""
        filters["filter_status"] = "" if any(filters.values()) else ANY
    return [
        *("autosubmit", "setstatus", expid, *(["--save"] if save else []), "-np"),
        *_options(
            final_status=params.final_status,
            **filters,
            check_wrapper=params.check_wrapper and save,
            update_version=params.update_version and save,
        ),
    ]


def updatedescrip(expid: str, description: str) -> list[str]:
    return ["autosubmit", "updatedescrip", "--", expid, description]


def sections_of(filter_type: str) -> list[str]:
    """Return the names of the sections in `DN [1-2], SIM`, without `ANY`."""
    names = [part.partition("[")[0].strip() for part in filter_type.split(",")]
    return [name for name in names if name and name.upper() != "ANY"]


def _has_line(text: str, beginning: str) -> bool:
    """Return True if a line begins with `beginning`.

    A search anywhere in a line would be wrong. On failure, Autosubmit prints its arguments on one line
    (`Namespace(description=...`), and they may hold any words, also those of success.
    """
    return re.search(_LINE_START + re.escape(beginning), text, re.MULTILINE) is not None


def created_expid(text: str) -> str | None:
    """Return the id in `Experiment a000 created`; for 3.14, the id that was registered when all was done.

    The line "... has been registered" alone does not prove success: 4.x prints it before it creates the experiment.
    """
    found = _CREATED.findall(text)
    if not found and _has_line(text, _REGISTERED_WELL):
        found = _REGISTERED.findall(text)
    return found[-1] if found else None


def is_run_complete(log: str) -> bool:
    """Return True if the log says that the run ended by itself. Every version says so, and none does after an INT."""
    return _has_line(log, "Run successful")


def is_run_interrupted(log: str) -> bool:
    """Return True if the log says that an INT ended the run. 4.1.16 and older say so and end with exit code 0."""
    return _has_line(log, "Autosubmit will interrupt at the next safe occasion") and not is_run_complete(log)


def has_run_failed(log: str) -> bool:
    """Return True if the log says that jobs have failed and are not retried. 3.14 then ends with exit code 0."""
    return _has_line(log, "Some jobs have failed and reached maximum retrials") and not is_run_complete(log)


def was_submitting(log: str) -> bool:
    """Return True if the traceback of the INT that ended a run shows that the run was submitting jobs."""
    _, found, traceback = log.rpartition("Traceback (most recent call last)")
    return bool(found) and "KeyboardInterrupt" in traceback and _SUBMITTING.search(traceback) is not None


# The next functions judge a command by its exit code (-1: unknown) and its output.


def is_job_list_created(exit_code: int, text: str) -> bool:
    return _has_line(text, "Job list created successfully")


def is_job_list_saved(exit_code: int, text: str) -> bool:
    """Return True if a setstatus has saved.

    4.1.16 and newer print a line when they have saved. Older versions print which jobs they changed, and their exit
    code tells whether these changes were saved.
    """
    if _has_line(text, "[CRITICAL]") or _has_line(text, _NOT_SAVED):
        return False
    if _has_line(text, "JobList saved in ") or _has_line(text, _UNCHANGED):
        return True
    return exit_code == 0 and (_has_line(text, "CHANGED: job: ") or _is_silent_end(text))


def is_job_list_shown(exit_code: int, text: str) -> bool:
    """Return True if a setstatus without `save` succeeded. 3.14 does not print that it has not saved."""
    if _has_line(text, _NOT_SAVED) or _has_line(text, _UNCHANGED):
        return True
    if exit_code or _has_line(text, "[CRITICAL]"):
        return False
    return _has_line(text, "CHANGED: job: ") or _is_silent_end(text)


def _is_silent_end(text: str) -> bool:
    """Return True if the output ends with loading the job list: 4.1.8 and 4.1.10 print no more if nothing changes."""
    return text.rstrip().endswith("\nLooking for edgeless jobs...")


def is_description_set(exit_code: int, text: str) -> bool:
    """Return True if the description was set.

    Autosubmit prints its line before it writes, so the line alone proves nothing.
    """
    return exit_code == 0 and re.search(rf"^Setting {EXPID_PATTERN} description to '", text, re.MULTILINE) is not None


def version_in(text: str) -> str:
    """Return the version that `autosubmit -v` printed; empty if there is none. 3.14 prints it on standard error."""
    found = _VERSION.search(text)
    return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class UsageError:
    """What the installed version does not accept. Nothing was executed. `parameters`: members of `command_params`."""

    parameters: tuple[str, ...]
    words: str


def usage_error(text: str, argv: list[str]) -> UsageError | None:
    """Return the usage error of argparse that ended `argv`, if `text` (both streams) reports one.

    The same for `filter_status` ANY alone, which versions up to 4.1.16 reject. argparse prints "unrecognized arguments:
    --force", "argument -fs/--filter_status: not allowed with argument -fl/--list", "argument -t/--status_final: invalid
    choice: 'SKIPPED' (choose from ...)".
    """
    found = _USAGE_ERROR.search(text)
    if found is None:
        if f"{OPTIONS['filter_status']}={ANY}" in argv and _NOT_ANY.search(text):
            return UsageError(("filter_status",), "it knows no ANY; give statuses that jobs have, or job_names_list")
        return None
    given = {word.partition("=")[0] for word in argv if word.startswith("--")}
    named = [option for option in _LONG_OPTION.findall(found[1]) if option in given]
    if not named and found[1].startswith("one of the arguments "):
        # argparse misses one of the filters that it knows, because it does not know the filter that was given.
        named = [option for option in given if option.startswith("--filter_")]
    names = [name for name, option in OPTIONS.items() if option in named]
    return UsageError(tuple(names), printable.line(found[1])) if names else None


def needs_newer(argv: list[str], version: str) -> UsageError | None:
    """Return what `version` (such as "4.1.10") does not accept in a command that ended with code 1 and no reason.

    Up to 4.1.10, Autosubmit ends with code 1 at an option that it does not know, and prints its help or nothing.
    """
    numbers = tuple(int(word) for word in version.split(".")[:3] if word.isascii() and word.isdigit())
    if OPTIONS["evaluation"] in argv and len(numbers) == 3 and numbers <= (4, 1, 10):
        return UsageError(("evaluation",), "it has no option --evaluation")
    return None


def silence(exit_code: int) -> str:
    """Return the words for a command that failed without output."""
    return "no output"


def is_lock_busy(argv: list[str], exit_code: int) -> bool:
    """Return True if an expid waited in vain for another one, so that nothing was created."""
    return argv[0] == "flock" and exit_code == LOCK_BUSY
