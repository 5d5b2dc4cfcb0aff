"""A strict JSON parser: it rejects what another parser could read differently."""

from __future__ import annotations

import json
from typing import IO, Any

from django.conf import settings
from django.http import UnreadablePostError
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from runners.web.problems import TooLarge


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


class StrictJSONParser(BaseParser):
    """Parse one JSON object of at most API_MAX_BODY bytes. NaN, duplicate keys and lone surrogates are rejected."""

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
            data = json.loads(body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_without_duplicates)
            if b"\\u" in body:  # only an escape can give a lone surrogate; files, shells and databases reject those
                json.dumps(data, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ParseError("The body contains an unpaired surrogate (such as \\ud800).") from None
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise ParseError(f"The body is not valid JSON: {reason}.") from None
        if not isinstance(data, dict):
            raise ParseError('The body has to be a JSON object, such as {"expid": "a001"}.')
        return data
