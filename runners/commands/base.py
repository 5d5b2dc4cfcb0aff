"""`Command`: all that the service knows of one Autosubmit command. API, pages, CLI, audit and admin derive from it.

A command is one subclass in one module, with one instance that the entry points in pyproject.toml name. It holds facts
of Autosubmit and texts; it knows no rows and no HTTP. The facts were measured on every version of
docs/autosubmit-versions.md; tests/versions/outputs holds real outputs.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from profiles.toggles import Toggle
from runners import printable
from runners.commands import output
from runners.commands.output import Complaint, UsageError
from runners.commands.parameters import Parameter, Params
from runners.services.machines import scripts
from runners.services.machines.runner import CommandResult, Runner


class Action(StrEnum):
    """What a user asks to do. RUN covers all uses of a profile (also creating, describing) except setting statuses."""

    RUN = "run"
    STOP = "stop"
    SET_STATUS = "set-status"


@dataclass(frozen=True, slots=True)
class Page:
    """The texts of a command's page. `title` and `button` are imperatives. `done`: after success, with {expid}.

    `intro`: what the command does and when it is possible. `path`: of the page, below experiments/; empty: the name of
    the command. `next_command`: the name of the command whose page follows after success; empty: the page of the
    experiment follows. `order`: menus and pages list commands by it. `preview_note`: what to know about a
    preview of changes.
    """

    title: str
    intro: str
    button: str
    done: str = ""
    preview_button: str = "Preview"
    preview_note: str = ""
    path: str = ""
    next_command: str = ""
    order: int = 100


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a command's answer beside `message` and `warnings`.

    `kind`: text, integer, texts (a list), text_by_name (an object) or object (with `members`). `title` and `text`: the
    name and the description of an object in the OpenAPI document.
    """

    name: str
    kind: str
    help: str
    is_nullable: bool = False
    members: tuple[Member, ...] = ()
    title: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """The result of a finished command. `warnings`: problems that Autosubmit reported, but not as an error.

    `changes`: what the command itself has to report, such as the changed jobs; None for most commands.
    """

    expid: str
    warnings: list[str] = field(default_factory=list)
    changes: Any = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Autosubmit rejected a parameter and changed nothing."""

    fields: tuple[str, ...]  # names of parameters; several if Autosubmit does not say which
    sentence: str
    is_certain: bool = True  # False: the cause may be something other than a parameter


@dataclass(frozen=True, slots=True)
class Busy:
    """The command changed nothing, because another one of its kind is executing. `seconds`: after which to retry."""

    sentence: str
    seconds: int


class WouldFail(Exception):
    """A check before a command shows that the command would fail in the same way. `argv`, `result`: of the check."""

    def __init__(self, argv: list[str], result: CommandResult) -> None:
        super().__init__(argv)
        self.argv = argv
        self.result = result


class Command(ABC):
    """One Autosubmit command. Subclasses set the class attributes; site packages subclass `OneShotCommand`."""

    name: ClassVar[str]  # on the wire, in the audit log and of the entry point
    toggle: ClassVar[Toggle]
    action: ClassVar[Action]  # which groups of a profile may use it
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    needs_expid: ClassVar[bool] = True  # False: it has no experiment yet, because it creates one
    needs_profile: ClassVar[bool] = True  # False: it concerns a run, which knows its machine
    needs_idle: ClassVar[bool] = False  # the experiment must not be running
    holds_lock: ClassVar[bool] = False  # Autosubmit does not lock the experiment for it, so the service does
    is_long: ClassVar[bool] = False  # may outlast a connection, so it can run as an operation
    page: ClassVar[Page]
    # For the OpenAPI document: the operation, and the schemas of the request body and of its `command_params`.
    summary: ClassVar[str]
    description: ClassVar[str]
    request_text: ClassVar[str]
    params_text: ClassVar[str] = ""

    def __str__(self) -> str:
        return self.name

    def options(self, params: Params) -> list[str]:
        """Return the options of the given parameters, in the order of `parameters`."""
        return [word for each in self.parameters if each.option for word in each.options(params.get(each.name))]

    def validate(self, params: Params) -> None:  # noqa: B027  (most commands have no such rules)
        """Check the rules between parameters. Raises InvalidParams."""

    def validate_for(self, expid: str, params: Params) -> None:  # noqa: B027
        """Check the rules between parameters and the experiment. Raises InvalidParams."""

    def checks(self, expid: str) -> list[str]:
        """Return shell lists that have to succeed on the machine right before the command, in its environment."""
        return [scripts.hold_lock(expid, locked=f"{output.LOCKED}.")] if self.holds_lock else []


class OneShotCommand(Command):
    """A command that is executed, ends, and tells its result by its output.

    The success line proves success, never the exit code alone: several commands exit with 0 on failure, and others exit
    with another code on success.
    """

    message: ClassVar[str]  # the answer to success, with {expid}
    members: ClassVar[tuple[Member, ...]] = ()  # of the answer, beside message and warnings
    answer_name: ClassVar[str] = ""  # the schema of the answer in the OpenAPI document, for commands with `members`
    answer_text: ClassVar[str] = ""
    removes_experiment: ClassVar[bool] = False  # after its success the experiment does not exist any more
    may_be_busy: ClassVar[bool] = False  # `busy` may return that another one was executing
    has_notes: ClassVar[bool] = False  # `notes` asks the machine, also for a dry run
    notes_unknown: ClassVar[str] = ""  # the note of a dry run whose machine could not be reached
    preview_name: ClassVar[str] = ""  # the name of a preview in the audit log; empty: it has none
    # A sentence of Autosubmit, and the options that it may reject; only options in the command count. Tried in order.
    refusals: ClassVar[tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]] = ()

    # --- the request ---

    @abstractmethod
    def argv(self, expid: str, params: Params, *, is_detached: bool = False) -> list[str]:
        """Return the command line. Every value is one item, and one that begins with a dash is still a value.

        `is_detached`: no request waits for the command, so it may wait longer for others of its kind.
        """

    def preview_argv(self, expid: str, params: Params) -> list[str]:
        """Return the command that tells what `argv` would change, and saves nothing. Only with `preview_name`."""
        raise NotImplementedError

    def notes(self, runner: Runner, expid: str, params: Params, *, is_done: bool) -> list[str]:
        """Return warnings that have to be found before the command is executed.

        `is_done`: users read them after it was executed. Raises WouldFail and RunnerUnreachable.
        """
        return []

    # --- the result ---

    @abstractmethod
    def is_success(self, exit_code: int, text: str) -> bool:
        """Return True if the exit code (-1: unknown) and standard output show that the command has succeeded."""

    def is_preview_success(self, exit_code: int, text: str) -> bool:
        """The same for a preview."""
        return self.is_success(exit_code, text)

    def outcome(
        self, runner: Runner, expid: str, argv: list[str], result: CommandResult, notes: Sequence[str] = ()
    ) -> CommandOutcome:
        """Return the outcome of a success, or of a preview. `notes`: the warnings that `notes` returned before."""
        return CommandOutcome(expid, [*notes, *output.warnings(result.stdout)])

    def new_description(self, argv: Sequence[str]) -> str | None:
        """Return the description that a success of `argv` gives the experiment; None: it does not change it."""
        return None

    def message_of(self, outcome: CommandOutcome) -> str:
        return self.message.format(expid=outcome.expid)

    def page_message(self, outcome: CommandOutcome, params: Params) -> str:
        """Return what the page says after success."""
        return self.page.done.format(expid=outcome.expid)

    def answer(self, outcome: CommandOutcome) -> dict[str, Any]:
        """Return the `members` of the answer."""
        return {}

    def stored(self, changes: Any) -> Any:
        """Return the changes of an outcome as JSON."""
        return None

    def restored(self, stored: object) -> Any:
        """Return the changes that were stored. Raises ValueError."""
        if stored is not None:
            raise ValueError("this command reports no changes")

    # --- a failure ---

    def usage_error(self, argv: Sequence[str], text: str) -> UsageError | None:
        """Return the usage error that ended `argv`, if `text` (both streams) reports one.

        argparse prints "unrecognized arguments: --force", "argument -fs/--filter_status: not allowed with argument
        -fl/--list", "argument -t/--status_final: invalid choice: 'SKIPPED' (choose from ...)".
        """
        words = output.usage_error(text)
        if not words:
            return None
        given = self._given(argv)
        named = [option for option in output.long_options(words) if option in given]
        if not named and words.startswith("one of the arguments "):
            # argparse misses one of the filters that it knows, because it does not know the filter that was given.
            named = [option for option in given if option.startswith("--filter_")]
        names = [each.name for each in self.parameters if each.option and each.option in named]
        return UsageError(tuple(names), printable.line(words)) if names else None

    def may_need_newer(self, argv: Sequence[str], exit_code: int) -> bool:
        """Return True if `needs_newer` may explain a failure. Asking for the version takes as long as a command."""
        return False

    def needs_newer(self, argv: Sequence[str], version: str) -> UsageError | None:
        """Return what `version` (such as "4.1.10") does not accept in a command that failed without a reason."""
        return None

    def busy(self, argv: Sequence[str], exit_code: int, where: str) -> Busy | None:
        """Return Busy if the command was not executed because another one was. `where`: the name of the machine."""
        return None

    def refusal(self, argv: Sequence[str], found: Complaint) -> Refusal | None:
        """Return which parameter Autosubmit rejected; None if the command failed for another reason.

        `usage_error` handles usage errors.
        """
        for pattern, candidates in self.refusals:
            given = tuple(self._names(argv, candidates))
            if given and pattern.search(found.raw):
                return Refusal(given, self._sentence(candidates, found))
        return None

    def _sentence(self, candidates: Sequence[str], found: Complaint) -> str:
        return found.details or found.reason.partition("\n")[2] or found.reason

    def _names(self, argv: Sequence[str], options: Sequence[str]) -> Iterator[str]:
        """Yield the names of the parameters whose options are in the command, in the order of `options`."""
        given = self._given(argv)
        for option in options:
            if option in given:
                yield from (each.name for each in self.parameters if each.option == option)

    @staticmethod
    def _given(argv: Sequence[str]) -> list[str]:
        return [word.partition("=")[0] for word in argv if word.startswith("--")]
