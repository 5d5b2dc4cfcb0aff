"""`autosubmit expid`: create an experiment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from profiles.toggles import Toggle
from runners.commands import output
from runners.commands.base import Action, Busy, CommandOutcome, Member, OneShotCommand, Page
from runners.commands.output import UsageError, has_line
from runners.commands.parameters import (
    DESCRIPTION_LIMIT,
    EXPID_LIMIT,
    EXPID_PATTERN,
    EXPID_RULE,
    Flag,
    InvalidParams,
    InvalidValue,
    Params,
    Text,
)
from runners.printable import quoted
from runners.services.machines.runner import CommandResult, Runner
from runners.services.machines.scripts import EXPID_LOCK

CREATE_EXPERIMENT_TOGGLE = Toggle("CREATE_EXPERIMENT", "create-experiment")  # also of create-job-list
DEFAULT_HPC = "local"  # the default of 4.x; 3.14 requires the option
# Seconds that one expid waits for the end of another: while a request waits for it, and when it runs detached.
LOCK_WAIT, DETACHED_LOCK_WAIT = 2, 120
LOCK_BUSY = 75  # exit code of flock when this wait has timed out
# Measured with `expid --copy` of 4.1.8 to 4.1.17.1: conf/*.yml is copied, and HPCARCH is rewritten.
NOT_COPIED = (
    "Only the configuration files were copied. The default platform (HPCARCH) is the one of `hpc`, or else local; the "
    "description, the job list, its progress and the logs are not copied."
)
# 4.x prints the first of these lines at the end. 3.14 prints the second and, when all is done, the third.
_CREATED = re.compile(rf"^Experiment ({EXPID_PATTERN}) created\s*$", re.MULTILINE)
_REGISTERED = re.compile(rf'^The new experiment "({EXPID_PATTERN})" has been registered\.\s*$', re.MULTILINE)
_REGISTERED_WELL = "Experiment registered successfully"
_PATH = r"[A-Za-z0-9_./][A-Za-z0-9._/+@=-]*"
_PLACEHOLDER = r"%[A-Z][A-Z0-9_.]*%/"
_PATH_RULE = "use paths inside the repository, without .., blanks or shell characters."
EXCLUSIVE = (("operational", "testcase", "evaluation"), ("minimal", "dummy"), ("copy", "dummy"))


def without_credentials(address: str) -> str:
    """Return the address of a repository. Raises InvalidValue for a password before its host, or with HTTP a user.

    The audit log and `ps` show the argv.
    """
    scheme, separator, rest = address.partition("://")
    if separator and scheme and scheme.replace("+", "a").isalpha():
        before, at, _ = rest.partition("/")[0].rpartition("@")
        if at and (":" in before or scheme.lower() in ("http", "https")):
            raise InvalidValue(
                "Leave out user and password: they would be stored readable. Use an SSH address (git@host:path), or a "
                "credential helper of git on the machine.",
                "credentials",
            )
    return address


def configuration_paths(text: str) -> str:
    """Return one or several paths, separated by commas, as `autosubmit expid --git_as_conf` takes them.

    Autosubmit prefixes the whole text with `%PROJDIR%/`, the clone of the repository, so the prefix applies only to the
    first path. The other paths have to begin with a placeholder or be absolute. Raises InvalidValue.
    """
    first, *others = (part.strip() for part in text.split(","))
    for path in (first, *others):
        if ".." in path.split("/"):
            raise InvalidValue(f"{quoted(path)} is not accepted: {_PATH_RULE}", "pattern")
    for path in others:
        if not path.startswith(("%", "/")):
            raise InvalidValue(
                f"Autosubmit would not find {quoted(path)}: only the first path is looked for in the repository. "
                f"Write {quoted('%PROJDIR%/' + path)}.",
                "not_found",
            )
    return ",".join([first, *others])


def created_expid(text: str) -> str | None:
    """Return the id in `Experiment a000 created`; for 3.14, the id that was registered when all was done.

    The line "... has been registered" alone does not prove success: 4.x prints it before it creates the experiment.
    """
    found = _CREATED.findall(text)
    if not found and has_line(text, _REGISTERED_WELL):
        found = _REGISTERED.findall(text)
    return found[-1] if found else None


def _flag(name: str, option: str, help: str, label: str, hint: str = "") -> Flag:
    return Flag(name=name, option=option, help=help, label=label, hint=hint or help, is_rare=True)


class CreateExperiment(OneShotCommand):
    name = "create-experiment"
    toggle = CREATE_EXPERIMENT_TOGGLE
    action = Action.RUN
    needs_expid = False
    is_long = True
    may_be_busy = True
    parameters = (
        Text(
            name="description",
            option="--description",
            required=True,
            max_length=DESCRIPTION_LIMIT,
            rows=2,
            help="Any text of at most 32,000 characters.",
            label="Description",
        ),
        Text(
            name="hpc",
            option="--HPC",
            pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]*",
            rule="a platform is named by letters, digits and _ . -, such as local.",
            max_length=100,
            help="The default platform, HPCARCH. Autosubmit accepts unknown names here; a run would fail later.",
            label="Platform",
            hint="Where its jobs run by default; empty: local. Autosubmit does not check the name here.",
        ),
        Text(
            name="git_repo",
            option="--git_repo",
            pattern=r"(?!.*::)[A-Za-z0-9./~][A-Za-z0-9._~:/@+=,%-]*",
            rule="use the URL or path of a git repository, without blanks or shell characters.",
            max_length=1000,
            guard=without_credentials,
            help="The URL or path of a git repository, without user and password.",
            label="Git repository",
            hint="URL or path, without user and password.",
            is_rare=True,
        ),
        Text(
            name="git_branch",
            option="--git_branch",
            pattern=r"[A-Za-z0-9_][A-Za-z0-9._/+@#=-]*",
            rule="use the name of a branch or tag, without blanks or shell characters.",
            max_length=255,
            help="Its branch or tag.",
            label="Git branch",
            is_rare=True,
        ),
        Text(
            name="config_path",
            option="--git_as_conf",
            pattern=rf"{_PATH}([ ]?,[ ]?({_PLACEHOLDER})?{_PATH})*",
            rule=_PATH_RULE,
            max_length=1000,
            check=configuration_paths,
            help="Where the repository keeps the configuration files. Several paths are separated by commas; all but "
            "the first begin with %PROJDIR%/ (the repository), as in conf/a.yml,%PROJDIR%/conf/b.yml.",
            label="Configuration in the repository",
            hint="The path of its configuration files.",
            is_rare=True,
        ),
        Text(
            name="copy",
            option="--copy",
            pattern=EXPID_PATTERN,
            rule=EXPID_RULE,
            max_length=EXPID_LIMIT,
            help="An experiment whose configuration is copied.",
            label="Copy of",
            hint="An experiment whose configuration is copied.",
            placeholder="a000",
        ),
        _flag(
            "minimal",
            "--minimal_configuration",
            "Only one small configuration file, minimal.yml.",
            "Minimal configuration",
            "One small file, minimal.yml.",
        ),
        _flag(
            "use_local_minimal",
            "--use_local_minimal",
            "With minimal: a local project instead of a git repository.",
            "With a local project",
            "With a minimal configuration: no git repository.",
        ),
        _flag(
            "dummy",
            "--dummy",
            "With example jobs that only sleep.",
            "With example jobs",
            "Jobs that only sleep, for tests.",
        ),
        _flag("operational", "--operational", "The id begins with o.", "Operational"),
        _flag("testcase", "--testcase", "The id begins with t.", "Test case"),
        _flag("evaluation", "--evaluation", "The id begins with e.", "Evaluation"),
    )
    message = "Experiment {expid} created successfully."
    members = (Member("expid", "text", "The id of the new experiment."),)
    answer_name = "ExperimentCreatedAnswer"
    page = Page(
        title="Create an experiment",
        intro="Autosubmit chooses its id. Edit its configuration on the machine, then create its job list.",
        button="Create the experiment",
        done="Experiment {expid} was created. Create its job list next.",
        order=1,
        path="create",
        next_command="create-job-list",
    )
    summary = "Create an experiment"
    description = (
        "Executes `autosubmit expid`. A new experiment needs its job list (create-job-list) before it can run. Only "
        "one experiment at a time can be created in an account: a request waits 2 s for another one, with `Prefer: "
        "respond-async` 120 s."
    )
    request_text = "Where and how a new experiment is made."
    params_text = (
        "How the new experiment is made.\n\n"
        "At most one of operational, testcase and evaluation; dummy neither with minimal nor with copy."
    )
    refusals = ((re.compile(r"^Experiment [a-z0-9]{4,16} doesn't exists?"), ("--copy",)),)

    def argv(self, expid: str, params: Params, *, is_detached: bool = False) -> list[str]:
        """Only one expid runs at a time per machine and account: concurrent ones fail and leave duplicate rows."""
        wait = DETACHED_LOCK_WAIT if is_detached else LOCK_WAIT
        return [
            *("flock", "--close", "--wait", str(wait), "--conflict-exit-code", str(LOCK_BUSY), EXPID_LOCK),
            *("autosubmit", "expid", *self.options({**params, "hpc": params.get("hpc") or DEFAULT_HPC})),
        ]

    def validate(self, params: Params) -> None:
        for group in EXCLUSIVE:
            given = [name for name in group if params[name]]
            if len(given) > 1:
                raise InvalidParams({given[1]: f"Give only one of {' and '.join(given)}."})
        if params["minimal"] and params["use_local_minimal"]:
            for name in ("git_repo", "git_branch"):
                if params[name]:
                    raise InvalidParams(
                        {name: f"Leave out {name} or use_local_minimal: Autosubmit would silently ignore {name}."}
                    )

    def is_success(self, exit_code: int, text: str) -> bool:
        return created_expid(text) is not None

    def outcome(
        self, runner: Runner, expid: str, argv: list[str], result: CommandResult, notes: Sequence[str] = ()
    ) -> CommandOutcome:
        told = output.warnings(result.stdout)
        if any(word.startswith("--copy=") for word in argv):
            told.append(NOT_COPIED)
        return CommandOutcome(created_expid(result.text) or expid, told)

    def new_description(self, argv: Sequence[str]) -> str | None:
        given = (word.partition("=")[2] for word in argv if word.startswith("--description="))
        return next(given, None)

    def answer(self, outcome: CommandOutcome) -> dict[str, Any]:
        return {"expid": outcome.expid}

    def may_need_newer(self, argv: Sequence[str], exit_code: int) -> bool:
        return exit_code == 1 and "--evaluation" in argv

    def needs_newer(self, argv: Sequence[str], version: str) -> UsageError | None:
        """Up to 4.1.10, an unknown option ends Autosubmit with code 1, and it prints its help or nothing."""
        numbers = tuple(int(word) for word in version.split(".")[:3] if word.isascii() and word.isdigit())
        if "--evaluation" in argv and len(numbers) == 3 and numbers <= (4, 1, 10):
            return UsageError(("evaluation",), "it has no option --evaluation")
        return None

    def busy(self, argv: Sequence[str], exit_code: int, where: str) -> Busy | None:
        """Return Busy if this `expid` has waited for another one until its timeout: then nothing was created."""
        if exit_code != LOCK_BUSY:
            return None
        return Busy(
            f"Another experiment is being created in the account on {where}"
            f", and only one can be created at a time. Nothing was created. Try again in {LOCK_WAIT} s, or send "
            f"`Prefer: respond-async`.",
            LOCK_WAIT,
        )


CREATE_EXPERIMENT = CreateExperiment()
