"""One parameter of a profile: its texts, how to parse its value, and how to validate it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError

from profiles.validators import kind, shown

Values = dict[str, Any]  # str, tuple[str, ...] (MODULES) or int, by path
Errors = dict[str, list[str]]


def parse_text(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValidationError(f"Give a text, in quotes, not {kind(raw)}.")
    return raw.strip()


def parse_choice(names: Callable[[], list[str]]) -> Callable[[object], str]:
    """Return a function that parses one of `names`, in any case."""

    def parse(raw: object) -> str:
        text = parse_text(raw)
        known = names()
        # upper() turns some other letters into ASCII ones, such as U+017F into S.
        word = text.upper() if text.isascii() else ""
        if word not in known:
            near = difflib.get_close_matches(word[:60], known, n=1)
            remedy = f"Did you mean {near[0]}?" if near else f"Choose {', '.join(known)}."
            raise ValidationError(f"{shown(text)} is not known. {remedy}")
        return word

    return parse


def parse_items(raw: object) -> tuple[str, ...]:
    if isinstance(raw, str):
        return (raw.strip(),)
    if not isinstance(raw, list | tuple):
        raise ValidationError(f"Give a text or a list of texts, not {kind(raw)}.")
    items = [item for item in raw if not is_empty(item)]
    for item in items:
        if not isinstance(item, str):
            raise ValidationError(f"Give a list of texts, in quotes: {shown(item)} is {kind(item)}.")
    return tuple(item.strip() for item in items)


def parse_integer(what: str, minimum: int, maximum: int) -> Callable[[object], int]:
    """Return a function that parses a whole number. `what` names it in errors; the range is not checked."""

    def parse(raw: object) -> int:
        if isinstance(raw, str):
            text = raw.strip()
            if not re.fullmatch(r"[0-9]{1,18}", text):
                raise ValidationError(f"{shown(text)} is no {what}: give a number from {minimum} to {maximum}.")
            return int(text)
        if not isinstance(raw, int) or isinstance(raw, bool):
            raise ValidationError(f"Give a whole number from {minimum} to {maximum}, not {shown(raw)}.")
        return raw

    return parse


def is_empty(raw: object) -> bool:
    if isinstance(raw, str):
        return not raw.strip()
    if isinstance(raw, list | tuple):
        return all(item is None or (isinstance(item, str) and not item.strip()) for item in raw)
    return raw is None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a profile.

    `parse` returns the value of a JSON or YAML value, `validate` checks it. Both raise ValidationError.
    """

    path: str  # in profile_params, such as SSH.PORT
    label: str  # in forms
    type: str = "string"  # as in Requirement
    parse: Callable[[object], Any] = parse_text
    validate: Callable[[Any], None] | None = None
    column: str = ""  # the field of RunnerProfile; empty: the value is in its `other_parameters`
    is_required: bool = True
    missing: str = ""  # the begin of the error if it is required and missing
    help: str = ""  # in requirements and forms
    description: str = ""  # in the OpenAPI document, if it is not `help`
    minimum: int = 0  # of an integer
    maximum: int = 0
    max_length: int = 0  # of a string
    choices: Callable[[], list[str]] = list  # of a choice
    limit: str = ""  # HOSTS, USERS or VENV_ROOTS: the limit of RunnerProfile that holds for it
    alias: str = ""  # another path that means the same
    is_open: bool = True  # a request may give it if the profile does not; False: only a profile sets it

    @property
    def section(self) -> str:
        """The first part of a path with two parts, such as SSH, else empty."""
        return self.path.rpartition(".")[0]

    @property
    def member(self) -> str:
        """The field of the target, such as `port`."""
        return self.path.rpartition(".")[2].lower()

    @property
    def field_name(self) -> str:
        """The name in forms and errors of RunnerProfile."""
        return self.column or self.path

    def read(self, mapping: Mapping[Any, Any], path: str) -> object:
        """Return the value at `path` (its own, or its alias) of a nested mapping."""
        section, _, name = path.rpartition(".")
        inner = mapping.get(section) if section else mapping
        return inner.get(name) if isinstance(inner, Mapping) else None


def require(parameter: Parameter, sentence: str, values: Values, errors: Errors) -> None:
    """Add an error for a missing parameter, unless it already has an error."""
    path = parameter.path
    if path not in values and path not in errors and parameter.alias not in errors:
        errors[path] = [f"{sentence}: give {path} in profile_params."]
