"""The fields of the requests. Each field rejects harmful values, with a message that says what to send instead.

`field_of` makes the field of a command's parameter; the rules stand in `runners/commands/`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import singledispatch
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from profiles.api.serializers import text_or_texts
from runners.commands.parameters import (
    EXPID_LIMIT,
    EXPID_PATTERN,
    EXPID_RULE,
    Check,
    Choice,
    Flag,
    InvalidValue,
    Parameter,
    Text,
    TextList,
    Words,
)
from runners.printable import quoted

MAX_NAMED = 10  # unknown members that a response names; finding the nearest known name for 100,000 would take minutes


class StrictTextField(serializers.CharField):
    """A text exactly as it was sent: not trimmed, not converted from a number. NUL and over-long texts are rejected.

    `pattern` has to match the whole text; `rule` explains the pattern to people. `guard` is called before the pattern
    is tried, `check` after it.
    """

    default_error_messages = {
        "invalid": "Give a text, in quotes.",
        "null": "Give a text, not null.",
        "blank": "Give a text that is not empty.",
        "max_length": "Give at most {max_length} characters.",
    }

    def __init__(
        self,
        *,
        pattern: str = "",
        rule: str = "",
        guard: Check | None = None,
        check: Check | None = None,
        **kwargs: Any,
    ) -> None:
        self.guard, self.check = guard, check
        self.pattern = re.compile(pattern) if pattern else None
        self.rule = rule
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        try:
            return self._checked(self.guard(data) if self.guard else data)
        except InvalidValue as error:
            raise serializers.ValidationError(str(error), code=error.code) from None

    def _checked(self, data: str) -> str:
        if self.max_length is not None and len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)  # first, so that the pattern never sees 100 kB
        if self.pattern and data and not self.pattern.fullmatch(data):
            raise serializers.ValidationError(f"{quoted(data)} is not accepted: {self.rule}", code="pattern")
        return self.check(data) if self.check else data


class UtcTimeField(serializers.DateTimeField):
    """A time, converted to UTC, as databases store it. At the edge of the range, UTC may have no such time."""

    def enforce_timezone(self, value: datetime) -> datetime:
        try:
            return (value if value.tzinfo else super().enforce_timezone(value)).astimezone(UTC)
        except OverflowError:
            self.fail("overflow")


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


class ExpidField(StrictTextField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(pattern=EXPID_PATTERN, rule=EXPID_RULE, max_length=EXPID_LIMIT, **kwargs)


class WordField(serializers.ChoiceField):
    """One of several words. `unknown` is the error, with {value} and {choices}."""

    def __init__(self, *, choices: tuple[str, ...], unknown: str, **kwargs: Any) -> None:
        self.unknown = unknown
        super().__init__(choices=choices, error_messages={"null": f"Give one of {', '.join(choices)}."}, **kwargs)

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str) or data not in self.choices:
            words = self.unknown.format(value=quoted(data), choices=", ".join(self.choices))
            raise serializers.ValidationError(words, code="invalid_choice")
        return data


class TextsField(serializers.ListField):
    """A list of texts that becomes one argument; null means none."""

    def __init__(self, parameter: TextList, **kwargs: Any) -> None:
        self.parameter = parameter
        messages: dict[str, Any] = {"not_a_list": parameter.invalid, "too_long": parameter.too_long}
        super().__init__(
            child=_text_field(parameter.item),
            required=False,
            allow_null=True,
            default=list,
            error_messages=messages,
            **kwargs,
        )

    def run_validation(self, data: Any = serializers.empty) -> list[str]:
        return super().run_validation(data) or []

    def to_internal_value(self, data: Any) -> list[str]:
        limit = self.parameter.max_bytes
        if isinstance(data, list) and len(data) > limit // self.parameter.shortest:
            self.fail("too_long")  # before each text is validated
        texts: list[str] = super().to_internal_value(data)
        if sum(len(text.encode()) + 1 for text in texts) > limit:
            self.fail("too_long")
        return texts


@text_or_texts
class WordsField(serializers.Field[Any, Any, Any, Any]):
    """Several words, as a list or as one text with blanks or commas between them. The validated value is a tuple.

    See `runners.commands.parameters.Words`.
    """

    def __init__(self, parameter: Words, **kwargs: Any) -> None:
        self.words = parameter.words
        self.pattern = re.compile(parameter.pattern) if parameter.pattern else None
        self.rule = parameter.rule
        self.split = parameter.split
        super().__init__(required=False, allow_null=True, default=(), **kwargs)

    def run_validation(self, data: Any = serializers.empty) -> tuple[str, ...]:
        return super().run_validation(data) or ()

    def to_internal_value(self, data: object) -> tuple[str, ...]:
        if isinstance(data, str) and len(data) <= 10_000:
            items: list[object] = [*self._split(data)]
        elif isinstance(data, list) and len(data) <= 1_000:
            is_text = all(isinstance(item, str) and len(item) <= 1_000 for item in data)
            items = [part for item in data for part in self._split(item)] if self.split and is_text else data
        else:
            raise serializers.ValidationError(f"Give a list, or one text: {self.rule}", code="invalid")
        return tuple(self._word(item) for item in items)

    def _split(self, text: str) -> list[str]:
        if self.split:
            return self.split(text)
        return re.split(r"[,\s]+", text.strip()) if text.strip() else []

    def to_representation(self, value: Any) -> Any:
        return value

    def _word(self, item: object) -> str:
        if isinstance(item, str) and self.words and item.upper() in self.words:
            return item.upper()
        if isinstance(item, str) and len(item) <= 255 and self.pattern and self.pattern.fullmatch(item):
            return item
        raise serializers.ValidationError(f"{quoted(item)} is not accepted: {self.rule}", code="pattern")


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
            required=False,
            allow_null=True,
            help_text="This command has no parameters: send null, {} or leave it out.",
            **kwargs,
        )

    def to_internal_value(self, data: object) -> None:
        if isinstance(data, dict) and data:
            names = list(map(str, data))[:MAX_NAMED]
            raise serializers.ValidationError(
                {name: ["This command has no parameters. Leave command_params out."] for name in names}
            )
        if data != {}:
            raise serializers.ValidationError(
                "This command has no parameters. Leave command_params out.", code="invalid"
            )

    def to_representation(self, value: Any) -> Any:
        return value


# --- parameters of commands -------------------------------------------------------------------------------------------


@singledispatch
def field_of(parameter: Parameter) -> serializers.Field[Any, Any, Any, Any]:
    """Return the field that validates a parameter. A new kind of parameter registers a function here."""
    raise TypeError(f"{parameter.name}: a parameter of the kind {type(parameter).__name__} has no field")


@field_of.register
def _(parameter: Flag) -> FlagField:
    return FlagField(help_text=parameter.help)


@field_of.register
def _text_field(parameter: Text) -> StrictTextField:
    rules: dict[str, Any] = {
        "max_length": parameter.max_length,
        "pattern": parameter.pattern,
        "rule": parameter.rule,
        "guard": parameter.guard,
        "check": parameter.check,
        "help_text": parameter.help,
    }
    if parameter.required:
        return StrictTextField(allow_blank=parameter.allow_blank, **rules)
    return OptionalTextField(**rules)


@field_of.register
def _(parameter: Choice) -> WordField:
    return WordField(choices=parameter.choices, unknown=parameter.unknown, help_text=parameter.help)


@field_of.register
def _(parameter: TextList) -> TextsField:
    item = parameter.item
    schema = {"type": "string", "pattern": f"^{item.pattern}$", "maxLength": item.max_length}
    described = extend_schema_field({"type": "array", "items": schema})
    return described(type("TextsField", (TextsField,), {}))(parameter, help_text=parameter.help)


@field_of.register
def _(parameter: Words) -> WordsField:
    return WordsField(parameter, help_text=parameter.help)
