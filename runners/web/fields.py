"""The fields of the requests. Each field rejects harmful values, with a message that says what to send instead.

Shell quoting is done once, in the services. The patterns here are needed, too, because Autosubmit itself puts some of
these values into shell commands without quotes (repositories, branches, job names).
"""

from __future__ import annotations

import re
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from profiles.api.serializers import text_or_texts
from runners.commands.autosubmit import DESCRIPTION_LIMIT, EXPID_PATTERN, STATUSES

# The characters of a job section's name: letters of any alphabet, digits, and _ . + @ : -. Blanks and shell characters
# are not allowed. These ranges mean the same in Python and in JavaScript; classes such as \w differ between the two.
SECTION = r"A-Za-z0-9_.+@:\u00c0-\u167f\u1681-\u1fff\u2c00-\u2fef\u3001-\ud7ff-"
JOB_NAME_PATTERN = rf"{EXPID_PATTERN}_[{SECTION}]+"
MAX_NAMED = 10  # unknown members that a response names; finding the nearest known name for 100,000 would take minutes
JOB_NAMES_LIMIT = 100_000  # bytes of all names together: they are one command argument, which Linux limits to 131,071


def quoted(value: object, limit: int = 60) -> str:
    """Format a rejected value of any type for an error message: printable, and cut after `limit` characters."""
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else f"'{value}'"
    return text if len(text) <= limit else f"{text[:limit]}…"


class StrictTextField(serializers.CharField):
    """A text exactly as it was sent: not trimmed, not converted from a number. NUL and over-long texts are rejected.

    `pattern` has to match the whole text; `rule` explains the pattern to people.
    """

    default_error_messages = {
        "invalid": "Give a text, in quotes.",
        "null": "Give a text, not null.",
        "blank": "Give a text that is not empty.",
        "max_length": "Give at most {max_length} characters.",
    }

    def __init__(self, *, pattern: str = "", rule: str = "", **kwargs: Any) -> None:
        self.pattern = re.compile(pattern) if pattern else None
        self.rule = rule
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if self.max_length is not None and len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)  # first, so that the pattern never sees 100 kB
        if self.pattern and data and not self.pattern.fullmatch(data):
            raise serializers.ValidationError(f"{quoted(data)} is not accepted: {self.rule}", code="pattern")
        return data


class OptionalTextField(StrictTextField):
    """An optional text. null and "" mean "not given": today's GUI sends null, or "" for a field typed and erased."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, allow_null=True, allow_blank=True, default=None, **kwargs)

    def run_validation(self, data: Any = serializers.empty) -> str | None:
        return super().run_validation(data) or None


class FlagField(serializers.BooleanField):
    """A JSON boolean. Other values, such as "true" or 1, are rejected."""

    default_error_messages = {"invalid": "Give true or false, without quotes.", "null": "Give true or false, not null."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, default=False, **kwargs)

    def to_internal_value(self, data: object) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


_EXPID: dict[str, Any] = {
    "pattern": EXPID_PATTERN,
    "rule": "an experiment is named by 4 to 16 of a-z and 0-9, beginning with a letter, such as a001.",
    "max_length": 16,
}


class ExpidField(StrictTextField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**(_EXPID | kwargs))


class OptionalExpidField(OptionalTextField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**(_EXPID | kwargs))


class DescriptionField(StrictTextField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=DESCRIPTION_LIMIT, **kwargs)


def _has_credentials(address: str) -> bool:
    """Return True if a URL has a password before its host, or with HTTP a user. Each step reads it once."""
    scheme, separator, rest = address.partition("://")
    if not separator or not scheme or not scheme.replace("+", "a").isalpha():
        return False
    before, at, _ = rest.partition("/")[0].rpartition("@")
    return bool(at) and (":" in before or scheme.lower() in ("http", "https"))


class RepositoryField(OptionalTextField):
    """The address of a git repository. Credentials are rejected, because the audit log and `ps` show the argv."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            pattern=r"(?!.*::)[A-Za-z0-9./~][A-Za-z0-9._~:/@+=,%-]*",
            rule="use the URL or path of a git repository, without blanks or shell characters.",
            max_length=1000,
            **kwargs,
        )

    def to_internal_value(self, data: object) -> str:
        if isinstance(data, str) and _has_credentials(data):  # first, because the other errors quote the value
            raise serializers.ValidationError(
                "Leave out user and password: they would be stored readable. Use an SSH address (git@host:path), or a "
                "credential helper of git on the machine.",
                code="credentials",
            )
        return super().to_internal_value(data)


class FilterField(OptionalTextField):
    """A filter in Autosubmit's nested lists, such as `[ 20000101 [ fc0 [1-2] ] ],SIM`, on one line or several."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            pattern=rf"\s*[{SECTION[:-1]}\[(][{SECTION[:-1]} \t\r\n\[\](),*-]*",
            rule="use letters, digits, blanks and _ , . : * + @ - [ ], as in [ 20000101 [ fc0 [1-2] ] ].",
            max_length=10_000,
            **kwargs,
        )

    def to_internal_value(self, data: object) -> str:
        text = " ".join(super().to_internal_value(data).split())
        depth = 0
        for character in text:
            depth += (character == "[") - (character == "]")
            if depth < 0:
                break
        if depth:
            raise serializers.ValidationError(f"The brackets of {quoted(text)} do not match.", code="brackets")
        return text


class FinalStatusField(serializers.ChoiceField):
    """A status that Autosubmit knows. The installed version decides whether it can set jobs to this status."""

    default_error_messages = {"null": f"Give one of {', '.join(STATUSES)}."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=STATUSES, **kwargs)

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str) or data not in STATUSES:
            raise serializers.ValidationError(
                f"Autosubmit knows no status {quoted(data)}. It knows {', '.join(STATUSES)}.", code="invalid_choice"
            )
        return data


@extend_schema_field(
    {"type": "array", "items": {"type": "string", "pattern": f"^{JOB_NAME_PATTERN}$", "maxLength": 255}}
)
class JobNamesField(serializers.ListField):
    """A list of full job names; null means none. SetJobStatusRequest checks that they belong to the experiment."""

    default_error_messages = {
        "not_a_list": 'Give a list of job names, such as ["a001_SIM"].',
        "too_long": f"Give fewer names, {JOB_NAMES_LIMIT} characters together; or use a filter.",
    }

    def __init__(self, **kwargs: Any) -> None:
        child = StrictTextField(
            pattern=JOB_NAME_PATTERN,
            rule="a job name is the experiment, _, and letters, digits or _ . : + @ -, such as a001_SIM.",
            max_length=255,
        )
        super().__init__(child=child, required=False, allow_null=True, default=list, **kwargs)

    def run_validation(self, data: Any = serializers.empty) -> list[str]:
        return super().run_validation(data) or []

    def to_internal_value(self, data: Any) -> list[str]:
        if isinstance(data, list) and len(data) > JOB_NAMES_LIMIT // 6:
            self.fail("too_long")  # before each name is validated
        names: list[str] = super().to_internal_value(data)
        if sum(len(name.encode()) + 1 for name in names) > JOB_NAMES_LIMIT:
            self.fail("too_long")
        return names


@text_or_texts
class WordsField(serializers.Field[Any, Any, Any, Any]):
    """Several words, as a list or as one text with blanks or commas between them. The validated value is a tuple.

    Either `words` lists the allowed words (in any case; the value has them in capitals), or `pattern` matches one word.
    """

    def __init__(self, *, words: tuple[str, ...] = (), pattern: str = "", rule: str, **kwargs: Any) -> None:
        self.words = words
        self.pattern = re.compile(pattern) if pattern else None
        self.rule = rule
        super().__init__(required=False, allow_null=True, default=(), **kwargs)

    def run_validation(self, data: Any = serializers.empty) -> tuple[str, ...]:
        return super().run_validation(data) or ()

    def to_internal_value(self, data: object) -> tuple[str, ...]:
        if isinstance(data, str) and len(data) <= 10_000:
            items: list[object] = list(re.split(r"[,\s]+", data.strip()) if data.strip() else [])
        elif isinstance(data, list) and len(data) <= 1_000:
            items = data
        else:
            raise serializers.ValidationError(f"Give a list, or one text: {self.rule}", code="invalid")
        return tuple(self._word(item) for item in items)

    def to_representation(self, value: Any) -> Any:
        return value

    def _word(self, item: object) -> str:
        if isinstance(item, str) and self.words and item.upper() in self.words:
            return item.upper()
        if isinstance(item, str) and len(item) <= 255 and self.pattern and self.pattern.fullmatch(item):
            return item
        raise serializers.ValidationError(f"{quoted(item)} is not accepted: {self.rule}", code="pattern")


_SPLITS = r"\[[A-Za-z0-9 ,:-]{1,200}\]"
_ONE_SECTION = re.compile(r"([^\s,\[\]]{1,255})\s*(\[[^\[\]]{0,1000}\])?[\s,]*")


class SectionsField(WordsField):
    """Job sections, with or without splits: `DN [1-2], SIM`, `["DN [1-2]", "SIM"]`, `SIM POST`.

    The validated value is a tuple whose items are `NAME` or `NAME [splits]`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            pattern=rf"[{SECTION[:-1]}][{SECTION}]*( {_SPLITS})?",
            rule="use the names of job sections, such as SIM, and splits in brackets, as in DN [1-2].",
            **kwargs,
        )

    def to_internal_value(self, data: object) -> tuple[str, ...]:
        if isinstance(data, str) and len(data) <= 10_000:
            return super().to_internal_value(self._sections(data))
        if isinstance(data, list) and len(data) <= 1_000:
            is_text = all(isinstance(item, str) and len(item) <= 1_000 for item in data)
            return super().to_internal_value(
                [part for item in data for part in self._sections(item)] if is_text else data
            )
        return super().to_internal_value(data)

    def _sections(self, text: str) -> list[str]:
        """Split a text into its items. Text that cannot be split is the last item; the pattern rejects that item."""
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


_PATH = r"[A-Za-z0-9_./][A-Za-z0-9._/+@=-]*"
_PLACEHOLDER = r"%[A-Z][A-Z0-9_.]*%/"


class ConfigPathField(OptionalTextField):
    """One or several paths, separated by commas, as `autosubmit expid --git_as_conf` takes them.

    Autosubmit prefixes the whole text with `%PROJDIR%/`, the clone of the repository, so the prefix applies only to the
    first path. The other paths have to begin with a placeholder or be absolute.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            pattern=rf"{_PATH}([ ]?,[ ]?({_PLACEHOLDER})?{_PATH})*",
            rule="use paths inside the repository, without .., blanks or shell characters.",
            max_length=1000,
            **kwargs,
        )

    def to_internal_value(self, data: object) -> str:
        first, *others = (part.strip() for part in super().to_internal_value(data).split(","))
        for path in (first, *others):
            if ".." in path.split("/"):
                raise serializers.ValidationError(f"{quoted(path)} is not accepted: {self.rule}", code="pattern")
        for path in others:
            if not path.startswith(("%", "/")):
                raise serializers.ValidationError(
                    f"Autosubmit would not find {quoted(path)}: only the first path is looked for in the repository. "
                    f"Write {quoted('%PROJDIR%/' + path)}.",
                    code="not_found",
                )
        return ",".join([first, *others])


class ProfileParamsField(serializers.Field[Any, Any, Any, Any]):
    """A value of any type, passed on as it is. `RunnerProfile.resolve` knows the names and rules, and validates it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, allow_null=True, default=None, **kwargs)

    def to_internal_value(self, data: object) -> object:
        return data

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field({"type": "object", "maxProperties": 0})
class NoParamsField(serializers.Field[Any, Any, Any, Any]):
    """null or {}. Clients of the Autosubmit API may send `command_params` also to commands without parameters."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            required=False, allow_null=True, help_text="This command takes none: null, {} or nothing.", **kwargs
        )

    def to_internal_value(self, data: object) -> None:
        if isinstance(data, dict) and data:
            names = list(map(str, data))[:MAX_NAMED]
            raise serializers.ValidationError({name: ["Leave it out: this command takes none."] for name in names})
        if data != {}:
            raise serializers.ValidationError("Leave it out: this command takes none.", code="invalid")

    def to_representation(self, value: Any) -> Any:
        return value
