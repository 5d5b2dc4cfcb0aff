"""A strict JSON parser: it rejects what another parser could read differently."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import IO, Any

from django.conf import settings
from django.http import UnreadablePostError
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from runners.web.problems import TooLarge

MOST_LEVELS = 32  # of nested objects and lists; no request needs ten


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object. Raises ValueError for a duplicate key, because parsers disagree on which
    value counts: two readers of the body would see two different requests.
    """
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has a duplicate member")
    return members


def _is_deep(data: object) -> bool:
    """Return True if a value is nested deeper than MOST_LEVELS. Without recursion: the value may be deep."""
    level = _nested([data])
    for _ in range(MOST_LEVELS):
        level = [child for each in level for child in _nested(each.values() if isinstance(each, dict) else each)]
    return bool(level)


def _nested(values: Iterable[Any]) -> list[Any]:
    return [each for each in values if isinstance(each, dict | list)]


def strict_json(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError also for NaN, duplicate keys, lone surrogates, deep nesting.

    Code that handles a value recurses: without a limit, a depth that this parser just accepts is too much later.
    """
    try:
        data = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _is_deep(data):
        raise ValueError("nested too deeply")
    if "\\u" in text:  # only an escape can give a lone surrogate; files, shells and databases reject those
        try:
            json.dumps(data, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("an unpaired surrogate (such as \\ud800)") from None
    return data


class StrictJSONParser(BaseParser):
    """Parse one JSON object of at most API_MAX_BODY bytes, as `strict_json` reads it."""

    media_type = "application/json"

    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Any = None) -> dict[str, Any]:
        limit = settings.API_MAX_BODY
        try:
            body = stream.read(limit + 1)
        except UnreadablePostError:
            raise ParseError("The connection was closed before the complete body was received.") from None
        if len(body) > limit:
            raise TooLarge(f"The body has more than {limit} bytes.")
        try:
            data = strict_json(body.decode("utf-8"))
        except ValueError as error:
            raise ParseError(f"The body is not valid JSON: {error}.") from None
        if not isinstance(data, dict):
            raise ParseError('The body has to be a JSON object, such as {"expid": "a001"}.')
        return data
