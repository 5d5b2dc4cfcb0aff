"""The parameters of commands: one object per member of `command_params`, with its rules and its texts.

The API makes a serializer field of each, the pages a form field, and the CLI an option. The rules themselves stand here
only. Shell quoting is done once, in the services. The patterns are needed, too, because Autosubmit itself puts some
values into shell commands without quotes (repositories, branches, job names).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

# The values of a command's parameters by name, validated. Parameters that were not given are absent, None or empty.
Params = Mapping[str, Any]
Check = Callable[[str], str]  # returns the text, maybe in a normal form; raises InvalidValue

EXPID_PATTERN = r"[a-z][a-z0-9]{3,15}"
EXPID_RULE = "an experiment is named by 4 to 16 of a-z and 0-9, beginning with a letter, such as a001."
EXPID_LIMIT = 16
# The characters of a job section's name: letters of any alphabet, digits, and _ . + @ : -. Blanks and shell characters
# are not allowed. These ranges mean the same in Python and in JavaScript; classes such as \w differ between the two.
SECTION = r"A-Za-z0-9_.+@:\u00c0-\u167f\u1681-\u1fff\u2c00-\u2fef\u3001-\ud7ff-"
DESCRIPTION_LIMIT = 32_000  # characters: in UTF-8 below the 131,071 bytes that Linux allows for one argument


class InvalidValue(ValueError):
    """A value breaks a rule. The text says what to send instead. `code`: a word for programs."""

    def __init__(self, text: str, code: str = "invalid") -> None:
        super().__init__(text)
        self.code = code


class InvalidParams(ValueError):
    """Values do not fit together. `errors`: a text for each parameter that has to change."""

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__(" ".join(errors.values()))
        self.errors = errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a command.

    `name`: the member of `command_params`. `option`: Autosubmit's option that carries it; empty if the command's `argv`
    places it. `help`: for the API. `label`, `hint`, `placeholder`: for the form; without a label, the name is shown.
    `is_rare`: few people need it, so the form folds it. `in_body`: a member of the request itself, beside `expid`.
    """

    name: str
    option: str = ""
    help: str = ""
    label: str = ""
    hint: str = ""
    placeholder: str = ""
    is_rare: bool = False
    in_body: bool = False
    kind: ClassVar[str]  # a word for clients that make forms or options of parameters

    @property
    def is_required(self) -> bool:
        """True if a request has to give it."""
        return False

    def options(self, value: Any) -> list[str]:
        """Return the option with a value, in the form `--option=value`. Nothing for False, None and empty values.

        So a value that begins with a dash is still a value.
        """
        return [f"{self.option}={value}"] if value else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag(Parameter):
    """True or false."""

    kind = "flag"

    def options(self, value: Any) -> list[str]:
        return [self.option] if value else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Parameter):
    """A text exactly as it was sent, without NUL.

    `pattern` has to match the whole text, and `rule` explains it to people. `guard` is called before the pattern is
    tried, for texts that no error may quote; `check` after it. `rows`: the height of its form field; 0 is one line.
    """

    kind = "text"

    required: bool = False
    allow_blank: bool = False
    max_length: int
    pattern: str = ""
    rule: str = ""
    guard: Check | None = None
    check: Check | None = None
    rows: int = 0

    @property
    def is_required(self) -> bool:
        return self.required


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Parameter):
    """One of several words, which a request has to give. `unknown` is the error, with {value} and {choices}."""

    kind = "choice"

    choices: tuple[str, ...]
    unknown: str

    @property
    def is_required(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class TextList(Parameter):
    """A list of texts, which becomes one argument. `max_bytes`: of all together, with a separator after each.

    `item` has the rules of each text. `invalid` and `too_long` are the errors. `shortest`: bytes of the shortest item.
    """

    kind = "texts"

    item: Text
    max_bytes: int
    shortest: int
    invalid: str
    too_long: str
    rows: int = 0

    def options(self, value: Any) -> list[str]:
        return Parameter.options(self, " ".join(value or ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Words(Parameter):
    """Several words, as a list or as one text with blanks or commas between them. The value is a tuple.

    Either `words` lists the allowed words (in any case; the value has them in capitals), or `pattern` matches one word.
    `split`: splits a text into its words, if blanks and commas do not. `separator`: between the words in the argument.
    """

    kind = "words"

    words: tuple[str, ...] = ()
    pattern: str = ""
    rule: str
    split: Callable[[str], list[str]] | None = None
    separator: str = " "

    def options(self, value: Any) -> list[str]:
        return Parameter.options(self, self.separator.join(value or ()))
